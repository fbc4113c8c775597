// SPDX-License-Identifier: Apache-2.0

package reading

import (
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/verifierlog"
)

func TestQuotedLog(t *testing.T) {
	for _, tt := range []struct {
		line, loader string
		log          []string
	}{
		{"program a: load program: permission denied: 6: (79) r0 = *(u64 *)(r0 +0): R0 invalid mem access 'map_value_or_null' (12 line(s) omitted)",
			"program a: load program: permission denied", []string{"6: (79) r0 = *(u64 *)(r0 +0)", "R0 invalid mem access 'map_value_or_null'"}},
		{"load program: permission denied: some sentence that no rule knows (3 line(s) omitted)",
			"load program: permission denied", []string{"some sentence that no rule knows"}},
		{"load program: argument list too long: 2069: (55) if r8 != 0x0 goto pc-727: R0=inv,min_value=0,max_v (truncated, 26014 line(s) omitted) (BTF disabled)",
			"load program: argument list too long", []string{"2069: (55) if r8 != 0x0 goto pc-727", "R0=inv,min_value=0,max_v"}},
		{"load program: invalid argument: invalid access to map value, value_size=64 off=64 size=1: R1 max value is outside of the allowed memory range",
			"load program: invalid argument", []string{"invalid access to map value, value_size=64 off=64 size=1", "R1 max value is outside of the allowed memory range"}},
		{"program b: load program: invalid argument: processed 12 insns (limit 1000000)",
			"program b: load program: invalid argument", []string{"processed 12 insns (limit 1000000)"}},
		{"Error: the BPF_PROG_LOAD syscall failed. Verifier output: last insn is not an exit or jmp",
			"Error: the BPF_PROG_LOAD syscall failed. ", []string{"last insn is not an exit or jmp"}},
		{"load program: permission denied (12 line(s) omitted)", "load program: permission denied", nil},
		{"load program: permission denied", "load program: permission denied", nil},
		// What stands behind "load program" is no errno.
		{"load program: bad CO-RE relocation: invalid func unknown#195896080", "load program: bad CO-RE relocation: invalid func unknown#195896080", nil},
		{"12: (85) call pc+40", "12: (85) call pc+40", nil},
	} {
		loader, log := quotedLog(tt.line)
		qt.Check(t, qt.Equals(loader, tt.loader))
		var lines []string
		if log != "" {
			lines = logLines(log)
		}
		qt.Check(t, qt.DeepEquals(lines, tt.log), qt.Commentf("%s", tt.line))
	}
}

func TestLogLine(t *testing.T) {
	for _, l := range []string{
		"0: R1=ctx(off=0,imm=0) R10=fp0", "12: (85) call pc+40", "12: <invalid CO-RE relocation>", "from 3 to 5: R0=0 R10=fp0", "from 3 to 5: safe",
		"processed 12 insns (limit 1000000)", "verification time 12 usec", "R0_w=inv2048 R6_w=ctx(id=0,off=0,imm=0) R10=fp0", "func#0 @0",
		"reg type unsupported for arg#1 function parse#31", "Verification failed: Register Type Safety: x",
	} {
		qt.Check(t, qt.IsTrue(logLine(l)), qt.Commentf("%s", l))
	}
	for _, l := range []string{"", "adding a kprobe", "1: Operation not permitted (os error 1)", "12: x", "R1 was here", "processed 12 requests", "libbpf: x"} {
		qt.Check(t, qt.IsFalse(beginsLog(l)), qt.Commentf("%s", l))
	}
}

// Of the lines about a function that is tried, and what is said afterwards, the last counts.
func TestTried(t *testing.T) {
	for _, tt := range []struct{ log, want []string }{
		{[]string{"R2 type=ctx expected=fp", "reg type unsupported for arg#1 function parse#31", "R4 unbounded memory access"}, []string{"R4 unbounded memory access"}},
		{[]string{"R1 type=ctx expected=fp", "Caller passes invalid args into func#2"}, []string{"Caller passes invalid args into func#2"}},
		{[]string{"R2 type=ctx expected=fp"}, []string{"R2 type=ctx expected=fp"}},
		{[]string{"R2 type=ctx expected=fp", "reg type unsupported for arg#1 function parse#31"}, []string{"R2 type=ctx expected=fp", "reg type unsupported for arg#1 function parse#31"}},
		{nil, nil},
	} {
		qt.Check(t, qt.DeepEquals(tried(tt.log), tt.want))
	}
}

// A text of one sentence of the verifier is about a program that it refused.
func TestEverySentence(t *testing.T) {
	for _, w := range verifierlog.Wordings() {
		read := Read([]string{w.Sample}, noMore)
		qt.Assert(t, qt.HasLen(read.Failures, 1), qt.Commentf("%s", w.Sample))
		f := read.Failures[0]
		qt.Check(t, qt.Equals(f.Attempt.Kind, kindOfLog([]string{w.Sample})), qt.Commentf("%s", w.Sample))
		qt.Check(t, qt.Equals(strings.TrimSpace(f.Log), w.Sample))
	}
}

func noMore(string) (Word, bool) { return Word{}, false }
