// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"cmp"
	"maps"
	"slices"

	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// A Separation is a property in which all nodes of one side differ from all nodes of the other.
type Separation struct {
	Name   string      `json:"name"` // "net.core.bpf_jit_harden"
	Effect node.Effect `json:"effect"`
	Fail   []Value     `json:"fail"` // on the nodes where it fails, the most frequent first
	Work   []Value     `json:"work"`
	// Explains says that the rule of the failure depends on this property.
	Explains bool `json:"explains"`
	// Sure: it follows from the recorded attempt that this would not have stopped it on a node of
	// the other side.
	Sure bool `json:"sure,omitempty"`
	// Unique: every class has a value of its own, so that it would separate any two sides.
	Unique bool   `json:"unique,omitempty"`
	Why    string `json:"why,omitempty"`

	key node.Key
}

// Value is one value of a property.
type Value struct {
	Value string `json:"value"`
	Nodes int    `json:"nodes"`
}

// Unknown is a property that might separate two sides: nobody knows, as it could not be read on so
// many nodes.
type Unknown struct {
	Name  string `json:"name"`
	Nodes int    `json:"nodes"`

	explains bool
}

// unread is what a difference has for a value that could not be read.
const unread = "unknown"

// side are the nodes of one side, by class.
type side struct {
	profiles map[string]*node.Profile
	nodes    map[string]int
}

func sideOf(nodes []*Node) side {
	s := side{map[string]*node.Profile{}, map[string]int{}}
	for _, n := range nodes {
		if n.Profile != nil {
			s.profiles[n.Class] = n.Profile
			s.nodes[n.Class]++
		}
	}
	return s
}

func (s side) classes() []string { return slices.Sorted(maps.Keys(s.profiles)) }

// seen is what the pairs of classes say of one property.
type seen struct {
	first      node.Difference
	explains   bool // some of them, the rule
	pairs      int
	fail, work map[string]string // class to value
}

// Separate returns what separates two sides, what explains a failure by the rule first, and what
// would have to be known to say more. The rule may be empty. One class on both sides leaves nothing
// that separates them.
func Separate(rule string, fail, work []*Node) ([]Separation, []Unknown) {
	f, w := sideOf(fail), sideOf(work)
	properties := map[node.Key]*seen{}
	for _, a := range f.classes() {
		for _, b := range w.classes() {
			for _, d := range explain.Differences(f.profiles[a], w.profiles[b]) {
				p := properties[d.Key]
				if p == nil {
					p = &seen{first: d, fail: map[string]string{}, work: map[string]string{}}
					properties[d.Key] = p
				}
				p.pairs++
				p.fail[a], p.work[b] = d.A, d.B
				p.explains = p.explains || d.LeadsTo(rule)
				if weight(d.Effect) < weight(p.first.Effect) {
					p.first.Effect, p.first.Why = d.Effect, d.Why
				}
			}
		}
	}
	out := []Separation{}
	var unknown []Unknown
	for key, p := range properties {
		if p.pairs < len(f.profiles)*len(w.profiles) {
			continue // some class of one side agrees with one of the other
		}
		s := Separation{Name: p.first.Name, Effect: p.first.Effect, Why: p.first.Why, Explains: p.explains, key: key}
		hidden := f.hidden(p.fail) + w.hidden(p.work)
		if hidden > 0 {
			unknown = append(unknown, Unknown{s.Name, hidden, s.Explains})
			continue
		}
		s.Fail, s.Work = f.values(p.fail), w.values(p.work)
		classes := len(f.profiles) + len(w.profiles)
		s.Unique = classes > 2 && len(s.Fail)+len(s.Work) == classes
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Separation) int { return cmp.Or(rank(a)-rank(b), cmp.Compare(a.Name, b.Name)) })
	slices.SortFunc(unknown, func(a, b Unknown) int {
		return cmp.Or(cmp.Compare(number(b.explains), number(a.explains)), cmp.Compare(a.Name, b.Name))
	})
	return out, unknown
}

func weight(e node.Effect) int {
	return slices.Index([]node.Effect{node.Decides, node.MayDecide, node.Informs}, e)
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

// rank is lower for what people should read first. A property that each class has its own value of
// says little, unless the attempt itself says that it is the reason.
func rank(s Separation) int {
	r := weight(s.Effect)
	if !s.Explains {
		r += 10
	}
	if s.Unique && !s.Sure {
		r += 20
	}
	if s.Sure {
		r -= 5
	}
	return r
}

// hidden counts the nodes of classes on which a value could not be read.
func (s side) hidden(values map[string]string) (nodes int) {
	for class, v := range values {
		if v == unread {
			nodes += s.nodes[class]
		}
	}
	return nodes
}

func (s side) values(of map[string]string) []Value {
	nodes := map[string]int{}
	for class, v := range of {
		nodes[v] += s.nodes[class]
	}
	var out []Value
	for v, n := range nodes {
		out = append(out, Value{v, n})
	}
	slices.SortFunc(out, func(a, b Value) int { return cmp.Or(b.Nodes-a.Nodes, cmp.Compare(a.Value, b.Value)) })
	return out
}

// judge adds what a recorded attempt says of the separations: which of them would have changed how
// it ended, on every class of the other side.
func judge(list []Separation, a *load.Attempt, here *node.Profile, work []*Node) {
	if a == nil || here == nil {
		return
	}
	there := sideOf(work)
	sure, why := map[node.Key]int{}, map[node.Key]string{}
	for _, p := range there.profiles {
		for _, c := range explain.Compare(a, here, p) {
			if c.Sure {
				sure[c.Key]++
				why[c.Key] = c.Because
			}
		}
	}
	for i := range list {
		s := &list[i]
		if n := sure[s.key]; n > 0 && n == len(there.profiles) {
			s.Sure, s.Explains, s.Why = true, true, why[s.key]
		}
	}
	slices.SortStableFunc(list, func(a, b Separation) int { return rank(a) - rank(b) })
}
