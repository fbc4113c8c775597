// SPDX-License-Identifier: Apache-2.0

package node

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Effect says what a difference does to loads.
type Effect string

// MayDecide: it would, but one of the values is not known, or it concerns the process that read the
// profile and not the node.
const (
	Decides   Effect = "decides"
	MayDecide Effect = "may_decide"
	Informs   Effect = "informs"
)

// Difference is one thing in which two nodes differ.
type Difference struct {
	Key    Key      `json:"-"`
	Name   string   `json:"name"` // "net.core.bpf_jit_harden", "lockdown", "helper bpf_loop"
	A      string   `json:"a"`    // "unknown" when it could not be read
	B      string   `json:"b"`
	Effect Effect   `json:"effect"`
	Rules  []string `json:"rules,omitempty"` // of the failures that it leads to: explain.Differences knows them
	Why    string   `json:"why,omitempty"`
	// Behaviours in which two releases differ.
	Behaviours []Behaviour `json:"-"`
}

// LeadsTo reports whether failures by a rule come of the difference: Rules holds it, or the three
// letters of its family.
func (d *Difference) LeadsTo(rule string) bool {
	return slices.ContainsFunc(d.Rules, func(r string) bool { return r == rule || len(r) == 3 && strings.HasPrefix(rule, r) })
}

const unknownValue = "unknown"

// Diff returns what two profiles differ in, what changes the fate of loads first. What is unknown
// on both is no difference.
func Diff(a, b *Profile) []Difference {
	d := &differ{a: a, b: b}
	d.hardening()
	d.rights()
	d.kernel()
	d.options()
	d.features()
	d.process()
	d.rest()
	rank := map[Effect]int{Decides: 0, MayDecide: 1, Informs: 2}
	slices.SortStableFunc(d.list, func(x, y Difference) int { return cmp.Compare(rank[x.Effect], rank[y.Effect]) })
	return d.list
}

type differ struct {
	a, b *Profile
	list []Difference
}

// add notes a difference if there is one. A value that is unknown on one side makes what would
// decide a maybe.
func (d *differ) add(x Difference) {
	x.A, x.B = cmp.Or(x.A, unknownValue), cmp.Or(x.B, unknownValue)
	if x.A == x.B {
		return
	}
	if x.Effect == Decides && (x.A == unknownValue || x.B == unknownValue) {
		x.Effect = MayDecide
	}
	d.list = append(d.list, x)
}

func (d *differ) sysctl(name string, e Effect, why string) {
	d.add(Difference{Key: Key{KindSetting, name}, Name: name, A: d.a.Sysctls[name], B: d.b.Sysctls[name], Effect: e, Why: why})
}

// hardening are the settings of the JIT.
func (d *differ) hardening() {
	const harden = "net.core.bpf_jit_harden"
	hard := d.a // the one that blinds more
	if value(d.b, harden) > value(d.a, harden) {
		hard = d.b
	}
	why := "2 blinds the constants of every program, 1 those of loaders without CAP_BPF (before 6.1: without CAP_SYS_ADMIN). A blinded program grows, and one with a long jump then "
	switch on, known := hard.JITAlwaysOn(); {
	case !known:
		why += "fails with 524, or is left to the interpreter where there is one"
	case on:
		why += fmt.Sprintf("fails with 524: %s has no interpreter", cmp.Or(hard.Release, unknownValue))
	default:
		why += "is loaded, but left to the interpreter (or fails with 524, on some kernels from 5.15 to 6.17)"
	}
	d.sysctl(harden, Decides, why)

	d.add(Difference{Key: Key{KindOption, "CONFIG_BPF_JIT_ALWAYS_ON"}, Name: "CONFIG_BPF_JIT_ALWAYS_ON", A: d.a.Config["CONFIG_BPF_JIT_ALWAYS_ON"], B: d.b.Config["CONFIG_BPF_JIT_ALWAYS_ON"], Effect: Decides,
		Why: "with y there is no interpreter: a program that cannot be compiled (blinding, JIT memory, an instruction that the JIT lacks) fails with 524; with n it is loaded and interpreted"})
	d.sysctl("net.core.bpf_jit_enable", Decides, "0 compiles nothing, and so blinds nothing: programs are interpreted, and those that need the JIT fail")

	fullA, _ := d.a.JITMemoryFull()
	fullB, _ := d.b.JITMemoryFull()
	if fullA != fullB {
		d.add(Difference{Key: Key{Kind: KindJITMemory}, Name: "JIT memory", A: memory(d.a), B: memory(d.b), Effect: Decides,
			Why: "where net.core.bpf_jit_limit is used up, loaders without CAP_BPF and seccomp filters fail with 524"})
	} else {
		d.sysctl("net.core.bpf_jit_limit", MayDecide, "loaders without CAP_BPF and seccomp filters fail with 524 when it is used up")
	}
}

// value is 0 for what is not known.
func value(p *Profile, name string) int64 {
	v, _ := p.Sysctl(name)
	return v
}

// JITMemoryFull reports whether compiled programs use nine tenths of net.core.bpf_jit_limit.
func (p *Profile) JITMemoryFull() (full, known bool) {
	limit, ok := p.Sysctl("net.core.bpf_jit_limit")
	if !ok || limit <= 0 || p.JITUsed == nil {
		return false, false
	}
	return *p.JITUsed >= uint64(limit)/10*9, true
}

func memory(p *Profile) string {
	limit, ok := p.Sysctl("net.core.bpf_jit_limit")
	if !ok || p.JITUsed == nil {
		return ""
	}
	return fmt.Sprintf("%d of %d bytes", *p.JITUsed, limit)
}

// rights are who may load what.
func (d *differ) rights() {
	d.sysctl("kernel.unprivileged_bpf_disabled", Decides, "only at 0 may loaders without CAP_BPF load anything; else bpf(2) answers EPERM")
	rank := map[string]int{"none": 0, "integrity": 1, "confidentiality": 2}
	if d.a.Lockdown != d.b.Lockdown {
		why := "confidentiality takes bpf_probe_read_kernel and its like away, which looks like an old kernel (EINVAL, unknown func); integrity and above take bpf_probe_write_user away"
		ra, okA := rank[d.a.Lockdown]
		rb, okB := rank[d.b.Lockdown]
		if okA && okB && max(ra, rb) == 1 {
			why = "integrity takes bpf_probe_write_user away (EINVAL, unknown func)"
		}
		if okA && okB && min(ra, rb) == 1 {
			why = "confidentiality takes bpf_probe_read_kernel and its like away, which looks like an old kernel (EINVAL, unknown func)"
		}
		d.add(Difference{Key: Key{Kind: KindLockdown}, Name: "lockdown", A: d.a.Lockdown, B: d.b.Lockdown, Effect: Decides, Why: why})
	}
	if only(d.a.LSMs, d.b.LSMs)+only(d.b.LSMs, d.a.LSMs) != "" || (len(d.a.LSMs) == 0) != (len(d.b.LSMs) == 0) {
		why := "a security module may refuse bpf(2) (EPERM, or EACCES from SELinux)"
		if len(d.a.LSMs) > 0 && len(d.b.LSMs) > 0 && slices.Contains(d.a.LSMs, "bpf") != slices.Contains(d.b.LSMs, "bpf") {
			why += "; without bpf in the list, LSM programs load and are never called"
		}
		effect := Informs
		for _, decisive := range []string{"selinux", "apparmor", "smack", "tomoyo", "bpf"} {
			if slices.Contains(d.a.LSMs, decisive) != slices.Contains(d.b.LSMs, decisive) {
				effect = MayDecide
			}
		}
		d.add(Difference{Key: Key{Kind: KindSecurityModules}, Name: "LSMs", A: strings.Join(d.a.LSMs, ","), B: strings.Join(d.b.LSMs, ","), Effect: effect, Why: why})
	}
	d.sysctl("kernel.perf_event_paranoid", MayDecide, "3 and 4 (Debian, Ubuntu) refuse perf_event_open even with CAP_PERFMON: kprobes and tracepoints then do not attach (EPERM), though programs load")
	d.sysctl("net.core.optmem_max", MayDecide, "a filter that does not fit is refused with ENOMEM (SO_ATTACH_FILTER)")
	d.sysctl("kernel.ftrace_enabled", MayDecide, "0 keeps fentry and ftrace-based kprobes from attaching")
}

// only returns what a has and b has not.
func only(a, b []string) string {
	var out []string
	for _, x := range a {
		if !slices.Contains(b, x) {
			out = append(out, x)
		}
	}
	return strings.Join(out, ",")
}

// turn is a behaviour of the kernel that makes loads end otherwise.
type turn struct {
	behaviour Behaviour
	why       string
}

var turns = []turn{
	{SplitsCapabilities, "before 5.8 loaders need CAP_SYS_ADMIN, since then CAP_BPF with CAP_PERFMON or CAP_NET_ADMIN"},
	{ChargesNoMemlock, "before 5.11 the memory of programs and maps counts against RLIMIT_MEMLOCK (EPERM)"},
	{MillionInstructions, "before 5.2 a program has at most 4096 instructions, and the verifier walks 130,000 steps, not a million"},
	{BoundedLoops, "before 5.3 loops are refused"},
	{FallbackInDoubt, "some kernels from 5.15 to 6.17 do not fall back to the interpreter when a program of one function cannot be compiled (524)"},
	{AlwaysFallsBack, "since 6.18 (and backports) kernels with an interpreter fall back to it when a program cannot be compiled"},
	{BlindsWholeProgram, "from 7.1 on a program with functions is blinded as a whole"},
	{ChecksWrap, "from 7.3 on, and 7.2.10, jumps that would wrap are noticed"},
}

// kernel compares releases and machines.
func (d *differ) kernel() {
	if d.a.Release != d.b.Release {
		x := Difference{Key: Key{Kind: KindRelease}, Name: "release", A: d.a.Release, B: d.b.Release, Effect: MayDecide,
			Why: "another verifier, other helpers and types; the younger one as a rule takes more"}
		var whys []string
		for _, t := range turns {
			if a, b := d.a.Does(t.behaviour), d.b.Does(t.behaviour); a != Unknown && b != Unknown && a != b {
				x.Behaviours = append(x.Behaviours, t.behaviour)
				whys = append(whys, t.why)
			}
		}
		switch {
		case len(whys) > 0:
			x.Effect, x.Why = Decides, strings.Join(whys, "; ")
		case SameRelease(d.a, d.b):
			x.Why = "another build of the same release, perhaps with other backports"
		}
		d.add(x)
	} else {
		d.add(Difference{Key: Key{Kind: KindVersion}, Name: "version", A: d.a.Version, B: d.b.Version, Effect: MayDecide,
			Why: "another build of the same release, perhaps with other backports"})
	}
	d.add(Difference{Key: Key{Kind: KindMachine}, Name: "machine", A: d.a.Machine, B: d.b.Machine, Effect: Decides,
		Why: "each architecture has a JIT of its own, with its own gaps (524), and other names for functions"})
	btf := func(p *Profile) string {
		switch {
		case p.BTF:
			return "yes"
		case p.Unknown["btf"] != "":
			return ""
		}
		return "no"
	}
	d.add(Difference{Key: Key{Kind: KindTypesOfKernel}, Name: "kernel BTF", A: btf(d.a), B: btf(d.b), Effect: Decides,
		Why: "without it there is no CO-RE, fentry or kernel function"})
	blind := func(p *Profile) string {
		switch {
		case p.Blinding == nil:
			return ""
		case p.Blinding.WholeProgram:
			return "whole program"
		}
		return "function by function"
	}
	if d.a.Blinding != nil && d.b.Blinding != nil {
		d.add(Difference{Key: Key{Kind: KindWayOfBlinding}, Name: "blinding", A: blind(d.a), B: blind(d.b), Effect: Informs,
			Why: "where functions are blinded one by one, a backward jump that is just too long may be compiled wrongly instead of refused"})
	}
}

// Options whose absence takes something away, and what.
var decidingOptions = []struct {
	name string
	why  string
}{
	{"CONFIG_BPF_SYSCALL", "without it there is no bpf(2) (ENOSYS)"},
	{"CONFIG_BPF_JIT", "without it programs are interpreted"},
	{"CONFIG_BPF_EVENTS", "without it there are no kprobe, tracepoint, perf_event and raw tracepoint programs"},
	{"CONFIG_BPF_LSM", "without it there are no LSM programs"},
	{"CONFIG_CGROUP_BPF", "without it there are no programs of control groups"},
	{"CONFIG_BPF_STREAM_PARSER", "without it there are no sockmaps and sk_skb programs"},
	{"CONFIG_NET_CLS_BPF", "without it classifiers do not attach"},
	{"CONFIG_LWTUNNEL_BPF", "without it there are no lwt programs"},
	{"CONFIG_XDP_SOCKETS", "without it there is no xskmap"},
	{"CONFIG_DEBUG_INFO_BTF", "without it the kernel has no BTF: no CO-RE, fentry or kernel function"},
	{"CONFIG_DEBUG_INFO_BTF_MODULES", "without it the types of modules are not known"},
	{"CONFIG_BPF_KPROBE_OVERRIDE", "without it there is no bpf_override_return"},
	{"CONFIG_KPROBES", "without it kprobes do not attach"},
	{"CONFIG_KPROBE_EVENTS", "without it kprobe programs have nothing to attach to"},
	{"CONFIG_UPROBE_EVENTS", "without it uprobes do not attach"},
	{"CONFIG_FPROBE", "without it there is no kprobe.multi"},
	{"CONFIG_FUNCTION_TRACER", "without it fentry does not attach"},
	{"CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS", "without it fentry does not attach"},
}

// options compares what is known on both: most kernels do not show their configuration, which is
// said once.
func (d *differ) options() {
	for _, name := range keys(d.a.Config, d.b.Config) {
		a, b := d.a.Config[name], d.b.Config[name]
		if name == "CONFIG_BPF_JIT_ALWAYS_ON" || a == "" || b == "" {
			continue
		}
		x := Difference{Key: Key{KindOption, name}, Name: name, A: a, B: b, Effect: Informs}
		for _, o := range decidingOptions {
			if o.name == name && (a == "n" || b == "n") { // m does what y does
				x.Effect, x.Why = Decides, o.why
			}
		}
		d.add(x)
	}
	whole := func(p *Profile) string {
		if len(p.Config) > 2 {
			return "known"
		}
		return "" // or derived from symbols, which tells one option
	}
	if whole(d.a) != whole(d.b) {
		d.add(Difference{Key: Key{Kind: KindConfiguration}, Name: "configuration", A: whole(d.a), B: whole(d.b), Effect: Informs, Why: d.whyUnknown("config")})
	}
}

// whyUnknown says why one of the two could not be read.
func (d *differ) whyUnknown(what string) string {
	for _, s := range []struct {
		side string
		p    *Profile
	}{{"A", d.a}, {"B", d.b}} {
		if why := s.p.Unknown[what]; why != "" {
			return "not read on " + s.side + ": " + why
		}
	}
	return ""
}

func keys[V any](a, b map[string]V) []string {
	all := slices.AppendSeq(slices.Collect(maps.Keys(a)), maps.Keys(b))
	slices.Sort(all)
	return slices.Compact(all)
}

func (d *differ) features() {
	a, b := d.a.Features, d.b.Features
	if a == nil || b == nil {
		if a != b {
			x := Difference{Key: Key{Kind: KindTried}, Name: "features", A: unknownValue, B: unknownValue, Effect: Informs, Why: "program types, map types and helpers can be compared only when both profiles come from 'bpfwhy node'"}
			if a != nil {
				x.A = "tried"
			} else {
				x.B = "tried"
			}
			d.add(x)
		}
		return
	}
	d.supported(KindProgramType, "program type ", a.Programs, b.Programs, "loading one gives EINVAL where it is not there")
	d.supported(KindMapType, "map type ", a.Maps, b.Maps, "creating one gives EINVAL where it is not there")
	d.supported(KindInstructions, "instructions ", a.Instructions, b.Instructions, "the verifier refuses what it does not know (EINVAL, unknown opcode)")

	// By helper: most differ for every type at once.
	type types struct{ a, b []string }
	helpers := map[string]*types{}
	for _, t := range keys(a.Helpers, b.Helpers) {
		ha, okA := a.Helpers[t]
		hb, okB := b.Helpers[t]
		if !okA || !okB {
			continue // the type itself differs, or could not be tried
		}
		for h := range minus(ha, hb) {
			at(helpers, h).a = append(at(helpers, h).a, t)
		}
		for h := range minus(hb, ha) {
			at(helpers, h).b = append(at(helpers, h).b, t)
		}
	}
	for _, h := range keys(helpers, nil) {
		x := Difference{Key: Key{KindHelper, h}, Name: "helper " + h, Effect: Decides, A: "no", B: "no",
			Why: "a program that calls it is refused where it is not there (EINVAL, unknown func)"}
		if t := helpers[h]; len(t.a) > 0 {
			x.A = "for " + strings.Join(t.a, ", ")
		}
		if t := helpers[h]; len(t.b) > 0 {
			x.B = "for " + strings.Join(t.b, ", ")
		}
		d.add(x)
	}
}

func at[V any](m map[string]*V, k string) *V {
	if m[k] == nil {
		m[k] = new(V)
	}
	return m[k]
}

func minus(a, b []string) map[string]bool {
	out := map[string]bool{}
	for _, x := range a {
		out[x] = true
	}
	for _, x := range b {
		delete(out, x)
	}
	return out
}

func (d *differ) supported(kind Kind, prefix string, a, b map[string]bool, why string) {
	value := func(m map[string]bool, k string) string {
		v, ok := m[k]
		switch {
		case !ok:
			return ""
		case v:
			return "yes"
		}
		return "no"
	}
	for _, k := range keys(a, b) {
		d.add(Difference{Key: Key{kind, k}, Name: prefix + k, A: value(a, k), B: value(b, k), Effect: Decides, Why: why})
	}
}

// process compares those who read the profiles: loaders may be others.
func (d *differ) process() {
	a, b := d.a.Process, d.b.Process
	if a == nil || b == nil {
		return
	}
	const whose = "of the processes that read the profiles; the loader's own rights decide: "
	var x, y []string
	for _, c := range []string{"CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_SYS_RESOURCE"} {
		ha, hb := slices.Contains(a.Capabilities, c), slices.Contains(b.Capabilities, c)
		if ha && !hb {
			x = append(x, c)
		} else if hb && !ha {
			y = append(y, c)
		}
	}
	if len(x)+len(y) > 0 {
		list := func(l []string) string {
			if len(l) == 0 {
				return "neither"
			}
			return strings.Join(l, ", ")
		}
		d.add(Difference{Key: Key{Kind: KindCapabilities}, Name: "capabilities", A: list(x), B: list(y), Effect: MayDecide,
			Why: whose + "a load without them gives EPERM"})
	}
	initial := map[bool]string{true: "the initial one", false: "another"}
	d.add(Difference{Key: Key{Kind: KindUserNamespace}, Name: "user namespace", A: initial[a.InitialUser], B: initial[b.InitialUser], Effect: MayDecide,
		Why: whose + "in another than the initial one, capabilities do not count for bpf(2) (EPERM)"})
	d.add(Difference{Key: Key{Kind: KindSeccompMode}, Name: "seccomp", A: a.Seccomp, B: b.Seccomp, Effect: MayDecide,
		Why: whose + "a filter may forbid bpf(2) (EPERM, before the kernel looks at the program)"})
	memlock := func(p *Process) string {
		if p.Memlock == nil {
			return "unlimited"
		}
		return fmt.Sprintf("%d bytes", *p.Memlock)
	}
	e := Informs
	if d.a.Does(ChargesNoMemlock) == No || d.b.Does(ChargesNoMemlock) == No {
		e = MayDecide
	}
	d.add(Difference{Key: Key{Kind: KindLockedMemory}, Name: "RLIMIT_MEMLOCK", A: memlock(a), B: memlock(b), Effect: e, Why: whose + "it counts before 5.11 only"})
}

// rest is what decides no load.
func (d *differ) rest() {
	d.sysctl("kernel.kptr_restrict", Informs, "2 hides addresses, and with them the code of blinded programs")
	for _, name := range []string{"kernel.dmesg_restrict", "kernel.bpf_stats_enabled", "net.core.bpf_jit_kallsyms"} {
		d.sysctl(name, Informs, "")
	}
	groups := func(p *Profile) string {
		switch {
		case p.Unknown["cgroups"] != "":
			return ""
		case p.CgroupV2 && p.CgroupV1:
			return "v2, memory on v1"
		case p.CgroupV2:
			return "v2"
		case p.CgroupV1:
			return "v1"
		}
		return "none mounted"
	}
	d.add(Difference{Key: Key{Kind: KindControlGroups}, Name: "cgroups", A: groups(d.a), B: groups(d.b), Effect: Informs, Why: "programs of control groups attach to v2 only"})
	d.add(Difference{Key: Key{Kind: KindDistribution}, Name: "distribution", A: d.a.Distro, B: d.b.Distro, Effect: Informs})
	container := func(p *Profile) string { return cmp.Or(p.Container, "no sign of one") }
	d.add(Difference{Key: Key{Kind: KindContainer}, Name: "container", A: container(d.a), B: container(d.b), Effect: Informs, Why: "of the processes that read the profiles"})
}
