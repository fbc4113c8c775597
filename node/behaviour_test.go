// SPDX-License-Identifier: Apache-2.0

package node

import (
	"testing"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/go-quicktest/qt"
)

func TestDoes(t *testing.T) {
	const debian = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-1 (2026-09-30)"
	for _, tt := range []struct {
		release, version, machine string
		b                         Behaviour
		want                      Answer
	}{
		{"5.7.19", "", "", SplitsCapabilities, No},
		{"5.8.0", "", "", SplitsCapabilities, Yes},
		{"", "", "", SplitsCapabilities, Unknown},
		{"4.18.0-553.el8_10.x86_64", "", "", SplitsCapabilities, Unknown}, // Red Hat takes BPF over as a whole
		{"5.14.0-427.el9.x86_64", "", "", SplitsCapabilities, Yes},

		{"5.10.240", "", "", HardenSparesCapBPF, No},
		{"5.15.0-91-generic", "", "", HardenSparesCapBPF, No},
		{"6.0.19", "", "", HardenSparesCapBPF, No},
		{"6.1.0-49-cloud-amd64", debian, "", HardenSparesCapBPF, Yes},
		{"5.14.0-174.el9.x86_64", "", "", HardenSparesCapBPF, No},
		{"5.14.0-175.el9.x86_64", "", "", HardenSparesCapBPF, Yes},
		{"5.14.0-427.13.1.el9_4.x86_64", "", "", HardenSparesCapBPF, Yes},
		{"4.18.0-553.el8_10.x86_64", "", "", HardenSparesCapBPF, Unknown},
		{"5.15.0-200.131.27.el8uek.x86_64", "", "", HardenSparesCapBPF, Unknown},
		{"5.14.21-150500.55.7-default", "", "", HardenSparesCapBPF, Unknown},

		{"7.3.0", "", "", ChecksWrap, Yes},
		{"7.2.10", "", "", ChecksWrap, Yes},
		{"7.2.13+deb14-cloud-amd64", "", "", ChecksWrap, Yes},
		{"7.2.9", "", "", ChecksWrap, No},
		{"7.2", "", "", ChecksWrap, Unknown}, // the patch level decides
		{"7.2.0-14-generic", "", "", ChecksWrap, Unknown},
		{"7.1.3", "", "", ChecksWrap, No},
		{"7.1", "", "", ChecksWrap, No}, // none of its stable releases has it
		{"6.12.117", "", "", ChecksWrap, No},
		{"6.12.118", "", "", ChecksWrap, Unknown},
		{"6.1.0-49-cloud-amd64", debian, "", ChecksWrap, No},
		{"6.1.0-49-cloud-amd64", "", "", ChecksWrap, Unknown},
		{"6.6.100", "", "", ChecksWrap, Unknown}, // nobody looked

		{"6.18.20", "", "", BlindsArenaStores, No},
		{"6.18.44", "", "", BlindsArenaStores, Yes},
		{"6.12.117", "", "", BlindsArenaStores, Unknown}, // a fix, and nobody looked
		{"5.10.240", "", "", LargeLog, Yes},
		{"6.1.192", "", "", SmallLog, No},
		{"6.6.0", "", "", SmallLog, Yes},

		{"7.2.13", "", "", RefusesJITOnly, Yes},
		{"7.2.12", "", "", RefusesJITOnly, Unknown},
		{"6.12.117", "", "", RefusesJITOnly, No},

		{"6.1.192", "", "", FreesFailedForks, Yes},
		{"6.1.1", "", "", FreesFailedForks, No},

		{"6.12", "", "x86_64", PerCPUMove, Yes},
		{"6.12", "", "s390x", PerCPUMove, No},
		{"6.12", "", "", PerCPUMove, Unknown}, // on some machines
		{"6.8", "", "", PerCPUMove, No},       // on none
		{"6.12", "", "ppc64le", PerCPUMove, No},
		{"7.1", "", "ppc64le", PerCPUMove, Unknown},
		{"7.2", "", "ppc64le", PerCPUMove, Yes},
		{"", "", "s390x", PerCPUMove, No},
	} {
		p := &Profile{Release: tt.release, Version: tt.version, Machine: tt.machine}
		qt.Check(t, qt.Equals(p.Does(tt.b), tt.want), qt.Commentf("%s: %+v", tt.b, tt))
	}
}

// What was proven beats what the kernel's types tell, and that beats its release.
func TestDoesBySight(t *testing.T) {
	p := &Profile{Release: "6.12.117", Interpreter: &Interpreter{Refuses: true}, Blinding: &Blinding{WholeProgram: true}}
	qt.Check(t, qt.Equals(p.Does(RefusesJITOnly), Yes))
	qt.Check(t, qt.Equals(p.Does(BlindsWholeProgram), Yes))
	qt.Check(t, qt.Equals(p.Dated(RefusesJITOnly), No))
	p.Proven = map[Behaviour]Proof{RefusesJITOnly: {Does: false}, ChecksWrap: {Does: true}}
	qt.Check(t, qt.Equals(p.Does(RefusesJITOnly), No))
	qt.Check(t, qt.Equals(p.Does(ChecksWrap), Yes))
	qt.Check(t, qt.IsTrue(p.Blinds().RangeCheck))
}

func TestSpares(t *testing.T) {
	for _, tt := range []struct {
		release          string
		sysAdmin, capBPF bool
		want             Answer
	}{
		{"5.15.0-91-generic", false, true, No},
		{"5.15.0-91-generic", true, true, Yes},
		{"6.1.192", false, true, Yes},
		{"6.1.192", false, false, No},
		{"4.18.0-553.el8_10.x86_64", false, true, Unknown},
		{"", false, true, Unknown},
		{"", false, false, No},
	} {
		got := (&Profile{Release: tt.release}).Spares(tt.sysAdmin, tt.capBPF)
		qt.Check(t, qt.Equals(got, tt.want), qt.Commentf("%+v", tt))
	}
}

func TestBlinds(t *testing.T) {
	for release, want := range map[string]blinding.Kernel{
		"":        {},
		"6.18":    {},
		"6.18.20": {},
		"6.18.21": {StoreProbeMem32: true},
		"7.0":     {StoreProbeMem32: true},
		"7.1.4":   {WholeProgram: true, StoreProbeMem32: true},
		"7.2.9":   {WholeProgram: true, StoreProbeMem32: true, Scratch: 12},
		"7.2.10":  {WholeProgram: true, RangeCheck: true, StoreProbeMem32: true, Scratch: 12},
		"8.0":     {WholeProgram: true, RangeCheck: true, StoreProbeMem32: true, Scratch: 12},
	} {
		qt.Check(t, qt.Equals((&Profile{Release: release}).Blinds(), want), qt.Commentf("%s", release))
	}
	s390 := (&Profile{Release: "6.12", Machine: "s390x"}).Blinds()
	qt.Check(t, qt.IsTrue(s390.ZeroExtends))
}

// Rows of one name stand together, each has what is asked of it, and backports come in series
// before the release.
func TestTable(t *testing.T) {
	seen := map[Behaviour]bool{}
	for i, r := range table {
		if i > 0 && table[i-1].name != r.name {
			qt.Check(t, qt.IsFalse(seen[r.name]), qt.Commentf("%s stands in two places", r.name))
		}
		seen[r.name] = true
		qt.Check(t, qt.Not(qt.Equals(r.note, "")), qt.Commentf("%s", r.name))
		if r.commit != compared {
			qt.Check(t, qt.Matches(r.commit, `[0-9a-f]{12}`), qt.Commentf("%s", r.name))
		}
		qt.Check(t, qt.IsTrue(r.since.Major > 4), qt.Commentf("%s", r.name))
		for _, b := range append(r.backports, r.lacking...) {
			qt.Check(t, qt.IsTrue(b.before(r.since)), qt.Commentf("%s: %v", r.name, b))
		}
		if r.maybe != (KernelVersion{}) {
			qt.Check(t, qt.IsTrue(r.maybe.before(r.since)), qt.Commentf("%s", r.name))
		}
	}
}
