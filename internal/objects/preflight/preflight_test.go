// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"strings"
	"testing"

	"github.com/bpfwhy/bpfwhy/internal/objects/object"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/go-quicktest/qt"
)

// made is a node on which all is well and everything was tried. Each case spoils something.
func made() *node.Profile {
	used := uint64(1 << 20)
	return &node.Profile{
		Release: "6.12.5", Machine: "x86_64", BTF: true, CgroupV2: true, Lockdown: "none", LSMs: []string{"capability", "bpf"}, JITUsed: &used,
		Config: map[string]string{"CONFIG_BPF_JIT_ALWAYS_ON": "y", "CONFIG_KPROBES": "y", "CONFIG_KPROBE_EVENTS": "y", "CONFIG_UPROBE_EVENTS": "y",
			"CONFIG_FPROBE": "y", "CONFIG_FUNCTION_TRACER": "y", "CONFIG_BPF_LSM": "y"},
		Sysctls: map[string]string{"net.core.bpf_jit_harden": "0", "net.core.bpf_jit_enable": "1", "net.core.bpf_jit_limit": "528482304", "kernel.unprivileged_bpf_disabled": "2", "kernel.perf_event_paranoid": "2"},
		Process: &node.Process{Capabilities: []string{"CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"}, InitialUser: true, Seccomp: "none"},
		Unknown: map[string]string{},
		Features: &node.Features{
			Programs:     map[string]bool{"kprobe": true, "sched_cls": true, "tracing": true, "raw_tracepoint": true, "socket_filter": true, "netfilter": false},
			Maps:         map[string]bool{"array": true, "ringbuf": true, "arena": false, "prog_array": true},
			Helpers:      map[string][]string{"kprobe": {"bpf_loop", "bpf_probe_read_kernel"}, "raw_tracepoint": {"bpf_loop"}, "sched_cls": {"bpf_map_lookup_elem", "bpf_get_current_task", "bpf_tail_call", "bpf_for_each_map_elem"}},
			Instructions: map[string]bool{"v2": true, "v3": true, "v4": false, "gotol": true, "bounded_loops": true, "large_programs": true},
		},
	}
}

// untried is a node of which only what everybody may read is known.
func untried(p *node.Profile) {
	p.Features, p.Process.Capabilities, p.Lockdown, p.LSMs, p.JITUsed = nil, nil, "", nil, nil
	p.Unknown["features"] = "the simplest program does not load: operation not permitted"
	delete(p.Sysctls, "net.core.bpf_jit_harden")
	delete(p.Sysctls, "net.core.bpf_jit_limit")
}

func line(t *testing.T, r *Report, need string) Line {
	t.Helper()
	for _, l := range r.Lines {
		if l.Need == need {
			return l
		}
	}
	t.Fatalf("no line for %q in %+v", need, r.Lines)
	return Line{}
}

// answer is a verdict, with ? where it is not known, and the rule.
func answer(l Line) string {
	s := string(l.Verdict)
	if l.Unknown {
		s += "?"
	}
	return strings.TrimSpace(s + " " + l.Rule)
}

func TestWords(t *testing.T) {
	old := func(p *node.Profile) { untried(p); p.Release = "4.19.5" }
	vendor := func(p *node.Profile) { untried(p); p.Release = "4.18.0-553.el8.x86_64" }
	for _, c := range []struct {
		word  string
		spoil func(*node.Profile)
		want  string
	}{
		{"program:kprobe", nil, "pass"}, {"program:netfilter", nil, "fail FEAT004"}, {"program:xdp", nil, "warn?"},
		{"program:kprobe", untried, "warn?"}, {"program:lsm", old, "fail FEAT004"}, {"program:lsm", vendor, "warn?"}, {"program:kprobe", old, "warn?"},
		{"map:ringbuf", nil, "pass"}, {"map:arena", nil, "fail FEAT005"}, {"map:ringbuf", untried, "warn?"}, {"map:ringbuf", old, "fail FEAT005"},
		{"helper:bpf_loop", nil, "pass"}, {"helper:bpf_loop", untried, "warn?"}, {"helper:bpf_loop", old, "fail FEAT001"}, {"helper:bpf_loop", vendor, "warn?"},
		{"helper:bpf_probe_read_kernel", func(p *node.Profile) { p.Lockdown = "confidentiality" }, "fail PERM003"},
		{"helper:bpf_probe_read_kernel", func(p *node.Profile) { p.Lockdown = "integrity" }, "pass"},
		{"helper:bpf_probe_write_user", func(p *node.Profile) { p.Lockdown = "integrity" }, "fail PERM004"},
		{"v3", nil, "pass"}, {"v4", nil, "fail FEAT008"}, {"v4", untried, "warn?"}, {"v4", old, "fail FEAT008"}, {"gotol", old, "warn?"},
		{"bounded-loops", untried, "pass"}, {"bounded-loops", old, "fail FEAT008"}, {"load-acquire", nil, "fail FEAT008"},
		{"kernel-btf", nil, "pass"}, {"kernel-btf", func(p *node.Profile) { p.BTF = false }, "fail BTF003"},
		{"kernel-btf", func(p *node.Profile) { p.BTF = false; p.Unknown["btf"] = "permission denied" }, "warn?"},
		{"fentry", nil, "warn?"}, {"tracepoint", nil, "warn?"}, {"fentry", func(p *node.Profile) { p.Machine = "aarch64"; p.Release = "6.1.5" }, "fail FEAT007"},
		{"fentry", func(p *node.Profile) { p.Config = nil }, "warn?"},
		{"kprobe", nil, "pass"}, {"kprobe", func(p *node.Profile) { p.Config["CONFIG_KPROBES"] = "n" }, "fail ATT109"},
		{"kprobe", func(p *node.Profile) { p.Sysctls["kernel.perf_event_paranoid"] = "3" }, "warn PERM011"},
		{"kprobe", func(p *node.Profile) {
			p.Sysctls["kernel.perf_event_paranoid"] = "3"
			p.Process.Capabilities = []string{"CAP_SYS_ADMIN"}
		}, "pass"},
		{"uprobe", nil, "pass"}, {"uprobe", func(p *node.Profile) { p.Release = "6.16.1" }, "fail PERM012"},
		{"uprobe", func(p *node.Profile) { p.Release = "6.12.0-amd64" }, "warn? PERM012"},
		{"uprobe-multi", nil, "pass"}, {"uprobe-multi", func(p *node.Profile) { p.Release = "6.1.0" }, "fail ATT002"},
		{"lsm", nil, "pass"}, {"lsm", func(p *node.Profile) { p.LSMs = []string{"capability"} }, "fail"}, {"lsm", untried, "warn?"},
		{"cgroup-v2", func(p *node.Profile) { p.CgroupV2 = false }, "fail ATT201"},
	} {
		p := made()
		if c.spoil != nil {
			c.spoil(p)
		}
		var n Needs
		qt.Assert(t, qt.IsNil(n.Add(c.word)))
		l := line(t, Judge(Host{Profile: p}, &n), c.word)
		qt.Check(t, qt.Equals(answer(l), c.want), qt.Commentf("%s: %+v", c.word, l))
		qt.Check(t, qt.IsTrue(l.Verdict == Pass || l.Rule == "" || l.Do != ""), qt.Commentf("no remedy: %+v", l))
	}
}

// TestTried: what was tried counts for more than what the release and the configuration tell.
func TestTried(t *testing.T) {
	for _, c := range []struct {
		word, reason string
		config       map[string]string
		want         string
	}{
		{"fentry", "", nil, "pass"}, {"fentry", "the kernel refuses fentry: EPERM (1)", nil, "fail"},
		{"fentry", "", map[string]string{}, "pass"},
		{"kprobe", "", nil, "pass"}, {"kprobe", "no kprobes", nil, "fail ATT109"},
		{"tracepoint", "", nil, "pass"}, {"tracepoint", "tracefs is not mounted", nil, "fail ATT103"},
	} {
		p := made()
		if c.config != nil {
			p.Config = c.config
		}
		ways := map[Way]string{Fentry: c.reason, Kprobe: c.reason, Tracefs: c.reason}
		var n Needs
		qt.Assert(t, qt.IsNil(n.Add(c.word)))
		l := line(t, Judge(Host{Profile: p, Tried: ways}, &n), c.word)
		qt.Check(t, qt.Equals(answer(l), c.want), qt.Commentf("%s: %+v", c.word, l))
	}
}

// TestGeneral: without needs, and what spoils each line.
func TestGeneral(t *testing.T) {
	r := Judge(Host{Profile: made()}, &Needs{})
	qt.Check(t, qt.Equals(r.Verdict, Pass))
	qt.Check(t, qt.Equals(r.Passed, len(r.Lines)), qt.Commentf("%+v", r.Lines))
	limit := uint64(64 << 10)
	for _, c := range []struct {
		need  string
		spoil func(*Host)
		want  string
	}{
		{"loads work", func(h *Host) { h.Hangs, h.HangRule = "a load hangs", "HANG002" }, "fail HANG002"},
		{"loads of others come back", func(h *Host) { h.Others, h.OthersRule = "2 loads hang", "HANG001" }, "warn HANG001"},
		{"loads work", func(h *Host) { untried(h.Profile) }, "warn?"},
		{"loads work", func(h *Host) {
			h.Profile.Features, h.Profile.Process.Seccomp = nil, "filter"
			h.Profile.Unknown["features"] = "operation not permitted"
		}, "fail PERM006"},
		{"programs are compiled", func(h *Host) { h.Profile.Sysctls[enable] = "0" }, "warn JIT003"},
		{"constant blinding", func(h *Host) { h.Profile.Sysctls[harden] = "2" }, "warn BLIND001"},
		{"constant blinding", func(h *Host) { untried(h.Profile) }, "warn?"},
		{"capabilities", func(h *Host) { h.Profile.Process.Capabilities = []string{"CAP_BPF"} }, "warn PERM001"},
		{"capabilities", func(h *Host) { h.Profile.Process.InitialUser = false }, "warn? PERM001"},
		{"capabilities", func(h *Host) { h.Profile.Process.InitialUser = false; h.Profile.Release = "6.1.5" }, "fail PERM001"},
		{"JIT memory", func(h *Host) { *h.Profile.JITUsed = 528482304 }, "warn JIT001"},
		{"JIT memory", func(h *Host) { untried(h.Profile) }, "warn?"},
		{"locked memory", func(h *Host) { h.Profile.Release, h.Profile.Process.Memlock = "5.10.5", &limit }, "warn PERM007"},
		{"locked memory", func(h *Host) { h.Profile.Release = "5.10.5" }, "pass"},
		{"lockdown", func(h *Host) { h.Profile.Lockdown = "confidentiality" }, "warn PERM003"},
		{"lockdown", func(h *Host) { untried(h.Profile) }, "warn?"},
		{"lockdown", func(h *Host) { h.Profile.Lockdown = "" }, "pass"},
		{"lockdown", func(h *Host) { h.Profile.Lockdown, h.Profile.Features.Helpers["kprobe"] = "", nil }, "warn?"},
		{"kernel BTF", func(h *Host) { h.Profile.BTF = false }, "warn BTF003"},
	} {
		h := Host{Profile: made()}
		c.spoil(&h)
		l := line(t, Judge(h, &Needs{}), c.need)
		qt.Check(t, qt.Equals(answer(l), c.want), qt.Commentf("%+v", l))
	}
}

func objectNeeds(t *testing.T, path string) *Needs {
	o, err := object.ReadFile(path)
	qt.Assert(t, qt.IsNil(err))
	n := &Needs{}
	qt.Assert(t, qt.IsNil(n.AddObject(Source{Path: path, Object: o})))
	return n
}

const (
	sparse = "../../../loader/testdata/sparse.o"
	small  = "../object/testdata/small.o"
)

// TestBlinding: a program that blinding breaks fails where the node blinds, and is a warning
// elsewhere.
func TestBlinding(t *testing.T) {
	n := objectNeeds(t, sparse)
	for _, c := range []struct {
		at, config string
		caps       []string
		want       string
	}{
		{"0", "y", nil, "warn BLIND002"},
		{"2", "y", nil, "fail BLIND002"},
		{"2", "n", nil, "warn BLIND002"}, // interpreted, or refused
		{"2", "", nil, "warn BLIND002"},
		{"1", "y", []string{"CAP_BPF", "CAP_NET_ADMIN"}, "warn BLIND002"},
		{"1", "y", []string{"CAP_NET_ADMIN"}, "fail BLIND002"},
		{"", "y", nil, "warn? BLIND002"},
	} {
		p := made()
		p.Sysctls[harden], p.Config["CONFIG_BPF_JIT_ALWAYS_ON"] = c.at, c.config
		if c.caps != nil {
			p.Process.Capabilities = c.caps
		}
		r := Judge(Host{Profile: p}, n)
		at := "2" // unless the node is set so
		if strings.HasPrefix(c.want, "fail") {
			at = c.at
		}
		l := line(t, r, "constant blinding at net.core.bpf_jit_harden="+at)
		qt.Check(t, qt.Equals(answer(l), c.want), qt.Commentf("%+v: %+v", c, l))
		qt.Check(t, qt.DeepEquals(l.For, []string{"far"}))
		qt.Check(t, qt.Equals(l.Command, "bpfwhy fix "+sparse+" -o FIXED.o"))
	}
}

// TestObject: what the programs of an object need.
func TestObject(t *testing.T) {
	n := objectNeeds(t, small)
	types, all := n.HelperTypes()
	qt.Check(t, qt.DeepEquals(types, []string{"kprobe", "sched_cls"}))
	qt.Check(t, qt.IsFalse(all))
	r := Judge(Host{Profile: made()}, n)
	for need, want := range map[string]string{
		"program:sched_cls": "pass", "capabilities for sched_cls": "pass", "map:array": "pass", "map:prog_array": "pass", "co-re": "pass",
		"helper:bpf_get_current_task for sched_cls": "pass", "instructions: v3": "pass",
	} {
		qt.Check(t, qt.Equals(answer(line(t, r, need)), want), qt.Commentf("%s", need))
	}
	p := made()
	p.BTF = false // loaders can bring types of their own
	p.Process.Capabilities = []string{"CAP_BPF"}
	p.Features.Helpers["sched_cls"] = nil
	r = Judge(Host{Profile: p}, n)
	qt.Check(t, qt.Equals(answer(line(t, r, "co-re")), "warn BTF003"))
	qt.Check(t, qt.Equals(answer(line(t, r, "capabilities for sched_cls")), "fail PERM001"))
	// The program asks whether the kernel has a field, so it may do without the call.
	l := line(t, r, "helper:bpf_get_current_task for sched_cls")
	qt.Check(t, qt.Equals(l.Verdict, Warn))
	qt.Check(t, qt.IsTrue(strings.Contains(l.Why, switched)), qt.Commentf("%s", l.Why))
	// sparse.o has a field's offset alone, which switches nothing off.
	r = Judge(Host{Profile: p}, objectNeeds(t, sparse))
	qt.Check(t, qt.Equals(answer(line(t, r, "helper:bpf_map_lookup_elem for sched_cls")), "fail FEAT002"))
}

// TestHelpersOfTracing: what cannot be tried with the type itself.
func TestHelpersOfTracing(t *testing.T) {
	for name, want := range map[string]string{"bpf_loop": "pass", "bpf_get_stack": "warn?", "bpf_nothing": "fail FEAT001"} {
		j := judge{Profile: made()}
		qt.Check(t, qt.Equals(answer(j.helper(name, "tracing", true)), want), qt.Commentf("%s", name))
	}
	j := judge{Profile: made()}
	qt.Check(t, qt.Equals(answer(j.helper("bpf_loop", "struct_ops", true)), "warn?"))
	qt.Check(t, qt.Equals(answer(j.helper("bpf_loop", "", true)), "warn?"))
}

// TestWordRights: a type that is asked for by its name asks for its capabilities.
func TestWordRights(t *testing.T) {
	p := made()
	p.Process.Capabilities = []string{"CAP_BPF", "CAP_NET_ADMIN"}
	for w, want := range map[string]string{"kprobe": "fail PERM001", "sched_cls": "pass", "socket_filter": "pass"} {
		var n Needs
		qt.Assert(t, qt.IsNil(n.Add("program:"+w)))
		qt.Check(t, qt.Equals(answer(line(t, Judge(Host{Profile: p}, &n), "capabilities for "+w)), want))
	}
	p.Process.Capabilities = nil
	var n Needs
	qt.Assert(t, qt.IsNil(n.Add("program:socket_filter")))
	qt.Check(t, qt.Equals(answer(line(t, Judge(Host{Profile: p}, &n), "capabilities for socket_filter")), "fail PERM002"))
	p.Sysctls[unprivileged] = "0"
	qt.Check(t, qt.Equals(answer(line(t, Judge(Host{Profile: p}, &n), "capabilities for socket_filter")), "warn PERM009"))
}

func TestUnknownWord(t *testing.T) {
	for w, want := range map[string]string{
		"map:ringbuff": "did you mean map:ringbuf?", "kprobes": "kprobe", "programm:xdp": "program:xdp", "helper:loop": "helper:bpf_loop",
		"uprobe_multi": "uprobe-multi", "zzzzzzzzz": "not one of",
	} {
		err := new(Needs).Add(w)
		qt.Check(t, qt.ErrorMatches(err, `unknown feature .*`))
		qt.Check(t, qt.IsTrue(strings.Contains(err.Error(), want)), qt.Commentf("%v", err))
	}
}
