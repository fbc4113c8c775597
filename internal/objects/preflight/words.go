// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/node"
)

// feature is a word of --needs, besides those that name a type or a helper.
type feature struct {
	word, note string
	judge      func(j judge) Line
}

// features are all words, in the order of the documents.
var features = []feature{
	{"kernel-btf", "/sys/kernel/btf/vmlinux", judge.kernelBTF},
	{"kprobe", "kprobes can be attached", judge.kprobe},
	{"kprobe-multi", "one program on many functions (5.18)", judge.kprobeMulti},
	{"uprobe", "uprobes can be attached", judge.uprobe},
	{"uprobe-multi", "one program on many functions of processes (6.6)", judge.uprobeMulti},
	{"tracepoint", "tracepoints can be attached by their numbers", judge.tracepoint},
	{"fentry", "fentry, fexit and fmod_ret can be attached", judge.fentry},
	{"lsm", "LSM programs can be attached", judge.lsm},
	{"tcx", "tc programs without a qdisc (6.6)", func(j judge) Line { return j.link("tcx", node.TCX) }},
	{"netkit", "programs on netkit devices (6.7)", func(j judge) Line { return j.link("netkit", node.Netkit) }},
	{"v2", "instructions of clang -mcpu=v2", func(j judge) Line { return j.set("v2", "") }},
	{"v3", "instructions of clang -mcpu=v3", func(j judge) Line { return j.set("v3", "") }},
	{"v4", "instructions of clang -mcpu=v4", func(j judge) Line { return j.set("v4", "") }},
	{"gotol", "a goto with a 32-bit offset, of v4", func(j judge) Line { return j.set("gotol", "") }},
	{"bounded-loops", "loops that end (5.3)", func(j judge) Line { return j.set("bounded_loops", node.BoundedLoops) }},
	{"large-programs", "more than 4096 instructions (5.2)", func(j judge) Line { return j.set("large_programs", node.MillionInstructions) }},
	{"callbacks", "the address of a function (5.13)", func(j judge) Line { return j.behaviour(node.AddressOfFunction) }},
	{"load-acquire", "load-acquire and store-release (6.15)", func(j judge) Line { return j.behaviour(node.LoadAcquire) }},
	{"arena", "arenas (6.9)", func(j judge) Line { return j.behaviour(node.Arenas) }},
	{"token", "BPF tokens for user namespaces (6.9)", func(j judge) Line { return j.behaviour(node.UserNamespaceTokens) }},
	{"jit", "programs are compiled", judge.jit},
	{"cgroup-v2", "control groups of version 2", judge.cgroup},
}

// ofObjects are what only objects need.
var ofObjects = []feature{
	{"co-re", "", judge.core},
	{"kfuncs", "", judge.kfuncs},
}

// families are the words that name a type or a helper.
var families = []struct {
	prefix string
	kind   kind
	names  func() []string
}{
	{"program:", programType, func() []string { return typeNames(abi.ProgTypes, abi.ProgTypeName) }},
	{"map:", mapType, func() []string { return typeNames(abi.MapTypes, abi.MapTypeName) }},
	{"helper:", helper, helperNames},
}

func typeNames(n int, name func(uint32) string) (names []string) {
	for i := 1; i <= n; i++ {
		names = append(names, name(uint32(i)))
	}
	return names
}

func helperNames() (names []string) {
	for id := 1; ; id++ {
		h, ok := insn.HelperByID(id)
		if !ok {
			return names
		}
		names = append(names, h.Name)
	}
}

// Word is one that --needs takes, with what it means.
type Word struct{ Word, Note string }

// Words lists all of them.
func Words() (list []Word) {
	for _, f := range features {
		list = append(list, Word{f.word, f.note})
	}
	for _, f := range families {
		for _, name := range f.names() {
			list = append(list, Word{Word: f.prefix + name})
		}
	}
	return list
}

// Add notes a feature by its word. An error names those that look like it.
func (n *Needs) Add(w string) error {
	if slices.ContainsFunc(features, func(f feature) bool { return f.word == w }) {
		n.add(need{kind: word, of: w}, "")
		return nil
	}
	for _, f := range families {
		if name, ok := strings.CutPrefix(w, f.prefix); ok && slices.Contains(f.names(), name) {
			n.add(need{kind: f.kind, of: name}, "")
			if f.kind == programType {
				n.add(need{kind: capabilities, of: name}, "")
			}
			return nil
		}
	}
	like := near(w)
	if len(like) == 0 {
		return fmt.Errorf("unknown feature %q: not one of program:TYPE, map:TYPE, helper:NAME, kernel-btf, fentry, v3 and others", w)
	}
	return fmt.Errorf("unknown feature %q (did you mean %s?)", w, strings.Join(like, " or "))
}

// near lists the words that look most like one, the nearest first.
func near(w string) []string {
	const most = 3
	bare := func(s string) string {
		_, name, family := strings.Cut(s, ":")
		if !family {
			name = s
		}
		return strings.TrimPrefix(strings.NewReplacer("_", "", "-", "").Replace(strings.ToLower(name)), "bpf")
	}
	best := max(1, len(bare(w))/3)
	var out []string
	for _, k := range Words() {
		d := distance(bare(w), bare(k.Word))
		switch {
		case d > best:
			continue
		case d < best:
			best, out = d, nil
		}
		out = append(out, k.Word)
	}
	return out[:min(len(out), most)]
}

// distance is how many letters must be put in, left out or replaced to make a word of another.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
