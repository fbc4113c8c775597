// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

func jitRules() []Rule {
	return []Rule{
		{
			ID:    "JIT001",
			Title: "The memory for compiled programs is used up (net.core.bpf_jit_limit)",
			Class: "R7",
			Stage: load.JIT,
			Text: `All compiled BPF programs of a node share a budget, net.core.bpf_jit_limit. A loader with CAP_BPF may go over it, others may
not: for them compilation fails, and the load with it, or the program is interpreted.

This is why containers suffer for what agents do. A container's seccomp filter, and a socket filter of tcpdump or of a DHCP client, is
classic BPF that the kernel compiles too. It never calls bpf(2), and it is charged without privilege. When a privileged agent leaks programs, or
when the kernel leaks filters (fixed in 6.1.2, 6.0.16, 5.15.86), nothing happens to the agent: the next container fails with "error loading
seccomp filter: errno 524" and stays in ContainerCreating.

A program that is interpreted for want of room need not work: ` + jitOnlyText,
			Kernels: "All with a JIT. The default limit doubled in 6.3 and in stable kernels since.",
			Remedies: []load.Remedy{
				{
					ID:      "find-owner",
					Title:   "Find who holds the programs: count them by name and by process, and mend or restart the leaking loader",
					Price:   "Restarting an agent interrupts what it does; its programs go when it and their pins are gone.",
					Command: "bpftool prog show | grep -o ' name [^ ]*' | sort | uniq -c | sort -rn | head",
				},
				{
					ID:    "update-kernel",
					Title: "Move to a kernel with the leak fixed (6.1.2, 6.0.16, 5.15.86 or newer)",
					Price: "A reboot. Only where seccomp filters themselves leaked.",
				},
				{
					ID:      "raise-limit",
					Title:   "Raise net.core.bpf_jit_limit",
					Price:   "A stop-gap: it uses more kernel memory, and a leak will reach the new limit too.",
					Command: "sysctl -w net.core.bpf_jit_limit=$((2 * $(sysctl -n net.core.bpf_jit_limit)))",
				},
				{
					ID:    "grant-bpf",
					Title: "Give the loader CAP_BPF, which is exempt from the limit",
					Price: "A privilege: such a loader can fill kernel memory. Not for containers whose seccomp filter fails.",
				},
			},
			Match: matchJITLimit,
		},
		{
			ID:    "JIT002",
			Title: "The machine's JIT could not compile the program",
			Class: "R9",
			Stage: load.JIT,
			Text: `The verifier accepted the program, but the compiler for this architecture gave up on it: an instruction that it does not
implement, a jump or a program too long for the machine's own instructions, or no memory. Without an interpreter the load fails with ENOTSUPP
(524); with one the program is interpreted. JITs of 32-bit machines lack the most; OpenSSH's sandbox on 32-bit ARM is the known victim. The
reason, when there is one, stands in the kernel's log alone.

A program that is interpreted then need not work: ` + jitOnlyText,
			Kernels: "All; rare on x86-64 and arm64.",
			Remedies: []load.Remedy{
				{
					ID:      "kernel-log",
					Title:   "Read the kernel's log at the time of the load, for lines that begin with bpf_jit",
					Price:   "Nothing, but not every JIT says why.",
					Command: "dmesg | grep -i bpf_jit",
				},
				{
					ID:    "lower-mcpu",
					Title: "Build for an older instruction set (-mcpu=v2 or v1), or make the program smaller",
					Price: "A rebuild; more instructions for the same work.",
				},
				{
					ID:    "newer-kernel",
					Title: "Try a newer kernel: JITs learn the missing instructions over time",
					Price: "A reboot, and no promise.",
				},
			},
			Match: matchJITArch,
		},
		{
			ID:    "JIT003",
			Title: "The JIT is switched off or not built in",
			Class: "R9",
			Stage: load.JIT,
			Text: `net.core.bpf_jit_enable is 0, or the kernel was built without CONFIG_BPF_JIT or has no compiler for this machine. Every
program is interpreted: it works and is several times slower, and programs that need machine code (kernel functions, trampolines) do not load.
Two kinds do not work on some kernels and may crash the machine: programs with may_goto from 6.15 on, and outside x86 those that ask for the processor
or the task (bpf_get_smp_processor_id, bpf_get_current_task), from 6.10 on until the kernel has f1c27922576e.`,
			Kernels: "Kernels without CONFIG_BPF_JIT_ALWAYS_ON.",
			Remedies: []load.Remedy{
				{
					ID:      "enable-jit",
					Title:   "Switch the JIT on",
					Price:   "Compiled code in kernel memory, which is what bpf_jit_harden is there for. Programs loaded before stay interpreted.",
					Command: "sysctl -w net.core.bpf_jit_enable=1",
				},
			},
			Match: matchJITOff,
		},
		{
			ID:    "JIT004",
			Title: "The program was not compiled, for a reason that was not seen",
			Class: "R9",
			Stage: load.JIT,
			Text: `The kernel returned a file descriptor for a program that it had not compiled. It works, many times slower, and runs in an
interpreter that hardened nodes do not want; one that uses callbacks, kernel functions or tail calls below other functions is refused ("not allowed in
non-JITed programs"). Blinding (BLIND003), the JIT's memory limit (JIT001), a JIT that is off (JIT003) and one that gave up
(JIT002) look the same from outside.

Not every program works: ` + jitOnlyText,
			Kernels: "Kernels without CONFIG_BPF_JIT_ALWAYS_ON.",
			Remedies: []load.Remedy{
				watchWithHooks,
				{
					ID:      "kernel-log",
					Title:   "Read the kernel's log at the time of the load, for lines that begin with bpf_jit",
					Price:   "Nothing, but not every JIT says why.",
					Command: "dmesg | grep -i bpf_jit",
				},
			},
			Match: func(f *Facts) *Match {
				if f.fellBack() {
					m := f.verifierMatch()
					m.Strength, m.How = Likely, load.Inferred
					m.Cause = "The program was not compiled, and it uses what the interpreter cannot do; what kept the JIT from it was not seen."
					return m
				}
				if !f.unjited() {
					return nil
				}
				return &Match{Strength: Likely, How: load.Inferred, Cause: "The program was loaded without being compiled; what kept the JIT from it was not seen."}
			},
			generic: true,
		},
	}
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
	if !f.failed() || f.errno() != errENOTSUPP || !f.words.empty() {
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
		m.Cause += " Who installs the filter only meets the problem: the room is held by the programs of others, as a rule of a privileged agent that leaks them."
	}
	if f.unjited() {
		m.Cause += " The kernel fell back to its interpreter and said nothing."
	}
	if !f.kernelKnown || f.since(6, 2) {
		m.Without = append(m.Without, "update-kernel")
	}
	return m
}

// exemptFromJITLimit reports a loader that may go over the limit.
func (f *Facts) exemptFromJITLimit() bool { return f.holds(capBPF) }

// jitMemory is what the JIT held near the attempt, or else when the node was looked at, and what it may hold, in bytes.
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
		m.Evidence = append(m.Evidence, "bpf_int_jit_compile gave the program back un-jited, and nothing below it was seen to fail")
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
		m.Cause += " The kernel fell back to its interpreter and said nothing."
	}
	return m
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
