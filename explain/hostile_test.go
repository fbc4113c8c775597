// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/test/cputime"
)

// Pasted text is anything. It is explained in a moment.
func TestHostileText(t *testing.T) {
	const size = 1 << 20
	fill := func(s string) string { return strings.Repeat(s, size/len(s)+1)[:size] }
	for name, text := range map[string]string{
		"errno":       fill("bpf error=524 "),
		"lines":       fill("bpf: load program: operation not supported\n"),
		"other calls": fill("bpf open /a: permission denied\n"),
		"short lines": fill("bpf 1\n"),
		"logs":        fill("BEGIN PROG LOAD LOG\n0: (95) exit\nR0 !read_ok\nEND PROG LOAD LOG\n"),
		"no log":      "BEGIN PROG LOAD LOG\n" + fill("arg#R0 R0 R0 R0 R0 R0 R0 R0 R0 R0 R0 R0 R0 R0 R0 R0 R0\n"),
		"one line":    fill(`\nbpf: failed to load program: code 524`),
		"spaces":      "bpf" + fill(" "),
		"lockdown":    "bpf " + fill("lockdown: bpf "),
		"xdp":         fill("extern (func ksym) x CO-RE relocation kernel function attach\n"),
		"huge":        strings.Repeat("bpf\n", 16<<20),
	} {
		t.Run(name, func(t *testing.T) {
			var n int
			took := cputime.Of(func() { n = len(Text(text)) })
			t.Logf("%d bytes, %d findings in %v", len(text), n, took)
			qt.Check(t, qt.IsTrue(took < time.Second), qt.Commentf("%v", took))
		})
	}
}
