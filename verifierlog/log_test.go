// SPDX-License-Identifier: Apache-2.0

package verifierlog

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// want is what a fixture must be read as. The programs are small and written
// by hand, so the failing slot follows from the program and not from the log.
type want struct {
	kind Kind
	insn int
	args map[string]string // a subset
}

type args = map[string]string

var kernels = []string{"5.10", "6.1", "6.12", "6.18", "7.2"}

// fixtures are logs that the kernels printed for the same programs.
var fixtures = map[string]want{
	"argtype":    {ArgumentType, 3, args{"reg": "R2", "type": "scalar"}},
	"badfd":      {BadMapFD, -1, args{"fd": "999"}},
	"badop":      {BadOpcode, -1, args{"opcode": "ff"}},
	"badreg":     {BadRegister, 0, args{"reg": "R12"}},
	"bounds":     {MapValueBounds, 7, args{"value_size": "8", "off": "8", "size": "8"}},
	"callout":    {BadCall, -1, nil},
	"ctx":        {ContextAccess, 0, args{"off": "4000", "size": "8"}},
	"deepstack":  {StackDepth, -1, args{"calls": "2"}},
	"divzero":    {ArithmeticRule, 1, nil},
	"framewrite": {ReadOnly, 0, nil},
	"gpl":        {HelperGPL, 4, nil},
	"infloop":    {Unreachable, 2, nil},
	"infloop2":   {InfiniteLoop, 1, nil},
	"infloop2-2": {InfiniteLoop, 1, nil},
	"jumpout":    {JumpOutOfRange, 1, args{"to": "12"}},
	"jumps":      {TooManyInstructions, 7596, args{"processed": "1000001"}},
	"kfunc":      {KfuncUnknown, -1, args{"btf_id": "1"}},
	"lastinsn":   {NoExit, -1, nil},
	"ldimm2":     {BadLoadImm64, -1, nil},
	"negative":   {MapValueBounds, 10, nil},
	"nothelper":  {HelperUnavailable, 0, args{"name": "bpf_probe_read_kernel", "id": "113"}},
	"nothelper2": {HelperUnavailable, 2, args{"name": "bpf_xdp_adjust_head", "id": "44"}},
	"null":       {NullPointer, 6, args{"reg": "R0", "type": "map_value_or_null"}},
	"null-2":     {NullPointer, 6, args{"reg": "R0", "type": "map_value_or_null"}},
	"ok-2":       {Unknown, -1, nil},
	"packet":     {PacketBounds, 1, args{"reg": "R2", "off": "0", "size": "1"}},
	"poison":     {Poison, 0, args{"poison": "195896080"}},
	"ptrarith":   {NullPointer, 6, args{"reg": "R0"}},
	"refleak":    {ReferenceLeak, 9, args{"insn_acquired": "7"}},
	"reserved":   {ReservedField, 0, args{"op": "BPF_MOV"}},
	"retval":     {ReturnValue, 1, args{"reg": "R0"}},
	"scalar":     {InvalidPointer, 1, args{"reg": "R1", "type": "scalar"}},
	"shift":      {ArithmeticRule, 1, args{"count": "64"}},
	"stack":      {StackUninit, 0, args{"off": "-8", "size": "8"}},
	"stackarg":   {StackUninit, 4, args{"reg": "R2"}},
	"stackoff":   {StackBounds, 0, args{"off": "-520", "size": "8"}},
	"subprog":    {InvalidPointer, 3, args{"reg": "R1"}},
	"subprog-2":  {InvalidPointer, 3, args{"reg": "R1"}},
	"toolarge":   {TooManyInstructions, 3, args{"processed": "1000001"}},
	"unbounded":  {MemoryBounds, 9, args{"reg": "R0"}},
	"uninit":     {UninitRegister, 0, args{"reg": "R0"}},
	"unreach":    {Unreachable, 2, nil},
	"xaddfetch":  {ReservedField, 2, args{"op": "BPF_STX"}},
}

// deviations are kernels that refuse the same program for another reason.
var deviations = map[string]want{
	"5.10/argtype":   {ArgumentType, 3, args{"reg": "R2", "type": "inv"}},
	"5.10/scalar":    {InvalidPointer, 1, args{"reg": "R1", "type": "inv"}},
	"5.10/kfunc":     {ReservedField, 0, args{"op": "BPF_CALL"}}, // no kernel functions yet
	"5.10/nothelper": {ArgumentType, 0, args{"reg": "R1", "type": "ctx"}},
	"6.1/nothelper":  {ArgumentType, 0, args{"reg": "R1", "type": "ctx"}},
	"6.12/nothelper": {ArgumentType, 0, args{"reg": "R1", "type": "ctx"}},
	"7.2/nothelper":  {UninitRegister, 0, args{"reg": "R2"}},
	// Checked before the walk, which therefore never reaches the instruction.
	"5.10/xaddfetch": {ReservedField, -1, args{"op": "BPF_STX"}},
	"7.2/badreg":     {BadRegister, -1, args{"reg": "R12"}},
	"7.2/reserved":   {ReservedField, -1, args{"op": "BPF_MOV"}},
	"6.18/gpl":       {HelperUnavailable, 4, args{"name": "bpf_probe_read"}}, // a kernel without kprobes
}

// kernelLogs reads the logs of one kernel, each behind a line "-- name --".
func kernelLogs(t *testing.T, kernel string) map[string]string {
	t.Helper()
	logs := make(map[string]string)
	name := ""
	for line := range strings.Lines(read(t, kernel+".txtar")) {
		if n, ok := strings.CutPrefix(line, "-- "); ok {
			name = strings.TrimSuffix(n, " --\n")
		} else if name != "" {
			logs[name] += line
		}
	}
	return logs
}

func TestParseKernelLogs(t *testing.T) {
	for _, kernel := range kernels {
		logs := kernelLogs(t, kernel)
		qt.Assert(t, qt.IsTrue(len(logs) > 30))
		for name, log := range logs {
			t.Run(kernel+"/"+name, func(t *testing.T) {
				w, ok := deviations[kernel+"/"+name]
				if !ok {
					w, ok = fixtures[name]
				}
				qt.Assert(t, qt.IsTrue(ok))
				l := Parse(log, Options{})
				qt.Check(t, qt.Equals(l.Match.Kind, w.kind), qt.Commentf("%q", l.Message))
				qt.Check(t, qt.Equals(l.Insn, w.insn))
				for k, v := range w.args {
					qt.Check(t, qt.Equals(l.Match.Args[k], v), qt.Commentf("%s of %q", k, l.Message))
				}
				qt.Check(t, qt.Equals(l.Message == "", w.kind == Unknown))
				qt.Check(t, qt.IsFalse(l.Truncated))
				qt.Assert(t, qt.IsNotNil(l.Stats))
				qt.Check(t, qt.Equals(l.Stats.Limit, 1_000_000))
				if w.insn >= 0 && len(l.Path) > 0 {
					qt.Check(t, qt.IsTrue(l.Instruction != ""))
				}
				// The same through a serial line, and as a loader indents it.
				noisy := "\t" + strings.ReplaceAll(strings.TrimSuffix(log, "\n"), "\n", "\r\n\t")
				qt.Check(t, qt.DeepEquals(Parse(noisy, Options{}).Message, l.Message))
				qt.Check(t, qt.DeepEquals(Parse(noisy, Options{}).Insn, l.Insn))
			})
		}
	}
}

// The fixtures of different kernels together cover what can be told apart.
func TestFixturesAreAllUsed(t *testing.T) {
	seen := make(map[string]bool)
	for _, kernel := range kernels {
		for name := range kernelLogs(t, kernel) {
			seen[name] = true
		}
	}
	qt.Check(t, qt.DeepEquals(slices.Sorted(maps.Keys(seen)), slices.Sorted(maps.Keys(fixtures))))
}

func read(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	qt.Assert(t, qt.IsNil(err))
	return string(b)
}

func TestParseLibbpf(t *testing.T) {
	l := Parse(read(t, "libbpf-null.log"), Options{})
	qt.Check(t, qt.Equals(l.Message, "R0 invalid mem access 'map_value_or_null'"))
	qt.Check(t, qt.Equals(l.Insn, 12))
	qt.Check(t, qt.Equals(l.Instruction, "r1 = *(u64 *)(r0 +0)"))
	qt.Check(t, qt.DeepEquals(l.Source, &Source{File: "t.bpf.c", Line: 8, Text: "*n += 1;"}))
	qt.Check(t, qt.Equals(l.Subprog, "count"))
	qt.Check(t, qt.Equals(l.Stats.Processed, 14))
	qt.Check(t, qt.Equals(l.Registers["R0"], "map_value_or_null(id=1,map=seen,ks=4,vs=8)"))
	qt.Check(t, qt.Equals(l.Registers["R2"], "fp-4"))
	qt.Check(t, qt.Equals(l.Registers["fp-8"], "mmmm????"))
	qt.Check(t, qt.DeepEquals(l.History("R0"), []Step{{
		Insn: 11, Text: "call bpf_map_lookup_elem#1", State: "R0=map_value_or_null(id=1,map=seen,ks=4,vs=8)",
	}}))

	l = Parse(read(t, "libbpf-core.log"), Options{})
	qt.Check(t, qt.Equals(l.Match.Kind, Poison))
	qt.Check(t, qt.Equals(l.Insn, 1))
	qt.Check(t, qt.DeepEquals(l.Messages, []string{
		"<invalid CO-RE relocation>",
		"failed to resolve CO-RE relocation <byte_off> [5] struct task_struct.no_such_field (0:1 @ offset 4)",
	}))
	qt.Check(t, qt.DeepEquals(l.Source, &Source{
		File: "co.bpf.c", Line: 8, Text: "struct task_struct *t = (void *)bpf_get_current_task();",
	}))
}

// A note that every program with BTF may draw is no complaint.
func TestParseNote(t *testing.T) {
	l := Parse("arg#0 reference type('UNKNOWN ') size cannot be determined: -22\nfd 3 is not pointing to valid bpf_map\nprocessed 0 insns\n", Options{})
	qt.Check(t, qt.DeepEquals(l.Messages, []string{"fd 3 is not pointing to valid bpf_map"}))
	qt.Check(t, qt.Equals(l.Match.Kind, BadMapFD))

	// Nor does it make a clean log a rejection. It counts where the verifier stopped at it, and
	// where nothing else is quoted.
	remark := "arg#0 reference type('UNKNOWN ') size cannot be determined: -22"
	for text, want := range map[string]Kind{
		remark + "\nprocessed 5 insns (limit 1000000)\n":                         Unknown,
		"3: (85) call bpf_foo#99\n" + remark + "\nprocessed 5 insns (limit 1)\n": ArgumentType,
		remark: ArgumentType,
	} {
		l := Parse(text, Options{})
		qt.Check(t, qt.Equals(l.Match.Kind, want), qt.Commentf("%s", text))
		qt.Check(t, qt.Equals(len(l.Messages) > 0, want != Unknown), qt.Commentf("%s", text))
	}
}

// What prepares the deciding complaint stands before it.
func TestParseDeciding(t *testing.T) {
	l := Parse("7: (85) call pc+3\nR1 type=ctx expected=fp\nCaller passes invalid args into func#1 ('f')\n", Options{})
	qt.Check(t, qt.Equals(l.Match.Kind, GlobalFunction))
	qt.Check(t, qt.Equals(l.Message, "Caller passes invalid args into func#1 ('f')"))
	qt.Check(t, qt.HasLen(l.Messages, 2))
}

// Source lines before 6.9 come without a file name.
func TestParseOldSource(t *testing.T) {
	l := Parse("; return *p;\n3: (61) r0 = *(u32 *)(r0 +0)\nR0 invalid mem access 'map_value_or_null'\n", Options{})
	qt.Check(t, qt.DeepEquals(l.Source, &Source{Text: "return *p;"}))
	qt.Check(t, qt.IsTrue(l.Truncated)) // no statistics at the end
}

func TestParseStats(t *testing.T) {
	l := Parse("verification time 2113 usec\nstack depth 0+8\nprocessed 42 insns (limit 1000000) max_states_per_insn 2 total_states 5 peak_states 4 mark_read 3\n", Options{})
	qt.Check(t, qt.DeepEquals(l.Stats, &Stats{
		Processed: 42, Limit: 1_000_000, MaxStatesPerInsn: 2, TotalStates: 5, PeakStates: 4, MarkRead: 3,
		VerificationUsec: 2113, StackDepth: "0+8",
	}))
	qt.Check(t, qt.Equals(l.Message, ""))
	qt.Check(t, qt.Equals(l.Total, 3))
}

func TestParseHole(t *testing.T) {
	head := "0: R1=ctx() R10=fp0\n0: (bf) r6 = r1      ; R1=ctx() R6=ct"
	tail := "5)\n9: (61) r0 = *(u32 *)(r7 +0)\nR7 invalid mem access 'scalar'\nprocessed 8 insns (limit 1000000)\n"
	l := Parse(head+tail, Options{Hole: len(head)})
	qt.Check(t, qt.IsTrue(l.Truncated))
	qt.Check(t, qt.DeepEquals(l.Lines, []string{
		"0: R1=ctx() R10=fp0",
		"... (part of the log is missing) ...",
		"9: (61) r0 = *(u32 *)(r7 +0)",
		"R7 invalid mem access 'scalar'",
		"processed 8 insns (limit 1000000)",
	}))
	qt.Check(t, qt.Equals(l.Insn, 9))
	// What was known before the gap says nothing about the registers behind it.
	qt.Check(t, qt.HasLen(l.Registers, 0))
	qt.Check(t, qt.HasLen(l.Path, 1))
}

func TestHistoryFollowsCopies(t *testing.T) {
	l := Parse(`0: (85) call bpf_get_prandom_u32#7
1: (bf) r6 = r0
2: (7b) *(u64 *)(r10 -16) = r6
3: (b7) r6 = 1
4: (79) r3 = *(u64 *)(r10 -16)
5: (07) r3 += 8
6: (0f) r2 += r3
7: (61) r1 = *(u32 *)(r3 +0)
R3 invalid mem access 'inv'
`, Options{})
	var at []int
	for _, s := range l.History("R3") {
		at = append(at, s.Insn)
	}
	qt.Check(t, qt.DeepEquals(at, []int{0, 1, 2, 4, 5}))
	qt.Check(t, qt.HasLen(l.History("R9"), 0))
}

// The verifier explores the other branch after an exit; what it did before
// does not lead to the failure.
func TestPathStartsAtTheBranch(t *testing.T) {
	l := Parse(`0: (15) if r1 == 0x0 goto pc+2
 R1=ctx(id=0,off=0,imm=0) R10=fp0
1: (b7) r0 = 0
2: (95) exit

from 0 to 3: R1=inv0 R10=fp0
3: (61) r0 = *(u32 *)(r1 +0)
R1 invalid mem access 'inv'
processed 4 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
`, Options{})
	qt.Check(t, qt.HasLen(l.Path, 1))
	qt.Check(t, qt.Equals(l.Insn, 3))
	qt.Check(t, qt.DeepEquals(l.Registers, map[string]string{"R1": "inv0", "R10": "fp0"}))
}

func TestParseCleansLines(t *testing.T) {
	l := Parse("\x1b[31mR0 !read_ok\x1b[0m\r\n\u202eevil\xff\n"+strings.Repeat("a", 10_000)+"\x00\x00", Options{})
	qt.Assert(t, qt.HasLen(l.Lines, 3))
	qt.Check(t, qt.Equals(l.Lines[0], "\uFFFD[31mR0 !read_ok\uFFFD[0m"))
	qt.Check(t, qt.Equals(l.Lines[1], "\uFFFDevil\uFFFD"))
	qt.Check(t, qt.Equals(len(l.Lines[2]), maxLine+len("…")))
	qt.Check(t, qt.Equals(l.Match.Kind, UninitRegister))
	qt.Check(t, qt.Equals(l.Match.Args["reg"], "R0"))
}

func TestParseLong(t *testing.T) {
	line := "3: (07) r7 += 1                       ; R7=0x7a118\n"
	text := strings.Repeat(line, 10<<20/len(line)) + "R7 !read_ok\n"
	l := Parse(text, Options{MaxLines: 100})
	qt.Check(t, qt.Equals(l.Total, 10<<20/len(line)+1))
	qt.Check(t, qt.HasLen(l.Lines, 100))
	qt.Check(t, qt.Equals(l.Message, "R7 !read_ok"))
	qt.Check(t, qt.Equals(l.Insn, 3))
}

func TestParseNothing(t *testing.T) {
	for _, text := range []string{"", "\n", "\x00", "\r\n\r\n", "hello"} {
		l := Parse(text, Options{Hole: 1})
		qt.Check(t, qt.Equals(l.Match.Kind, Unknown))
		qt.Check(t, qt.Equals(l.Insn, -1))
	}
}

// Linux 7.2 says what blinding refused behind the statistics, where loaders add lines of their own.
func TestBehindStatistics(t *testing.T) {
	const log = "verification time 3243986 usec\nstack depth 0 max 0\ninsns processed 32010\n" +
		"processed 32010 insns (limit 1000000) max_states_per_insn 0 total_states 1 peak_states 1 mark_read 0\n" +
		"insn 24517 cannot be patched due to 16-bit range\n-- END PROG LOAD LOG --\nR0 !read_ok, says the loader\n"
	l := Parse(log, Options{})
	qt.Check(t, qt.Equals(l.Match.Kind, PatchRange))
	qt.Check(t, qt.DeepEquals(l.Messages, []string{"insn 24517 cannot be patched due to 16-bit range"}))
	qt.Check(t, qt.Equals(l.Stats.Processed, 32010))
}
