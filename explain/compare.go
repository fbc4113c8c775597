// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

// NodeCause is a difference between two nodes that explains why an attempt failed on one of them. A
// is the value on the node on which it failed.
type NodeCause struct {
	node.Difference
	Rule string `json:"rule"` // the diagnosis, or the alternative, that it explains
	// Sure: it follows from the attempt that this would not have stopped it on the other node.
	// Something else may.
	Sure    bool   `json:"sure"`
	Because string `json:"because"` // of this attempt
}

// Compare returns which differences between the node on which an attempt failed and another one
// explain the failure, the sure ones first. The attempt must carry its diagnosis. What the attempt
// itself saw of its node counts for more than the profile. Nil: no difference explains it.
func Compare(a *load.Attempt, here, there *node.Profile) []NodeCause {
	return compare(a, here, there, node.Diff)
}

// compare is Compare by differences that diff finds. It reads their keys and the two profiles, and
// no word of them.
//
//revive:disable-next-line:cyclomatic one pass over the differences, with what each may explain
func compare(a *load.Attempt, here, there *node.Profile, diff func(a, b *node.Profile) []node.Difference) []NodeCause {
	if a.Diagnosis == nil || here == nil || there == nil {
		return nil
	}
	saw := *here
	saw.Sysctls = maps.Clone(here.Sysctls)
	if saw.Sysctls == nil {
		saw.Sysctls = map[string]string{}
	}
	maps.Copy(saw.Sysctls, a.Evidence.Settings())
	if n, err := strconv.ParseUint(a.Evidence.Sysctls[load.JITUsed], 10, 64); err == nil {
		saw.JITUsed = &n
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
	for _, d := range withRules(diff(&saw, there), &saw, there) {
		for i, rule := range rules {
			if !d.LeadsTo(rule) {
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
//
//revive:disable-next-line:cyclomatic a case for each difference of nodes
func (c comparison) explains(rule string, d node.Difference) (relation, string) {
	a, b := c.here.Node, c.there.Node
	switch d.Key.Kind {
	case node.KindSetting:
		return c.setting(rule, d.Key.Of)
	case node.KindOption:
		had, has := a.Config[d.Key.Of], b.Config[d.Key.Of]
		switch {
		case d.Key.Of == alwaysOn && had == "y" && has == "n" && c.here.failed():
			return sure, "there the kernel has an interpreter to fall back to: the program would be loaded, not compiled"
		case d.Key.Of != alwaysOn && had == "n" && has != "n":
			return perhaps, d.Why + "; there it is built in"
		}
		return unrelated, ""
	case node.KindJITMemory:
		if full, ok := a.JITMemoryFull(); ok && full {
			return sure, "there the memory for compiled programs is not used up"
		}
		return unrelated, ""
	case node.KindLockdown:
		return c.lockdown()
	case node.KindRelease:
		return c.release(rule)
	case node.KindTypesOfKernel:
		return gains(typesOf(a), typesOf(b), "there the kernel has types")
	case node.KindMachine:
		return perhaps, "the JIT, and the names of functions, are those of another architecture"
	case node.KindCapabilities:
		return perhaps, "if the loader runs with the rights of the process that read the profile there"
	case node.KindUserNamespace:
		if b.Process.InitialUser {
			return perhaps, "if the loader runs in the user namespace of the process that read the profile there"
		}
		return unrelated, ""
	case node.KindSeccompMode:
		if b.Process.Seccomp != "filter" {
			return perhaps, "if the loader runs under the policy of the process that read the profile there: none"
		}
		return unrelated, ""
	case node.KindLockedMemory:
		if c.here.doesNot(node.ChargesNoMemlock) {
			return perhaps, "if the loader runs with the limit of the process that read the profile there"
		}
		return unrelated, ""
	case node.KindSecurityModules:
		return perhaps, "other security modules are asked there"
	}
	return c.explainsFeature(d)
}

// explainsFeature judges a difference in what was found by trying.
func (c comparison) explainsFeature(d node.Difference) (relation, string) {
	a, b := c.here.Node.Features, c.there.Node.Features
	switch d.Key.Kind {
	case node.KindHelper:
		return c.helper(d.Key.Of)
	case node.KindProgramType:
		if t, ok := c.here.progType(); ok && t == d.Key.Of {
			return gains(takes(a.Programs, t), takes(b.Programs, t), "there the kernel has programs of this type")
		}
		return unrelated, ""
	case node.KindMapType:
		if m := c.here.Attempt.Map; m != nil && m.Type == d.Key.Of {
			return gains(takes(a.Maps, m.Type), takes(b.Maps, m.Type), "there the kernel has maps of this type")
		}
		return unrelated, ""
	case node.KindInstructions:
		return c.instructions(d.Key.Of)
	}
	return perhaps, ""
}

const alwaysOn = "CONFIG_BPF_JIT_ALWAYS_ON"

// setting judges a sysctl that differs.
//
//revive:disable-next-line:cyclomatic one case for each setting that rules are about
func (c comparison) setting(rule, name string) (relation, string) {
	is, knownHere := c.here.Node.Sysctl(name)
	there, known := c.there.Node.Sysctl(name)
	switch name {
	case "net.core.bpf_jit_harden":
		return c.harden()
	case "net.core.bpf_jit_enable":
		switch {
		case known && there == 0 && strings.HasPrefix(rule, "BLIND"):
			return sure, "there nothing is compiled, and so nothing is blinded: the program would be interpreted"
		case knownHere && is == 0 && known && there != 0:
			return sure, "there programs are compiled"
		}
		return unrelated, ""
	case "net.core.bpf_jit_limit":
		return c.larger(name, "there the JIT may use more")
	case "net.core.optmem_max":
		return c.larger(name, "there a socket may use more")
	case "kernel.unprivileged_bpf_disabled":
		t, _ := c.here.progType()
		if known && there == 0 && (c.here.kind() == load.MapCreate || slices.Contains(openTypes, t)) {
			return sure, "there loaders without CAP_BPF may load this type"
		}
		return unrelated, ""
	}
	return perhaps, ""
}

// takes is whether a kernel was found to have one of its features.
func takes(features map[string]bool, name string) node.Answer {
	has, tried := features[name]
	if !tried {
		return node.Unknown
	}
	return node.Known(has)
}

// typesOf is whether a kernel has BTF.
func typesOf(p *node.Profile) node.Answer {
	if !p.BTF && p.Unknown["btf"] != "" {
		return node.Unknown
	}
	return node.Known(p.BTF)
}

// gains is for what is missing here: what is unknown there may explain it.
func gains(here, there node.Answer, why string) (relation, string) {
	switch {
	case here == node.Yes || there == node.No:
		return unrelated, ""
	case here == node.No && there == node.Yes:
		return sure, why
	}
	return perhaps, ""
}

func (c comparison) larger(name, why string) (relation, string) {
	here, known := c.here.Node.Sysctl(name)
	there, knownThere := c.there.Node.Sysctl(name)
	switch {
	case !known || !knownThere:
		return perhaps, ""
	case there > here:
		return perhaps, why
	}
	return unrelated, ""
}

// harden asks whether the same loader would be blinded there.
func (c comparison) harden() (relation, string) {
	v, ok := c.there.Node.Sysctl("net.core.bpf_jit_harden")
	on, known := c.there.blindingOn()
	switch {
	case !ok:
		return perhaps, "what it is there is not known"
	case !known:
		if c.there.Node.Does(node.HardenSparesCapBPF) == node.Unknown {
			return perhaps, "there loaders with CAP_BPF may be spared (from 6.1 on), or those with CAP_SYS_ADMIN alone"
		}
		return perhaps, "there loaders with CAP_BPF are not blinded; whether this one has it is not known"
	case on:
		return unrelated, ""
	}
	why := "there nothing is blinded, and the jump stays as short as it was written"
	if v == 1 {
		why = "there only loaders without CAP_BPF are blinded, and this one has it"
		if c.there.Node.Does(node.HardenSparesCapBPF) != node.Yes {
			why = "there loaders with CAP_SYS_ADMIN are not blinded, and this one has it"
		}
	}
	if on, _ := c.here.Node.JITAlwaysOn(); on {
		why += "; here it is, and there is no interpreter to fall back to (CONFIG_BPF_JIT_ALWAYS_ON)"
	}
	return sure, why
}

func (c comparison) lockdown() (relation, string) {
	there := c.there.Node.Lockdown
	name, _ := c.here.refusedHelper()
	read, write := slices.Contains(readHelpers, name), slices.Contains(writeHelpers, name)
	switch {
	case there == "" || name == "":
		return perhaps, ""
	case write && there == "none", read && there != "confidentiality":
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

func (c comparison) helper(name string) (relation, string) {
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

func (c comparison) instructions(what string) (relation, string) {
	wanted := ""
	if n, _, ok := c.here.newerInsn(); ok {
		wanted = n.set
	}
	if wanted != "" && wanted != what || wanted == "" && (what == "gotol" || what == "v2" || what == "v3" || what == "v4") {
		return unrelated, ""
	}
	r, why := gains(takes(c.here.Node.Features.Instructions, what), takes(c.there.Node.Features.Instructions, what), "there the kernel takes such instructions")
	if wanted == "" {
		r = min(r, perhaps)
	}
	return r, why
}

// release knows what began with one, and else that verifiers differ.
//
//revive:disable-next-line:cyclomatic a case for each rule that began with a release
func (c comparison) release(rule string) (relation, string) {
	if !c.here.kernelKnown || !c.there.kernelKnown {
		return perhaps, ""
	}
	// since is for what began with a release.
	since := func(what string, v insn.Version) (relation, string) {
		if c.there.before(v) || !c.here.before(v) {
			return unrelated, ""
		}
		return sure, fmt.Sprintf("%s: since %s", what, v)
	}
	began := func(what string, b node.Behaviour, since string) (relation, string) {
		if !c.there.does(b) || !c.here.doesNot(b) {
			return unrelated, ""
		}
		return sure, what + ": since " + since
	}
	switch rule {
	case "PERM007":
		return began("the limit of locked memory plays no part", node.ChargesNoMemlock, "5.11")
	case "PERM001":
		if c.here.hasBit(abi.CapSysAdmin) || !c.here.hasBit(abi.CapBPF) {
			return unrelated, ""
		}
		return began("CAP_BPF, which the loader has, is enough", node.SplitsCapabilities, "5.8")
	case "FEAT001":
		if h, ok := c.wantedHelper(); ok {
			return since("kernels have "+h.Name, h.Since)
		}
	case "FEAT004":
		if t, _ := c.here.progType(); t != "" {
			if v, ok := progTypeSince[t]; ok {
				return since("kernels have programs of type "+printable(t, 40), v)
			}
		}
	case "FEAT005":
		if v, ok := mapTypeSince[int(c.here.mapAttr().MapType)]; ok && c.here.kind() == load.MapCreate {
			return since("kernels have maps of this type", v)
		}
	case "FEAT008":
		if n, _, ok := c.here.newerInsn(); ok {
			return since("kernels take "+n.name, n.since)
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
