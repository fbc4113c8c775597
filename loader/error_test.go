// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
)

func TestExplain(t *testing.T) {
	qt.Assert(t, qt.IsNil(Explain(nil)))
	// As ebpf.NewCollection returns it.
	theirs := fmt.Errorf("program x: %w", &ebpf.VerifierError{
		Cause: syscall.EACCES,
		Log:   []string{"0: R1=ctx(off=0,imm=0) R10=fp0", "0: (bf) r0 = r7", "R7 !read_ok", "processed 1 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0"},
	})
	err := Explain(theirs)
	qt.Assert(t, qt.ErrorIs(err, syscall.EACCES))
	var v *ebpf.VerifierError
	qt.Assert(t, qt.ErrorAs(err, &v))
	var e *Error
	qt.Assert(t, qt.ErrorAs(err, &e))
	qt.Assert(t, qt.Equals(e.Err, theirs))
	qt.Check(t, qt.Equals(e.Diagnosis.Rule, "VER002"))
	qt.Check(t, qt.Equals(e.Diagnosis.HowKnown, load.Inferred))
	qt.Check(t, qt.Equals(Explain(err), err))
	qt.Check(t, qt.Equals(errors.Unwrap(err), theirs))

	for format, want := range map[string]string{
		"%v":   "program x: : permission denied: 0: (bf) r0 = r7: R7 !read_ok (2 line(s) omitted) [VER002: ",
		"%s":   "program x: : permission denied: 0: (bf) r0 = r7: R7 !read_ok (2 line(s) omitted) [VER002: ",
		"%+v":  "program x: : permission denied:\n\t0: R1=ctx(off=0,imm=0) R10=fp0\n\t0: (bf) r0 = r7\n\tR7 !read_ok\n\tprocessed 1 insns",
		"%+1v": "program x: : permission denied:\n\t0: R1=ctx(off=0,imm=0) R10=fp0\n\t(3 line(s) omitted)\nVER002 ",
		"%-2v": "program x: : permission denied:\n\t(2 line(s) omitted)\n\tR7 !read_ok\n\tprocessed 1 insns",
		"%d":   "%!d(BADVERB)",
	} {
		got := fmt.Sprintf(format, err)
		qt.Check(t, qt.IsTrue(strings.HasPrefix(got, want)), qt.Commentf("%s: %q", format, got))
		if format == "%v" || format == "%s" {
			qt.Check(t, qt.Equals(strings.Count(got, "\n"), 0))
		}
		if strings.ContainsAny(format, "+-") {
			qt.Check(t, qt.IsTrue(strings.Contains(got, "VER002  ")), qt.Commentf("%s: %q", format, got))
		}
	}
}

// What is in a verifier's log may come from anybody.
func TestErrorIsClean(t *testing.T) {
	err := Explain(&ebpf.VerifierError{Cause: syscall.EINVAL, Log: []string{"\x1b[31mred\x1b[0m"}})
	for _, format := range []string{"%v", "%+v", "%-5v"} {
		qt.Check(t, qt.IsFalse(strings.Contains(fmt.Sprintf(format, err), "\x1b")))
	}
}

// A uprobe that a loader may no longer attach, as link.Executable.Uprobe returns it. A process that
// has CAP_SYS_ADMIN knows that it was not for want of it.
func TestExplainUprobe(t *testing.T) {
	mask, known := capabilities()
	privileged := known && mask>>abi.CapSysAdmin&1 == 1
	err := Explain(fmt.Errorf("creating perf_uprobe PMU: %w", fmt.Errorf("token %s: opening perf event: %w", "SSL_read", syscall.EACCES)))
	var e *Error
	qt.Assert(t, qt.ErrorAs(err, &e))
	qt.Check(t, qt.Equals(e.Diagnosis.Rule == "PERM012", !privileged))
	if !privileged {
		qt.Check(t, qt.Equals(e.Diagnosis.Remedies[0].ID, "uprobe-multi"))
	}
	qt.Check(t, qt.Equals(e.Diagnosis.HowKnown, load.Inferred))
	qt.Check(t, qt.StringContains(fmt.Sprintf("%+v", err), "inferred: nothing was watched"))
	qt.Check(t, qt.ErrorIs(err, syscall.EACCES))
}

func TestExplainProgram(t *testing.T) {
	spec := &ebpf.ProgramSpec{Name: "there"}
	var e *Error
	qt.Assert(t, qt.ErrorAs(ExplainProgram(errors.New("what nobody knows"), spec), &e))
	qt.Check(t, qt.Equals(e.Program, "there"))
	qt.Check(t, qt.Equals(e.Diagnosis.Rule, "UNKNOWN"))
	qt.Check(t, qt.Equals(e.Error(), "what nobody knows"))
}
