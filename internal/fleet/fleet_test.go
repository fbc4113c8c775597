// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

const harden = "net.core.bpf_jit_harden"

// made is a profile of a kernel with settings.
func made(release, hardened string) *node.Profile {
	return &node.Profile{
		Release: release, Version: "#1 SMP", Machine: "x86_64", Lockdown: "none", LSMs: []string{"capability", "bpf"}, BTF: true, CgroupV2: true,
		Config:  map[string]string{"CONFIG_BPF_JIT_ALWAYS_ON": "y"},
		Sysctls: map[string]string{harden: hardened, "kernel.unprivileged_bpf_disabled": "2"},
	}
}

func TestClass(t *testing.T) {
	a, b := made("6.1.0", "2"), made("6.1.0", "2")
	// What differs between two boots of one machine.
	used := uint64(4096)
	a.JITUsed, a.Container = &used, "kubepods"
	a.Process = &node.Process{Capabilities: []string{"CAP_BPF"}}
	a.Unknown, b.Unknown = map[string]string{"config": "no such file"}, map[string]string{"config": "permission denied"}
	a.Proven = map[node.Behaviour]node.Proof{node.LargeLog: {Does: true, Seen: "in 3 ms"}}
	b.Proven = map[node.Behaviour]node.Proof{node.LargeLog: {Does: true, Seen: "in 4 ms"}}
	id := ClassOf(a).ID()
	qt.Check(t, qt.Matches(id, "c-[0-9a-f]{16}"))
	qt.Check(t, qt.Equals(ClassOf(b).ID(), id))
	b.Sysctls[harden] = "1"
	qt.Check(t, qt.Not(qt.Equals(ClassOf(b).ID(), id)))
}

func TestClassAndBack(t *testing.T) {
	p := made("6.1.0", "2")
	p.Unknown = map[string]string{"config": "no such file"}
	p.Features = &node.Features{Programs: map[string]bool{"kprobe": true, "xdp": true}, Maps: map[string]bool{"hash": true}, Instructions: map[string]bool{"v3": true},
		Helpers: map[string][]string{"kprobe": {"bpf_a", "bpf_b", "bpf_c"}, "xdp": {"bpf_b"}, "none": {}}}
	text, err := json.Marshal(ClassOf(p))
	qt.Assert(t, qt.IsNil(err))
	var c Class
	qt.Assert(t, qt.IsNil(json.Unmarshal(text, &c)))
	back := c.Profile()
	qt.Check(t, qt.DeepEquals(back.Features, p.Features))
	qt.Check(t, qt.HasLen(node.Diff(p, back), 0))
	qt.Check(t, qt.Equals(ClassOf(back).ID(), ClassOf(p).ID()))
	// Bits of helpers that are not there, and what is no bitmap.
	c.Features.HelpersOf["kprobe"], c.Features.HelpersOf["xdp"] = "ffff", "zz"
	qt.Check(t, qt.DeepEquals(c.Profile().Features.Helpers["kprobe"], p.Features.Helpers["kprobe"]))
}

// attempt is a program that failed by a rule, or loaded where there is none.
func attempt(program, rule string) *load.Attempt {
	a := &load.Attempt{Kind: load.ProgLoad, Program: &load.Program{Name: program, Type: "kprobe", Insns: 40000}, Process: load.Process{Comm: "agent"}, Outcome: load.Loaded}
	if rule != "" {
		a.Outcome, a.Errno = load.Failed, 524
		a.Diagnosis = &load.Diagnosis{Rule: rule, Title: "t", Cause: "c", Remedies: []load.Remedy{{Title: "r"}}}
	}
	a.Evidence.Harden = -1
	return a
}

// fleetOf has a node for each profile; a program fails on those that it names, loads on the others
// but for those that did not see it.
func fleetOf(profiles []*node.Profile, failing, unseen string) *Fleet {
	f := &Fleet{}
	for i, p := range profiles {
		n := &Node{Name: fmt.Sprint("n", i), Profile: p, Watched: true}
		switch name := fmt.Sprint(i); {
		case strings.Contains(failing, name):
			n.Add(attempt("probe", "BLIND001"))
			n.Add(attempt("probe", "BLIND001"))
		case !strings.Contains(unseen, name):
			n.Add(attempt("probe", ""))
		}
		f.Nodes = append(f.Nodes, n)
	}
	f.Settle()
	return f
}

// Two makes of nodes: what the rule depends on comes first, and what only tells kernels apart last.
func TestWhy(t *testing.T) {
	f := fleetOf([]*node.Profile{made("6.1.0", "2"), made("6.12.0", "2"), made("6.1.1", "1"), made("6.12.1", "0"), made("5.10.0", "0")}, "01", "4")
	problems := f.Problems()
	qt.Assert(t, qt.HasLen(problems, 1))
	p := problems[0]
	qt.Check(t, qt.DeepEquals(p.Fail, []string{"n0", "n1"}))
	qt.Check(t, qt.DeepEquals(p.Work, []string{"n2", "n3"}))
	qt.Check(t, qt.DeepEquals(p.Unseen, []string{"n4"}))
	qt.Check(t, qt.Equals(p.Count, 4))
	r := f.Why(p)
	qt.Check(t, qt.IsFalse(r.Assumed))
	qt.Assert(t, qt.IsTrue(len(r.By) > 0))
	first := r.By[0]
	qt.Check(t, qt.Equals(first.Name, harden))
	qt.Check(t, qt.IsTrue(first.Explains))
	qt.Check(t, qt.DeepEquals(first.Fail, []Value{{"2", 2}}))
	qt.Check(t, qt.DeepEquals(first.Work, []Value{{"0", 1}, {"1", 1}}))
	for _, s := range r.By {
		if s.Name == "release" {
			qt.Check(t, qt.IsTrue(s.Unique))
		}
	}
	qt.Check(t, qt.IsTrue(p.Matches("BLIND001") && p.Matches("blind001") && p.Matches("probe") && p.Matches("agent") && p.Matches(p.ID) && !p.Matches("other")))
}

// Where one class is on both sides, nothing that is known of the nodes separates them.
func TestNothingSeparates(t *testing.T) {
	f := fleetOf([]*node.Profile{made("6.1.0", "2"), made("6.1.0", "2")}, "0", "")
	r := f.Why(f.Problems()[0])
	qt.Check(t, qt.HasLen(r.By, 0))
	// It fails everywhere.
	f = fleetOf([]*node.Profile{made("6.1.0", "2"), made("6.1.0", "2")}, "01", "")
	r = f.Why(f.Problems()[0])
	qt.Check(t, qt.HasLen(r.By, 0))
	qt.Check(t, qt.HasLen(r.Problem.Work, 0))
	// Nobody saw it work: the others are assumed to be fine, and that is said.
	f = fleetOf([]*node.Profile{made("6.1.0", "2"), made("6.1.0", "0")}, "0", "1")
	r = f.Why(f.Problems()[0])
	qt.Check(t, qt.IsTrue(r.Assumed))
	qt.Check(t, qt.Equals(r.By[0].Name, harden))
}

// What could not be read on some nodes is not taken for a difference.
func TestUnknown(t *testing.T) {
	hidden := made("6.1.0", "2")
	delete(hidden.Sysctls, harden)
	f := fleetOf([]*node.Profile{made("6.1.0", "2"), made("6.1.0", "0"), hidden}, "0", "")
	r := f.Why(f.Problems()[0])
	qt.Check(t, qt.HasLen(r.By, 0))
	qt.Check(t, qt.DeepEquals(unknownNames(r.Unknown), []string{harden}))
	qt.Check(t, qt.Equals(r.Unknown[0].Nodes, 1))
}

func unknownNames(list []Unknown) (out []string) {
	for _, u := range list {
		out = append(out, u.Name)
	}
	return out
}

// The same program may fail for two reasons: neither side is where it works.
func TestOtherwise(t *testing.T) {
	f := fleetOf([]*node.Profile{made("6.1.0", "2"), made("6.1.0", "0"), made("6.1.0", "1")}, "0", "2")
	f.Nodes[2].Add(attempt("probe", "PERM001"))
	for _, p := range f.Problems() {
		qt.Check(t, qt.DeepEquals(p.Work, []string{"n1"}))
		qt.Check(t, qt.HasLen(p.Otherwise, 1))
	}
}

// What fails to attach works where it was attached: that it was loaded says nothing.
func TestAttachments(t *testing.T) {
	attach := func(outcome load.Outcome) *load.Attempt {
		a := attempt("", "")
		a.Kind, a.Program, a.Outcome = load.LinkCreate, nil, outcome
		a.Attach = &load.Attach{Program: &load.AttachProgram{Name: "count", Type: "xdp"}}
		if outcome == load.Failed {
			a.Errno, a.Diagnosis = 16, &load.Diagnosis{Rule: "ATT304"}
		}
		return a
	}
	f := fleetOf([]*node.Profile{made("6.1.0", "2"), made("6.1.0", "0"), made("6.1.0", "1")}, "", "012")
	f.Nodes[0].Add(attach(load.Failed))
	f.Nodes[1].Add(attach(load.Loaded))
	p := f.Problems()[0]
	qt.Check(t, qt.DeepEquals(p.Work, []string{"n1"}))
	qt.Check(t, qt.DeepEquals(p.Unseen, []string{"n2"}))
}

func TestSelect(t *testing.T) {
	f := fleetOf([]*node.Profile{made("6.1.0", "2"), made("6.1.0", "0"), made("6.1.0", "2")}, "0", "")
	qt.Check(t, qt.HasLen(f.Select("n*"), 3))
	qt.Check(t, qt.HasLen(f.Select("n1"), 1))
	qt.Check(t, qt.HasLen(f.Select(f.Nodes[0].Class), 2))
	qt.Check(t, qt.HasLen(f.Select("["), 0))
	qt.Check(t, qt.HasLen(f.Select(""), 0))
}

func TestBounds(t *testing.T) {
	n := &Node{}
	for i := range MaxFailures + 10 {
		a := attempt(fmt.Sprint("p", i), "BLIND001")
		a.Diagnosis.Cause = strings.Repeat("ü", maxMessage)
		n.Add(a)
	}
	qt.Check(t, qt.HasLen(n.Failures, MaxFailures))
	qt.Check(t, qt.Equals(n.Dropped, 10))
	qt.Check(t, qt.Equals(n.Failures[0].Message, strings.Repeat("ü", maxMessage/2)))
	for i := range MaxLoaded + 10 {
		n.Add(attempt(fmt.Sprint("p", i), ""))
	}
	qt.Check(t, qt.Equals(len(n.Loaded), MaxLoaded))
}
