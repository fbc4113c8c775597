// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

// NodeCause is a difference between two nodes that explains why an attempt failed on one of them. A is the value on the node
// on which it failed.
type NodeCause struct {
	node.Difference
	Rule string `json:"rule"` // the diagnosis, or the alternative, that it explains
	// Sure: it follows from the attempt that this would not have stopped it on the other node. Something else may.
	Sure    bool   `json:"sure"`
	Because string `json:"because"` // of this attempt
}

// Compare returns which differences between the node on which an attempt failed and another one explain the failure, the
// sure ones first. The attempt must carry its diagnosis. What the attempt itself saw of its node counts for more than
// the profile. Nil: no difference explains it.
func Compare(a *load.Attempt, here, there *node.Profile) []NodeCause {
	if a.Diagnosis == nil || here == nil || there == nil {
		return nil
	}
	saw := *here
	saw.Sysctls = maps.Clone(here.Sysctls)
	if saw.Sysctls == nil {
		saw.Sysctls = map[string]string{}
	}
	maps.Copy(saw.Sysctls, a.Evidence.Sysctls)
	if n, err := strconv.ParseUint(saw.Sysctls[load.JITUsed], 10, 64); err == nil {
		saw.JITUsed = &n
	}
	delete(saw.Sysctls, load.JITUsed)
	if h := a.Evidence.Harden; h >= 0 {
		saw.Sysctls["net.core.bpf_jit_harden"] = strconv.Itoa(h)
	}
	c := comparison{here: newFacts(a, &saw), there: newFacts(a, there)}
	// On the other node the attempt's own observations do not hold.
	elsewhere := *a
	elsewhere.Evidence.Harden, elsewhere.Evidence.Sysctls, elsewhere.Evidence.BlindingAsked = -1, nil, nil
	c.there.Attempt, c.there.ev = &elsewhere, &elsewhere.Evidence

	rules := []string{a.Diagnosis.Rule}
	for _, o := range a.Diagnosis.Alternatives {
		rules = append(rules, o.Rule)
	}
	var out []NodeCause
	for _, d := range node.Diff(&saw, there) {
		for i, rule := range rules {
			if !slices.ContainsFunc(d.Rules, func(r string) bool { return r == rule || len(r) == 3 && strings.HasPrefix(rule, r) }) {
				continue
			}
			how, why := c.explains(rule, d)
			if how == unrelated {
				continue
			}
			// An alternative is itself only possible.
			out = append(out, NodeCause{Difference: d, Rule: rule, Sure: how == sure && i == 0, Because: why})
			break
		}
	}
	slices.SortStableFunc(out, func(x, y NodeCause) int {
		switch {
		case x.Sure == y.Sure:
			return 0
		case x.Sure:
			return -1
		}
		return 1
	})
	return out
}

type relation int

const (
	unrelated relation = iota
	perhaps
	sure
)

// comparison is an attempt as it ended on one node, and as the other would see it.
type comparison struct{ here, there *Facts }

// explains judges one difference that the rule depends on.
func (c comparison) explains(rule string, d node.Difference) (relation, string) {
	switch d.Name {
	case "net.core.bpf_jit_harden":
		return c.harden()
	case "CONFIG_BPF_JIT_ALWAYS_ON":
		if d.A == "y" && d.B == "n" && c.here.failed() {
			return sure, "there the kernel has an interpreter to fall back to: the program would be loaded, not compiled"
		}
		return unrelated, ""
	case "net.core.bpf_jit_enable":
		switch {
		case d.B == "0" && strings.HasPrefix(rule, "BLIND"):
			return sure, "there nothing is compiled, and so nothing is blinded: the program would be interpreted"
		case d.A == "0" && d.B != "0" && d.B != "unknown":
			return sure, "there programs are compiled"
		}
		return unrelated, ""
	case "JIT memory":
		if full, ok := used(c.here.Node); ok && full {
			return sure, "there the memory for compiled programs is not used up"
		}
		return unrelated, ""
	case "net.core.bpf_jit_limit":
		return c.larger(d, "there the JIT may use more")
	case "net.core.optmem_max":
		return c.larger(d, "there a socket may use more")
	case "kernel.unprivileged_bpf_disabled":
		t, _ := c.here.progType()
		if d.B == "0" && (c.here.kind() == load.MapCreate || slices.Contains(openTypes, t)) {
			return sure, "there loaders without CAP_BPF may load this type"
		}
		return unrelated, ""
	case "lockdown":
		return c.lockdown(d)
	case "release":
		return c.release(rule, d)
	case "kernel BTF":
		return c.gains(d, "there the kernel has types")
	case "machine":
		return perhaps, "the JIT, and the names of functions, are those of another architecture"
	case "capabilities":
		return perhaps, "if the loader runs with the rights of the process that read the profile there"
	case "user namespace":
		if d.B == "the initial one" {
			return perhaps, "if the loader runs in the user namespace of the process that read the profile there"
		}
		return unrelated, ""
	case "seccomp":
		if d.B != "filter" {
			return perhaps, "if the loader runs under the policy of the process that read the profile there: none"
		}
		return unrelated, ""
	case "RLIMIT_MEMLOCK":
		if c.here.before(5, 11) {
			return perhaps, "if the loader runs with the limit of the process that read the profile there"
		}
		return unrelated, ""
	case "LSMs":
		return perhaps, "other security modules are asked there"
	}
	switch kind, what := cutLast(d.Name); kind {
	case "helper":
		return c.helper(what, d)
	case "program type":
		if t, ok := c.here.progType(); ok && t == what {
			return c.gains(d, "there the kernel has programs of this type")
		}
		return unrelated, ""
	case "map type":
		if m := c.here.Attempt.Map; m != nil && m.Type == what {
			return c.gains(d, "there the kernel has maps of this type")
		}
		return unrelated, ""
	case "instructions":
		return c.instructions(what, d)
	}
	if strings.HasPrefix(d.Name, "CONFIG_") {
		if d.A == "n" && d.B != "n" {
			return perhaps, d.Why + "; there it is built in"
		}
		return unrelated, ""
	}
	return perhaps, ""
}

func cutLast(s string) (kind, what string) {
	i := strings.LastIndexByte(s, ' ')
	if i < 0 {
		return "", s
	}
	return s[:i], s[i+1:]
}

// gains is for what is missing here: what is unknown there may explain it.
func (comparison) gains(d node.Difference, why string) (relation, string) {
	switch {
	case d.A == "yes" || d.B == "no":
		return unrelated, ""
	case d.A == "no" && d.B == "yes":
		return sure, why
	}
	return perhaps, ""
}

func (comparison) larger(d node.Difference, why string) (relation, string) {
	a, errA := strconv.ParseInt(d.A, 10, 64)
	b, errB := strconv.ParseInt(d.B, 10, 64)
	switch {
	case errA != nil || errB != nil:
		return perhaps, ""
	case b > a:
		return perhaps, why
	}
	return unrelated, ""
}

func used(p *node.Profile) (full, known bool) {
	limit, ok := p.Sysctl("net.core.bpf_jit_limit")
	if !ok || limit <= 0 || p.JITUsed == nil {
		return false, false
	}
	return *p.JITUsed >= uint64(limit)/10*9, true
}

// harden asks whether the same loader would be blinded there.
func (c comparison) harden() (relation, string) {
	v, ok := c.there.Node.Sysctl("net.core.bpf_jit_harden")
	on, known := c.there.blindingOn()
	switch {
	case !ok:
		return perhaps, "what it is there is not known"
	case !known:
		return perhaps, "there loaders with CAP_BPF are not blinded; whether this one has it is not known"
	case on:
		return unrelated, ""
	}
	why := "there nothing is blinded, and the jump stays as short as it was written"
	if v == 1 {
		why = "there only loaders without CAP_BPF are blinded, and this one has it"
	}
	if on, _ := c.here.Node.JITAlwaysOn(); on {
		why += "; here it is, and there is no interpreter to fall back to (CONFIG_BPF_JIT_ALWAYS_ON)"
	}
	return sure, why
}

func (c comparison) lockdown(d node.Difference) (relation, string) {
	name, _ := c.here.refusedHelper()
	read, write := slices.Contains(readHelpers, name), slices.Contains(writeHelpers, name)
	switch {
	case d.B == "unknown" || name == "":
		return perhaps, ""
	case write && d.B == "none", read && d.B != "confidentiality":
		return sure, fmt.Sprintf("there lockdown does not keep programs from calling %s", name)
	}
	return unrelated, ""
}

// wantedHelper is the helper that a failed load asked for.
func (c comparison) wantedHelper() (insn.Helper, bool) {
	f := c.here
	if name, _ := f.refusedHelper(); name != "" {
		return insn.HelperByName(name)
	}
	if f.words.is(verifierlog.HelperUnknown) {
		id, _ := strconv.Atoi(f.words.arg("id"))
		return insn.HelperByID(id)
	}
	if i := f.failedInsn(); i >= 0 && i < len(f.ev.Insns) && f.ev.Insns[i].IsHelperCall() {
		return insn.HelperByID(int(f.ev.Insns[i].Imm))
	}
	return insn.Helper{}, false
}

func (c comparison) helper(name string, d node.Difference) (relation, string) {
	h, ok := c.wantedHelper()
	if !ok || h.Name != name || c.there.Node.Features == nil {
		return unrelated, ""
	}
	t, _ := c.here.progType()
	types, tried := c.there.Node.Features.Helpers[t]
	switch {
	case !tried:
		return perhaps, fmt.Sprintf("whether programs of type %s may call it there was not tried", printable(t, 40))
	case slices.Contains(types, name):
		return sure, fmt.Sprintf("there programs of type %s may call it", printable(t, 40))
	}
	return unrelated, ""
}

func (c comparison) instructions(what string, d node.Difference) (relation, string) {
	wanted := ""
	if name, slot := c.here.newerInsn(); slot >= 0 && name != "" {
		switch _, since := newerName(c.here.ev.Insns[slot]); {
		case c.here.ev.Insns[slot].Code == insn.OpcodeGotol:
			wanted = "gotol"
		case since == insn.Version{Major: 6, Minor: 6}:
			wanted = "v4"
		case since == insn.Version{Major: 5, Minor: 1}, since == insn.Version{Major: 5, Minor: 12}:
			wanted = "v3"
		}
	}
	if wanted != "" && wanted != what || wanted == "" && (what == "gotol" || what == "v2" || what == "v3" || what == "v4") {
		return unrelated, ""
	}
	r, why := c.gains(d, "there the kernel takes such instructions")
	if wanted == "" {
		r = min(r, perhaps)
	}
	return r, why
}

// release knows what began with one, and else that verifiers differ.
func (c comparison) release(rule string, d node.Difference) (relation, string) {
	if !c.here.kernelKnown || !c.there.kernelKnown {
		return perhaps, ""
	}
	// since is for what began with a release.
	since := func(what string, major, minor int) (relation, string) {
		switch {
		case c.there.before(major, minor) || !c.here.before(major, minor):
			return unrelated, ""
		}
		return sure, fmt.Sprintf("%s: since %d.%d", what, major, minor)
	}
	switch rule {
	case "PERM007":
		return since("the limit of locked memory plays no part", 5, 11)
	case "PERM001":
		if c.here.hasBit(capSysAdmin) || !c.here.hasBit(capBPF) {
			return unrelated, ""
		}
		return since("CAP_BPF, which the loader has, is enough", 5, 8)
	case "FEAT001":
		if h, ok := c.wantedHelper(); ok {
			return since("kernels have "+h.Name, h.Since.Major, h.Since.Minor)
		}
	case "FEAT004":
		if t, _ := c.here.progType(); t != "" {
			if v, ok := progTypeSince[t]; ok {
				return since("kernels have programs of type "+printable(t, 40), v[0], v[1])
			}
		}
	case "FEAT005":
		if v, ok := mapTypeSince[int(c.here.attrU32(attrMapType))]; ok && c.here.kind() == load.MapCreate {
			return since("kernels have maps of this type", v[0], v[1])
		}
	case "FEAT008":
		if name, slot := c.here.newerInsn(); slot >= 0 && name != "" {
			_, v := newerName(c.here.ev.Insns[slot])
			return since("kernels take "+name, v.Major, v.Minor)
		}
	case "BLIND001":
		if on, known := c.here.Node.JITAlwaysOn(); known && !on {
			return perhaps, "both may blind it; not every kernel then refuses to fall back to its interpreter, as this one did"
		}
		return unrelated, ""
	case "BLIND002", "BLIND003":
		return unrelated, "" // they blind alike
	}
	if c.there.kernel == c.here.kernel {
		return perhaps, "another build of the same release"
	}
	if strings.HasPrefix(rule, "VER") {
		return perhaps, "it has another verifier"
	}
	return perhaps, ""
}
