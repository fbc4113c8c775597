// SPDX-License-Identifier: Apache-2.0

package node

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/insn"
)

// Answer is what is known of a kernel's behaviour.
type Answer int

// Unknown: the kernel is not known, or a backport may be there and nothing tells.
const (
	Unknown Answer = iota
	No
	Yes
)

func (a Answer) String() string { return [...]string{"unknown", "no", "yes"}[a] }

// Known is the answer that something gave that tells for certain.
func Known(does bool) Answer {
	if does {
		return Yes
	}
	return No
}

// Does reports whether the kernel behaves so. What was proven on it beats what its own types tell,
// and those beat the table of releases.
func (p *Profile) Does(b Behaviour) Answer {
	if proof, ok := p.Proven[b]; ok {
		return Known(proof.Does)
	}
	switch {
	case b == BlindsWholeProgram && p.Blinding != nil:
		return Known(p.Blinding.WholeProgram)
	case b == RefusesJITOnly && p.Interpreter != nil:
		return Known(p.Interpreter.Refuses)
	}
	return p.Dated(b)
}

// Dated is what the table says of the kernel's release and machine, whatever was seen of it.
func (p *Profile) Dated(b Behaviour) Answer {
	k, ok := p.kernel()
	rows := rowsOf(b)
	if machine := rows[0].machine; machine != "" && p.Machine != "" {
		i := slices.IndexFunc(rows, func(r row) bool { return r.machine == p.Machine })
		if i < 0 {
			return No
		}
		rows = rows[i : i+1]
	}
	if !ok {
		return Unknown
	}
	a := rows[0].of(k)
	if len(rows) > 1 && slices.ContainsFunc(rows, func(r row) bool { return r.of(k) != No }) {
		return Unknown // it depends on the machine
	}
	return a
}

// Since is the mainline release that first had the behaviour on any machine. It is for tables that
// list it beside others, and for texts: to judge a kernel, ask Does.
func (b Behaviour) Since() insn.Version {
	first := rowsOf(b)[0].since
	for _, r := range rowsOf(b)[1:] {
		if r.since.before(first) {
			first = r.since
		}
	}
	return insn.Version{Major: first.Major, Minor: first.Minor}
}

// Does is Profile.Does for a kernel of which no more than its release is known.
func Does(release string, b Behaviour) Answer { return (&Profile{Release: release}).Does(b) }

// Reached reports whether the kernel is of a mainline release or of a later one. It is for tables
// of their own, such as that of the helpers: what they list came with a release, and was hardly
// ever backported.
func (p *Profile) Reached(major, minor int) Answer {
	v, ok := p.Kernel()
	if !ok {
		return Unknown
	}
	return Known(v.Reached(major, minor))
}

// SameRelease reports whether two kernels are known to be of one mainline release.
func SameRelease(a, b *Profile) bool {
	va, okA := a.Kernel()
	vb, okB := b.Kernel()
	return okA && okB && va.Major == vb.Major && va.Minor == vb.Minor
}

// Backports reports a kernel of a distribution that takes later BPF over as a whole: its release
// says little about what it has.
func (p *Profile) Backports() bool {
	k, ok := p.kernel()
	return ok && k.vendor
}

// Spares reports whether net.core.bpf_jit_harden=1 spares a loader with these capabilities in the
// first user namespace. At 2 nobody is spared.
func (p *Profile) Spares(sysAdmin, capBPF bool) Answer {
	switch {
	case sysAdmin:
		return Yes
	case !capBPF:
		return No
	}
	return p.Does(HardenSparesCapBPF)
}

// Blinds is how the kernel blinds constants. Where it is not known whether the kernel notices a
// jump that wraps, it is taken not to, which is the careful answer: Does(ChecksWrap) tells.
func (p *Profile) Blinds() blinding.Kernel {
	k := blinding.Kernel{
		WholeProgram:    p.Does(BlindsWholeProgram) == Yes,
		RangeCheck:      p.Does(ChecksWrap) == Yes,
		StoreProbeMem32: p.Does(BlindsArenaStores) == Yes,
	}
	if p.Does(GivesRegister11) == Yes {
		k.Scratch = insn.RegAX + 1
	}
	return k.On(p.Machine)
}

// dated is a kernel as its release tells.
type dated struct {
	KernelVersion
	patchKnown bool
	// vendor: of a distribution that takes later BPF over as a whole, so that the number says
	// little.
	vendor bool
	// rhel is the build of a kernel of RHEL 9, 175 of 5.14.0-175.el9, and 0 elsewhere.
	rhel int
}

var (
	rhelRelease = regexp.MustCompile(`^[0-9.]+-([0-9]+)[^-]*\.el([0-9]+)`)
	suseRelease = regexp.MustCompile(`^[0-9.]+-1[0-9]{5}\.`)
)

// kernel is asked for each behaviour, dozens of times for one load. So no expression is tried on a
// release that it cannot match.
func (p *Profile) kernel() (dated, bool) {
	v, ok := p.Kernel()
	if !ok {
		return dated{}, false
	}
	k := dated{KernelVersion: v}
	_, suffix, hasSuffix := strings.Cut(p.Release, "-")
	k.patchKnown = v.Patch > 0 || strings.Count(p.Release, ".") > 1 && !hasSuffix
	// Debian has the stable release in uname -v alone: "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-1
	// (2026-09-30)".
	if _, debian, ok := strings.Cut(p.Version, "Debian "); ok {
		if full, ok := ParseKernel(debian); ok && full.Major == v.Major && full.Minor == v.Minor {
			k.KernelVersion, k.patchKnown = full, true
		}
	}
	if !strings.Contains(suffix, ".el") {
		k.vendor = strings.HasPrefix(suffix, "1") && suseRelease.MatchString(p.Release)
		return k, true
	}
	k.vendor = true
	if m := rhelRelease.FindStringSubmatch(p.Release); m != nil && m[2] == "9" {
		k.rhel, _ = strconv.Atoi(m[1])
	}
	return k, true
}

// Title names the kernel for people. Where its patch level decides and the release does not tell
// it, as on Debian ("6.1.0-18-amd64"), that is said in place of a number that misleads.
func (p *Profile) Title() string {
	k, ok := p.kernel()
	if !ok || k.patchKnown || k.vendor || !strings.Contains(p.Release, "-") {
		return p.Release
	}
	return fmt.Sprintf("%d.%d, patch level unknown", k.Major, k.Minor)
}

// Reached reports whether v is of a mainline release or of a later one. See Profile.Reached.
func (v KernelVersion) Reached(major, minor int) bool {
	return !v.before(KernelVersion{Major: major, Minor: minor})
}

func (v KernelVersion) before(w KernelVersion) bool {
	return cmp.Or(cmp.Compare(v.Major, w.Major), cmp.Compare(v.Minor, w.Minor)) < 0
}

// of is what a row says of a kernel.
func (r row) of(k dated) Answer {
	switch {
	case !k.before(r.since):
		return Yes
	case r.rhel > 0 && k.rhel > 0:
		return Known(k.rhel >= r.rhel)
	case k.vendor:
		return Unknown
	}
	if a, listed := r.stable(k); listed {
		return a
	}
	if r.fix || r.maybe != (KernelVersion{}) && !k.before(r.maybe) {
		return Unknown
	}
	return No
}

// stable is what a row says of a kernel by the stable releases of its series, and false where it
// lists none of them.
func (r row) stable(k dated) (a Answer, listed bool) {
	in := func(list []KernelVersion) int {
		return slices.IndexFunc(list, func(v KernelVersion) bool { return v.Major == k.Major && v.Minor == k.Minor })
	}
	has, lacks := in(r.backports), in(r.lacking)
	switch {
	case has < 0 && lacks < 0:
		return Unknown, false
	case has >= 0 && k.patchKnown && k.Patch >= r.backports[has].Patch:
		return Yes, true
	case lacks >= 0 && (k.patchKnown && k.Patch <= r.lacking[lacks].Patch || r.lacking[lacks].Patch == lastPatch):
		return No, true
	}
	return Unknown, true
}

// Adopt takes what another profile has proven over, if that is of the same kernel.
func (p *Profile) Adopt(proven *Profile) error {
	if p.Release != proven.Release || p.Version != proven.Version || p.Machine != proven.Machine {
		return fmt.Errorf("what was proven is of another kernel: %q, and this is %q", proven.Release+" "+proven.Version, p.Release+" "+p.Version)
	}
	p.Proven = proven.Proven
	return nil
}

// Behaviours are all names of the table, in its order.
func Behaviours() []Behaviour {
	var out []Behaviour
	for _, r := range table {
		if len(out) == 0 || out[len(out)-1] != r.name {
			out = append(out, r.name)
		}
	}
	return out
}

func rowsOf(b Behaviour) []row {
	i := slices.IndexFunc(table, func(r row) bool { return r.name == b })
	if i < 0 {
		panic("node: no row for " + string(b))
	}
	j := i + 1
	for j < len(table) && table[j].name == b {
		j++
	}
	return table[i:j]
}
