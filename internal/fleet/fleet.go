// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/node"
)

// A Fleet is a set of nodes.
type Fleet struct {
	Nodes []*Node // by name
}

// Settle orders what was added: the class of each node, and its failures by their count.
func (f *Fleet) Settle() {
	for _, n := range f.Nodes {
		n.settle()
	}
}

// A Kind is the nodes of one class.
type Kind struct {
	Class   string   `json:"class"` // "" for nodes without a profile
	Release string   `json:"release"`
	Distro  string   `json:"distro,omitempty"`
	Harden  string   `json:"harden,omitempty"` // net.core.bpf_jit_harden
	Nodes   []string `json:"nodes"`
	// Failing are those on which something fails.
	Failing int `json:"failing"`
	// Watched are those on which failures were looked for.
	Watched int `json:"watched"`
}

// Kinds are the classes of the fleet, the largest first.
func (f *Fleet) Kinds() []Kind {
	byClass := map[string]*Kind{}
	for _, n := range f.Nodes {
		k := byClass[n.Class]
		if k == nil {
			k = &Kind{Class: n.Class}
			if n.Profile != nil {
				k.Release, k.Distro, k.Harden = n.Profile.Release, n.Profile.Distro, n.Profile.Sysctls["net.core.bpf_jit_harden"]
			}
			byClass[n.Class] = k
		}
		k.Nodes = append(k.Nodes, n.Name)
		k.Failing += number(len(n.Failures) > 0)
		k.Watched += number(n.Watched)
	}
	out := []Kind{}
	for _, k := range byClass {
		out = append(out, *k)
	}
	slices.SortFunc(out, func(a, b Kind) int {
		return cmp.Or(len(b.Nodes)-len(a.Nodes), cmp.Compare(a.Class, b.Class))
	})
	return out
}

// A Problem is one kind of failures across the nodes.
type Problem struct {
	Failure
	Fail []string `json:"fail_on"` // names of nodes
	// Work are nodes on which the same program was seen to load (to be attached, where that is what
	// failed), and where nothing of it fails.
	Work []string `json:"work_on"`
	// Unseen are watched nodes that neither failed nor were seen to load it: it may not run there.
	Unseen []string `json:"unseen_on"`
	// Otherwise are nodes on which the same program fails by another rule.
	Otherwise []string `json:"fail_otherwise_on"`

	fail, work, unseen []*Node
}

// Problems are the failures of the fleet, those on most nodes first.
func (f *Fleet) Problems() []*Problem {
	byID := map[string]*Problem{}
	var list []*Problem
	for _, n := range f.Nodes {
		for _, failure := range n.Failures {
			p := byID[failure.ID]
			if p == nil {
				p = &Problem{Failure: failure, Fail: []string{}, Work: []string{}, Unseen: []string{}, Otherwise: []string{}}
				p.Count, p.Workloads = 0, nil
				byID[failure.ID] = p
				list = append(list, p)
			}
			p.add(failure)
		}
	}
	for _, p := range list {
		p.place(f.Nodes)
	}
	slices.SortStableFunc(list, func(a, b *Problem) int {
		return cmp.Or(len(b.Fail)-len(a.Fail), b.Count-a.Count, cmp.Compare(a.ID, b.ID))
	})
	return list
}

func (p *Problem) add(f Failure) {
	p.Count += f.Count
	if f.First.Before(p.First) {
		p.First = f.First
	}
	if f.Last.After(p.Last) {
		p.Last = f.Last
	}
	p.Workloads = joined(p.Workloads, f.Workloads)
	if p.attempt == nil {
		p.attempt = f.attempt
	}
}

// place says where the program fails, where it works, and where nobody knows.
func (p *Problem) place(nodes []*Node) {
	for _, n := range nodes {
		fails, otherwise := false, false
		for i := range n.Failures {
			o := &n.Failures[i]
			fails = fails || o.ID == p.ID
			otherwise = otherwise || o.Program == p.Program && p.Program != (Program{})
		}
		switch {
		case fails:
			p.Fail, p.fail = append(p.Fail, n.Name), append(p.fail, n)
		case otherwise:
			p.Otherwise = append(p.Otherwise, n.Name)
		case n.works(p):
			p.Work, p.work = append(p.Work, n.Name), append(p.work, n)
		case n.Watched:
			p.Unseen, p.unseen = append(p.Unseen, n.Name), append(p.unseen, n)
		}
	}
}

// works reports a node on which the same program was seen to load, or to be attached where that is
// what failed.
func (n *Node) works(p *Problem) bool {
	if p.Kind.Attaches() {
		return n.Attached[p.Program] > 0
	}
	return n.Loaded[p.Program] > 0
}

// Matches reports whether a word of the command line means the problem: its id, its rule, or the
// name of its program, process, pod or workload.
func (p *Problem) Matches(word string) bool {
	return strings.EqualFold(word, p.ID) || strings.EqualFold(word, p.Rule) || word == p.Program.Name || word == p.Comm ||
		slices.ContainsFunc(p.Workloads, func(w Workload) bool { return w.Matches(word) })
}

// Matches reports whether a word means the workload: its pod, or its owner with or without the
// kind, each with or without the namespace.
func (w Workload) Matches(word string) bool {
	if rest, ok := strings.CutPrefix(word, w.Namespace+"/"); ok && w.Namespace != "" {
		word = rest
	}
	word = strings.TrimPrefix(word, "pod/")
	_, name, _ := strings.Cut(w.Owner, "/")
	return word != "" && (word == w.Pod || word == w.PodUID || word == name || strings.EqualFold(word, w.Owner))
}

// A Reason is why a program fails on some nodes and not on others.
type Reason struct {
	Problem *Problem     `json:"problem"`
	By      []Separation `json:"separated_by"` // what to read first comes first
	Unknown []Unknown    `json:"unknown,omitempty"`
	// Assumed: nobody saw the program load on the other nodes. They are those that were watched and
	// on which it did not fail.
	Assumed bool `json:"assumed,omitempty"`
}

// Why says what separates the nodes on which a problem is from those where the program works.
func (f *Fleet) Why(p *Problem) *Reason {
	r := &Reason{Problem: p, By: []Separation{}}
	work := p.work
	if len(work) == 0 {
		work, r.Assumed = p.unseen, len(p.unseen) > 0
	}
	if len(work) == 0 {
		return r
	}
	r.By, r.Unknown = Separate(p.Rule, p.fail, work)
	judge(r.By, p.attempt, p.profile(), work)
	return r
}

// profile is that of the node whose recording holds the attempt.
func (p *Problem) profile() *node.Profile {
	for _, n := range p.fail {
		for i := range n.Failures {
			if n.Failures[i].ID == p.ID && n.Failures[i].attempt != nil {
				return n.Profile
			}
		}
	}
	return nil
}

// Select returns the nodes that a word means: a name, a pattern of names, or a class.
func (f *Fleet) Select(word string) []*Node {
	var out []*Node
	for _, n := range f.Nodes {
		matched, err := path.Match(word, n.Name)
		if err == nil && matched || n.Name == word || word != "" && n.Class == word {
			out = append(out, n)
		}
	}
	return out
}
