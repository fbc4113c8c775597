// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/bpfwhy/bpfwhy/httpprobe/http1"
	"github.com/bpfwhy/bpfwhy/httpprobe/metrics"
	"github.com/bpfwhy/bpfwhy/httpprobe/sources"
	"github.com/bpfwhy/bpfwhy/internal/output/render"
	"github.com/bpfwhy/bpfwhy/internal/output/text"
)

// accounts adds up what the sources say.
func (p *probe) accounts() (a metrics.Accounts) {
	for _, s := range p.sources {
		files := countFiles(s.Files())
		up := s.up.Load() && (files == nil || files.Probed > 0)
		a.Sources = append(a.Sources, metrics.Source{Name: s.Name(), Up: up, Stats: p.connections.Stats(s.id), Loss: s.Loss(), Files: files})
	}
	a.Uncovered = map[string]int{}
	for _, r := range sources.Reasons {
		a.Uncovered[string(r)] = 0
	}
	a.Dropped, _ = p.out.state()
	a.Untold = p.told.dropped.Load()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.uncovered {
		a.Uncovered[string(b.Reason)]++
	}
	return a
}

func countFiles(f *sources.Files) *metrics.Files {
	if f == nil {
		return nil
	}
	m := &metrics.Files{Probed: f.Probed, Unprobed: map[string]int{}, Failures: map[string]uint64{}}
	for _, r := range sources.FileReasons {
		m.Unprobed[string(r)], m.Failures[string(r)] = 0, f.Failures[r]
	}
	for _, u := range f.Unprobed {
		m.Unprobed[string(u.Reason)]++
	}
	return m
}

// end is the last word: everything, and what is missing from it.
func (p *probe) end() {
	to := p.out
	if p.o.json {
		p.out.close()
		to = newOutput(p.stderr)
	}
	defer to.close()
	took := time.Since(p.began)
	p.show(to, "in "+took.Round(tick).String(), func() []render.Row { return p.table.Total(took) })
	a := p.accounts()
	for _, line := range account(a) {
		fmt.Fprintln(to, text.Clean(line))
	}
	for _, s := range p.sources {
		for _, line := range unprobed(s.Name(), s.Files()) {
			fmt.Fprintln(to, text.Clean(line))
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, line := range named(p.uncovered) {
		fmt.Fprintln(to, text.Clean(line))
	}
}

// mostNamed is how many processes a line names.
const mostNamed = 5

// named lists the processes that cannot be seen, a line for each reason.
func named(uncovered []sources.Uncovered) (lines []string) {
	for _, r := range sources.Reasons {
		var names []string
		n := 0
		for _, b := range uncovered {
			if b.Reason != r {
				continue
			}
			if n++; n <= mostNamed && b.PID != 0 {
				names = append(names, fmt.Sprintf("%s %d", b.Comm, b.PID))
			}
		}
		if n == 0 {
			continue
		}
		line := fmt.Sprintf("not seen, or not all of it: %d of %s", n, r)
		if r.TLS() {
			line = fmt.Sprintf("not seen inside TLS, if they speak it: %d of %s", n, r)
		}
		if len(names) > 0 {
			line += " (" + strings.Join(names, ", ")
			if n > mostNamed {
				line += ", ..."
			}
			line += ")"
		}
		lines = append(lines, line)
	}
	return lines
}

// unprobed lists the files that are not probed, a line for each reason.
func unprobed(source string, f *sources.Files) (lines []string) {
	if f == nil {
		return nil
	}
	for rest := f.Unprobed; len(rest) > 0; {
		n := 1
		for n < len(rest) && rest[n].Reason == rest[0].Reason {
			n++
		}
		var names []string
		for _, u := range rest[:min(n, mostNamed)] {
			name := u.Path
			if u.PID != 0 {
				name += fmt.Sprintf(" of process %d", u.PID)
			}
			names = append(names, name)
		}
		if n > mostNamed {
			names = append(names, "...")
		}
		lines = append(lines, fmt.Sprintf("%s: %d not probed, %s: %s (%v)", source, n, rest[0].Reason, strings.Join(names, ", "), rest[0].Err))
		rest = rest[n:]
	}
	if f.Unlisted > 0 {
		lines = append(lines, fmt.Sprintf("%s: %d more failures, whose details were not kept", source, f.Unlisted))
	}
	return lines
}

// account explains every request, a line for each source, and what was not shown.
func account(a metrics.Accounts) (lines []string) {
	for _, s := range a.Sources {
		line := fmt.Sprintf("%s: %d requests counted, %d unparsed", s.Name, s.Stats.Counted, s.Stats.Unseen())
		line += list(func(add func(string, uint64)) {
			for r := range http1.Reasons {
				add(r.String(), s.Stats.Unparsed[r])
			}
		})
		var lost uint64
		for _, l := range metrics.Losses(s.Loss) {
			lost += l.Events
		}
		line += fmt.Sprintf("; %d events lost", lost)
		line += list(func(add func(string, uint64)) {
			for _, l := range metrics.Losses(s.Loss) {
				add(l.Reason, l.Events)
			}
		})
		if s.Files != nil {
			var failed uint64
			for _, n := range s.Files.Failures {
				failed += n
			}
			line += fmt.Sprintf("; %d files probed, %d failures", s.Files.Probed, failed)
			line += list(func(add func(string, uint64)) {
				for _, r := range sources.FileReasons {
					add(string(r), s.Files.Failures[string(r)])
				}
			})
		}
		line += fmt.Sprintf("; %d connections", s.Stats.Connections)
		line += list(func(add func(string, uint64)) {
			for pr := range http1.Protocols {
				add(pr.String(), s.Stats.Spoke[pr])
			}
		})
		lines = append(lines, line)
	}
	if a.Untold > 0 {
		lines = append(lines, fmt.Sprintf("output: %d exchanges were dropped, because they came faster than they could be written", a.Untold))
	}
	if a.Dropped > 0 {
		lines = append(lines, fmt.Sprintf("output: %d lines were dropped, because nobody read them in time", a.Dropped))
	}
	return lines
}

// list writes " (a 1, b 2)" of what is not zero.
func list(each func(add func(string, uint64))) string {
	var parts []string
	each(func(name string, n uint64) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", name, n))
		}
	})
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}
