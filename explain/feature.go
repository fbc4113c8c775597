// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

func featureRules() []Rule {
	newer := load.Remedy{ID: "newer-kernel", Title: "Run on a kernel that has it", Price: "A reboot, and another kernel to test. Vendors backport: try it rather than compare versions."}
	optional := load.Remedy{ID: "probe-feature", Title: "Have the loader try the feature first, and leave the program out or use another where it is missing", Price: "A second variant to build and test."}
	return []Rule{
		{
			ID:    "FEAT001",
			Title: "The kernel does not know the helper",
			Class: "R6",
			Stage: load.Verifier,
			Text: `The program calls a helper by a number that this kernel does not have ("invalid func unknown#N"). Numbers are only ever appended, so the kernel
is older than the helper. Since 6.2 new functions come as kfuncs and no number above 211 exists; such a number is not a helper but damage,
or poison (BTF001).`,
			Kernels: "All.",
			Remedies: []load.Remedy{
				optional,
				newer,
				{
					ID:    "check-object",
					Title: "If no kernel has that number, look for a call that was left unresolved or a patch that went wrong",
					Price: "Nothing.",
				},
			},
			Match: matchUnknownHelper,
		},
		{
			ID:    "FEAT002",
			Title: "The helper is not for programs of this type",
			Class: "R6",
			Stage: load.Verifier,
			Text: `Each program type may call its own set of helpers ("unknown func bpf_x#N", since 6.8 or so "program of this type cannot use helper
bpf_x#N"). The set has grown over the kernels. A missing capability and lockdown shrink it, with the same words: without CAP_BPF and CAP_PERFMON
most helpers are gone.`,
			Kernels: "All; the sets grew over time.",
			Remedies: []load.Remedy{
				{
					ID:    "other-helper",
					Title: "Use a helper that this type has, or another program type",
					Price: "A change of the source.",
				},
				newer,
			},
			Match: matchHelperForType,
		},
		{
			ID:    "FEAT003",
			Title: "The helper is for GPL-compatible programs only",
			Class: "R6",
			Stage: load.Verifier,
			Text: `Many helpers, and kernel functions too, may be called only by programs whose licence string is compatible with the GPL ("GPL", "Dual
BSD/GPL", ...). The string is the one in the object's license section, exactly as the kernel knows it.`,
			Kernels: "All.",
			Remedies: []load.Remedy{
				{
					ID:      "licence",
					Title:   "Declare a GPL-compatible licence, if that is the program's licence",
					Price:   "A legal statement, not a technical one: the program is then under that licence.",
					Command: `char LICENSE[] SEC("license") = "Dual BSD/GPL";`,
				},
				{
					ID:    "other-helper",
					Title: "Do without the helper",
					Price: "A change of the source; no probe reads and no trace_printk.",
				},
			},
			Match: matchGPL,
		},
		{
			ID:    "FEAT004",
			Title: "The kernel does not know the program type",
			Class: "R6",
			Stage: load.Request,
			Text: `The type is newer than the kernel, or belongs to a subsystem that was not built in. The answer is EINVAL, without a log, because the verifier
was never asked.`,
			Kernels:  "All.",
			Remedies: []load.Remedy{optional, newer},
			Match:    matchProgType,
		},
		{
			ID:    "FEAT005",
			Title: "The kernel does not know the map type",
			Class: "R6",
			Stage: load.Request,
			Text: `The type is newer than the kernel (ring buffers: 5.8), or was not built in. The answer is EINVAL. Loaders often report it as a failure of
the program that uses the map.`,
			Kernels:  "All.",
			Remedies: []load.Remedy{optional, newer},
			Match:    matchMapType,
		},
		{
			ID:    "FEAT006",
			Title: "The kernel function (kfunc) does not exist here, or not for this program",
			Class: "R6",
			Stage: load.Verifier,
			Text: `Kernel functions are found by name in the BTF of the kernel and its modules, and registered for certain program types. They are no stable
interface: they come, go and change, and a module must be loaded to offer its own. Some need CAP_BPF, a sleepable program or a GPL licence.`,
			Kernels: "Since 5.13; widely used since 6.2.",
			Remedies: []load.Remedy{
				{
					ID:    "weak-kfunc",
					Title: "Declare it __weak and test it with bpf_ksym_exists before the call",
					Price: "A second path for kernels without it.",
				},
				{
					ID:    "load-module",
					Title: "Load the module that offers it before the program",
					Price: "A module in the kernel.",
				},
				newer,
			},
			Match: matchKfunc,
		},
		{
			ID:    "FEAT007",
			Title: "The JIT of this machine cannot call kernel functions (kfuncs)",
			Class: "R9",
			Stage: load.Verifier,
			Text: `Calls of kernel functions need machine code, and support for them in the JIT of the architecture: x86-64 since 5.13, arm64 since 6.1 or so,
others later or never. The verifier refuses such a program with ENOTSUPP, 524.`,
			Kernels:  "By architecture.",
			Remedies: []load.Remedy{optional, newer},
			Match:    matchKfuncJIT,
		},
		{
			ID:    "FEAT008",
			Title: "The program uses instructions that are newer than the kernel",
			Class: "R6",
			Stage: load.Verifier,
			Text: `clang's -mcpu=v3 emits 32-bit jumps and ALU and fetching atomics (5.1, 5.12), v4 sign-extending loads and moves, bswap, gotol and signed
division (6.6). clang 20 made v3 the default. A kernel that does not know an instruction calls it an unknown opcode, or complains of reserved
fields. Vendors backport single ones: Debian's 6.1 takes gotol and refuses the rest.`,
			Kernels: "v3: 5.1 and 5.12; v4: 6.6; load-acquire and store-release: 6.15.",
			Remedies: []load.Remedy{
				{
					ID:      "lower-mcpu",
					Title:   "Build for the oldest kernel that is to be supported",
					Price:   "More instructions for the same work; v2 has no 32-bit arithmetic.",
					Command: "clang -O2 -g -target bpf -mcpu=v2 -c prog.c -o prog.o",
				},
				{
					ID:    "two-objects",
					Title: "Ship the program twice and choose at run time by a test load",
					Price: "A second variant to build and test.",
				},
			},
			Match: matchNewerInsn,
		},
	}
}

// What a loader puts in place of something that it could not resolve.
type poison int

const (
	notPoison poison = iota
	poisonField
	poisonMap
	poisonKfunc

	coreRelocationPoison = 0xbad2310
)

func poisonOf(call int) poison {
	switch {
	case call == coreRelocationPoison:
		return poisonField
	case call >= 2_001_000_000 && call < 2_002_000_000:
		return poisonMap
	case call >= 2_002_000_000 && call < 2_003_000_000:
		return poisonKfunc
	}
	return notPoison
}

// poison says what the verifier stopped at, by its words or by the instruction.
func (f *Facts) poison() poison {
	if !f.words.empty() {
		if !f.words.is(verifierlog.Poison) {
			return notPoison
		}
		if n, err := strconv.Atoi(f.words.arg("poison")); err == nil {
			return poisonOf(n)
		}
		switch {
		case strings.Contains(f.words.message, "CO-RE"):
			return poisonField
		case strings.Contains(f.words.message, "BPF map"):
			return poisonMap
		}
		return poisonKfunc
	}
	i := f.ev.FailedInsn
	if f.cause(load.FnDoCheck) == nil || i < 0 || i >= len(f.ev.Insns) || !f.ev.Insns[i].IsHelperCall() {
		return notPoison
	}
	return poisonOf(int(f.ev.Insns[i].Imm))
}

func matchUnknownHelper(f *Facts) *Match {
	if !f.verifierReject() {
		return nil
	}
	said := f.words.is(verifierlog.HelperUnknown)
	id := -1
	switch i := f.ev.FailedInsn; {
	case said:
		id, _ = strconv.Atoi(f.words.arg("id"))
	case f.words.empty() && f.cause(load.FnDoCheck) != nil && f.errno() == errEINVAL && i >= 0 && i < len(f.ev.Insns) && f.ev.Insns[i].IsHelperCall():
		h, ok := insn.HelperByID(int(f.ev.Insns[i].Imm))
		if ok && (!f.kernelKnown || !f.before(h.Since.Major, h.Since.Minor)) {
			return nil
		}
		id = int(f.ev.Insns[i].Imm)
	default:
		return nil
	}
	if poisonOf(id) != notPoison {
		return nil // BTF001, FEAT006, REQ009
	}
	m := f.verifierMatch()
	h, known := insn.HelperByID(id)
	switch {
	case known:
		m.Without = append(m.Without, "check-object")
		m.Cause = fmt.Sprintf("Helper %d is %s, which kernels have since %d.%d; this kernel does not know it.", id, h.Name, h.Since.Major, h.Since.Minor)
		if f.kernelKnown {
			m.Evidence = append(m.Evidence, fmt.Sprintf("the kernel is %d.%d", f.kernel.Major, f.kernel.Minor))
		}
	default:
		m.Cause = fmt.Sprintf("No kernel known today has a helper with the number %d: the instruction is damaged, or a call was left unresolved.", id)
		m.Without = append(m.Without, "newer-kernel", "probe-feature")
	}
	return m
}

func matchHelperForType(f *Facts) *Match {
	if !f.verifierReject() {
		return nil
	}
	name, byWords := f.refusedHelper()
	if name == "" && f.silentReject(errEINVAL) && f.cause(load.FnDoCheck) == nil {
		return f.suspect(f.suspectHelper())
	}
	if name == "" || f.failing(load.FnLockdown) != nil {
		return nil
	}
	m := f.verifierMatch()
	h, known := insn.HelperByName(name)
	if !byWords {
		// The instruction is a helper call and the verifier stopped at it with
		// EINVAL: the helper is refused, or an argument is wrong.
		if known && f.before(h.Since.Major, h.Since.Minor) {
			return nil // FEAT001
		}
		m.Strength = Likely
		m.Why = "the verifier stopped at a helper call; it may also have disliked an argument"
	}
	who := "A program of this type"
	if t, ok := f.progType(); ok {
		who = "A program of type " + printable(t, 40)
	}
	m.Cause = fmt.Sprintf("%s may not call %s on this kernel.", who, printable(name, 60))
	locked := slices.Contains(readHelpers, name) && (f.Node.Lockdown == "confidentiality" || f.onlyLockdownTakes()) ||
		slices.Contains(writeHelpers, name) && (f.Node.Lockdown == "confidentiality" || f.Node.Lockdown == "integrity")
	unsure := (slices.Contains(readHelpers, name) || slices.Contains(writeHelpers, name)) && f.Node.Lockdown == "" && !f.observed(load.Permission)
	switch {
	case locked:
		return nil // PERM003, PERM004
	case f.lacks(capPerfmon) || f.lacks(capBPF):
		m.Cause += " The loader lacks " + capList(f.lackingOf(capBPF, capPerfmon)) + ", without which most helpers are closed: with it, the type may well have this one."
		m.Evidence = append(m.Evidence, f.capsText())
	case unsure:
		m.Strength = Likely
		m.Cause += " Lockdown, whose state is not known, would look the same."
	}
	return m
}

func (f *Facts) lackingOf(caps ...int) []int {
	var out []int
	for _, c := range caps {
		if f.lacks(c) {
			out = append(out, c)
		}
	}
	return out
}

func matchGPL(f *Facts) *Match {
	if !f.verifierReject() || !f.words.is(verifierlog.HelperGPL) {
		return nil
	}
	m := f.verifierMatch()
	what := "a function"
	if i := f.failedInsn(); i >= 0 && i < len(f.ev.Insns) && f.ev.Insns[i].IsHelperCall() {
		if h, ok := insn.HelperByID(int(f.ev.Insns[i].Imm)); ok {
			what = h.Name
		}
	}
	m.Cause = fmt.Sprintf("The program calls %s, which is for GPL-compatible programs only", what)
	if p := f.Attempt.Program; p != nil {
		m.Cause += fmt.Sprintf("; its licence is %q", printable(p.License, 64))
	}
	m.Cause += "."
	return m
}

// failedInsn is where the verifier stopped, by hook or by log.
func (f *Facts) failedInsn() int {
	if f.ev.FailedInsn >= 0 && f.cause(load.FnDoCheck) != nil {
		return f.ev.FailedInsn
	}
	return f.words.insn
}

// progTypeSince gives the kernels that brought the younger program types.
var progTypeSince = map[string][2]int{
	"lwt_seg6local": {4, 18}, "lirc_mode2": {4, 18}, "sk_reuseport": {4, 19}, "flow_dissector": {4, 20}, "cgroup_sysctl": {5, 2},
	"raw_tracepoint_writable": {5, 2}, "cgroup_sockopt": {5, 3}, "tracing": {5, 5}, "struct_ops": {5, 6}, "ext": {5, 6}, "lsm": {5, 7},
	"sk_lookup": {5, 9}, "syscall": {5, 14}, "netfilter": {6, 4},
}

const knownProgTypes = 33 // BPF_PROG_TYPE_NETFILTER is 32

func matchProgType(f *Facts) *Match {
	if !f.isLoad() || f.errno() != errEINVAL || !f.words.empty() || f.verifierAccepted() || f.cause(load.FnCheck) != nil || f.cause(load.FnDoCheck) != nil {
		return nil
	}
	m := &Match{Strength: Possible, How: f.howRequest()}
	m.Why = "a program type that was not built into the kernel ends so too"
	t, _ := f.progType()
	m.Cause = fmt.Sprintf("This kernel has no programs of type %s.", printable(t, 40))
	n := int(f.attrU32(attrProgType))
	since, dated := progTypeSince[t]
	switch {
	case len(f.ev.Attr) >= 4 && (n == 0 || n >= knownProgTypes):
		m.Strength = Strong
		m.Cause = fmt.Sprintf("No kernel known today has a program type %d.", n)
		if n == 0 {
			m.Cause = "The program has no type (0): the loader did not set one."
		}
		m.Evidence = append(m.Evidence, fmt.Sprintf("prog_type was %d", n))
	case dated && f.before(since[0], since[1]):
		m.Strength = Strong
		m.Evidence = append(m.Evidence, fmt.Sprintf("the type %s came with %d.%d, the kernel is %d.%d", t, since[0], since[1], f.kernel.Major, f.kernel.Minor))
	case t == "" || t == "socket_filter":
		return nil
	}
	return m
}

func matchKfunc(f *Facts) *Match {
	if !f.verifierReject() {
		return nil
	}
	if f.words.arg("config") == "CONFIG_DEBUG_INFO_BTF" {
		return nil // BTF003
	}
	if f.refusesKfuncCall() {
		m := f.verifierMatch()
		m.Cause = "The program calls a kernel function, and this kernel is from before there were such calls (5.13)."
		return m
	}
	if f.poison() != poisonKfunc && !f.words.is(verifierlog.KfuncUnavailable, verifierlog.KfuncUnknown) {
		return matchBareKfunc(f)
	}
	m := f.verifierMatch()
	m.Cause = fmt.Sprintf("The program calls a kernel function that it cannot have here: %s.", f.words.message)
	if n := f.words.named("name"); n != "" {
		m.Cause = fmt.Sprintf("The program calls the kernel function %s, which this kernel does not have, or not for this program.", printable(n, 80))
	}
	return m
}

// refusesKfuncCall reports a kernel that takes the mark of a kernel function in
// a call for a field that must be zero.
func (f *Facts) refusesKfuncCall() bool {
	i := f.failedInsn()
	return f.words.is(verifierlog.ReservedField) && strings.Contains(f.words.message, "BPF_CALL") &&
		(i >= 0 && i < len(f.ev.Insns) && f.ev.Insns[i].IsKfuncCall() || i < 0 && f.hasKfuncCalls())
}

// matchBareKfunc judges a load that the verifier refused without a word before
// it walked the program, and that calls kernel functions.
func matchBareKfunc(f *Facts) *Match {
	if !f.words.empty() || !f.hasKfuncCalls() || f.words.clean() {
		return nil
	}
	if f.errno() != errEINVAL && f.errno() != errENOENT && f.errno() != errEACCES && f.errno() != errEBADF {
		return nil
	}
	m := &Match{Strength: Likely, How: load.Inferred}
	if f.cause(load.FnDoCheck) != nil {
		i := f.ev.FailedInsn
		if i < 0 || i >= len(f.ev.Insns) || !f.ev.Insns[i].IsKfuncCall() {
			return nil
		}
	}
	for i, in := range f.ev.Insns {
		if in.IsKfuncCall() {
			m.Evidence = append(m.Evidence, fmt.Sprintf("%s calls the kernel function with BTF id %d", f.at(i), in.Imm))
			if in.Imm <= 0 {
				m.Strength = Strong
			}
			break
		}
	}
	m.Cause = "The program calls kernel functions, and the kernel did not accept one of them."
	m.Why = "the program calls kernel functions"
	return m
}

func matchKfuncJIT(f *Facts) *Match {
	if !f.verifierReject() || f.errno() != errENOTSUPP && f.errno() != errEOPNOTSUPP {
		return nil
	}
	if f.words.is(verifierlog.NeedsJIT) && strings.Contains(f.words.message, "kernel func") && !f.fellBack() {
		m := f.verifierMatch()
		m.Cause = "The program calls kernel functions, which the JIT of this machine cannot do."
		return m
	}
	if !f.words.empty() || f.words.clean() || f.wholeProgram() && !f.hasKfuncCalls() {
		return nil
	}
	m := &Match{Strength: Possible, How: load.Inferred, Why: "whether the program calls kernel functions is not known"}
	if f.hasKfuncCalls() {
		m.Why = "the program calls kernel functions, which not every JIT can do"
		m.Evidence = append(m.Evidence, "the program calls kernel functions")
		if f.jitIsOff() || f.Node.Machine != "" && f.Node.Machine != "x86_64" && !(f.Node.Machine == "aarch64" && f.since(6, 1)) {
			m.Strength = Likely
		}
	}
	m.Cause = "The program calls kernel functions, which the JIT of this machine cannot do."
	return m
}

// newerInsn names the instruction on which the verifier stopped, if it is one
// of a newer instruction set. Where the log names no place it is the youngest
// one of the program that is newer than the kernel.
func (f *Facts) newerInsn() (name string, slot int) {
	if i := f.failedInsn(); i >= 0 && i < len(f.ev.Insns) {
		if n, _ := newerName(f.ev.Insns[i]); n != "" {
			return n, i
		}
		return "", -1
	}
	var youngest insn.Version
	slot = -1
	for i := 0; i < len(f.ev.Insns); i++ {
		in := f.ev.Insns[i]
		n, since := newerName(in)
		wide := in.IsWide()
		if n != "" && youngest.Before(since) && !f.since(since.Major, since.Minor) && wide == f.words.is(verifierlog.BadLoadImm64) {
			name, slot, youngest = n, i, since
		}
		if wide {
			i++
		}
	}
	return name, slot
}

// newerName names an instruction that not all kernels know, and the release
// that brought it.
func newerName(in insn.Instruction) (string, insn.Version) {
	v := func(major, minor int) insn.Version { return insn.Version{Major: major, Minor: minor} }
	switch {
	case in.Code == insn.OpcodeGotol:
		return "gotol (-mcpu=v4, 6.6)", v(6, 6)
	case in.IsMovSX():
		return "a sign-extending move (-mcpu=v4, 6.6)", v(6, 6)
	case in.IsSignedDiv():
		return "a signed division (-mcpu=v4, 6.6)", v(6, 6)
	case in.Class() == insn.ClassALU64 && in.Op() == insn.OpEND:
		return "bswap (-mcpu=v4, 6.6)", v(6, 6)
	case in.Class() == insn.ClassLDX && in.Mode() == insn.ModeMEMSX:
		return "a sign-extending load (-mcpu=v4, 6.6)", v(6, 6)
	case in.IsAtomic() && (in.Imm == insn.AtomicLoadAcq || in.Imm == insn.AtomicStRel):
		return "a load-acquire or store-release (6.15)", v(6, 15)
	case in.IsAtomic() && in.Imm != insn.OpADD:
		return "an atomic operation of -mcpu=v3 (5.12)", v(5, 12)
	case in.IsMayGoto():
		return "may_goto (6.9)", v(6, 9)
	case in.IsAddrSpaceCast():
		return "an addr_space_cast (6.9)", v(6, 9)
	case in.IsFuncLoad():
		return "the address of a function (a callback, 5.13)", v(5, 13)
	case in.IsWide() && (in.Src == insn.PseudoMapIdx || in.Src == insn.PseudoMapIdxValue):
		return "a map by its index (5.14)", v(5, 14)
	case in.Class() == insn.ClassJMP32:
		return "a 32-bit jump (-mcpu=v3, 5.1)", v(5, 1)
	}
	return "", insn.Version{}
}

// matchCallback judges a kernel that does not see that the address of a
// function is one, and so counts fewer functions than func_info has.
func matchCallback(f *Facts) *Match {
	i := slices.IndexFunc(f.ev.Insns, insn.Instruction.IsFuncLoad)
	if i < 0 || !strings.Contains(f.words.message, "func_info") {
		return nil
	}
	m := f.verifierMatch()
	m.Cause = fmt.Sprintf("The program takes the address of a function at instruction %d, as callbacks need. This kernel does not know that (5.13), and counts fewer functions than the program says it has.", i)
	m.Evidence = append(m.Evidence, f.at(i), fmt.Sprintf("the kernel is %d.%d", f.kernel.Major, f.kernel.Minor))
	return m
}

func matchNewerInsn(f *Facts) *Match {
	if !f.verifierReject() {
		return nil
	}
	said := f.words.is(verifierlog.BadOpcode, verifierlog.ReservedField, verifierlog.BadLoadImm64)
	if f.words.is(verifierlog.BTFInfo) && f.before(5, 13) {
		return matchCallback(f)
	}
	if !said && !f.words.empty() {
		return nil
	}
	name, slot := f.newerInsn()
	if name == "" {
		return nil
	}
	if !said {
		// No words: the verifier must have been seen stopping right there.
		if f.cause(load.FnDoCheck) == nil && f.cause(load.FnCheck) == nil || f.errno() != errEINVAL {
			if f.errno() != errEINVAL || f.observed(load.Verifier) || f.since(6, 15) {
				return nil
			}
			return &Match{Strength: Possible, How: load.Inferred, Why: fmt.Sprintf("the program uses %s", name)}
		}
	}
	m := f.verifierMatch()
	m.Cause = fmt.Sprintf("The program uses %s at instruction %d, which this kernel does not know.", name, slot)
	m.Evidence = append(m.Evidence, f.at(slot))
	if !said {
		m.Strength = Likely
	}
	if f.kernelKnown {
		m.Evidence = append(m.Evidence, fmt.Sprintf("the kernel is %d.%d", f.kernel.Major, f.kernel.Minor))
	}
	return m
}
