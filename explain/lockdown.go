// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"slices"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

// Lockdown takes helpers away.

// The helpers that lockdown takes away, by mode.
var (
	readHelpers  = []string{"bpf_probe_read", "bpf_probe_read_str", "bpf_probe_read_kernel", "bpf_probe_read_kernel_str"}
	writeHelpers = []string{"bpf_probe_write_user"}
)

// LockdownRule names the rule of a helper that lockdown takes away in this mode, "" for one that it
// leaves.
func LockdownRule(helper, mode string) string {
	switch {
	case slices.Contains(readHelpers, helper) && mode == "confidentiality":
		return "PERM003"
	case slices.Contains(writeHelpers, helper) && (mode == "confidentiality" || mode == "integrity"):
		return "PERM004"
	}
	return ""
}

// refusedHelper returns the helper that the verifier would not let the program
// call: by its words, or by the instruction where it stopped.
func (f *Facts) refusedHelper() (name string, byWords bool) {
	if f.words.is(verifierlog.HelperUnavailable) {
		return f.words.arg("name"), true
	}
	if i := f.ev.FailedInsn; f.words.empty() && f.errno() == abi.EINVAL && i >= 0 && i < len(f.ev.Insns) && f.cause(load.FnDoCheck) != nil {
		if in := f.ev.Insns[i]; in.IsHelperCall() {
			if h, ok := insn.HelperByID(int(in.Imm)); ok {
				return h.Name, false
			}
		}
	}
	return "", false
}

func perm003() Rule {
	return Rule{
		ID:    "PERM003",
		Title: "Lockdown (confidentiality): bpf_probe_read and bpf_probe_read_kernel are unknown func",
		Class: "R1",
		Stage: load.Permission,
		Text: `With lockdown=confidentiality, nobody may read kernel memory, not even
root. The verifier then acts as if bpf_probe_read, bpf_probe_read_kernel and their _str forms did
not exist. It says "unknown func bpf_probe_read_kernel", or on newer kernels "program of this type
cannot use helper". It looks as if the kernel were too old. The mode is set on the kernel's
command line (lockdown=confidentiality) or by the kernel's configuration. On some distributions,
Secure Boot sets it.`,
		Kernels: "Since 5.4.",
		Remedies: []load.Remedy{
			{
				ID:    "no-kernel-reads",
				Title: "Read kernel memory through BTF pointers (fentry, tp_btf), which the verifier checks. Read user memory with bpf_probe_read_user",
				Price: "A change of the program. It needs kernel BTF (5.5). A loader that replaces bpf_probe_read_kernel by bpf_probe_read does not help: both are locked.",
			},
			{
				ID:      "lockdown-integrity",
				Title:   "Boot the node with lockdown=integrity",
				Price:   "Root can read kernel memory again, including keys. It needs a reboot, and the consent of those who are responsible for the security of the node.",
				Command: "cat /sys/kernel/security/lockdown   # then boot with lockdown=integrity on the kernel's command line",
			},
		},
		Match: func(f *Facts) *Match { return matchLockdown(f, false) },
	}
}

func perm004() Rule {
	return Rule{
		ID:    "PERM004",
		Title: "Lockdown: bpf_probe_write_user is an unknown func",
		Class: "R1",
		Stage: load.Permission,
		Text: `With lockdown=integrity or confidentiality, a BPF program may not write to
the memory of processes. Many distributions switch integrity on with Secure Boot. Only the helper
bpf_probe_write_user is affected. The verifier says that it is unknown, or that this type of
program cannot use it.`,
		Kernels: "Since 5.14, and in stable kernels.",
		Remedies: []load.Remedy{
			{
				ID:    "no-user-writes",
				Title: "Do without bpf_probe_write_user: pass data by a map or a ring buffer, or patch the process by ptrace or a library",
				Price: "A change of the design. Instrumentation that rewrites requests in flight (trace context) loses that feature.",
			},
			{
				ID:    "feature-off",
				Title: "Make the feature optional in the loader, and leave the program out where lockdown is on",
				Price: "The feature is missing on such nodes.",
			},
		},
		Match: func(f *Facts) *Match { return matchLockdown(f, true) },
	}
}

//revive:disable-next-line:cyclomatic a case for each degree of certainty
func matchLockdown(f *Facts, write bool) *Match {
	if !f.isLoad() {
		return nil
	}
	helpers, mode := readHelpers, f.Node.Lockdown == "confidentiality"
	if write {
		helpers, mode = writeHelpers, f.Node.Lockdown == "confidentiality" || f.Node.Lockdown == "integrity"
	}
	span := f.failing(load.FnLockdown)
	name, byWords := f.refusedHelper()
	if !slices.Contains(helpers, name) {
		return nil
	}
	m := &Match{How: load.Inferred}
	switch {
	case span != nil:
		m.Strength, m.How = Certain, load.Observed
		m.Evidence = append(m.Evidence, fmt.Sprintf("security_locked_down returned %d (%s)", span.Ret, errnoName(-span.Ret)))
	case mode:
		m.Strength = Strong
	case !write && f.onlyLockdownTakes():
		m.Strength = Strong
		t, _ := f.progType()
		m.Evidence = append(m.Evidence, fmt.Sprintf("every kernel allows this helper to programs of type %s, unless lockdown is on", t))
	case f.text != nil && !write && byWords && f.namedTracing():
		m.Strength = Likely
	case f.Node.Lockdown == "":
		m.Strength = Possible
		m.Why = "whether the kernel is locked down is not known"
	default:
		return nil
	}
	if byWords {
		m.Evidence = append(m.Evidence, fmt.Sprintf("the verifier said: %s", f.words.message))
	} else {
		m.Evidence = append(m.Evidence, "the verifier stopped at "+f.at(f.ev.FailedInsn))
	}
	if f.Node.Lockdown != "" && (f.text == nil || f.text.own) {
		m.Evidence = append(m.Evidence, "/sys/kernel/security/lockdown was "+f.Node.Lockdown)
	}
	m.Cause = fmt.Sprintf("The kernel has %s, but lockdown hides it from every program.", name)
	if f.text != nil {
		m.Cause = fmt.Sprintf("The kernel has %s, since it knows the name. Lockdown in confidentiality mode hides it from every program; /sys/kernel/security/lockdown says whether it is on. A kernel without CONFIG_BPF_EVENTS shows it to none either.", name)
		m.Why = m.Cause
	}
	if f.text != nil && !f.text.own && mode {
		m.Cause = fmt.Sprintf("The kernel has %s, but lockdown hides it from every program: the text has the line of the kernel's log that says so.", name)
	}
	return m
}

// namedTracing reports a program that is called after a kind of tracing, whose programs have the
// helpers that read memory on every kernel that knows them. Text seldom tells more of the type.
func (f *Facts) namedTracing() bool {
	p := f.Attempt.Program
	return p != nil && tracingName.MatchString(p.Name)
}

var tracingName = lazyregexp.New(`(?i)^(?:trace_?)?(?:k(?:ret)?probe|u(?:ret)?probe|tracepoint|raw_tp|raw_tracepoint|tp_btf|fentry|fexit|kfunc)`)

// onlyLockdownTakes reports that nothing but lockdown, of which nothing is known, can keep the
// helpers that read memory from programs of this type: bpf_tracing_func_proto
// (kernel/trace/bpf_trace.c) has them without a condition, on machines that tell kernel and user
// addresses apart.
func (f *Facts) onlyLockdownTakes() bool {
	t, _ := f.progType()
	tracing := slices.Contains([]string{"kprobe", "tracepoint", "perf_event", "raw_tracepoint", "raw_tracepoint_writable", "tracing"}, t)
	return f.Node.Lockdown == "" && tracing && f.does(node.ProbeReadKernel) && slices.Contains([]string{"x86_64", "aarch64"}, f.Node.Machine)
}
