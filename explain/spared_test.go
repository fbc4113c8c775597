// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"slices"
	"strings"
	"testing"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/go-quicktest/qt"
)

// At bpf_jit_harden=1 kernels before 6.1 blind a loader with CAP_BPF too. Where a vendor may have
// taken the change over, both causes are named.
func TestSparedByKernel(t *testing.T) {
	agent := caps(bpfCap | perfmonCap | netAdminCap)
	blinded := func(c option) *load.Attempt {
		return progLoad(524, harden(1), c, jump(1, 10386, 40000, 32767), insns(movR0, exit), unhooked(), log(cleanLog))
	}
	for _, tt := range []struct {
		name, release string
		caps          option
		rule, also    string
	}{
		{"Ubuntu 22.04 does not spare CAP_BPF", "5.15.0-91-generic", agent, "BLIND001", ""},
		{"it spares CAP_SYS_ADMIN", "5.15.0-91-generic", caps(1 << abi.CapSysAdmin), "JIT002", ""},
		{"6.1 spares it", "6.1.0-49-cloud-amd64", agent, "JIT002", ""},
		{"RHEL 9 spares it", "5.14.0-427.13.1.el9_4.x86_64", agent, "JIT002", ""},
		{"RHEL 8 may", "4.18.0-553.el8_10.x86_64", agent, "BLIND001", "JIT002"},
	} {
		d := Explain(blinded(tt.caps), lab(tt.release, "net.core.bpf_jit_harden", "1"))
		qt.Check(t, qt.Equals(d.Rule, tt.rule), qt.Commentf("%s", tt.name))
		if tt.also != "" {
			qt.Check(t, qt.IsTrue(slices.ContainsFunc(d.Alternatives, func(a load.Alternative) bool { return a.Rule == tt.also })), qt.Commentf("%s: %v", tt.name, d.Alternatives))
		}
	}
}

// Who would not be spared at 1 is not told to set it.
func TestNoAdviceInVain(t *testing.T) {
	advised := func(release string) bool {
		a := progLoad(524, harden(2), caps(bpfCap|perfmonCap|netAdminCap), jump(1, 10386, 40000, 32767), insns(movR0, exit), unhooked(), log(cleanLog))
		d := Explain(a, lab(release, "net.core.bpf_jit_harden", "2"))
		qt.Assert(t, qt.Equals(d.Rule, "BLIND001"))
		return slices.ContainsFunc(d.Remedies, func(r load.Remedy) bool { return r.ID == "harden-1" })
	}
	qt.Check(t, qt.IsFalse(advised("5.15.0-91-generic")))
	qt.Check(t, qt.IsTrue(advised("6.1.0-49-cloud-amd64")))
	qt.Check(t, qt.IsTrue(advised("4.18.0-553.el8_10.x86_64"))) // it may help
}

// The advice names those whom this kernel spares, and where that is not known both.
func TestAdviceNamesTheSpared(t *testing.T) {
	const bpf, admin = "only loaders without CAP_BPF", "without CAP_SYS_ADMIN"
	for release, want := range map[string][2]bool{
		"5.15.0-91-generic":        {false, true},
		"6.1.0-49-cloud-amd64":     {true, false},
		"4.18.0-553.el8_10.x86_64": {true, true},
	} {
		a := progLoad(524, harden(2), caps(1<<abi.CapSysAdmin), jump(1, 10386, 40000, 32767), insns(movR0, exit), unhooked(), log(cleanLog))
		d := Explain(a, lab(release, "net.core.bpf_jit_harden", "2"))
		i := slices.IndexFunc(d.Remedies, func(r load.Remedy) bool { return r.ID == "harden-1" })
		qt.Assert(t, qt.IsTrue(i >= 0), qt.Commentf("%s", release))
		r := d.Remedies[i]
		qt.Check(t, qt.Equals(strings.Contains(r.Title, bpf), want[0]), qt.Commentf("%s: %s", release, r.Title))
		qt.Check(t, qt.Equals(strings.Contains(r.Title, admin), want[1]), qt.Commentf("%s: %s", release, r.Title))
		qt.Check(t, qt.Equals(strings.Contains(r.Price, "with CAP_BPF"), want[0]), qt.Commentf("%s: %s", release, r.Price))
		qt.Check(t, qt.Equals(strings.Contains(r.Price, "with CAP_SYS_ADMIN"), want[1]), qt.Commentf("%s: %s", release, r.Price))
	}
}
