// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/objects/check"
	"github.com/bpfwhy/bpfwhy/internal/objects/object"
	"github.com/bpfwhy/bpfwhy/internal/output/text"
)

// Repair is what was done to an object.
type Repair struct {
	Input, Output string // Output is "" when nothing was to be written
	Fixed         *object.Fixed
	Before, After []check.Program // the verdicts on the programs, in the same order
}

// Unrepaired counts the programs of which it is not predicted that they load now.
func (r *Repair) Unrepaired() int {
	n := 0
	for _, p := range r.After {
		if p.Verdict != check.Loads {
			n++
		}
	}
	return n
}

// Most jumps that are described of a function.
const maxDetours = 8

// Repair writes what was done to each function, and what that means for the programs.
func (t *Text) Repair(r *Repair) error {
	p := page{t: t}
	islands := 0
	for i := range r.Fixed.Functions {
		f := &r.Fixed.Functions[i]
		islands += f.Islands
		repaired(&p, f)
	}
	for i, was := range r.Before {
		is := r.After[i]
		if was.Verdict == check.Loads && is.Verdict == check.Loads {
			continue
		}
		colour := green
		if is.Verdict != check.Loads {
			colour = red
		}
		p.b.WriteString(t.bold(text.Clean(was.Name)) + "  " + text.Clean(state(&was)) + "; " + t.paint("now "+text.Clean(state(&is)), colour) + "\n")
	}
	switch n := len(r.Fixed.Functions); {
	case n == 0 && r.Output == "":
		fmt.Fprintf(&p.b, "%s: nothing to change in %s\n", text.Clean(r.Input), plural(len(r.Before), "program"))
	case n == 0:
		fmt.Fprintf(&p.b, "%s: nothing to change in %s; %s is a copy\n", text.Clean(r.Input), plural(len(r.Before), "program"), text.Clean(r.Output))
	case r.Output == "":
		fmt.Fprintf(&p.b, "%s: %s would change, with %s; nothing was written\n", text.Clean(r.Input), plural(n, "function"), plural(islands, "island"))
	default:
		fmt.Fprintf(&p.b, "%s: %s changed, with %s\n", text.Clean(r.Output), plural(n, "function"), plural(islands, "island"))
	}
	if len(r.Fixed.Stale) > 0 {
		p.b.WriteString("DWARF (" + strings.Join(r.Fixed.Stale, ", ") + ") still describes the original's instructions; loaders do not read it,\n" +
			"and llvm-strip -g takes it out. The line information that the kernel gets (.BTF.ext) is right.\n")
	}
	_, err := t.w.Write(p.b.Bytes())
	return err
}

func state(p *check.Program) string {
	s := string(p.Verdict)
	if p.Confidence == check.Possible {
		s = map[check.Verdict]string{check.Fails: "may fail", check.Wraps: "may wrap"}[p.Verdict]
	}
	if p.Jump == nil {
		return s
	}
	return fmt.Sprintf("%s (margin %d)", s, p.Margin)
}

func repaired(p *page, f *object.FixedFunction) {
	t := p.t
	p.b.WriteString(t.bold(text.Clean(fmt.Sprintf("%s (%s, %d insns, now %d)", f.Name, f.Section, f.Before, f.After))) + "\n")
	// The longest first.
	detours := slices.SortedStableFunc(slices.Values(f.Detours), func(a, b object.FixedJump) int { return distance(b.Need) - distance(a.Need) })
	for _, d := range detours[:min(len(detours), maxDetours)] {
		how := "hops over " + plural(d.Hops, "island")
		if d.Gotol {
			how = "goes by gotol"
		}
		p.print("jump", fmt.Sprintf("instruction %d to %d needed the offset %d; now it %s", d.From, d.To, d.Need, how))
		p.line("from ", d.Source)
		p.line("to   ", d.TargetLine)
	}
	if n := len(detours) - maxDetours; n > 0 {
		p.print("", fmt.Sprintf("and %s", plural(n, "more jump")))
	}
	p.b.WriteByte('\n')
}

func (p *page) line(label string, l object.Line) {
	if l.File != "" {
		p.verbatim("", label, fmt.Sprintf("%s:%d   %s", l.File, l.Number, l.Text))
	}
}

func distance(need int) int { return max(need, -need) }
