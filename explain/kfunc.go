// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

// Kernel functions.

func feat006() Rule {
	return Rule{
		ID:    "FEAT006",
		Title: "The kernel function (kfunc) does not exist here, or not for this program",
		Class: "R6",
		Stage: load.Verifier,
		Text: `The kernel finds kernel functions by name, in its own BTF and in the BTF
of its modules. They are registered for certain program types. They are not a stable interface:
they are added, removed and changed. A module must be loaded before its functions can be used.
Some need CAP_BPF, a sleepable program or a GPL licence.`,
		Kernels: "Since 5.13. Widely used since 6.2.",
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
			newerKernel,
		},
		Match: matchKfunc,
	}
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
	if m.Cause != "" {
		return m
	}
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
	if f.errno() != abi.EINVAL && f.errno() != abi.ENOENT && f.errno() != abi.EACCES && f.errno() != abi.EBADF {
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

func feat007() Rule {
	return Rule{
		ID:    "FEAT007",
		Title: "The JIT of this machine cannot call kernel functions (kfuncs)",
		Class: "R9",
		Stage: load.Verifier,
		Text: `Calls of kernel functions need machine code, and support in the JIT of the
architecture. x86-64 has it since 5.13, arm64 since about 6.1, others later or never. Otherwise
the verifier refuses the program with ENOTSUPP, 524.`,
		Kernels:  "Depends on the architecture.",
		Remedies: []load.Remedy{optionalFeature, newerKernel},
		Match:    matchKfuncJIT,
	}
}

//revive:disable-next-line:cyclomatic errno, words and program must agree, each checked
func matchKfuncJIT(f *Facts) *Match {
	if !f.verifierReject() || f.errno() != abi.ENOTSUPP && f.errno() != abi.EOPNOTSUPP {
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
		if f.jitIsOff() || f.Node.Machine != "" && f.Node.Machine != "x86_64" && !(f.Node.Machine == "aarch64" && f.does(node.KfuncsOnArm64)) {
			m.Strength = Likely
		}
	}
	m.Cause = "The program calls kernel functions, which the JIT of this machine cannot do."
	return m
}
