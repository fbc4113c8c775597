// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

func jitRules() []Rule {
	return []Rule{jit001(), jit002(), jit003(), jit004()}
}

// compileFailed reports an attempt that may have died in the JIT: a program or
// filter that came back with ENOTSUPP, or un-jited.
func (f *Facts) compileFailed() bool {
	if f.unjited() {
		return true
	}
	if f.fellBack() {
		return true
	}
	if !f.failed() || f.errno() != abi.ENOTSUPP || !f.words.empty() {
		return false
	}
	return f.kind() == load.ProgLoad || f.isClassic()
}

// fellBack reports a load that the kernel wanted to hand to its interpreter
// after the JIT had failed, and that uses what only compiled code can do.
func (f *Facts) fellBack() bool {
	return f.isLoad() && slices.ContainsFunc(f.words.complaint, func(line string) bool {
		return verifierlog.Classify(line).Kind == verifierlog.NeedsJIT &&
			(strings.Contains(line, "non-JITed") || strings.Contains(line, "requires BPF JIT"))
	})
}

// insideJIT reports that what was seen to fail failed in the JIT or in the
// blinding before it.
func (f *Facts) insideJIT() bool {
	for _, fn := range []load.Function{load.FnBlind, load.FnJIT, load.FnJITSubprogs, load.FnSelect} {
		if f.cause(fn) != nil {
			return true
		}
	}
	return false
}

// spanOf returns a failing execution of fn that decided the attempt. Where the
// kernel falls back to its interpreter, the parents do not fail.
func (f *Facts) spanOf(fn load.Function) *load.Span {
	if s := f.cause(fn); s != nil {
		return s
	}
	if f.unjited() {
		return f.failing(fn)
	}
	return nil
}

func jit001() Rule {
	return Rule{
		ID:    "JIT001",
		Title: "Out of JIT memory: net.core.bpf_jit_limit is reached",
		Class: "R7",
		Stage: load.JIT,
		Text: jitOnlyText + `All compiled BPF programs of a node share one memory limit,
net.core.bpf_jit_limit. A loader with CAP_BPF may exceed it. For others, the program cannot be
compiled. Then the load fails, or the program is interpreted.

This is why containers fail because of agents. The seccomp filter of a container is classic BPF,
and the kernel compiles it too. So are the socket filters of tcpdump and of DHCP clients. They are
loaded without bpf(2), and count as unprivileged. If a privileged agent leaks programs, or if the
kernel leaks filters (fixed in 6.1.2, 6.0.16, 5.15.86), the agent does not notice. But the next
container fails with "error loading seccomp filter: errno 524", and stays in ContainerCreating.`,
		Kernels: "All with a JIT. The default limit doubled in 6.3 and in stable kernels since.",
		Remedies: []load.Remedy{
			{
				ID:      "find-owner",
				Title:   "Find the process that holds the programs: count them by name. Then fix or restart the loader that leaks them",
				Price:   "A restart interrupts the work of the agent. Its programs are freed when the process and its pins are gone.",
				Command: "bpftool prog show | grep -o ' name [^ ]*' | sort | uniq -c | sort -rn | head",
			},
			{
				ID:    "update-kernel",
				Title: "Use a kernel in which the leak is fixed (6.1.2, 6.0.16, 5.15.86 or newer)",
				Price: "A reboot. It helps only if seccomp filters themselves leaked.",
			},
			{
				ID:      "raise-limit",
				Title:   "Raise net.core.bpf_jit_limit",
				Price:   "Only for a while. It uses more kernel memory, and a leak will reach the new limit too.",
				Command: "sysctl -w net.core.bpf_jit_limit=$((2 * $(sysctl -n net.core.bpf_jit_limit)))",
			},
			{
				ID:    "grant-bpf",
				Title: "Give the loader CAP_BPF. The limit does not apply to it",
				Price: "Such a loader can fill kernel memory. This does not help containers whose seccomp filter fails.",
			},
		},
		grants: map[string][]int{"grant-bpf": {abi.CapBPF}},
		Match:  matchJITLimit,
	}
}

//revive:disable-next-line:cyclomatic a case for each degree of certainty
func matchJITLimit(f *Facts) *Match {
	s := f.spanOf(load.FnModmem)
	if s == nil && !f.compileFailed() {
		return nil
	}
	m := &Match{How: load.Inferred}
	switch used, limit, known := f.jitMemory(); {
	case s != nil:
		m.Strength, m.How = Certain, load.Observed
		m.Evidence = append(m.Evidence, fmt.Sprintf("bpf_jit_charge_modmem returned %d (%s)", s.Ret, errnoName(-s.Ret)))
		f.addJITMemory(m)
	case f.exemptFromJITLimit(), f.spanOf(load.FnPatch) != nil, f.spanOf(load.FnBlind) != nil, f.jitIsOff():
		return nil
	case known && used >= limit/100*95:
		m.Strength = Strong
		f.addJITMemory(m)
	case known && used < limit/2:
		m.Strength = Possible
		m.Why = "the loader is not exempt from the JIT's memory limit; little of it was in use when that was last read"
		f.addJITMemory(m)
	case f.isClassic():
		m.Strength = Likely
		f.addJITMemory(m)
	default:
		m.Strength = Possible
		if f.ev.CapsKnown {
			m.Strength = Likely
		}
		m.Why = "the loader is not known to be exempt from the JIT's memory limit"
		f.addJITMemory(m)
	}
	if t := f.capsText(); t != "" && !f.isClassic() {
		m.Evidence = append(m.Evidence, t)
	}
	what := "program"
	if f.isClassic() {
		what = "filter"
		m.Without = append(m.Without, "grant-bpf")
	}
	m.Cause = fmt.Sprintf("There is no room left under net.core.bpf_jit_limit to compile this %s, and its loader is not exempt from the limit.", what)
	if f.kind() == load.Seccomp {
		m.Cause += " The process that installs the filter is not the cause: other programs use the memory, often those of a privileged agent that leaks them."
	}
	if f.unjited() {
		m.Cause += " The kernel silently fell back to its interpreter."
	}
	if !f.kernelKnown || f.does(node.FreesFailedForks) {
		m.Without = append(m.Without, "update-kernel")
	}
	return m
}

// exemptFromJITLimit reports a loader that may go over the limit.
func (f *Facts) exemptFromJITLimit() bool { return f.holds(abi.CapBPF) }

// jitMemory is what the JIT held near the attempt, or else when the node was looked at, and what it
// may hold, in bytes.
func (f *Facts) jitMemory() (used, limit uint64, known bool) {
	l, ok := f.sysctl("net.core.bpf_jit_limit")
	if !ok || l <= 0 {
		return 0, 0, false
	}
	if n, err := strconv.ParseUint(strings.TrimSpace(f.ev.Sysctls[load.JITUsed]), 10, 64); err == nil {
		return n, uint64(l), true
	}
	if f.Node.JITUsed == nil {
		return 0, 0, false
	}
	return *f.Node.JITUsed, uint64(l), true
}

func (f *Facts) addJITMemory(m *Match) {
	if used, limit, known := f.jitMemory(); known {
		m.Evidence = append(m.Evidence, fmt.Sprintf("compiled programs took %d of %d bytes of net.core.bpf_jit_limit", used, limit))
	} else if l, ok := f.sysctl("net.core.bpf_jit_limit"); ok {
		m.Evidence = append(m.Evidence, fmt.Sprintf("net.core.bpf_jit_limit was %d bytes; how much was in use is not known", l))
	}
}

func (f *Facts) jitIsOff() bool {
	if v, ok := f.sysctl("net.core.bpf_jit_enable"); ok && v == 0 {
		return true
	}
	return f.Node.Config["CONFIG_BPF_JIT"] == "n"
}

// Machines whose JITs implement the whole instruction set.
var fullJIT = []string{"x86_64", "aarch64", "arm64", "s390x", "riscv64", "ppc64le", "loongarch64"}

func jit002() Rule {
	return Rule{
		ID:    "JIT002",
		Title: "The machine's JIT could not compile the program",
		Class: "R9",
		Stage: load.JIT,
		Text: jitOnlyText + `The verifier accepted the program, but the JIT of this architecture could
not compile it. It may not know an instruction. A jump, or the whole program, may be too long for
the machine's own instructions. Or there was no memory. Without an interpreter, the load fails
with ENOTSUPP (524). With an interpreter, the program is interpreted.

JITs of 32-bit machines lack the most instructions. The sandbox of OpenSSH on 32-bit ARM is a
known case. If the JIT gives a reason, it is only in the kernel's log.`,
		Kernels: "All. Rare on x86-64 and arm64.",
		Remedies: []load.Remedy{
			{
				ID:      "kernel-log",
				Title:   "Read the kernel's log at the time of the load, for lines that begin with bpf_jit",
				Price:   "Not every JIT gives a reason.",
				Command: "dmesg | grep -i bpf_jit",
			},
			{
				ID:    "lower-mcpu",
				Title: "Build for an older instruction set (-mcpu=v2 or v1), or make the program smaller",
				Price: "A rebuild. The same work takes more instructions.",
			},
			{
				ID:    "newer-kernel",
				Title: "Try a newer kernel. JITs get missing instructions over time",
				Price: "A reboot, and it may not help.",
			},
		},
		Match: matchJITArch,
	}
}

//revive:disable-next-line:cyclomatic a case for each degree of certainty
func matchJITArch(f *Facts) *Match {
	s := f.spanOf(load.FnJIT)
	if !f.compileFailed() || f.jitIsOff() {
		return nil
	}
	if f.spanOf(load.FnPatch) != nil || f.spanOf(load.FnBlind) != nil || f.spanOf(load.FnModmem) != nil {
		return nil
	}
	m := &Match{How: load.Inferred}
	full := slices.Contains(fullJIT, f.Node.Machine)
	blindingOut := f.blindingExcluded()
	switch {
	case s != nil && s.Unjited:
		m.Strength = Likely
		m.Evidence = append(m.Evidence, "bpf_int_jit_compile returned the program un-jited, and no failure was seen below it")
		if f.exemptFromJITLimit() && blindingOut {
			m.Strength, m.How = Strong, load.Observed
		}
	case f.Node.Machine != "" && !full:
		m.Strength = Likely
	case f.exemptFromJITLimit() && blindingOut:
		m.Strength = Likely
		m.Evidence = append(m.Evidence, f.capsText())
	default:
		m.Strength = Possible
	}
	if f.Node.Machine != "" {
		m.Evidence = append(m.Evidence, "the machine is "+printable(f.Node.Machine, 32))
	}
	m.Cause = "The JIT of this machine gave up on the program."
	m.Why = "the JIT of this machine may lack an instruction that the program uses; the kernel's log would say so"
	if f.unjited() {
		m.Cause += " The kernel silently fell back to its interpreter."
	}
	return m
}

func jit003() Rule {
	return Rule{
		ID:    "JIT003",
		Title: "The JIT is switched off or not built in",
		Class: "R9",
		Stage: load.JIT,
		Text: `An interpreted program may crash the machine when it runs, on some kernels.
From 6.15 on, these are programs with may_goto. Outside x86, from 6.10 on, these are programs that
call bpf_get_smp_processor_id or bpf_get_current_task, unless the kernel has f1c27922576e.

net.core.bpf_jit_enable is 0, or the kernel was built without CONFIG_BPF_JIT, or it has no JIT for
this machine. Every program is interpreted. Other programs work, but several times slower. Programs
that need machine code (kernel functions, trampolines) do not load.`,
		Kernels: "Kernels without CONFIG_BPF_JIT_ALWAYS_ON.",
		Remedies: []load.Remedy{
			{
				ID:      "enable-jit",
				Title:   "Switch the JIT on",
				Price:   "There is then compiled code in kernel memory. bpf_jit_harden protects it. Programs that are loaded already stay interpreted.",
				Command: "sysctl -w net.core.bpf_jit_enable=1",
			},
		},
		Match: matchJITOff,
	}
}

func matchJITOff(f *Facts) *Match {
	if !f.unjited() && !f.fellBack() || !f.jitIsOff() {
		return nil
	}
	m := &Match{Strength: Strong, How: load.Inferred, Cause: "The kernel compiles no program at all, and runs all of them in its interpreter."}
	if v, ok := f.sysctl("net.core.bpf_jit_enable"); ok && v == 0 {
		m.Evidence = append(m.Evidence, "net.core.bpf_jit_enable was 0")
	}
	if f.Node.Config["CONFIG_BPF_JIT"] == "n" {
		m.Evidence = append(m.Evidence, "the kernel was built without CONFIG_BPF_JIT")
		m.Without = append(m.Without, "enable-jit")
	}
	return m
}

func jit004() Rule {
	return Rule{
		ID:    "JIT004",
		Title: "The program was not compiled (not JITed), and bpfwhy did not see why",
		Class: "R9",
		Stage: load.JIT,
		Text: jitOnlyText + `The kernel returned a file descriptor for a program that it had not
compiled. Programs without such instructions work, but many times slower. Hardened nodes do not
want the interpreter. A program with callbacks, kernel functions, or tail calls below other functions is refused ("not
allowed in non-JITed programs").

Several reasons look the same from outside: blinding (BLIND003), the memory limit of the JIT
(JIT001), a JIT that is switched off (JIT003), and a JIT that could not compile the program
(JIT002).`,
		Kernels: "Kernels without CONFIG_BPF_JIT_ALWAYS_ON.",
		Remedies: []load.Remedy{
			watchWithHooks,
			{
				ID:      "kernel-log",
				Title:   "Read the kernel's log at the time of the load, for lines that begin with bpf_jit",
				Price:   "Not every JIT gives a reason.",
				Command: "dmesg | grep -i bpf_jit",
			},
		},
		Match: func(f *Facts) *Match {
			if f.fellBack() {
				m := f.verifierMatch()
				m.Strength, m.How = Likely, load.Inferred
				m.Cause = "The program was not compiled, and it uses something that the interpreter cannot do. No hook saw why the JIT did not compile it."
				f.uncompiled(m)
				return m
			}
			if !f.unjited() {
				return nil
			}
			return &Match{Strength: Likely, How: load.Inferred, Cause: "The program was loaded without being compiled. No hook saw why the JIT did not compile it."}
		},
		generic: true,
	}
}
