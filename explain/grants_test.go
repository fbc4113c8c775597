// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/load"
)

// in says where the loader ran.
func in(container string, groups ...string) option {
	return func(a *load.Attempt) {
		a.Process.Container = container
		for _, g := range groups {
			a.Process.Cgroups = append(a.Process.Cgroups, load.Cgroup{Version: 2, ID: 1, Name: g})
		}
	}
}

func remedyOf(t *testing.T, a *load.Attempt, release, id string) (load.Remedy, bool) {
	t.Helper()
	d := Explain(a, lab(release, "kernel.unprivileged_bpf_disabled", "2"))
	i := slices.IndexFunc(d.Remedies, func(r load.Remedy) bool { return r.ID == id })
	if i < 0 {
		return load.Remedy{}, false
	}
	return d.Remedies[i], true
}

// TestGrants: what gives a loader rights fits the place where it runs, and the kernel.
func TestGrants(t *testing.T) {
	const unit, pod, docker = "AmbientCapabilities=", "securityContext: ", "docker run "
	for _, test := range []struct {
		at      option
		release string
		want    []string
		not     []string
	}{
		{in(""), "6.12.117", []string{unit + "CAP_BPF CAP_PERFMON\n", pod + "{capabilities: {add: [BPF, PERFMON]}}\n", "setcap cap_bpf,cap_perfmon+ep PROGRAM"}, []string{docker}},
		{in("", "system.slice/agent.service"), "6.12.117", []string{unit, "setcap "}, []string{pod, docker}},
		{in("containerd://1", "kubepods/1"), "6.12.117", []string{pod, "in the image:\nsetcap "}, []string{unit, docker}},
		{in("docker://1", "docker-1.scope"), "6.12.117", []string{docker + "--cap-add BPF --cap-add PERFMON IMAGE\n"}, []string{unit, pod}},
		{in(""), "5.4.100", []string{unit + "CAP_SYS_ADMIN\n", "[SYS_ADMIN]", "setcap cap_sys_admin+ep"}, []string{"BPF]"}},
	} {
		r, ok := remedyOf(t, progLoad(1, progType("kprobe"), caps(0), unhooked(), test.at), test.release, "grant-caps")
		qt.Assert(t, qt.IsTrue(ok))
		for _, want := range test.want {
			qt.Check(t, qt.StringContains(r.Command, want))
		}
		for _, not := range test.not {
			qt.Check(t, qt.IsFalse(strings.Contains(r.Command, not)), qt.Commentf("%s", r.Command))
		}
	}
}

// TestSeccompProfile: a policy is that of the container, or of the unit.
func TestSeccompProfile(t *testing.T) {
	denied := func(at option) *load.Attempt {
		return progLoad(1, at, func(a *load.Attempt) { a.Evidence.EnterSeen, a.Evidence.SeccompMode = false, 2 })
	}
	r, _ := remedyOf(t, denied(in("cri-o://1", "kubepods/1")), "6.12.117", "seccomp-profile")
	qt.Check(t, qt.StringContains(r.Command, "localhostProfile: bpf.json"))
	qt.Check(t, qt.IsFalse(strings.Contains(r.Command, "systemd")))
	r, _ = remedyOf(t, denied(in("docker://1")), "6.12.117", "grant-caps-container")
	qt.Check(t, qt.Equals(r.Command, "# Docker, Podman:\ndocker run --cap-add BPF --cap-add PERFMON --cap-add NET_ADMIN IMAGE"))
	r, _ = remedyOf(t, denied(in("", "system.slice/agent.service")), "6.12.117", "seccomp-profile")
	qt.Check(t, qt.Equals(r.Command, "# systemd, in the unit's [Service], behind its other SystemCallFilter lines:\nSystemCallFilter=bpf perf_event_open"))
	_, ok := remedyOf(t, denied(in("", "system.slice/agent.service")), "6.12.117", "grant-caps-container")
	qt.Check(t, qt.IsFalse(ok))
}

// TestLoaderInGo: package loader is for loaders in Go.
func TestLoaderInGo(t *testing.T) {
	blinded := func(runtime string) *load.Attempt {
		return progLoad(524, harden(2), jump(3, 19300, 38755, 32767), insns(movR0, exit), unhooked(), log(cleanLog),
			func(a *load.Attempt) { a.Process.Runtime = runtime })
	}
	for runtime, want := range map[string]bool{load.RuntimeGo: true, "": false, "rust": false} {
		_, ok := remedyOf(t, blinded(runtime), "6.18.5", "loader")
		qt.Check(t, qt.Equals(ok, want), qt.Commentf("%q", runtime))
	}
}
