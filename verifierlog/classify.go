// SPDX-License-Identifier: Apache-2.0

package verifierlog

import (
	"slices"
	"strings"
	"sync"

	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
)

// Info documents one wording of the verifier.
type Info struct {
	Kind Kind
	// Sample is a message as a kernel printed it.
	Sample string
	// Kernels says which print this wording, where that is known and not all of them do.
	Kernels string
	// Note says what this wording means, where its kind says too little. It may refer to what the
	// message names, as in {reg}.
	Note Note

	pattern *lazyregexp.Regexp
	// late messages come after all instructions were examined, so the last
	// instruction in the log is not to blame.
	late bool
	// decisive messages beat those before them, which only prepare them.
	decisive bool
	// remarks are also made on programs that are accepted.
	remark bool
	// refine tells two kinds apart that have the same words, by what the message names.
	refine func(args map[string]string) Kind
}

// Note explains one sentence of the verifier.
type Note struct {
	Means string // what is wrong, one or two sentences
	Do    string // what to do about it
	Price string // of doing so, where it is another than a change of the program
}

func wording(kind Kind, pattern, sample string) Info {
	return Info{Kind: kind, Sample: sample, pattern: lazyregexp.New(pattern)}
}

// whole makes the pattern of a sentence whose words are too common to be looked for in the middle
// of a line: it stands alone, or where a loader quotes it.
func whole(pattern string) string {
	return `(?:^|: |["'` + "`" + `])(?:` + pattern + `)(?:$|["'` + "`" + `]|\.$| \(\d+ line)`
}

// reg is a register, or since 7.1 an argument on the stack, as the verifier names them.
const reg = `(?P<reg>R\d+|\*\(R11-\d+\))`

func (i Info) printedBy(kernels string) Info {
	i.Kernels = kernels
	return i
}

func (i Info) afterwards() Info {
	i.late = true
	return i
}

func (i Info) decides() Info {
	i.decisive = true
	return i
}

func (i Info) remarks() Info {
	i.remark = true
	return i
}

func (i Info) refined(kind func(args map[string]string) Kind) Info {
	i.refine = kind
	return i
}

func (i Info) note(means, do string) Info {
	i.Note = Note{Means: means, Do: do}
	return i
}

// costs names the price of what the note says to do.
func (i Info) costs(price string) Info {
	i.Note.Price = price
	return i
}

// wordings is searched in order; the first that matches counts. Poison looks like an unknown helper
// otherwise.
var wordings = slices.Concat(poisonWordings, memoryWordings, objectWordings, callWordings, programWordings, attachWordings, btfWordings)

// Wordings returns the table of known messages, for documentation.
func Wordings() []Info { return slices.Clone(wordings) }

// Match is a classified message.
type Match struct {
	Kind Kind
	// Args holds what the message names. Keys in use: reg (R1), type, want,
	// off, size, value_size, name and id (of a helper or kernel function),
	// insn, from, to, fd, btf_id, poison, opcode, op.
	Args map[string]string
	// Note explains the message, if its kind says too little.
	Note Note
	// Late messages come after the walk through the program, so that the last
	// instruction of the log is not to blame.
	Late bool
	// Remarks are also made on programs that are accepted: they are no complaints by themselves.
	Remark bool

	decisive bool
}

// Classify recognises one message of the verifier, also in the middle of a
// longer line such as a loader's error text. It is [Unknown] for any other text.
func Classify(message string) Match {
	if len(message) > maxLine {
		message = message[:maxLine]
	}
	for _, i := range index().candidates(message) {
		w := &wordings[i]
		if !w.pattern.MayMatch(message) {
			continue
		}
		groups := w.pattern.FindStringSubmatch(message)
		if groups == nil {
			continue
		}
		m := Match{Kind: w.Kind, Late: w.late, decisive: w.decisive, Remark: w.remark}
		for i, name := range w.pattern.Compiled().SubexpNames() {
			if name == "" || groups[i] == "" {
				continue
			}
			if m.Args == nil {
				m.Args = make(map[string]string)
			}
			m.Args[name] = groups[i]
		}
		if w.refine != nil {
			m.Kind = w.refine(m.Args)
		}
		m.Note = Note{Means: fill(w.Note.Means, m.Args), Do: fill(w.Note.Do, m.Args), Price: w.Note.Price}
		return m
	}
	return Match{Kind: Unknown}
}

// fill puts what a message names into the words of a note.
func fill(words string, args map[string]string) string {
	if !strings.Contains(words, "{") {
		return words
	}
	var pairs []string
	for name, value := range args {
		pairs = append(pairs, "{"+name+"}", value)
	}
	return strings.NewReplacer(pairs...).Replace(words)
}

// windows finds the wordings that a message may match, by the four bytes at each of its positions.
// Comparing it with every wording would take ten times as long.
type windows struct {
	at     map[uint32][]int // wordings by four bytes that their messages have
	hashes [1 << 10]uint64  // a bit for each of these, by hash: most bytes of a message need no more
	always []int            // wordings of which no four bytes are known
}

var index = sync.OnceValue(func() *windows {
	x := &windows{at: make(map[uint32][]int)}
	common := make(map[uint32]int)
	for i := range wordings {
		for _, s := range wordings[i].pattern.Needs() {
			for at := range len(s) - 3 {
				common[four(s, at)]++
			}
		}
	}
	for i := range wordings {
		needs := wordings[i].pattern.Needs()
		if lazyregexp.Shortest(needs) < 4 {
			x.always = append(x.always, i)
			continue
		}
		for _, s := range needs {
			rare := four(s, 0)
			for at := range len(s) - 3 {
				if w := four(s, at); common[w] < common[rare] {
					rare = w
				}
			}
			x.at[rare] = append(x.at[rare], i)
			h := hash(rare)
			x.hashes[h/64] |= 1 << (h % 64)
		}
	}
	return x
})

func four(s string, at int) uint32 {
	return uint32(s[at]) | uint32(s[at+1])<<8 | uint32(s[at+2])<<16 | uint32(s[at+3])<<24
}

func hash(w uint32) uint32 { return w * 0x9e3779b1 >> 16 }

// candidates are the wordings that a message may match, in the order of the table.
func (x *windows) candidates(message string) []int {
	found := slices.Clone(x.always)
	for at := range len(message) - 3 {
		w := four(message, at)
		if h := hash(w); x.hashes[h/64]>>(h%64)&1 == 1 {
			found = append(found, x.at[w]...)
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}
