// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"strings"
	"testing"

	"github.com/bpfwhy/bpfwhy/internal/sys/proc"
)

// Names of control groups, mount points and descriptors belong to others.
func FuzzProc(f *testing.F) {
	f.Add("pos:\t0\nflags:\t02000002\nprog_type:\t1\nprog_id:\t27\n")
	f.Add("0::/kubepods.slice/a:b\n4:cpu,memory:/docker/x\n9:memory\n")
	f.Add(`bpf /sys/fs/bpf\040x\134040 bpf rw 0 0`)
	f.Fuzz(func(t *testing.T, text string) {
		id := programID(strings.NewReader(text))
		if id != 0 && !strings.Contains(text, "prog_id:") {
			t.Fatalf("a program %d from nowhere", id)
		}
		for _, g := range proc.Cgroups(text) {
			if g.Version != 1 && g.Version != 2 || strings.Contains(g.Name, "\n") || !strings.Contains(text, g.Name) {
				t.Fatalf("%+v", g)
			}
		}
		if s := unescape(text); len(s) > len(text) {
			t.Fatalf("%q", s)
		}
	})
}
