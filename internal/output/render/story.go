// SPDX-License-Identifier: Apache-2.0

package render

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/output/text"
	"github.com/bpfwhy/bpfwhy/load"
)

// Story writes what one loader did: what of it worked, and what did not.
func (t *Text) Story(s *load.Story) error {
	p := page{t: t}
	head := t.bold("STORY")
	if len(s.Failures) > 0 || s.NotJITed > 0 {
		head = t.bold(t.paint("STORY", red))
	}
	who := fmt.Sprintf("%s, pid %d", text.Clean(s.Process.Comm), s.Process.PID)
	p.b.WriteString(head + "  " + t.bold(who) + ", in " + strings.TrimSpace(duration(s.Last.Sub(s.First))) + "\n")
	p.print("loader", s.Process.Exe)
	var counts []string
	for _, c := range []struct {
		tally load.Tally
		what  string
	}{{s.Maps, "maps created"}, {s.Programs, "programs loaded"}, {s.Attached, "attached"}, {s.Pinned, "pinned"}} {
		if c.tally.Of > 0 {
			counts = append(counts, fmt.Sprintf("%d of %d %s", c.tally.OK, c.tally.Of, c.what))
		}
	}
	if s.NotJITed > 0 {
		counts = append(counts, fmt.Sprintf("%d loaded but NOT jited", s.NotJITed))
	}
	p.print("did", strings.Join(counts, ", "))
	if s.Trivial > 0 {
		p.print("tried", plural(s.Trivial, "program")+" that cannot do anything, to see what the kernel can")
	}
	label := "failed"
	for _, f := range s.Failures {
		p.item(label, "- ", storyFailure(&f))
		label = ""
	}
	if s.MoreFailures > 0 {
		p.item(label, "- ", fmt.Sprintf("and %d more", s.MoreFailures))
	}
	if len(s.Unattached) > 0 {
		p.print("rest", unattached(s))
	}
	p.b.WriteByte('\n')
	_, err := t.w.Write(p.b.Bytes())
	return err
}

// unattached says which programs were not seen attached, and how they could have been all the same.
func unattached(s *load.Story) string {
	names := make([]string, len(s.Unattached))
	for i, n := range s.Unattached {
		names[i] = cmp.Or(text.Clean(n), "(no name)")
	}
	if s.MoreUnattached > 0 {
		names = append(names, fmt.Sprintf("%d more", s.MoreUnattached))
	}
	out := strings.Join(names, ", ") + ": loaded, and not seen attached"
	if len(s.Unseen) > 0 {
		kinds := make([]string, len(s.Unseen))
		for i, k := range s.Unseen {
			kinds[i] = string(k)
		}
		out += "; here nothing shows " + strings.Join(kinds, ", ")
	}
	return out
}

func storyFailure(f *load.StoryFailure) string {
	s := string(f.Of)
	if f.Name != "" {
		s += " of " + f.Name
	}
	if f.Target != "" {
		s += " to " + f.Target
	}
	s += ": " + errnoCell(f.Errno, f.ErrnoName)
	if f.Rule != "" {
		s += ", " + f.Rule
	}
	if f.Title != "" {
		s += ": " + f.Title
	}
	return s
}
