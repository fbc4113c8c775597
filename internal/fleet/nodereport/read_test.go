// SPDX-License-Identifier: Apache-2.0

package nodereport

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/fleet"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

const harden = "net.core.bpf_jit_harden"

func classOf(value string) *Class {
	return NewClass(fleet.ClassOf(&node.Profile{Release: "6.1.0", Machine: "x86_64", Sysctls: map[string]string{harden: value}}))
}

// document is what a node writes.
func document(t *testing.T, objects ...any) []byte {
	t.Helper()
	b, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "List", "items": objects})
	qt.Assert(t, qt.IsNil(err))
	return b
}

func failing(node, class string) *Report {
	f := Failure{
		Failure:  fleet.Failure{ID: "0123456789ab", Kind: load.ProgLoad, Rule: "BLIND001", Program: fleet.Program{Name: "probe", Type: "kprobe", Insns: 9}, Comm: "agent", Errno: 524, Count: 3},
		Workload: Workload{Namespace: "o", Pod: "agent-x1", PodUID: "u1", Owner: "DaemonSet/agent"},
	}
	return NewReport(node, Status{Class: class, Watching: &Watching{Since: time.Unix(1, 0)}, Failing: 1, Failures: []Failure{f}})
}

// What two nodes write says which setting separates them, on whichever way it came.
func TestWhyFromReports(t *testing.T) {
	hard, soft := classOf("2"), classOf("0")
	works := NewReport("b", Status{Class: soft.Metadata.Name, Watching: &Watching{}, Loaded: Seen(map[fleet.Program]int{{Name: "probe", Type: "kprobe", Insns: 9}: 4})})
	var o Objects
	n, err := o.Read(document(t, failing("a", hard.Metadata.Name), hard, works, soft, map[string]string{"kind": "ConfigMap", "apiVersion": "v1"}))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(n, 4))
	f := &fleet.Fleet{Nodes: o.Nodes()}
	f.Settle()
	problems := f.Problems()
	qt.Assert(t, qt.HasLen(problems, 1))
	p := problems[0]
	qt.Check(t, qt.DeepEquals(p.Work, []string{"b"}))
	qt.Check(t, qt.Equals(p.Count, 3))
	for _, word := range []string{"agent-x1", "o/agent-x1", "pod/agent-x1", "u1", "agent", "DaemonSet/agent", "o/DaemonSet/agent"} {
		qt.Check(t, qt.IsTrue(p.Matches(word)), qt.Commentf("%s", word))
	}
	qt.Check(t, qt.IsFalse(p.Matches("p/agent-x1") || p.Matches("o/") || p.Matches("")))
	r := f.Why(p)
	qt.Assert(t, qt.IsTrue(len(r.By) > 0))
	qt.Check(t, qt.Equals(r.By[0].Name, harden))
	qt.Check(t, qt.IsFalse(r.Assumed))
}

// A class whose contents are not those of its name is left out, and said.
func TestForgedClass(t *testing.T) {
	hard := classOf("2")
	hard.Spec.Sysctls[harden] = "0"
	var o Objects
	_, err := o.Read(document(t, hard, failing("a", hard.Metadata.Name)))
	qt.Assert(t, qt.ErrorMatches(err, "read class .*not what a node wrote"))
	nodes := o.Nodes()
	qt.Assert(t, qt.HasLen(nodes, 1))
	qt.Check(t, qt.IsNil(nodes[0].Profile))
}

// A class of a later version has a field that this one does not know. Its name is right all the
// same.
func TestLaterClass(t *testing.T) {
	spec := map[string]any{"release": "9.0", "version": "", "machine": "x86_64", "btf": true, "cgroup_v2": true, "cgroup_v1": false, "later": []int{1}}
	b, err := json.Marshal(spec)
	qt.Assert(t, qt.IsNil(err))
	id, err := fleet.ClassID(b)
	qt.Assert(t, qt.IsNil(err))
	c := map[string]any{"apiVersion": APIVersion, "kind": ClassKind, "metadata": map[string]string{"name": id}, "spec": spec}
	var o Objects
	_, err = o.Read(document(t, c, NewReport("a", Status{Class: id})))
	qt.Assert(t, qt.IsNil(err))
	f := &fleet.Fleet{Nodes: o.Nodes()}
	f.Settle()
	qt.Check(t, qt.Equals(f.Nodes[0].Class, id))
	qt.Check(t, qt.Equals(f.Nodes[0].Profile.Release, "9.0"))
}

// Whatever a node runs, what it writes has a bound.
func TestFit(t *testing.T) {
	long := strings.Repeat("x", 256)
	s := Status{Audit: &Audit{}}
	for i := range 500 {
		f := failing("a", "").Status.Failures[0]
		f.ID, f.Message, f.Remedy, f.Pod, f.Image = fmt.Sprintf("%012x", i), long, long, long, long
		s.Failures = append(s.Failures, f)
		s.Loaded = append(s.Loaded, "kprobe/1/"+long)
		s.Silent = append(s.Silent, Workload{Pod: long, Image: long})
		s.Changes = append(s.Changes, Change{Name: long, From: long, To: long})
		s.Audit.Worst = append(s.Audit.Worst, Worst{Program: long, Owner: long})
	}
	s.Fit()
	b, err := json.Marshal(s)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(len(b) <= MaxBytes), qt.Commentf("%d bytes", len(b)))
	qt.Check(t, qt.IsTrue(len(s.Failures) > 0))
	qt.Check(t, qt.Equals(s.Failures[0].ID, "000000000000"))
	qt.Check(t, qt.IsTrue(s.Dropped > 0))
}

func TestHostileReports(t *testing.T) {
	for _, text := range []string{`{"kind":"List","items":[1,{"apiVersion":"bpfwhy.dev/v1alpha1","kind":"NodeReport","status":7}]}`, `[`, `{"kind":"List","items":[{"kind":"List","items":[{"kind":"List"}]}]}`} {
		var o Objects
		n, _ := o.Read([]byte(text))
		qt.Check(t, qt.Equals(n, 0), qt.Commentf("%s", text))
	}
	qt.Check(t, qt.HasLen(programs([]string{"", "a/b", "a/b/c", "a/-1/c", "kprobe/3/x/y"}), 2))
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"kind":"List","items":[{"apiVersion":"bpfwhy.dev/v1alpha1","kind":"NodeReport","metadata":{"name":"a"},"status":{"failing":1,"failures":[{"id":"x"}],"loaded":["kprobe/1/a"]}}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var o Objects
		n, _ := o.Read(b)
		nodes := o.Nodes()
		if len(nodes) > n {
			t.Fatalf("%d nodes of %d objects", len(nodes), n)
		}
		for _, one := range nodes {
			if len(one.Failures) > MaxFailures || len(one.Loaded) > MaxSeen {
				t.Fatalf("%d failures, %d programs", len(one.Failures), len(one.Loaded))
			}
		}
	})
}
