// SPDX-License-Identifier: Apache-2.0

package hang

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/abi"
)

// FuzzParseCall: a thread chooses the arguments of its call. They are read to the last bit, and
// what is said of the call is short and holds none of them but the command.
func FuzzParseCall(f *testing.F) {
	f.Add("running\n", uint32(321), uint64(abi.CmdProgLoad), uint64(0x7ffc0000), uint64(144))
	f.Add("-1 0x7ffc 0x7f00\n", uint32(157), uint64(22), uint64(2), ^uint64(0))
	f.Add("321 0x5 0x1 0x90 0x0 0x0 0x0 0x7ffc 0x7f00\n", uint32(317), uint64(1)<<32|1, uint64(0), uint64(0))
	f.Add("4294967296 0 0 0 0 0 0 0 0", uint32(54), uint64(3), uint64(1), uint64(26))
	f.Fuzz(func(t *testing.T, line string, nr uint32, a, b, c uint64) {
		if got, ok := parseCall(line); ok {
			qt.Assert(t, qt.IsTrue(got.nr <= 1<<32-1 && got.rest == line))
			qt.Assert(t, qt.IsTrue(len(strings.Fields(line)) >= 9))
			said(t, got)
		}
		got, ok := parseCall(fmt.Sprintf("%d %#x %#x %#x 0x0 0x0 0x0 0x7ffc5e2d6a10 0x7f0f4c1b2a3d\n", nr, a, b, c))
		qt.Assert(t, qt.IsTrue(ok))
		qt.Assert(t, qt.Equals(got.nr, uint64(nr)))
		qt.Assert(t, qt.Equals(got.args, [3]uint64{a, b, c}))
		said(t, got)
	})
}

func said(t *testing.T, c call) {
	qt.Assert(t, qt.IsTrue(len(c.String()) > 0 && len(c.String()) < 40), qt.Commentf("%s", c))
	load := c.in(native.BPF) && (uint32(c.args[0]) == abi.CmdProgLoad || uint32(c.args[0]) == abi.CmdBTFLoad)
	qt.Assert(t, qt.IsTrue(!load || c.loads() && c.command() != ""), qt.Commentf("%s", c))
	other := !c.in(native.BPF) && !c.in(native.Prctl) && !c.in(native.Seccomp) && !c.in(native.Setsockopt)
	qt.Assert(t, qt.IsFalse(other && c.loads()), qt.Commentf("%s", c))
}
