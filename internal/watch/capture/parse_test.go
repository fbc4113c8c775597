// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
)

// What bpf_prog_show_fdinfo writes (kernel/bpf/syscall.c, 6.1).
func TestParseFdinfo(t *testing.T) {
	const text = "pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t1057\nprog_type:\t1\nprog_jited:\t1\nprog_tag:\ta04f5eef06a7f555\n" +
		"memlock:\t4096\nprog_id:\t42\nrun_time_ns:\t0\nrun_cnt:\t0\nrecursion_misses:\t0\nverified_insns:\t2\n"
	want := &trace.Prog{ID: 42, Type: 1, Tag: mustHex("a04f5eef06a7f555"), JITed: true, VerifiedInsns: 2, BlindedUnknown: true}
	qt.Check(t, qt.DeepEquals(parseFdinfo(strings.NewReader(text)), want))
	interpreted := parseFdinfo(strings.NewReader(strings.Replace(text, "jited:\t1", "jited:\t0", 1)))
	qt.Check(t, qt.IsFalse(interpreted.JITed))
	for _, other := range []string{"", "pos:\t0\nflags:\t02\n", "prog_jited:\tmaybe\n", "\x00\xff:\n::"} {
		qt.Check(t, qt.IsNil(parseFdinfo(strings.NewReader(other))), qt.Commentf("%q", other))
	}
}

// The process that made a call is described as long as it is there and the same.
func TestDescribeProcess(t *testing.T) {
	comm, err := os.ReadFile("/proc/self/comm")
	qt.Assert(t, qt.IsNil(err))
	exe, err := os.Executable()
	qt.Assert(t, qt.IsNil(err))
	mine := trace.Call{
		ID: trace.CallID{Start: monotonic()}, TGID: uint32(os.Getpid()), NSPID: uint32(os.Getpid()), Comm: strings.TrimSpace(string(comm)),
	}
	gone := exec.Command("/proc/self/exe", "-test.run=^$")
	qt.Assert(t, qt.IsNil(gone.Run()))
	for name, test := range map[string]struct {
		change func(*trace.Call)
		told   bool
	}{
		"there":             {func(*trace.Call) {}, true},
		"its number reused": {func(c *trace.Call) { c.ID.Start = 1 }, false}, // we were not there yet
		"became another":    {func(c *trace.Call) { c.Comm = "sh" }, false},
		"gone":              {func(c *trace.Call) { c.TGID, c.NSPID = uint32(gone.Process.Pid), uint32(gone.Process.Pid) }, false},
		"not of our world":  {func(c *trace.Call) { c.TGID, c.NSPID = 0, 0 }, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := mine
			test.change(&c)
			describeProcess(&c)
			qt.Check(t, qt.Equals(c.Exe == exe, test.told))
			qt.Check(t, qt.IsNil(c.Creds)) // they may have been others
		})
	}
}

// The tag is that of the instructions, but where the kernel rewrites them first or not all are
// known.
func TestMatchesTag(t *testing.T) {
	// r0 = 0; exit, the same on every kernel before 6.18: see any `bpftool prog`.
	tag := mustHex("a04f5eef06a7f555")
	other := append([]byte{0xb7, 0, 0, 0, 1, 0, 0, 0}, smallProgram[8:]...)
	attr := func(count, relos uint32) *trace.Call {
		return &trace.Call{Attr: abi.Bytes(&abi.ProgLoad{InsnCnt: count, CoreReloCnt: relos})}
	}
	qt.Check(t, qt.IsTrue(matchesTag(attr(2, 0), smallProgram, tag)))
	qt.Check(t, qt.IsFalse(matchesTag(attr(2, 0), other, tag)))
	qt.Check(t, qt.IsTrue(matchesTag(attr(2, 1), other, tag)))
	qt.Check(t, qt.IsTrue(matchesTag(attr(3, 0), other, tag)))
	qt.Check(t, qt.IsTrue(matchesTag(attr(2, 0), nil, tag)))
}
