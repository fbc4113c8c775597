// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

func btfRules() []Rule {
	return []Rule{btf001(), btf002(), btf003(), btf004(), btf005(), btf006()}
}

func btf001() Rule {
	return Rule{
		ID:    "BTF001",
		Title: "A CO-RE relocation failed: the kernel has no such field or type",
		Class: "R2",
		Stage: load.BTF,
		Text: `A program that was built with CO-RE names fields of kernel structs. The
loader looks them up in this kernel's BTF. If a field does not exist, the loader replaces the
access by a call of helper 195896080 (0xbad2310). On a dead path this is harmless. Otherwise the
verifier refuses it: "invalid func unknown#195896080". The field was renamed or moved, or this
kernel was built without it.`,
		Kernels: "All. It depends on the structs of the kernel.",
		Remedies: []load.Remedy{
			{
				ID:      "field-exists",
				Title:   "Guard the access, with a variant of the struct (name___old) for kernels that have another field",
				Price:   "A second path to test.",
				Command: "if (bpf_core_field_exists(task->__state)) ... else ...",
			},
			{
				ID:      "look-up-field",
				Title:   "Look the struct up in the kernel's BTF, to see what the field is called here",
				Price:   "Nothing.",
				Command: "bpftool btf dump file /sys/kernel/btf/vmlinux format c",
			},
		},
		Match: matchPoison,
	}
}

func matchPoison(f *Facts) *Match {
	if !f.verifierReject() || f.poison() != poisonField {
		return nil
	}
	m := f.verifierMatch()
	f.describePoison(m)
	return m
}

func (f *Facts) describePoison(m *Match) {
	m.Cause = "The program accesses a kernel field or type that this kernel does not have, on a path that is not dead."
	text, place := "", ""
	if l, ok := f.ev.Source(f.failedInsn()); ok {
		text = strings.TrimSpace(l.Text)
		place = fmt.Sprintf(" at %s:%d", printable(l.File, 120), l.Line)
	}
	if src := f.words.source; text == "" && src != nil {
		text = src.Text
		if src.File != "" {
			place = fmt.Sprintf(" at %s:%d", printable(src.File, 120), src.Line)
		}
	}
	if target := f.words.named("target"); target != "" {
		m.Cause = fmt.Sprintf("The program accesses %s, which this kernel does not have, on a path that is not dead.", printable(target, 160))
	}
	if text != "" {
		m.Cause += fmt.Sprintf(" The access stands in%s %q.", place, printable(text, 160))
	}
	if p := f.countPoison(); p > 1 {
		m.Evidence = append(m.Evidence, fmt.Sprintf("the program has %d such places", p))
	}
	if f.Node.Release != "" {
		m.Evidence = append(m.Evidence, "the kernel is "+printable(f.Node.Release, 80))
	}
}

func (f *Facts) countPoison() int {
	n := 0
	for _, in := range f.ev.Insns {
		if in.IsHelperCall() && in.Imm == coreRelocationPoison {
			n++
		}
	}
	return n
}

func btf002() Rule {
	return Rule{
		ID:    "BTF002",
		Title: "BTF is rejected: by the kernel, or by the loader's library",
		Class: "R2",
		Stage: load.BTF,
		Text: `BTF_LOAD failed. The BTF is malformed, or it has a kind that is newer than
the kernel (FLOAT 5.13, DECL_TAG 5.16, TYPE_TAG 5.17, ENUM64 6.0). Loaders remove kinds that the
kernel does not know, unless they are older than the compiler. Programs that need no BTF load
without it.`,
		Kernels: "BTF since 4.18.",
		Remedies: []load.Remedy{
			{
				ID:    "newer-library",
				Title: "Update the loader's library, which strips or rewrites kinds that the kernel does not know",
				Price: "A rebuild of the loader.",
			},
			{
				ID:      "strip-debug",
				Title:   "Build with a compiler that fits the oldest kernel, or run pahole without the new kinds",
				Price:   "Less type information.",
				Command: "llvm-strip -g prog.o",
			},
		},
		Match: matchBTFLoad,
	}
}

func matchBTFLoad(f *Facts) *Match {
	if f.kind() != load.BTFLoad || !f.failed() {
		return nil
	}
	switch f.errno() {
	case abi.EINVAL, abi.E2BIG, abi.ENOENT, abi.ERANGE, abi.EEXIST, abi.ENOTSUPP, abi.EFAULT:
	default:
		return nil
	}
	if f.text != nil && f.errno() == abi.ENOENT && f.words.empty() {
		return nil // a file of BTF, and no answer of the kernel
	}
	m := &Match{Strength: Likely, How: load.Inferred, Cause: "The kernel does not accept this BTF."}
	if !f.words.empty() {
		m.Strength, m.How = Strong, load.Observed
		m.Cause = fmt.Sprintf("The kernel does not accept this BTF: %s", f.words.message)
		if note := f.words.match.Note; note.Means != "" {
			m.Cause, m.First = printable(note.Means, 400), f.words.advice()
		}
		for _, l := range f.words.complaint {
			m.Evidence = append(m.Evidence, "the log says: "+l)
		}
	}
	return m
}

func btf003() Rule {
	return Rule{
		ID:    "BTF003",
		Title: "The kernel has no BTF of its own that can be used",
		Class: "R2",
		Stage: load.BTF,
		Text: `fentry, fexit, LSM, tp_btf, struct_ops and kernel functions need the
kernel's BTF (/sys/kernel/btf/vmlinux). CO-RE needs it too, unless the loader has BTF of its own.
The kernel was built without CONFIG_DEBUG_INFO_BTF, or the container does not see the file.`,
		Kernels: "Since 5.4 where it is built in.",
		Remedies: []load.Remedy{
			{
				ID:    "external-btf",
				Title: "Give the loader BTF for this kernel (BTFHub, or bpftool gen min_core_btf at build time), for CO-RE",
				Price: "One file to ship for each kernel. It does not help fentry and the other types that attach by BTF.",
			},
			{
				ID:    "btf-kernel",
				Title: "Mount /sys into the container, or run a kernel with CONFIG_DEBUG_INFO_BTF=y",
				Price: "A reboot; some MiB of kernel memory.",
			},
		},
		Match: matchNoBTF,
	}
}

var kernelBTFMalformed = lazyregexp.New(`(?:in-kernel BTF|btf_vmlinux) is malformed`)

func matchNoBTF(f *Facts) *Match {
	if !f.isLoad() {
		return nil
	}
	if f.verifierReject() && (f.words.arg("config") == "CONFIG_DEBUG_INFO_BTF" || kernelBTFMalformed.MatchString(f.words.message)) {
		m := f.verifierMatch()
		m.Cause = "The program needs the kernel's own BTF, and there is none."
		if kernelBTFMalformed.MatchString(f.words.message) {
			m.Cause = "The kernel has BTF of its own and cannot read it: the BTF was made wrongly when the kernel was built, by a pahole that does not go with it, or was damaged afterwards. Nothing is wrong with the program: the kernel cannot load any that needs its BTF."
			m.Without = append(m.Without, "external-btf", "btf-kernel")
			m.First = append(m.First, load.Remedy{
				ID: "rebuild-kernel", Title: "Run another build of the kernel, made with a pahole (dwarves) that goes with it", Price: "A reboot.",
				Command: "bpftool btf dump file /sys/kernel/btf/vmlinux format c | head",
			})
		}
		return m
	}
	if f.Node.BTF || f.Node.Release == "" || !f.words.empty() || f.verifierAccepted() || f.errno() != abi.EINVAL && f.errno() != abi.ENOENT {
		return nil
	}
	if f.progAttr().AttachBTFID == 0 && !f.hasKfuncCalls() {
		return nil
	}
	m := &Match{Strength: Likely, How: load.Inferred, Cause: "The program needs the kernel's own BTF, and there is none."}
	m.Evidence = append(m.Evidence, "/sys/kernel/btf/vmlinux does not exist, or is hidden here")
	m.Why = "the program needs kernel BTF, and /sys/kernel/btf/vmlinux was not found"
	return m
}

func btf004() Rule {
	return Rule{
		ID:    "BTF004",
		Title: "The program's BTF, func_info or line_info does not fit the program",
		Class: "R2",
		Stage: load.BTF,
		Text: `A program can have records with the types of its functions (func_info) and
the source lines of its instructions (line_info). They must be sorted, begin at the start of each
function, and refer to types and strings that exist. Tools that change instructions and not the
records break this. So does linking objects from parts. The BTF is given by a descriptor, which
must be open (EBADF).`,
		Kernels: "func_info and line_info since 5.0.",
		Remedies: []load.Remedy{
			{
				ID:    "rebuild",
				Title: "Rebuild the object, and move the records along wherever instructions are added or removed",
				Price: "Nothing.",
			},
			{
				ID:    "without-info",
				Title: "Load without func_info and line_info",
				Price: "No source lines in logs and profiles; global functions and some program types need func_info.",
			},
		},
		Match: matchBTFInfo,
	}
}

func matchBTFInfo(f *Facts) *Match {
	if !f.verifierReject() {
		return nil
	}
	if f.words.empty() {
		return matchBTFDescriptor(f)
	}
	if !f.words.is(verifierlog.BTFInfo) || f.doesNot(node.AddressOfFunction) && matchCallback(f) != nil {
		return nil
	}
	m := f.verifierMatch()
	m.Cause = fmt.Sprintf("The program's BTF records do not fit its instructions: %s.", strings.TrimRight(f.words.message, "."))
	return m
}

const maxBTFID = 0x000fffff // BTF_MAX_TYPE

// matchBTFDescriptor judges EBADF of a program that comes with records: their
// BTF is named by a descriptor, as maps are.
func matchBTFDescriptor(f *Facts) *Match {
	asked := f.progAttr()
	if f.errno() != abi.EBADF || asked.FuncInfoCnt == 0 && asked.LineInfoCnt == 0 && asked.ProgBTFFD == 0 {
		return nil
	}
	m := &Match{Strength: Possible, How: load.Inferred}
	m.Evidence = append(m.Evidence, fmt.Sprintf("prog_btf_fd was %d, with %d records of functions and %d of lines", int32(asked.ProgBTFFD), asked.FuncInfoCnt, asked.LineInfoCnt))
	m.Cause = "The descriptor of the program's BTF is not open in the loader, or is no BTF."
	m.Why = "prog_btf_fd may not be open"
	if f.wholeProgram() && !slices.ContainsFunc(f.ev.Insns, insn.Instruction.IsMapLoad) {
		m.Strength = Likely
		if s := f.cause(load.FnCheck); s != nil {
			m.Strength, m.How = Strong, load.Observed
			m.Evidence = append(m.Evidence, fmt.Sprintf("bpf_check returned %d (%s), and the program names no maps", s.Ret, errnoName(-s.Ret)))
		}
	}
	return m
}

func btf005() Rule {
	return Rule{
		ID:    "BTF005",
		Title: "The function or hook to attach to was not found",
		Class: "R5",
		Stage: load.BTF,
		Text: `fentry, fexit, LSM, freplace, iterator and struct_ops programs name their
target when they are loaded. The target is not in the kernel's BTF, or has another type, or was
inlined or renamed, or may not be attached to. Kprobes name their target when they are attached,
by perf_event_open(2) or a link.`,
		Kernels: "Since 5.5; kprobes all.",
		Remedies: []load.Remedy{
			{
				ID:      "look-up-symbol",
				Title:   "Look for the function among the kernel's symbols, with its suffixes (.isra.0, .constprop.0)",
				Price:   "Nothing.",
				Command: "grep -w FUNCTION /proc/kallsyms; cat /sys/kernel/debug/tracing/available_filter_functions | grep FUNCTION",
			},
			{
				ID:    "kprobe",
				Title: "Use a kprobe, or another function of the same path",
				Price: "Slower than fentry, and without typed arguments.",
			},
		},
		Match: matchAttachTarget,
	}
}

func matchAttachTarget(f *Facts) *Match {
	if f.isLoad() && f.errno() == abi.EINVAL && f.words.empty() && f.progAttr().AttachBTFID > maxBTFID && !f.verifierAccepted() {
		return &Match{Strength: Strong, How: f.howRequest(),
			Cause:    "The program names a type of the kernel's BTF to attach to, by a number that no BTF has.",
			Evidence: []string{fmt.Sprintf("attach_btf_id was %d; types have numbers up to %d", f.progAttr().AttachBTFID, maxBTFID)}}
	}
	if s := f.cause(load.FnAttach); s != nil && f.isLoad() && f.words.empty() {
		return &Match{Strength: Strong, How: load.Observed,
			Cause: "The program cannot be attached to the target that it names. The verifier's log would say why, but the loader did not ask for it.",
			Evidence: []string{fmt.Sprintf("bpf_check_attach_target returned %d (%s); attach_btf_id was %d", s.Ret, errnoName(-s.Ret),
				f.progAttr().AttachBTFID)}}
	}
	if !f.verifierReject() || !f.words.is(verifierlog.AttachTarget) {
		return nil
	}
	m := f.verifierMatch()
	if m.Cause == "" {
		m.Cause = fmt.Sprintf("The program cannot be attached to the target that it names: %s.", strings.TrimRight(f.words.message, "."))
	}
	return m
}

func btf006() Rule {
	return Rule{
		ID:    "BTF006",
		Title: "The function may not be traced",
		Class: "R5",
		Stage: load.BTF,
		Text: `Two kinds of functions cannot carry a tracing program. Functions of the first kind, such as
migrate_disable and rcu_read_lock, are called by the kernel whenever it starts or ends such a
program. There the program would call itself without end. Functions of the second kind, such as
do_exit, never return. They have no end at which fexit or fmod_ret could run, and the program would
stay in memory forever. The verifier answers EINVAL to both.`,
		Kernels: "fexit and fmod_ret on functions that never return: since 6.15. Kernels before 6.17 refuse the others without a message.",
		Remedies: []load.Remedy{
			{
				ID:    "fentry",
				Title: "If the function never returns, attach to its start, by fentry or a kprobe",
				Price: "The program sees no return value: such a function has none.",
			},
			{
				ID:    "other-function",
				Title: "Attach to a function that calls it, or to a tracepoint of the same path (sched_process_exit for do_exit)",
				Price: "A change of the source.",
			},
		},
		Match: matchUntraceable,
	}
}

func matchUntraceable(f *Facts) *Match {
	if !f.verifierReject() || !f.words.is(verifierlog.Untraceable) {
		return nil
	}
	m := f.verifierMatch()
	what := "the function"
	if name := f.words.arg("func"); name != "" {
		what = printable(name, 80)
	}
	m.Cause = fmt.Sprintf("The program may not be attached to %s: tracing itself needs it.", what)
	if f.words.arg("noreturn") != "" {
		m.Cause = fmt.Sprintf("The program may not be attached to the end of %s, which never returns.", what)
	}
	return m
}
