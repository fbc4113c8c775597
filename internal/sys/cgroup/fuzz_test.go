// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cgroup

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// FuzzParse: whoever mounts something chooses names in mountinfo. They are in no other place than
// their own, and the hierarchy is found wherever it is mounted.
func FuzzParse(f *testing.F) {
	f.Add("sys/fs/cgroup", "/mnt - cgroup2 cgroup2 rw")
	f.Add("mnt/my groups\n", "/a\\134\n30 23 0:26 / /evil rw - cgroup2 x rw")
	f.Add("a\vb\rc", "\\040")
	f.Add("\u00a0\u0085", "/")
	f.Fuzz(func(t *testing.T, where, other string) {
		root, ok := parse(other) // of any content
		qt.Assert(t, qt.IsTrue(ok && strings.Contains(other, " - cgroup2 ") || !ok && root == ""))
		if other == "" {
			return
		}
		where = "/" + where
		line := func(part, at, kind, source string) string {
			return fmt.Sprintf("30 23 0:26 %s %s rw,nosuid shared:4 - %s %s rw\n", escape(part), escape(at), kind, escape(source))
		}
		text := line("/", "/"+other, "tmpfs", other) + line("/"+other, "/part", "cgroup2", "cgroup2")
		root, ok = parse(text)
		qt.Assert(t, qt.IsTrue(ok && root == "/part"), qt.Commentf("%q: %q", text, root))
		text += line("/", where, "cgroup2", "cgroup2") + line("/", "/"+other, "cgroup2", "cgroup2")
		root, ok = parse(text)
		qt.Assert(t, qt.IsTrue(ok && root == where), qt.Commentf("%q: %q", text, root))
	})
}

// escape is what the kernel does to names in mountinfo.
func escape(s string) string {
	return strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`).Replace(s)
}
