// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/node"
)

// need answers one need, with the programs that have it.
func (j judge) need(x *need) Line {
	l := Line{}
	switch x.kind {
	case programType:
		l = j.programType(x.of)
		l.Need = "program:" + cmp.Or(x.of, "?")
	case mapType:
		l = j.mapType(x.of)
		l.Need = "map:" + x.of
	case helper:
		l = j.helper(x.of, x.progType, len(x.users) > 0)
		l.Need = "helper:" + x.of
		if x.progType != "" {
			l.Need += " for " + x.progType
		}
	case instruction:
		l = j.instruction(x.progType, x.since)
		l.Need = "instructions: " + x.of
	case capabilities:
		l = j.capabilities(x.of)
		l.Need = "capabilities for " + cmp.Or(x.of, "programs of a type that is not known")
	case word:
		all := slices.Concat(features, ofObjects)
		i := slices.IndexFunc(all, func(f feature) bool { return f.word == x.of })
		l = all[i].judge(j)
		l.Need = x.of
	}
	l.For = x.users
	if x.doubt != "" && l.Verdict == Fail {
		l.Verdict = Warn
		l.Why += ". But " + x.doubt
	}
	return l
}

// untried says why something was not tried.
func (j judge) untried(keys ...string) Line {
	for _, k := range keys {
		if why := j.Unknown[k]; why != "" {
			return unknown(why)
		}
	}
	if j.Features == nil {
		return unknown("no load could be tried (see \"loads work\")")
	}
	return unknown("it was not tried")
}

// came reports whether the kernel is of a release or later. That of a vendor who takes later BPF
// over does not tell that something is missing.
func (j judge) came(v insn.Version) node.Answer {
	a := j.Reached(v.Major, v.Minor)
	if a == node.No && j.Backports() {
		return node.Unknown
	}
	return a
}

// tooOld is for what the kernel's release tells that it lacks.
func (j judge) tooOld(rule, what string, v insn.Version) Line {
	return fail(rule, fmt.Sprintf("%s came with %s, and this kernel is %s", what, v, j.Release))
}

func (j judge) programType(t string) Line {
	if t == "" {
		return unknown("the section's name does not say the type; the agent's loader does")
	}
	if f := j.Features; f != nil {
		switch has, tried := f.Programs[t]; {
		case has:
			return pass("tried: the kernel has the type")
		case tried:
			return fail("FEAT004", "tried: the kernel has no programs of type "+t)
		}
	}
	if v, ok := explain.ProgramTypeSince(t); ok && j.came(v) == node.No {
		return j.tooOld("FEAT004", "the type "+t, v)
	}
	return j.untried("program type " + t)
}

func (j judge) mapType(t string) Line {
	if f := j.Features; f != nil {
		switch has, tried := f.Maps[t]; {
		case has:
			return pass("tried: the kernel has the type")
		case tried:
			return fail("FEAT005", "tried: the kernel has no maps of type "+t)
		}
	}
	n := uint32(1)
	for ; n < uint32(abi.MapTypes) && abi.MapTypeName(n) != t; n++ {
	}
	if v, ok := explain.MapTypeSince(n); ok && j.came(v) == node.No {
		return j.tooOld("FEAT005", "the map type "+t, v)
	}
	return j.untried("map type " + t)
}

// helper is for programs of a type. ofProgram: one without a type is of one that is not known.
func (j judge) helper(name, progType string, ofProgram bool) Line {
	h, ok := insn.HelperByName(name)
	if !ok {
		return fail("FEAT001", "no kernel has a helper with this "+name)
	}
	if rule := explain.LockdownRule(name, j.Lockdown); rule != "" {
		return fail(rule, "lockdown is at "+j.Lockdown+", which takes this helper away")
	}
	if progType == "" {
		return j.anyHelper(h, ofProgram)
	}
	if j.Features != nil {
		may, tried := j.Features.Helpers[stand(progType)]
		switch {
		case slices.Contains(may, name) && stand(progType) == progType:
			return pass("tried: programs of this type may call it")
		case slices.Contains(may, name):
			return pass("tried with raw_tracepoint, whose helpers programs of type " + progType + " have too")
		case j.Unknown["helper "+name] != "":
			return unknown(j.Unknown["helper "+name])
		case tried && stand(progType) == progType:
			return j.refused(h, progType)
		}
	}
	if j.came(h.Since) == node.No {
		return j.tooOld("FEAT001", name, h.Since)
	}
	return j.untried("helpers of "+progType, "program type "+progType, "helpers")
}

// anyHelper is for a helper without a type of programs.
func (j judge) anyHelper(h insn.Helper, ofProgram bool) Line {
	if j.Features != nil {
		var types []string
		for _, t := range slices.Sorted(maps.Keys(j.Features.Helpers)) {
			if slices.Contains(j.Features.Helpers[t], h.Name) {
				types = append(types, t)
			}
		}
		switch {
		case len(types) > 0 && ofProgram:
			return unknown("the type of the program is not known. Programs of type " + some(types) + " may call it")
		case len(types) > 0:
			return pass("tried: programs of type " + some(types) + " may call it")
		}
	}
	if j.came(h.Since) == node.No {
		return j.tooOld("FEAT001", h.Name, h.Since)
	}
	return j.untried("helper "+h.Name, "helpers")
}

// refused is for a helper that the kernel was asked for, and refused.
func (j judge) refused(h insn.Helper, progType string) Line {
	why := "tried: programs of type " + progType + " may not call it here"
	switch q := j.Process; {
	case j.came(h.Since) == node.No:
		return j.tooOld("FEAT001", h.Name, h.Since)
	case q != nil && explain.NeedsPerfmon(h.Name) && !q.Has("CAP_PERFMON"):
		return fail("PERM001", why+": this process has no CAP_PERFMON")
	case q != nil && !q.Has("CAP_BPF"):
		return fail("PERM001", why+": this process has no CAP_BPF, without which most helpers are refused")
	}
	return fail("FEAT002", why)
}

// instruction is for one of a set, or of none.
func (j judge) instruction(set string, since insn.Version) Line {
	if j.Features != nil && set != "" {
		first, _ := firstOf(set)
		switch takes, tried := j.Features.Instructions[set]; {
		case tried && !takes:
			return fail("FEAT008", "tried: the kernel does not take instructions of "+set)
		case takes && since == first:
			return pass("tried: the kernel takes them")
		}
	}
	switch j.came(since) {
	case node.Yes:
		return pass("kernels have it since " + since.String() + ", and this one is " + j.Release)
	case node.No:
		return j.tooOld("FEAT008", "it", since)
	}
	return j.untried("instructions " + set)
}

// set is for what is tried, and told by its release where it could not be.
func (j judge) set(name string, b node.Behaviour) Line {
	if j.Features != nil {
		switch takes, tried := j.Features.Instructions[name]; {
		case takes:
			return pass("tried: the kernel takes them")
		case tried:
			return fail("FEAT008", "tried: the kernel refuses them")
		}
	}
	if b != "" {
		return j.behaviour(b)
	}
	if v, ok := firstOf(name); ok && name != "gotol" && j.came(v) == node.No { // Debian took gotol over
		return j.tooOld("FEAT008", "the set", v)
	}
	return j.untried("instructions " + name)
}

// behaviour is for a row of node's table.
func (j judge) behaviour(b node.Behaviour) Line {
	seen := "the release of the kernel tells (" + j.Release + ")"
	if p, ok := j.Proven[b]; ok {
		seen = p.Seen
	}
	switch j.Does(b) {
	case node.Yes:
		return pass(seen)
	case node.No:
		return fail("FEAT008", "the kernel has it not: "+seen)
	}
	return unknown("the release does not tell (" + cmp.Or(j.Release, "no release") + ")")
}

// link is for a way of attaching that only the release tells of.
func (j judge) link(what string, b node.Behaviour) Line {
	since := b.Since()
	switch j.Does(b) {
	case node.Yes:
		return pass("kernels have " + what + " since " + since.String() + ", and this one is " + j.Release)
	case node.No:
		return j.tooOld("ATT002", what, since)
	}
	return unknown("the release does not tell (" + cmp.Or(j.Release, "no release") + ")")
}

// built is for what the kernel's configuration decides.
func (j judge) built(rule, what string, options ...string) Line {
	for _, o := range options {
		if j.Config[o] == "n" {
			return fail(rule, "this kernel was built without "+o)
		}
	}
	for _, o := range options {
		if j.Config[o] == "" {
			return unknown("whether the kernel was built with " + o + ", for " + what + ": its configuration could not be read")
		}
	}
	return pass("the kernel was built with " + strings.Join(options, ", "))
}

func (j judge) kprobe() Line {
	return worst(j.way(Kprobe, "ATT109", j.built("ATT109", "kprobes", "CONFIG_KPROBES", "CONFIG_KPROBE_EVENTS")), j.perfEvent())
}

// way is for a way of attaching. What was tried counts for more than what tells by the way.
func (j judge) way(w Way, rule string, told Line) Line {
	switch reason, tried := j.tried[w]; {
	case !tried:
		return told
	case reason != "":
		return fail(rule, "tried: "+reason)
	}
	return pass("tried: it works")
}

// tracepoint is for programs that are attached by the number of a tracepoint, which tracefs has.
func (j judge) tracepoint() Line {
	return worst(j.way(Tracefs, "ATT103", unknown("whether tracefs is mounted")), j.perfEvent())
}

func (j judge) uprobe() Line {
	rights := pass("this process has CAP_SYS_ADMIN, which stable kernels may ask for")
	if q := j.Process; q == nil || !q.Has("CAP_SYS_ADMIN") {
		switch j.Does(node.UprobeNeedsSysAdmin) {
		case node.Yes:
			rights = fail("PERM012", "this kernel asks for CAP_SYS_ADMIN for a uprobe by a perf event, and this process has it not")
		case node.Unknown:
			rights = unknown("this kernel may ask for CAP_SYS_ADMIN for a uprobe, and this process has it not").explained("PERM012", "")
		default:
			rights = pass("this kernel asks for no CAP_SYS_ADMIN")
		}
	}
	return worst(j.built("ATT109", "uprobes", "CONFIG_UPROBE_EVENTS"), rights, j.perfEvent())
}

// perfEvent is for what is attached by perf_event_open(2). Above 2, Debian and Ubuntu ask for
// CAP_SYS_ADMIN.
func (j judge) perfEvent() Line {
	const paranoid = "kernel.perf_event_paranoid"
	v, ok := j.Sysctl(paranoid)
	switch q := j.Process; {
	case q != nil && q.Has("CAP_SYS_ADMIN"):
		return pass("this process has CAP_SYS_ADMIN")
	case !ok:
		return j.unread(paranoid)
	case v > 2:
		return warn("PERM011", fmt.Sprintf("%s is %d, for which some kernels ask for CAP_SYS_ADMIN, and this process has it not", paranoid, v))
	}
	return pass(fmt.Sprintf("%s is %d", paranoid, v))
}

func (j judge) kprobeMulti() Line {
	return worst(j.link("kprobe.multi", node.KprobeMulti), j.built("ATT002", "kprobe.multi", "CONFIG_FPROBE"))
}

func (j judge) uprobeMulti() Line {
	return worst(j.link("uprobe.multi", node.UprobeMulti), j.built("ATT002", "uprobe.multi", "CONFIG_UPROBE_EVENTS"))
}

func (j judge) fentry() Line {
	// A kernel that has it may refuse it all the same, so that its release proves nothing.
	told := worst(j.trampoline(), j.built("BTF005", "fentry", "CONFIG_FUNCTION_TRACER"), unknown("it was not tried here"))
	return worst(j.kernelBTF(), j.way(Fentry, "", told))
}

// trampoline is for programs that are called from functions of the kernel.
func (j judge) trampoline() Line {
	switch where := "kernels " + j.Release + " on " + cmp.Or(j.Machine, "this machine"); j.Does(node.TrampolinesOnKernel) {
	case node.Yes:
		return pass(where + " can attach them")
	case node.No:
		return fail("FEAT007", where+" cannot attach programs to functions of the kernel")
	}
	return unknown("the release does not tell whether such programs can be attached")
}

func (j judge) lsm() Line {
	list := unknown(cmp.Or(j.Unknown["lsms"], "the list of security modules was not read"))
	switch {
	case slices.Contains(j.LSMs, "bpf"):
		list = pass("bpf is among the security modules")
	case len(j.LSMs) > 0:
		list = Line{Verdict: Fail, Why: "bpf is not among the security modules (" + strings.Join(j.LSMs, ", ") + "), so no LSM program is ever called",
			Do: "Add bpf to lsm= on the kernel's command line, and reboot"}
	}
	return worst(j.kernelBTF(), j.trampoline(), j.built("FEAT004", "LSM programs", "CONFIG_BPF_LSM"), list)
}

func (j judge) kernelBTF() Line {
	switch {
	case j.BTF:
		return pass("/sys/kernel/btf/vmlinux is there")
	case j.Profile.Unknown["btf"] != "":
		return unknown(j.Profile.Unknown["btf"])
	}
	l := fail("BTF003", "there is no /sys/kernel/btf/vmlinux: the kernel has no BTF, or the container does not see /sys")
	return l.explained("BTF003", "btf-kernel")
}

// core is for CO-RE relocations: loaders can have the types from elsewhere.
func (j judge) core() Line {
	l := j.kernelBTF()
	if l.Verdict == Fail {
		l = warn("BTF003", l.Why+". The agent loads only if it brings types of its own for this kernel")
	}
	return l
}

// kfuncs are functions of the kernel that a program calls by name.
func (j judge) kfuncs() Line {
	if l := j.kernelBTF(); l.Verdict != Pass {
		return l
	}
	if j.Does(node.Kfuncs) == node.No {
		return j.tooOld("FEAT006", "calls of kernel functions", node.Kfuncs.Since())
	}
	return unknown("whether this kernel has the functions (kfuncs) that the programs call was not looked up")
}

func (j judge) cgroup() Line {
	if j.CgroupV2 {
		return pass("cgroup2 is mounted")
	}
	return fail("ATT201", "cgroup2 is mounted nowhere that this process sees")
}

// worst is the weightiest of several lines.
func worst(lines ...Line) Line {
	return slices.MaxFunc(lines, func(a, b Line) int { return cmp.Compare(a.Verdict.weight(), b.Verdict.weight()) })
}

// some names the first few of a list.
func some(list []string) string {
	const few = 4
	if len(list) <= few {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:few], ", "), len(list)-few)
}
