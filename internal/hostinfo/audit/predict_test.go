// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/sys/proc"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/go-quicktest/qt"
)

func TestHasBlindedCode(t *testing.T) {
	imm := "\x78\x56\x34\x12"
	for _, tt := range []struct {
		name, code string
		want       bool
	}{
		{"64 bits, sign-extended", "\x90\x49\xc7\xc2" + imm + "\x49\x81\xf2" + imm + "\x4c\x01\xd7", true},
		{"64 bits, small constant", "\x41\xba" + imm + "\x49\x81\xf2" + imm, true},
		{"32 bits", "\x41\xba" + imm + "\x41\x81\xf2" + imm, true},
		{"a constant that looks like the first, before the real one", "\x41\xba\x41\xba\x00\x00\x41\xba" + imm + "\x41\x81\xf2" + imm, true},
		{"moved and not XORed", "\x41\xba" + imm + "\x4c\x01\xd7", false},
		{"XORed alone", "\x49\x81\xf2" + imm, false},
		{"cut off", "\x41\xba" + imm + "\x41\x81", false},
		{"cut off in the constant", "\x41\xba\x01", false},
		{"nothing", "", false},
	} {
		qt.Check(t, qt.Equals(hasBlindedCode([]byte(tt.code)), tt.want), qt.Commentf("%s", tt.name))
	}
}

func TestHasBlinded(t *testing.T) {
	moveAX := insn.Instruction{Code: 0xb7, Dst: 11, Imm: 5}
	xorAX := insn.Instruction{Code: 0xa7, Dst: 11, Imm: 6}
	for _, tt := range []struct {
		name string
		prog []insn.Instruction
		want bool
	}{
		{"blinded", []insn.Instruction{moveAX, xorAX, {Code: 0x0f, Dst: 1, Src: 11}}, true},
		{"blinded, 7.2", []insn.Instruction{{Code: 0xb7, Dst: 12}, {Code: 0xa7, Dst: 12}}, true},
		{"an access that the verifier masked (speculation)", []insn.Instruction{{Code: 0xb4, Dst: 11, Imm: 7}, {Code: 0x1f, Dst: 11, Src: 2}}, false},
		{"moved by 32 bits and XORed by 64", []insn.Instruction{{Code: 0xb4, Dst: 11}, xorAX}, false},
		{"another register", []insn.Instruction{movK(3, 5), {Code: 0xa7, Dst: 3, Imm: 6}}, false},
		{"nothing", nil, false},
	} {
		qt.Check(t, qt.Equals(hasBlinded(tt.prog), tt.want), qt.Commentf("%s", tt.name))
	}
}

func TestSplit(t *testing.T) {
	// A dump keeps the distance of a call in Off; Imm is the number of the function, or an address.
	call := func(off int16) insn.Instruction {
		return insn.Instruction{Code: 0x85, Src: 1, Off: off, Imm: 0x7fff0000}
	}
	prog := []insn.Instruction{call(1), exit(), movK(0, 0), exit()}
	two := []insn.Function{{Start: 0, End: 2}, {Start: 2, End: 4}}
	one := []insn.Function{{Start: 0, End: 4}}
	for _, tt := range []struct {
		name   string
		prog   []insn.Instruction
		starts []int
		number int
		want   []insn.Function
	}{
		{"by the calls", prog, nil, 2, two},
		{"by func_info", []insn.Instruction{call(9), exit(), movK(0, 0), exit()}, []int{0, 2}, 2, two},
		{"one function", prog[2:], nil, 1, []insn.Function{{Start: 0, End: 2}}},
		{"calls that say otherwise than the kernel", prog, nil, 3, one},
		{"func_info that says nonsense", []insn.Instruction{call(9), exit(), exit(), exit()}, []int{0, 7}, 2, one},
		{"func_info out of order", prog, []int{2, 0}, 2, one},
		{"func_info that does not begin", prog, []int{1, 2}, 2, one},
		{"a call to outside", []insn.Instruction{call(100), exit()}, nil, 2, []insn.Function{{Start: 0, End: 2}}},
		{"an empty program", nil, nil, 1, []insn.Function{{}}},
	} {
		qt.Check(t, qt.DeepEquals(split(tt.prog, tt.starts, tt.number), tt.want), qt.Commentf("%s", tt.name))
	}
}

func ptr[T any](v T) *T { return &v }

// tooLong is post-verifier code whose only jump needs one more than it can.
func tooLong(more ...insn.Instruction) code {
	prog := join(forward(32768, 10), more)
	return code{insns: prog, functions: []insn.Function{{End: len(prog)}}, number: 1, jited: true, blinded: ptr(false)}
}

func release(major, minor int) *node.Profile {
	return &node.Profile{Release: fmt.Sprintf("%d.%d", major, minor)}
}

func TestHarden2(t *testing.T) {
	on, off := ptr(true), ptr(false)
	version := func(major, minor int) kernel {
		return kernel{alwaysOn: off, node: release(major, minor)}
	}
	several := tooLong()
	several.number = 2
	kfunc := tooLong(insn.Instruction{Code: 0x85, Src: insn.PseudoKfuncCall, Imm: 1}, exit())
	tail := tooLong(helper(helperTailCall), exit())
	tail.number, tail.functions = 2, []insn.Function{{Start: 0, End: len(tail.insns) - 2}, {Start: len(tail.insns) - 2, End: len(tail.insns)}}
	tailInMain := tail
	tailInMain.insns = join(tail.insns[:len(tail.insns)-2], []insn.Instruction{movK(0, 0), exit()})
	tailInMain.insns[6] = helper(helperTailCall)
	callback := tooLong(insn.Instruction{Code: 0x18, Src: insn.PseudoFunc}, insn.Instruction{}, exit())
	callback.number = 2
	perCPU := tooLong(insn.Instruction{Code: 0xbf, Off: -1}, exit())
	mayGoto := tooLong(movK(insn.RegAX, -16), helper(123456), exit())
	refusing := version(7, 2)
	refusing.node.Interpreter = &node.Interpreter{Refuses: true}
	unjited := tooLong()
	unjited.jited = false
	for _, tt := range []struct {
		name string
		c    code
		k    kernel
		want Outcome
	}{
		{"no interpreter", tooLong(), kernel{alwaysOn: on, node: &node.Profile{}}, Fails},
		{"whether there is one is not known", tooLong(), kernel{node: &node.Profile{}}, FailsOrNotJITed},
		{"5.10 falls back", tooLong(), version(5, 10), NotJITed},
		{"6.1 may, or not", tooLong(), version(6, 1), FailsOrNotJITed},
		{"6.18 falls back", tooLong(), version(6, 18), NotJITed},
		{"7.2 falls back", tooLong(), version(7, 2), NotJITed},
		{"with functions all fall back", several, version(6, 1), NotJITed},
		{"kernel functions need the compiler", kfunc, version(7, 2), Fails},
		{"tail calls in functions need it", tail, version(7, 2), Fails},
		{"in the main function they do not", tailInMain, version(7, 2), NotJITed},
		{"callbacks need it", callback, version(7, 2), Fails},
		{"an instruction for compilers only, 6.12", perCPU, version(6, 12), FailsOrNotJITed},
		{"an instruction for compilers only, 6.18", perCPU, version(6, 18), FailsOrNotJITed},
		{"an instruction for compilers only, 7.2, which may not know it yet", perCPU, version(7, 2), FailsOrNotJITed},
		{"an instruction for compilers only, and a kernel that refuses", perCPU, refusing, Fails},
		{"may_goto, which it does not refuse", mayGoto, refusing, NotJITed},
		{"it is interpreted already", unjited, version(7, 2), NotJITed},
		{"the compiler is off", tooLong(), kernel{jitOff: true, node: &node.Profile{}}, NotJITed},
		{"a blinded program whose code is hidden", code{jited: true, blinded: on}, version(6, 1), JITed},
		{"hidden for another reason", code{jited: true}, version(6, 1), Unknown},
	} {
		got := harden2(tt.c, tt.k)
		qt.Check(t, qt.Equals(got.Outcome, tt.want), qt.Commentf("%s: %+v", tt.name, got))
		// What may crash the machine is said of what may be interpreted.
		danger := strings.HasPrefix(tt.name, "an instruction for") && tt.want != Fails || strings.HasPrefix(tt.name, "may_goto")
		qt.Check(t, qt.Equals(strings.HasPrefix(got.Danger, "It may crash the machine when it runs: instruction "), danger), qt.Commentf("%s: %q", tt.name, got.Danger))
		if tt.want != JITed {
			qt.Check(t, qt.Not(qt.Equals(got.Why, "")), qt.Commentf("%s", tt.name))
		}
	}
	// A dump without the right to kernel addresses: which helpers it calls is not known, and
	// neither is what interpreting it may do.
	hidden, shown := tooLong(helper(0), exit()), tooLong(helper(4711), exit())
	arm, armRefuses, x86 := version(6, 12), version(6, 12), version(6, 12)
	arm.node.Machine, armRefuses.node.Machine, x86.node.Machine = "aarch64", "aarch64", "x86_64"
	armRefuses.node.Interpreter = &node.Interpreter{Refuses: true}
	for _, tt := range []struct {
		name    string
		c       code
		k       kernel
		unknown bool
	}{
		{"hidden", hidden, arm, true}, {"hidden, and it would be refused", hidden, armRefuses, true}, {"shown", shown, arm, false}, {"x86, where all shows", hidden, x86, false},
	} {
		got := harden2(tt.c, tt.k)
		qt.Check(t, qt.Equals(got.Outcome, FailsOrNotJITed), qt.Commentf("%s", tt.name))
		qt.Check(t, qt.Equals(got.Danger, ""), qt.Commentf("%s", tt.name))
		qt.Check(t, qt.Equals(strings.Contains(got.Why, "not known whether only compiled code can run it"), tt.unknown), qt.Commentf("%s: %s", tt.name, got.Why))
	}
	got := harden2(tooLong(), kernel{alwaysOn: on, node: &node.Profile{}})
	qt.Check(t, qt.Equals(*got.Margin, -1))
	// start() is four slots, the jump the fifth; its target lies behind the body and two
	// instructions.
	qt.Check(t, qt.DeepEquals(got.Jump, &Jump{From: 4, To: 5 + 32768 - 20, Need: 32768, Limit: 32767}))

	// Compiled and of the same length, but blinded in its copies: the model says.
	fits := forward(32767, 10)
	got = harden2(code{insns: fits, functions: []insn.Function{{End: len(fits)}}, number: 1, jited: true}, version(6, 1))
	qt.Check(t, qt.Equals(got.Outcome, JITed))
	qt.Check(t, qt.Equals(*got.Margin, 0))
}

func TestMargin(t *testing.T) {
	qt.Check(t, qt.Equals(margin(nil), blinding.MaxOffset))
	qt.Check(t, qt.Equals(margin([]insn.Instruction{jeqK(0, 0, 32000), ja(-32760), {Code: insn.OpcodeGotol, Off: 5}}), 8))
}

func TestHarden1(t *testing.T) {
	jited, interpreted := code{jited: true}, code{}
	broken := Fate{Outcome: Fails, Jump: &Jump{}, Margin: ptr(-1)}
	for _, tt := range []struct {
		name   string
		c      code
		at2    Fate
		loader rights
		want   Outcome
	}{
		{"spared", jited, broken, privileged, JITed},
		{"not spared", jited, broken, unprivileged, Fails},
		{"not known, and it matters", jited, broken, rightsUnknown, Unknown},
		{"not known, and it does not matter", jited, Fate{Outcome: JITed, Margin: ptr(5)}, rightsUnknown, JITed},
		{"interpreted because of blinding, and spared at 1", interpreted, Fate{Outcome: NotJITed, Jump: &Jump{}}, privileged, JITed},
		{"interpreted for another reason", interpreted, Fate{Outcome: NotJITed}, privileged, NotJITed},
	} {
		qt.Check(t, qt.Equals(harden1(tt.c, tt.at2, tt.loader, kernel{node: &node.Profile{}}).Outcome, tt.want), qt.Commentf("%s", tt.name))
	}
	off := Fate{Outcome: NotJITed}
	qt.Check(t, qt.Equals(harden1(jited, off, privileged, kernel{jitOff: true, node: &node.Profile{}}).Outcome, NotJITed))
}

func TestLoaderRights(t *testing.T) {
	at := func(major, minor int) kernel {
		return kernel{node: release(major, minor)}
	}
	closed := at(6, 1)
	closed.privilegedOnly = true
	admin, bpfOnly, nobody := Owner{sysAdmin: true}, Owner{capBPF: true}, Owner{UID: 1000}
	for _, tt := range []struct {
		name   string
		typ    uint32
		uid    uint32
		owners []Owner
		k      kernel
		want   rights
	}{
		{"a type that needs CAP_BPF", xdp, 1000, nil, at(6, 1), privileged},
		{"nobody else may load", abi.ProgTypeSocketFilter, 1000, nil, closed, privileged},
		{"held by root", abi.ProgTypeSocketFilter, 0, []Owner{admin}, at(6, 1), privileged},
		{"held by one with CAP_BPF", abi.ProgTypeCgroupSKB, 1000, []Owner{bpfOnly}, at(6, 1), privileged},
		{"held by a user", abi.ProgTypeSocketFilter, 1000, []Owner{nobody}, at(6, 1), unprivileged},
		{"nobody holds it", abi.ProgTypeSocketFilter, 1000, nil, at(6, 1), rightsUnknown},
		{"root without capabilities", abi.ProgTypeSocketFilter, 0, []Owner{nobody}, at(6, 1), rightsUnknown},
		{"5.10 asks for CAP_SYS_ADMIN", xdp, 0, []Owner{bpfOnly}, at(5, 10), rightsUnknown},
		{"5.10, with it", xdp, 0, []Owner{admin}, at(5, 10), privileged},
		{"5.4 has no other", xdp, 0, nil, at(5, 4), privileged},
	} {
		qt.Check(t, qt.Equals(loaderRights(tt.typ, tt.uid, tt.owners, tt.k), tt.want), qt.Commentf("%s", tt.name))
	}
}

func TestSummary(t *testing.T) {
	prog := func(name string, at2 Outcome, margin int) Program {
		p := Program{ID: 7, Name: name, JITed: true, Insns: 10, Functions: 1, At1: Fate{Outcome: JITed}, At2: Fate{Outcome: at2, Margin: &margin, After: 14}}
		switch {
		case at2 == Unknown:
			p.At2.Margin = nil
		case margin < 0:
			p.At2.Jump = &Jump{}
		}
		p.At2.Rule = p.At2.rule(p.Functions)
		return p
	}
	unjited := prog("slow", NotJITed, 9)
	unjited.JITed = false
	blinded := prog("a", JITed, 900)
	blinded.Blinded, blinded.At2.After = ptr(true), blinded.Insns
	noConstants, noJumps := prog("c", JITed, 900), prog("j", JITed, blinding.MaxOffset)
	noConstants.At2.After = noConstants.Insns
	off := &node.Profile{Sysctls: map[string]string{"net.core.bpf_jit_enable": "0"}}
	for _, tt := range []struct {
		name     string
		harden   *int
		programs []Program
		want     Answer
		says     string
	}{
		{"nothing loaded", ptr(0), nil, Nothing, "Nothing to judge: no program is loaded now. So it is not known"},
		{"nothing loaded, hardened", ptr(2), nil, Nothing, "The node is hardened (net.core.bpf_jit_harden=2), but it is not known"},
		{"none has anything to blind", ptr(0), []Program{noConstants, noJumps}, Nothing, "Nothing to judge: hardening cannot break 2 programs. Each"},
		{"none is compiled, whatever blinding does", ptr(0), []Program{unjited}, Nothing, "is not compiled now"},
		{"none can be read", ptr(0), []Program{prog("b", Unknown, 0)}, Nothing, "Nothing to judge: the one program could not be read."},
		{"none that matters can be read", ptr(0), []Program{noJumps, prog("b", Unknown, 0)}, Nothing, "1 of 2 programs could not be read, and hardening cannot break the others"},
		{"one that matters is among them", ptr(0), []Program{noJumps, prog("a", JITed, 900)}, Yes, "Yes: 2 programs would load as now"},
		{"all fit", ptr(0), []Program{prog("a", JITed, 900), prog("b", JITed, 40)}, Yes, "Yes: 2 programs would load as now under net.core.bpf_jit_harden=2; the tightest, b (id 7), has 40 slots to spare."},
		{"one fails", ptr(0), []Program{prog("a", JITed, 900), prog("b", Fails, -3)}, No, "No: 1 of 2 programs would not survive net.core.bpf_jit_harden=2: b (id 7) fails to load (BLIND001). At 1 all of them would load as now"},
		{"one falls back", nil, []Program{prog("b", NotJITed, -3)}, No, "b (id 7) is left to the interpreter (BLIND003)"},
		{"one wraps", nil, []Program{prog("b", Miscompiled, -1)}, No, "b (id 7) is compiled wrongly (BLIND004)"},
		{"one is unknown", ptr(0), []Program{prog("a", JITed, 1), prog("b", Unknown, 0)}, Unsure, "Not certain: 1 of 2 programs could not be judged"},
		{"interpreted before and after is not broken", ptr(0), []Program{unjited, prog("a", JITed, 900)}, Yes, "Yes"},
		{"hardened already", ptr(2), []Program{blinded}, Yes, "It is hardened (net.core.bpf_jit_harden=2), and the one program survived it"},
		{"hardened after it was loaded", ptr(2), []Program{prog("a", JITed, 900)}, Yes, "It is hardened (net.core.bpf_jit_harden=2), and the one program would load again as now"},
		{"hardened at a cost", ptr(2), []Program{prog("b", Fails, -3)}, No, "at a cost: the one program cannot be loaded again as now"},
	} {
		r := &Report{Harden: tt.harden, Programs: tt.programs}
		r.summarize(release(6, 1))
		qt.Check(t, qt.Equals(r.Summary.CanHarden, tt.want), qt.Commentf("%s: %s", tt.name, r.Summary.Sentence))
		qt.Check(t, qt.StringContains(r.Summary.Sentence, tt.says), qt.Commentf("%s", tt.name))
		qt.Check(t, qt.Equals(len(r.Remedies) > 0, tt.want == No), qt.Commentf("%s", tt.name))
	}
	r := &Report{Programs: []Program{unjited}}
	r.summarize(off)
	qt.Check(t, qt.StringContains(r.Summary.Sentence, "net.core.bpf_jit_enable is 0"))
	many := &Report{Programs: make([]Program, 0, 9)}
	for range 9 {
		many.Programs = append(many.Programs, prog("x", Fails, -1))
	}
	many.summarize(release(6, 1))
	qt.Check(t, qt.StringContains(many.Summary.Sentence, "and 4 more"))
}

// TestRemedies: the way out depends on who holds what breaks, and on what the node is set to.
func TestRemedies(t *testing.T) {
	broken := func(owners ...Owner) Program {
		return Program{Owners: owners, At1: Fate{Outcome: JITed}, At2: Fate{Outcome: Fails, Jump: &Jump{}}}
	}
	inGo, inC := Owner{PID: 1, Runtime: load.RuntimeGo}, Owner{PID: 2}
	fine := Program{Owners: []Owner{inGo}, At1: Fate{Outcome: JITed}, At2: Fate{Outcome: JITed}}
	breaksAt1 := broken(inC)
	breaksAt1.At1 = breaksAt1.At2
	for _, tt := range []struct {
		name     string
		harden   *int
		programs []Program
		loader   bool
		harden1  bool
	}{
		{"a loader in Go", ptr(0), []Program{broken(inC, inGo)}, true, true},
		{"in C", ptr(2), []Program{broken(inC)}, false, true},
		{"in Go, but what breaks is not", nil, []Program{broken(inC), fine}, false, true},
		{"1 would not help", ptr(0), []Program{breaksAt1}, false, false},
		{"it is at 1", ptr(1), []Program{broken()}, false, false},
	} {
		r := &Report{Harden: tt.harden, Programs: tt.programs}
		r.summarize(release(6, 1))
		has := func(id string) bool {
			return slices.ContainsFunc(r.Remedies, func(m load.Remedy) bool { return m.ID == id })
		}
		qt.Check(t, qt.IsTrue(has("islands") && has("run-repair")), qt.Commentf("%s", tt.name))
		qt.Check(t, qt.Equals(has("loader"), tt.loader), qt.Commentf("%s", tt.name))
		qt.Check(t, qt.Equals(has("harden-1"), tt.harden1), qt.Commentf("%s", tt.name))
	}
}

// TestRule: each fate of a program that breaks has its rule, and no other has one.
func TestRule(t *testing.T) {
	for _, tt := range []struct {
		outcome   Outcome
		jump      bool
		functions int
		want      string
	}{
		{Fails, true, 1, "BLIND001"}, {Fails, true, 2, "BLIND002"}, {FailsOrNotJITed, true, 1, "BLIND001"},
		{NotJITed, true, 2, "BLIND003"}, {Miscompiled, true, 2, "BLIND004"},
		{NotJITed, false, 1, ""}, {JITed, false, 1, ""}, {Unknown, true, 1, ""},
	} {
		f := Fate{Outcome: tt.outcome}
		if tt.jump {
			f.Jump = &Jump{}
		}
		qt.Check(t, qt.Equals(f.rule(tt.functions), tt.want), qt.Commentf("%+v", tt))
	}
}

func TestMemory(t *testing.T) {
	pod := Owner{PID: 1, Comm: "agent", Container: "containerd://1"}
	limit := map[string]string{"net.core.bpf_jit_limit": "100"}
	r := &Report{Programs: []Program{
		{JITedBytes: 10, Owners: []Owner{{PID: 5, Comm: "a"}}}, {JITedBytes: 20, Owners: []Owner{pod}}, {JITedBytes: 5, Owners: []Owner{pod, {PID: 9}}},
		{JITedBytes: 1, Pins: []string{"/sys/fs/bpf/x"}}, {JITedBytes: 2},
	}}
	r.memory(&node.Profile{Sysctls: limit, JITUsed: ptr(uint64(60))})
	qt.Check(t, qt.DeepEquals(r.Memory, Memory{Used: ptr(uint64(60)), Limit: ptr(int64(100)), Programs: 38, Top: []Share{
		{"agent in containerd://1", 2, 25}, {"a (pid 5)", 1, 10}, {"no process, link or pin", 1, 2}, {"pinned, no process", 1, 1},
	}}))
}

func TestProgramID(t *testing.T) {
	for text, want := range map[string]uint32{
		"pos:\t0\nflags:\t02000002\nprog_type:\t1\nprog_jited:\t1\nprog_id:\t42\nrun_time_ns:\t0\n": 42,
		"link_type:\ttracing\nlink_id:\t3\nprog_tag:\tabc\nprog_id:\t7\n":                           7,
		"map_id:\t3\n":                   0,
		"prog_id:\t-1\n":                 0,
		"prog_id:\t99999999999\n":        0,
		"x" + strings.Repeat("y", 1<<17): 0,
		"":                               0,
	} {
		qt.Check(t, qt.Equals(programID(strings.NewReader(text)), want), qt.Commentf("%.40q", text))
	}
}

func TestCgroups(t *testing.T) {
	got := proc.Cgroups("12:memory,cpu:/docker/abc\n3:freezer:/x\n0::/kubepods/pod1/a:b\nnonsense\n::\n")
	qt.Check(t, qt.DeepEquals(got, []load.Cgroup{{Version: 1, Name: "/docker/abc"}, {Version: 2, Name: "/kubepods/pod1/a:b"}}))
	qt.Check(t, qt.Equals(unescape(`/mnt/a\040b\134x`), `/mnt/a b\x`))
}

// At 1 a kernel spares CAP_BPF, or CAP_SYS_ADMIN alone: the summary names whom it blinds.
func TestSummaryNamesTheBlinded(t *testing.T) {
	for n, want := range map[*node.Profile]string{
		release(6, 1):  "only loaders without CAP_BPF are blinded.",
		release(5, 10): "only loaders without CAP_SYS_ADMIN are blinded.",
		{}:             "only loaders without CAP_BPF (before 6.1: without CAP_SYS_ADMIN) are blinded.",
	} {
		r := Report{Programs: []Program{{At1: Fate{Outcome: JITed}, At2: Fate{Outcome: Fails}}}}
		r.summarize(n)
		qt.Check(t, qt.StringContains(r.Summary.Sentence, want))
	}
}
