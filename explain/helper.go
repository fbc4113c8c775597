// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

// Helpers.

func feat001() Rule {
	return Rule{
		ID:    "FEAT001",
		Title: "The kernel does not know the helper",
		Class: "R6",
		Stage: load.Verifier,
		Text: `The program calls a helper by a number that this kernel does not have
("invalid func unknown#N"). New helpers get new numbers, so the kernel is older than the helper.
Since 6.2, new functions are kfuncs, and there is no helper above 211. A higher number is not a helper. The program was damaged, or a CO-RE relocation failed (BTF001).`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			optionalFeature,
			newerKernel,
			{
				ID:    "check-object",
				Title: "If no kernel has that number, look for a call that was left unresolved or a patch that went wrong",
				Price: "Nothing.",
			},
		},
		Match: matchUnknownHelper,
	}
}

//revive:disable-next-line:cyclomatic what the words say, or else the failing call
func matchUnknownHelper(f *Facts) *Match {
	if !f.verifierReject() {
		return nil
	}
	said := f.words.is(verifierlog.HelperUnknown)
	id := -1
	switch i := f.ev.FailedInsn; {
	case said:
		id, _ = strconv.Atoi(f.words.arg("id"))
	case f.words.empty() && f.cause(load.FnDoCheck) != nil && f.errno() == abi.EINVAL && i >= 0 && i < len(f.ev.Insns) && f.ev.Insns[i].IsHelperCall():
		h, ok := insn.HelperByID(int(f.ev.Insns[i].Imm))
		if ok && (!f.kernelKnown || !f.before(h.Since)) {
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

func feat002() Rule {
	return Rule{
		ID:    "FEAT002",
		Title: "The helper is not for programs of this type",
		Class: "R6",
		Stage: load.Verifier,
		Text: `Each program type may call certain helpers ("unknown func bpf_NAME#N",
since about 6.8 "program of this type cannot use helper bpf_NAME#N"). Newer kernels allow more of
them. A missing capability and lockdown make the set smaller, and the words are the same. Without
CAP_BPF and CAP_PERFMON, most helpers are not allowed.`,
		Kernels: "All. Newer kernels allow more helpers.",
		Remedies: []load.Remedy{
			{
				ID:    "other-helper",
				Title: "Use a helper that this type has, or another program type",
				Price: "A change of the source.",
			},
			newerKernel,
		},
		Match: matchHelperForType,
	}
}

// perfmonHelpers are closed to every type without CAP_PERFMON.
var perfmonHelpers = []string{
	"bpf_trace_printk", "bpf_trace_vprintk", "bpf_get_current_task", "bpf_get_current_task_btf", "bpf_probe_read_user", "bpf_probe_read_kernel",
	"bpf_probe_read_user_str", "bpf_probe_read_kernel_str", "bpf_snprintf_btf", "bpf_snprintf", "bpf_task_pt_regs",
}

// NeedsPerfmon reports a helper that is closed to every type of programs without CAP_PERFMON.
func NeedsPerfmon(helper string) bool { return slices.Contains(perfmonHelpers, helper) }

//revive:disable-next-line:cyclomatic what else shrinks the set of helpers, one by one
func matchHelperForType(f *Facts) *Match {
	if !f.verifierReject() {
		return nil
	}
	name, byWords := f.refusedHelper()
	if name == "" && f.silentReject(abi.EINVAL) && f.cause(load.FnDoCheck) == nil {
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
		if known && f.before(h.Since) {
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
	case f.refineHelper(m, name):
	case f.missing(abi.CapPerfmon) || f.missing(abi.CapBPF):
		m.Cause += " The loader lacks " + capList(f.missingOf(abi.CapBPF, abi.CapPerfmon)) + ", without which most helpers are closed: with it, the type may well have this one."
		m.Evidence = append(m.Evidence, f.capsText())
	case f.text != nil && !f.ev.CapsKnown && slices.Contains(perfmonHelpers, name) && !slices.Contains(readHelpers, name):
		m.Strength = Likely
		m.Cause += " A loader without CAP_BPF and CAP_PERFMON gets the same words for this helper, whatever the type; so does every program on a kernel that is too old for it, or was built without CONFIG_BPF_EVENTS."
	case unsure:
		m.Strength = Likely
		m.Cause += " Lockdown, whose state is not known, would look the same."
	}
	return m
}

func feat003() Rule {
	return Rule{
		ID:    "FEAT003",
		Title: "The helper is for GPL-compatible programs only",
		Class: "R6",
		Stage: load.Verifier,
		Text: `Many helpers and kernel functions may be called only by programs with a
GPL-compatible licence ("GPL", "Dual BSD/GPL", and others). The licence is the string in the
section license of the object. It must be written exactly as the kernel knows it.`,
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
	}
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
	if t := f.words.arg("type"); t != "" {
		m.Cause = fmt.Sprintf("The program reads fields of the kernel's struct %s, as GPL-compatible programs only may do", printable(t, 60))
	} else if w := f.words.arg("what"); w != "" {
		m.Cause = fmt.Sprintf("%s programs must be GPL-compatible", printable(w, 20))
	}
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
