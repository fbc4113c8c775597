// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

func btfRules() []Rule {
	return []Rule{
		{
			ID:    "BTF001",
			Title: "A CO-RE relocation failed: the kernel has no such field or type",
			Class: "R2",
			Stage: load.BTF,
			Text: `Programs built with CO-RE name the fields of kernel structs, and the loader looks them up in this kernel's BTF. When a field is not there the
loader leaves poison, a call of helper 195896080 (0xbad2310), in place of the access: harmless if that path is dead, and refused as "invalid func
unknown#195896080" if it is not. The field was renamed, moved or is not built into this kernel.`,
			Kernels: "All; it depends on the structs of the kernel.",
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
		},
		{
			ID:    "BTF002",
			Title: "The kernel rejects the program's BTF",
			Class: "R2",
			Stage: load.BTF,
			Text: `BTF_LOAD failed: the BTF is malformed, or has a kind that is newer than the kernel (FLOAT 5.13, DECL_TAG 5.16, TYPE_TAG 5.17, ENUM64 6.0).
Loaders strip what the kernel does not know, if they are not older than the compiler. Programs that need no BTF go on without.`,
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
		},
		{
			ID:    "BTF003",
			Title: "The kernel has no BTF of its own",
			Class: "R2",
			Stage: load.BTF,
			Text: `fentry, fexit, LSM, tp_btf, struct_ops and kernel functions need the kernel's BTF (/sys/kernel/btf/vmlinux), and so does CO-RE unless
the loader brings BTF along. The kernel was built without CONFIG_DEBUG_INFO_BTF, or the file is hidden from the container.`,
			Kernels: "Since 5.4 where it is built in.",
			Remedies: []load.Remedy{
				{
					ID:    "external-btf",
					Title: "Give the loader BTF for this kernel (BTFHub, or bpftool gen min_core_btf at build time), for CO-RE",
					Price: "A file per kernel to ship; not enough for fentry and the like.",
				},
				{
					ID:    "btf-kernel",
					Title: "Run a kernel with CONFIG_DEBUG_INFO_BTF=y, or mount /sys into the container",
					Price: "A reboot; some MiB of kernel memory.",
				},
			},
			Match: matchNoBTF,
		},
		{
			ID:    "BTF004",
			Title: "The program's BTF, func_info or line_info does not fit the program",
			Class: "R2",
			Stage: load.BTF,
			Text: `Beside its instructions a program may carry records that give types to its functions and source lines to its instructions. They must be
sorted, start at the beginning of each function, and point to types and strings that exist. Tools that change instructions and not the records break
that; so do objects linked from parts. The BTF itself is named by a descriptor, which must be open (EBADF).`,
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
		},
		{
			ID:    "BTF005",
			Title: "The function or hook to attach to was not found",
			Class: "R5",
			Stage: load.BTF,
			Text: `fentry, fexit, LSM, freplace, iterator and struct_ops programs name their target when they are loaded. It is not in the kernel's BTF, has another
type, was inlined or renamed, or may not be attached to. Kprobes name theirs when they are attached, by perf_event_open(2) or a link.`,
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
		},
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

func matchBTFLoad(f *Facts) *Match {
	if f.kind() != load.BTFLoad || !f.failed() {
		return nil
	}
	switch f.errno() {
	case errEINVAL, errE2BIG, errENOENT, errERANGE, errEEXIST, errENOTSUPP, errEFAULT:
	default:
		return nil
	}
	m := &Match{Strength: Likely, How: load.Inferred, Cause: "The kernel does not accept this BTF."}
	if !f.words.empty() {
		m.Strength, m.How = Strong, load.Observed
		m.Cause = fmt.Sprintf("The kernel does not accept this BTF: %s", f.words.message)
		for _, l := range f.words.complaint {
			m.Evidence = append(m.Evidence, "the log says: "+l)
		}
	}
	return m
}

func matchNoBTF(f *Facts) *Match {
	if !f.isLoad() {
		return nil
	}
	if f.verifierReject() && (f.words.arg("config") == "CONFIG_DEBUG_INFO_BTF" || strings.Contains(f.words.message, "in-kernel BTF is malformed")) {
		m := f.verifierMatch()
		m.Cause = "The program needs the kernel's own BTF, and there is none."
		return m
	}
	if f.Node.BTF || f.Node.Release == "" || !f.words.empty() || f.verifierAccepted() || f.errno() != errEINVAL && f.errno() != errENOENT {
		return nil
	}
	if f.attrU32(attrAttachBTFID) == 0 && !f.hasKfuncCalls() {
		return nil
	}
	m := &Match{Strength: Likely, How: load.Inferred, Cause: "The program needs the kernel's own BTF, and there is none."}
	m.Evidence = append(m.Evidence, "/sys/kernel/btf/vmlinux does not exist, or is hidden here")
	m.Why = "the program needs kernel BTF, and /sys/kernel/btf/vmlinux was not found"
	return m
}

func matchBTFInfo(f *Facts) *Match {
	if !f.verifierReject() {
		return nil
	}
	if f.words.empty() {
		return matchBTFDescriptor(f)
	}
	if !f.words.is(verifierlog.BTFInfo) || globalFunction.MatchString(f.words.message) || f.before(5, 13) && matchCallback(f) != nil {
		return nil
	}
	m := f.verifierMatch()
	m.Cause = fmt.Sprintf("The program's BTF records do not fit its instructions: %s.", f.words.message)
	return m
}

const (
	attrAttachBTFID = 108
	maxBTFID        = 0x000fffff // BTF_MAX_TYPE
)

// matchBTFDescriptor judges EBADF of a program that comes with records: their
// BTF is named by a descriptor, as maps are.
func matchBTFDescriptor(f *Facts) *Match {
	const progBTFFD, funcInfoCnt, lineInfoCnt = 72, 88, 104
	if f.errno() != errEBADF || f.attrU32(funcInfoCnt) == 0 && f.attrU32(lineInfoCnt) == 0 && f.attrU32(progBTFFD) == 0 {
		return nil
	}
	m := &Match{Strength: Possible, How: load.Inferred}
	m.Evidence = append(m.Evidence, fmt.Sprintf("prog_btf_fd was %d, with %d records of functions and %d of lines", int32(f.attrU32(progBTFFD)), f.attrU32(funcInfoCnt), f.attrU32(lineInfoCnt)))
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

func matchAttachTarget(f *Facts) *Match {
	if f.isLoad() && f.errno() == errEINVAL && f.words.empty() && f.attrU32(attrAttachBTFID) > maxBTFID && !f.verifierAccepted() {
		return &Match{Strength: Strong, How: f.howRequest(),
			Cause:    "The program names a type of the kernel's BTF to attach to, by a number that no BTF has.",
			Evidence: []string{fmt.Sprintf("attach_btf_id was %d; types have numbers up to %d", f.attrU32(attrAttachBTFID), maxBTFID)}}
	}
	if !f.verifierReject() || !f.words.is(verifierlog.AttachTarget) {
		return nil
	}
	m := f.verifierMatch()
	m.Cause = fmt.Sprintf("The program cannot be attached where it wants to be: %s.", f.words.message)
	return m
}
