// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

func amount(n uint64) *uint64 { return &n }

// good is a Debian node on which everything loads.
func good() *Profile {
	return &Profile{
		Release: "6.1.0-49-cloud-amd64", Version: "#1 SMP Debian 6.1.192-2", Machine: "x86_64", Distro: "Debian GNU/Linux 12 (bookworm)",
		Config: map[string]string{"CONFIG_BPF_JIT_ALWAYS_ON": "n", "CONFIG_BPF_JIT": "y", "CONFIG_BPF_LSM": "y", "CONFIG_NET_CLS_BPF": "m", "CONFIG_FPROBE": "n"},
		Sysctls: map[string]string{"net.core.bpf_jit_harden": "0", "net.core.bpf_jit_enable": "1", "net.core.bpf_jit_limit": "1000000",
			"kernel.unprivileged_bpf_disabled": "2", "kernel.kptr_restrict": "0"},
		Lockdown: "none", LSMs: []string{"lockdown", "capability", "yama"}, BTF: true, CgroupV2: true, JITUsed: amount(100_000),
		Process: &Process{Capabilities: []string{"CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_PERFMON", "CAP_BPF"}, InitialUser: true, Seccomp: "none"},
		Features: &Features{
			Programs: map[string]bool{"xdp": true, "netfilter": false}, Maps: map[string]bool{"hash": true},
			Helpers:      map[string][]string{"xdp": {"bpf_loop", "bpf_tail_call"}, "kprobe": {"bpf_loop", "bpf_probe_read_kernel"}},
			Instructions: map[string]bool{"gotol": true, "v4": false},
		},
	}
}

func TestDiffOfTheSame(t *testing.T) {
	qt.Assert(t, qt.HasLen(Diff(good(), good()), 0))
	qt.Assert(t, qt.HasLen(Diff(&Profile{}, &Profile{}), 0))
}

func TestDiff(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(p *Profile)
		want   []Difference // Why is what it must contain
	}{
		{"harden", func(p *Profile) { p.Sysctls["net.core.bpf_jit_harden"] = "2" },
			[]Difference{{Key: Key{KindSetting, "net.core.bpf_jit_harden"}, Name: "net.core.bpf_jit_harden", A: "0", B: "2", Effect: Decides, Why: "left to the interpreter"}}},
		{"harden without an interpreter", func(p *Profile) {
			p.Sysctls["net.core.bpf_jit_harden"], p.Config["CONFIG_BPF_JIT_ALWAYS_ON"] = "2", "y"
		}, []Difference{
			{Key: Key{KindSetting, "net.core.bpf_jit_harden"}, Name: "net.core.bpf_jit_harden", A: "0", B: "2", Effect: Decides, Why: "fails with 524: 6.1.0-49-cloud-amd64 has no interpreter"},
			{Key: Key{KindOption, "CONFIG_BPF_JIT_ALWAYS_ON"}, Name: "CONFIG_BPF_JIT_ALWAYS_ON", A: "n", B: "y", Effect: Decides, Why: "524"},
		}},
		{"harden not readable", func(p *Profile) { delete(p.Sysctls, "net.core.bpf_jit_harden") },
			[]Difference{{Key: Key{KindSetting, "net.core.bpf_jit_harden"}, Name: "net.core.bpf_jit_harden", A: "0", B: "unknown", Effect: MayDecide, Why: ""}}},
		{"JIT memory", func(p *Profile) { p.JITUsed = amount(950_000) },
			[]Difference{{Key: Key{Kind: KindJITMemory}, Name: "JIT memory", A: "100000 of 1000000 bytes", B: "950000 of 1000000 bytes", Effect: Decides, Why: "seccomp"}}},
		{"a little more JIT memory is no difference", func(p *Profile) { p.JITUsed = amount(200_000) }, nil},
		{"integrity", func(p *Profile) { p.Lockdown = "integrity" },
			[]Difference{{Key: Key{Kind: KindLockdown}, Name: "lockdown", A: "none", B: "integrity", Effect: Decides, Why: "bpf_probe_write_user"}}},
		{"confidentiality", func(p *Profile) { p.Lockdown = "confidentiality" },
			[]Difference{{Key: Key{Kind: KindLockdown}, Name: "lockdown", A: "none", B: "confidentiality", Effect: Decides, Why: "looks like an old kernel"}}},
		{"selinux", func(p *Profile) { p.LSMs = append(p.LSMs, "selinux") },
			[]Difference{{Key: Key{Kind: KindSecurityModules}, Name: "LSMs", A: "lockdown,capability,yama", B: "lockdown,capability,yama,selinux", Effect: MayDecide, Why: "EACCES from SELinux"}}},
		{"a module that does not refuse", func(p *Profile) { p.LSMs = append(p.LSMs, "landlock") },
			[]Difference{{Key: Key{Kind: KindSecurityModules}, Name: "LSMs", A: "lockdown,capability,yama", B: "lockdown,capability,yama,landlock", Effect: Informs, Why: ""}}},
		{"bpf in the list", func(p *Profile) { p.LSMs = append(p.LSMs, "bpf") },
			[]Difference{{Key: Key{Kind: KindSecurityModules}, Name: "LSMs", A: "lockdown,capability,yama", B: "lockdown,capability,yama,bpf", Effect: MayDecide, Why: "never called"}}},
		{"what decides comes first", func(p *Profile) { p.Sysctls["kernel.kptr_restrict"], p.BTF = "2", false },
			[]Difference{
				{Key: Key{Kind: KindTypesOfKernel}, Name: "kernel BTF", A: "yes", B: "no", Effect: Decides, Why: "CO-RE"},
				{Key: Key{KindSetting, "kernel.kptr_restrict"}, Name: "kernel.kptr_restrict", A: "0", B: "2", Effect: Informs, Why: ""},
			}},
		{"option missing", func(p *Profile) { p.Config["CONFIG_BPF_LSM"] = "n" },
			[]Difference{{Key: Key{KindOption, "CONFIG_BPF_LSM"}, Name: "CONFIG_BPF_LSM", A: "y", B: "n", Effect: Decides, Why: "LSM"}}},
		{"module or built in", func(p *Profile) { p.Config["CONFIG_NET_CLS_BPF"] = "y" },
			[]Difference{{Key: Key{KindOption, "CONFIG_NET_CLS_BPF"}, Name: "CONFIG_NET_CLS_BPF", A: "m", B: "y", Effect: Informs, Why: ""}}},
		{"a helper for one type", func(p *Profile) { p.Features.Helpers["kprobe"] = []string{"bpf_loop"} },
			[]Difference{{Key: Key{KindHelper, "bpf_probe_read_kernel"}, Name: "helper bpf_probe_read_kernel", A: "for kprobe", B: "no", Effect: Decides, Why: "EINVAL"}}},
		{"a helper for all types", func(p *Profile) {
			p.Features.Helpers = map[string][]string{"xdp": {"bpf_tail_call"}, "kprobe": {"bpf_probe_read_kernel"}}
		}, []Difference{{Key: Key{KindHelper, "bpf_loop"}, Name: "helper bpf_loop", A: "for kprobe, xdp", B: "no", Effect: Decides, Why: ""}}},
		{"a type", func(p *Profile) { p.Features.Programs["netfilter"] = true },
			[]Difference{{Key: Key{KindProgramType, "netfilter"}, Name: "program type netfilter", A: "no", B: "yes", Effect: Decides, Why: "EINVAL"}}},
		{"a type that could not be tried", func(p *Profile) { delete(p.Features.Programs, "xdp") },
			[]Difference{{Key: Key{KindProgramType, "xdp"}, Name: "program type xdp", A: "yes", B: "unknown", Effect: MayDecide, Why: ""}}},
		{"nobody tried", func(p *Profile) { p.Features = nil },
			[]Difference{{Key: Key{Kind: KindTried}, Name: "features", A: "tried", B: "unknown", Effect: Informs, Why: "bpfwhy node"}}},
		{"rights", func(p *Profile) { p.Process.Capabilities = []string{"CAP_BPF"} },
			[]Difference{{Key: Key{Kind: KindCapabilities}, Name: "capabilities", A: "CAP_PERFMON, CAP_NET_ADMIN, CAP_SYS_ADMIN", B: "neither", Effect: MayDecide, Why: "EPERM"}}},
		{"the limit of locked memory plays no part on 6.1", func(p *Profile) { p.Process.Memlock = amount(65536) },
			[]Difference{{Key: Key{Kind: KindLockedMemory}, Name: "RLIMIT_MEMLOCK", A: "unlimited", B: "65536 bytes", Effect: Informs, Why: "before 5.11 only"}}},
		{"a user namespace", func(p *Profile) { p.Process.InitialUser = false },
			[]Difference{{Key: Key{Kind: KindUserNamespace}, Name: "user namespace", A: "the initial one", B: "another", Effect: MayDecide, Why: "do not count"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := good()
			tt.change(b)
			got := Diff(good(), b)
			for i, d := range got {
				if i < len(tt.want) {
					qt.Check(t, qt.StringContains(d.Why, tt.want[i].Why))
					got[i].Why = tt.want[i].Why
				}
			}
			qt.Assert(t, qt.DeepEquals(got, tt.want))
			// The other way round is the same with the sides changed.
			back := Diff(b, good())
			qt.Assert(t, qt.HasLen(back, len(tt.want)))
			for i, d := range back {
				qt.Check(t, qt.Equals(d.Name, tt.want[i].Name))
				qt.Check(t, qt.Equals(d.A, tt.want[i].B))
				qt.Check(t, qt.Equals(d.Effect, tt.want[i].Effect))
			}
		})
	}
}

// TestDiffReleases: what turns between two releases.
func TestDiffReleases(t *testing.T) {
	old := good()
	old.Release = "5.10.0-30-cloud-amd64"
	d := Diff(old, good())
	qt.Assert(t, qt.HasLen(d, 1))
	qt.Check(t, qt.Equals(d[0].Effect, Decides))
	qt.Check(t, qt.StringContains(d[0].Why, "before 5.11"))
	qt.Check(t, qt.Not(qt.StringContains(d[0].Why, "before 5.8")))
	qt.Check(t, qt.IsTrue(slices.Contains(d[0].Behaviours, ChargesNoMemlock)))
	qt.Check(t, qt.IsFalse(slices.Contains(d[0].Behaviours, SplitsCapabilities)))

	next := good()
	next.Release = "6.1.0-50-cloud-amd64"
	d = Diff(next, good())
	qt.Assert(t, qt.HasLen(d, 1))
	qt.Check(t, qt.Equals(d[0].Effect, MayDecide))
	qt.Check(t, qt.StringContains(d[0].Why, "backports"))
}

func TestDocument(t *testing.T) {
	var b bytes.Buffer
	qt.Assert(t, qt.IsNil(json.NewEncoder(&b).Encode(Document{Schema: Schema, Profile: *good()})))
	p, err := Decode(&b)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.DeepEquals(p, good()))

	for name, text := range map[string]string{
		"empty":           "",
		"no JSON":         "hello",
		"another schema":  `{"schema":"bpfwhy.node/v2"}`,
		"no schema":       `{"release":"6.1"}`,
		"a list":          `[]`,
		"wrong types":     `{"schema":"bpfwhy.node/v1","release":1}`,
		"a second value":  `{"schema":"bpfwhy.node/v1"} {"schema":"bpfwhy.node/v1"}`,
		"endless":         `{"schema":"bpfwhy.node/v1","release":"` + strings.Repeat("x", maxDocument) + `"}`,
		"control letters": "{\"schema\":\"\x1b[31m\"}",
	} {
		_, err := Decode(strings.NewReader(text))
		if qt.Check(t, qt.IsNotNil(err), qt.Commentf("%s", name)) {
			qt.Check(t, qt.StringContains(err.Error(), "read profile: "))
			qt.Check(t, qt.IsTrue(len(err.Error()) < 200))
		}
	}
}

// Whatever stands in two documents, comparing them neither panics nor calls equal things different.
func FuzzDiff(f *testing.F) {
	f.Add([]byte(`{"schema":"bpfwhy.node/v1","release":"5.10","features":{"helpers":{"xdp":["a"]}}}`),
		[]byte(`{"schema":"bpfwhy.node/v1","release":"6.1","sysctls":{"net.core.bpf_jit_harden":"2"},"process":{"capabilities":null},"features":{"helpers":null,"program_types":{"xdp":true}}}`))
	f.Fuzz(func(t *testing.T, x, y []byte) {
		a, errA := Decode(bytes.NewReader(x))
		b, errB := Decode(bytes.NewReader(y))
		if errA != nil || errB != nil {
			return
		}
		for _, d := range Diff(a, b) {
			if d.A == d.B || d.Name == "" || d.Key.Kind == 0 {
				t.Fatalf("%+v", d)
			}
		}
		if d := Diff(a, a); len(d) > 0 {
			t.Fatalf("%+v", d)
		}
	})
}
