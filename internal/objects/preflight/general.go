// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/node"
)

// Settings that lines are about.
const (
	harden       = "net.core.bpf_jit_harden"
	enable       = "net.core.bpf_jit_enable"
	limit        = "net.core.bpf_jit_limit"
	unprivileged = "kernel.unprivileged_bpf_disabled"
)

func (l Line) about(need string) Line { l.Need = need; return l }

// general are the lines that every agent needs. What a need says better is left out.
func (j judge) general(h Host, n *Needs) []Line {
	lines := []Line{j.loads(h).about("loads work"), j.jit().about("programs are compiled")}
	if h.Others != "" {
		lines = append(lines, warn(h.OthersRule, h.Others).about("loads of others come back"))
	}
	if len(n.objects) == 0 {
		lines = append(lines, j.hardening().about("constant blinding"))
	}
	if !n.has(capabilities, "") {
		lines = append(lines, j.rights().about("capabilities"))
	}
	lines = append(lines, j.memory().about("JIT memory"), j.memlock().about("locked memory"), j.lockdown().about("lockdown"))
	if !n.has(word, "kernel-btf") && !n.has(word, "co-re") {
		l := j.kernelBTF()
		if l.Verdict == Fail {
			l = warn("BTF003", l.Why)
		}
		lines = append(lines, l.about("kernel BTF"))
	}
	return lines
}

// has reports a need of a kind; of may be "", for any.
func (n *Needs) has(k kind, of string) bool {
	return slices.ContainsFunc(n.list, func(x need) bool { return x.kind == k && (of == "" || x.of == of) })
}

// loads is whether the simplest program loads.
func (j judge) loads(h Host) Line {
	why := j.Unknown["features"]
	switch q := j.Process; {
	case h.Hangs != "":
		return fail(h.HangRule, h.Hangs)
	case j.Features != nil:
		return pass("the simplest program loads")
	case why == "":
		return unknown("no load was tried")
	case q == nil || !q.Has("CAP_BPF"):
		l := unknown(why + ". This process has no CAP_BPF, so nothing could be tried")
		l.Do = "Run the preflight with the rights of the agent: the same securityContext, or as root"
		return l
	case q.Seccomp == "filter":
		return fail("PERM006", why+". This process has CAP_BPF, and a seccomp policy")
	default:
		l := fail("", why+". This process has CAP_BPF")
		l.Do = "Let bpfwhy watch a load, which says what refused it"
		l.Command = "bpfwhy watch"
		return l
	}
}

func (j judge) jit() Line {
	v, ok := j.Sysctl(enable)
	switch {
	case !ok:
		return j.unread(enable)
	case v == 0:
		return warn("JIT003", enable+" is 0: nothing is compiled, and programs are interpreted")
	}
	return pass(fmt.Sprintf("%s is %d", enable, v))
}

func (j judge) unread(setting string) Line {
	why := j.Unknown[setting]
	if why == "" {
		why = "it was not read"
	}
	l := unknown(setting + ": " + why)
	l.Do = "Run the preflight as root with CAP_SYS_ADMIN, in the host's network namespace"
	return l
}

// hardening is for agents of whose programs nothing is known.
func (j judge) hardening() Line {
	v, ok := j.Sysctl(harden)
	switch {
	case !ok:
		return j.unread(harden)
	case v == 0:
		return pass(harden + " is 0")
	}
	who := "every program is"
	if v == 1 {
		who = "programs of loaders without the right capabilities are"
	}
	l := Line{Verdict: Warn, Rule: "BLIND001", Why: fmt.Sprintf("%s is %d: %s blinded, and those with long jumps may not load", harden, v, who)}
	l.Do = "Name the agent's object or executable, to know for its programs"
	l.Command = "bpfwhy doctor --preflight FILE"
	return l
}

func (j judge) rights() Line {
	q := j.Process
	if q == nil {
		return unknown("the rights of this process were not read")
	}
	if !q.InitialUser {
		return j.otherNamespace()
	}
	var have, missing []string
	for _, c := range []string{"CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"} {
		if q.Has(c) {
			have = append(have, c)
		} else {
			missing = append(missing, c)
		}
	}
	if missing == nil {
		return pass("this process has " + strings.Join(have, ", "))
	}
	return warn("PERM001", "this process has no "+strings.Join(missing, ", ")+". Tracing programs need CAP_BPF and CAP_PERFMON, network programs CAP_BPF and CAP_NET_ADMIN")
}

// otherNamespace is for a user namespace of its own, where capabilities do not count.
func (j judge) otherNamespace() Line {
	const why = "this process is in a user namespace of its own (hostUsers: false), where capabilities do not count for bpf(2)"
	if j.Does(node.UserNamespaceTokens) == node.No {
		return fail("PERM001", why)
	}
	l := warn("PERM001", why+", unless the agent has a BPF token. That is not known")
	l.Unknown = true
	return l
}

func (j judge) memory() Line {
	full, known := j.Profile.JITMemoryFull()
	size, sized := j.Sysctl(limit)
	switch {
	case !known && sized && j.JITUsed == nil:
		l := unknown("how much is in use is for root to read")
		return l
	case !known:
		return j.unread(limit)
	case full:
		return warn("JIT001", fmt.Sprintf("compiled programs use %d of the %d bytes of %s. Loads without CAP_BPF, and the seccomp filters of containers, are about to fail", *j.JITUsed, size, limit))
	}
	return pass(fmt.Sprintf("%d MiB of %d MiB are in use", *j.JITUsed>>20, size>>20))
}

// memlock decides before 5.11.
func (j judge) memlock() Line {
	q := j.Process
	switch charges := j.Does(node.ChargesNoMemlock); {
	case charges == node.Yes:
		return pass("RLIMIT_MEMLOCK does not count on this kernel")
	case q == nil:
		return unknown("the limits of this process were not read")
	case q.Memlock == nil:
		return pass("RLIMIT_MEMLOCK is unlimited")
	case charges == node.Unknown:
		return unknown(fmt.Sprintf("RLIMIT_MEMLOCK is %d bytes, and the release does not tell whether it counts", *q.Memlock))
	}
	return warn("PERM007", fmt.Sprintf("RLIMIT_MEMLOCK is %d bytes, and counts on this kernel: the agent must raise it", *q.Memlock))
}

func (j judge) lockdown() Line {
	switch reads := j.Features != nil && slices.Contains(j.Features.Helpers["kprobe"], "bpf_probe_read_kernel"); j.Lockdown {
	case "":
		if reads {
			return pass("tried: programs may read kernel memory, so it is not at confidentiality")
		}
		return unknown(cmp.Or(j.Unknown["lockdown"], "it was not read"))
	case "none":
		return pass("lockdown is off")
	case "integrity":
		return pass("lockdown is at integrity, which takes only bpf_probe_write_user away")
	}
	return warn("PERM003", "lockdown is at "+j.Lockdown+": programs may not read kernel memory (bpf_probe_read_kernel)")
}

// capabilities is for programs of a type.
func (j judge) capabilities(progType string) Line {
	q := j.Process
	switch {
	case q == nil:
		return unknown("the rights of this process were not read")
	case progType == "":
		return unknown("what the programs need depends on their type")
	case !q.InitialUser:
		return j.otherNamespace()
	}
	needed := explain.Capabilities(progType, j.Profile)
	if needed == nil {
		return j.openType(q)
	}
	var names, missing []string
	for _, c := range needed {
		names = append(names, node.Capability(c))
		if !q.Has(node.Capability(c)) {
			missing = append(missing, node.Capability(c))
		}
	}
	switch {
	case missing != nil:
		return fail("PERM001", "this process lacks "+strings.Join(missing, " and ")+". Give the preflight the rights of the agent, or this says nothing of it")
	case j.Does(node.SplitsCapabilities) == node.Unknown && !q.Has("CAP_SYS_ADMIN"):
		return unknown("before 5.8 CAP_SYS_ADMIN is needed, and the release does not tell")
	}
	return pass("this process has " + strings.Join(names, ", "))
}

// openType is for the types that need no capability where unprivileged BPF is on.
func (j judge) openType(q *node.Process) Line {
	if q.Has("CAP_BPF") {
		return pass("this process has CAP_BPF")
	}
	v, ok := j.Sysctl(unprivileged)
	switch {
	case !ok:
		return j.unread(unprivileged)
	case v != 0:
		return fail("PERM002", fmt.Sprintf("this process lacks CAP_BPF, and %s is %d", unprivileged, v))
	}
	return warn("PERM009", "this process lacks CAP_BPF. It may load such programs, but the verifier is stricter with them")
}
