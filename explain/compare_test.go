// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"testing"

	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/go-quicktest/qt"
)

// blinded is a load that hooks saw dying of blinding on a kernel without an interpreter.
func blinded(more ...option) *load.Attempt {
	return progLoad(524, append([]option{harden(2), jump(1, 10386, 40000, 32767),
		hooked(load.Blinding, 34, load.Request, load.Permission, load.Verifier),
		spans(spanArg(load.FnPatch, -34, 10385), span(load.FnBlind, -34), load.Span{Function: load.FnJIT, Unjited: true}, span(load.FnSelect, -524), span(load.FnLoad, -524))}, more...)...)
}

func withFeatures(n *node.Profile, helpers map[string][]string, programs map[string]bool) *node.Profile {
	n.Features = &node.Features{Helpers: helpers, Programs: programs, Maps: map[string]bool{}, Instructions: map[string]bool{"v4": true, "gotol": true}}
	return n
}

func TestCompare(t *testing.T) {
	changed := func(n *node.Profile, f func(*node.Profile)) *node.Profile { f(n); return n }
	lockedLog := reject("2: (85) call bpf_probe_read_kernel#113\nunknown func bpf_probe_read_kernel#113")
	locked := func() *load.Attempt {
		return progLoad(22, with(rejected(22), progType("kprobe"), log(lockedLog), benign(spanArg(load.FnLockdown, -1, 28)))...)
	}
	confidential := func() *node.Profile {
		return changed(lab("6.1.0-49-cloud-amd64"), func(n *node.Profile) { n.Lockdown = "confidentiality" })
	}
	type want struct {
		Name string
		Sure bool
	}
	for _, tt := range []struct {
		name        string
		attempt     *load.Attempt
		here, there *node.Profile
		rule        string // as the diagnosis must be
		want        []want
	}{
		{"blinding: harden 2 here, 0 there, and no interpreter here",
			blinded(), hardenedHost("net.core.bpf_jit_harden", "2"), lab("6.18.5"), "BLIND001",
			[]want{{"net.core.bpf_jit_harden", true}, {"CONFIG_BPF_JIT_ALWAYS_ON", true}}},
		{"blinding: the value that the attempt saw counts, not that of the profile",
			blinded(), hardenedHost("net.core.bpf_jit_harden", "0"), hardenedHost("net.core.bpf_jit_harden", "0"), "BLIND001",
			[]want{{"net.core.bpf_jit_harden", true}}},
		{"blinding: 1 there spares a loader with CAP_BPF",
			blinded(), hardenedHost("net.core.bpf_jit_harden", "2"), hardenedHost("net.core.bpf_jit_harden", "1"), "BLIND001",
			[]want{{"net.core.bpf_jit_harden", true}}},
		{"blinding: 1 there does not spare one without",
			blinded(caps(0)), hardenedHost("net.core.bpf_jit_harden", "2"), hardenedHost("net.core.bpf_jit_harden", "1"), "BLIND001", nil},
		{"blinding: 1 there, and who knows the loader's rights",
			blinded(capsUnknown()), hardenedHost("net.core.bpf_jit_harden", "2"), hardenedHost("net.core.bpf_jit_harden", "1"), "BLIND001",
			[]want{{"net.core.bpf_jit_harden", false}}},
		{"blinding: only the interpreter differs",
			blinded(), hardenedHost("net.core.bpf_jit_harden", "2"), lab("6.18.5", "net.core.bpf_jit_harden", "2"), "BLIND001",
			[]want{{"CONFIG_BPF_JIT_ALWAYS_ON", true}}},
		{"blinding: what has nothing to do with it",
			blinded(), hardenedHost("net.core.bpf_jit_harden", "2"),
			changed(hardenedHost("net.core.bpf_jit_harden", "2"), func(n *node.Profile) { n.BTF, n.Lockdown, n.Release = false, "integrity", "6.12.1" }), "BLIND001", nil},
		{"lockdown", locked(), confidential(), lab("6.1.0-49-cloud-amd64"), "PERM003", []want{{"lockdown", true}}},
		{"lockdown: integrity is no obstacle to reading", locked(), confidential(),
			changed(lab("6.1.0-49-cloud-amd64"), func(n *node.Profile) { n.Lockdown = "integrity" }), "PERM003", []want{{"lockdown", true}}},
		{"lockdown: not known there", locked(), confidential(),
			changed(lab("6.1.0-49-cloud-amd64"), func(n *node.Profile) { n.Lockdown = "" }), "PERM003", []want{{"lockdown", false}}},
		{"unprivileged loads are open there",
			progLoad(1, caps(0), unhooked()), lab("6.1.0-49-cloud-amd64", "kernel.unprivileged_bpf_disabled", "2"), lab("6.1.0-49-cloud-amd64"), "PERM002",
			[]want{{"kernel.unprivileged_bpf_disabled", true}}},
		{"a helper that the older kernel does not have",
			progLoad(22, with(rejected(22), progType("xdp"), log(reject("2: (85) call unknown#181\ninvalid func unknown#181")))...),
			lab("5.10.0-30-cloud-amd64"), lab("6.1.0-49-cloud-amd64"), "FEAT001", []want{{"release", true}}},
		{"the same with profiles that were tried",
			progLoad(22, with(rejected(22), progType("xdp"), log(reject("2: (85) call unknown#181\ninvalid func unknown#181")))...),
			withFeatures(lab("5.10.0-30-cloud-amd64"), map[string][]string{"xdp": {}}, nil),
			withFeatures(lab("6.1.0-49-cloud-amd64"), map[string][]string{"xdp": {"bpf_loop", "bpf_strncmp"}}, nil), "FEAT001",
			[]want{{"release", true}, {"helper bpf_loop", true}}},
		{"a helper that neither has",
			progLoad(22, with(rejected(22), progType("xdp"), log(reject("2: (85) call unknown#211\ninvalid func unknown#211")))...),
			lab("5.10.0-30-cloud-amd64"), lab("6.1.0-49-cloud-amd64"), "FEAT001", nil},
		{"locked memory", progLoad(1, unhooked(), set(func(a *load.Attempt) { a.Evidence.MemlockLimit, a.Evidence.LimitsKnown = 65536, true })),
			lab("5.10.0-30-cloud-amd64"), lab("6.1.0-49-cloud-amd64"), "PERM007", []want{{"release", true}}},
		{"the verifier's opinion", progLoad(13, with(rejected(13), log(nullLog))...),
			lab("5.10.0-30-cloud-amd64"), lab("6.1.0-49-cloud-amd64"), "VER001", []want{{"release", false}}},
		{"the verifier's opinion, and the same kernel", progLoad(13, with(rejected(13), log(nullLog))...),
			lab("6.1.0-49-cloud-amd64", "net.core.bpf_jit_harden", "2"), lab("6.1.0-49-cloud-amd64"), "VER001", nil},
		{"an instruction of v4 on a kernel that takes gotol alone",
			progLoad(22, with(rejected(22), insns(movsx, exit), failedInsn(0), log(reject("0: (bf) r0 = (s8)r0\nBPF_MOV uses reserved fields")))...),
			lab("6.1.0-49-cloud-amd64"), lab("6.12.12"), "FEAT008", []want{{"release", true}}},
		{"the memory of the JIT",
			attempt(load.Seccomp, 524, caps(0), hooked(load.JIT, 524), spans(span(load.FnModmem, -1), load.Span{Function: load.FnJIT, Unjited: true}, span(load.FnSelect, -524), span(load.FnSeccomp, -524))),
			changed(hardenedHost("net.core.bpf_jit_limit", "1000"), func(n *node.Profile) { v := uint64(990); n.JITUsed = &v }),
			changed(hardenedHost("net.core.bpf_jit_limit", "1000"), func(n *node.Profile) { v := uint64(10); n.JITUsed = &v }), "JIT001",
			[]want{{"JIT memory", true}}},
		{"the memory of the JIT, read when the attempt failed",
			attempt(load.Seccomp, 524, caps(0), hooked(load.JIT, 524), spans(span(load.FnModmem, -1), load.Span{Function: load.FnJIT, Unjited: true}, span(load.FnSelect, -524), span(load.FnSeccomp, -524)),
				set(func(a *load.Attempt) { a.Evidence.Sysctls = map[string]string{load.JITUsed: "990"} })),
			changed(hardenedHost("net.core.bpf_jit_limit", "1000"), func(n *node.Profile) { v := uint64(10); n.JITUsed = &v }),
			changed(hardenedHost("net.core.bpf_jit_limit", "1000"), func(n *node.Profile) { v := uint64(10); n.JITUsed = &v }), "JIT001",
			[]want{{"JIT memory", true}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			Conclude(tt.attempt, tt.here)
			qt.Assert(t, qt.IsNotNil(tt.attempt.Diagnosis))
			qt.Assert(t, qt.Equals(tt.attempt.Diagnosis.Rule, tt.rule), qt.Commentf("%+v", tt.attempt.Diagnosis))
			var got []want
			for _, c := range Compare(tt.attempt, tt.here, tt.there) {
				got = append(got, want{c.Name, c.Sure})
				qt.Check(t, qt.Equals(c.Rule, tt.rule))
				if c.Sure {
					qt.Check(t, qt.Not(qt.Equals(c.Because, "")))
				}
			}
			qt.Check(t, qt.DeepEquals(got, tt.want))

			// No word of a difference decides anything.
			type conclusion struct {
				Key   node.Key
				Rule  string
				Sure  bool
				Rules []string
			}
			var plain, other []conclusion
			for _, c := range Compare(tt.attempt, tt.here, tt.there) {
				plain = append(plain, conclusion{c.Key, c.Rule, c.Sure, c.Rules})
			}
			for _, c := range compare(tt.attempt, tt.here, tt.there, inOtherWords) {
				other = append(other, conclusion{c.Key, c.Rule, c.Sure, c.Rules})
			}
			qt.Check(t, qt.DeepEquals(other, plain))
		})
	}
}

// The other node's side leaves the attempt as it was.
func TestCompareLeavesTheAttempt(t *testing.T) {
	a, here := blinded(), hardenedHost("net.core.bpf_jit_harden", "0")
	Conclude(a, here)
	Compare(a, here, lab("6.1.0"))
	qt.Check(t, qt.Equals(a.Evidence.Harden, 2))
	qt.Check(t, qt.Equals(here.Sysctls["net.core.bpf_jit_harden"], "0"))
	qt.Check(t, qt.IsNil(Compare(progLoad(0), here, here)))
	qt.Check(t, qt.IsNil(Compare(a, nil, here)))
}

// inOtherWords is node.Diff with every text replaced.
func inOtherWords(a, b *node.Profile) []node.Difference {
	list := node.Diff(a, b)
	for i := range list {
		list[i].Name, list[i].A, list[i].B, list[i].Why = "eine Sache", "hier so", "dort so", "darum"
	}
	return list
}

// The rules of each difference, where they do not stand in a table as they are.
func TestDifferences(t *testing.T) {
	base := func() *node.Profile { return withFeatures(lab("6.1.0-49-cloud-amd64"), nil, nil) }
	for _, tt := range []struct {
		name   string
		change func(n *node.Profile)
		want   []string
	}{
		{"integrity", func(n *node.Profile) { n.Lockdown = "integrity" }, []string{"PERM004", "FEAT002"}},
		{"confidentiality", func(n *node.Profile) { n.Lockdown = "confidentiality" }, []string{"PERM003", "PERM004", "FEAT002", "REQ009"}},
		{"lockdown not known", func(n *node.Profile) { n.Lockdown = "" }, []string{"PERM003", "PERM004", "FEAT002", "REQ009"}},
		{"a helper", func(n *node.Profile) { n.Features.Helpers = map[string][]string{"xdp": {"bpf_loop"}} }, []string{"FEAT001", "FEAT002"}},
		{"a helper that lockdown takes away", func(n *node.Profile) { n.Features.Helpers = map[string][]string{"xdp": {"bpf_probe_read_kernel"}} }, []string{"FEAT001", "FEAT002", "PERM003"}},
		{"an option that is missing", func(n *node.Profile) { n.Config = map[string]string{"CONFIG_BPF_LSM": "n"} }, []string{"FEAT004", "BTF005"}},
		{"an option that is a module", func(n *node.Profile) { n.Config = map[string]string{"CONFIG_BPF_LSM": "m"} }, nil},
		{"an older release", func(n *node.Profile) { n.Release = "5.10.0-30-cloud-amd64" },
			[]string{"BLIND001", "BTF001", "BTF004", "BTF005", "FEAT001", "FEAT002", "FEAT004", "FEAT005", "FEAT006", "FEAT007", "FEAT008", "PERM007", "TAIL001", "VER"}},
	} {
		a, b := base(), base()
		a.Lockdown, b.Lockdown = "none", "none"
		a.Config, b.Config = map[string]string{"CONFIG_BPF_LSM": "y"}, map[string]string{"CONFIG_BPF_LSM": "y"}
		a.Features.Helpers, b.Features.Helpers = map[string][]string{"xdp": {}}, map[string][]string{"xdp": {}}
		tt.change(b)
		list := Differences(a, b)
		qt.Assert(t, qt.HasLen(list, 1), qt.Commentf("%s", tt.name))
		qt.Check(t, qt.DeepEquals(list[0].Rules, tt.want), qt.Commentf("%s", tt.name))
	}
}
