// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/httpprobe/event"
	"github.com/bpfwhy/bpfwhy/httpprobe/metrics"
	"github.com/bpfwhy/bpfwhy/httpprobe/sources"
	"github.com/bpfwhy/bpfwhy/internal/output/render"
	"github.com/bpfwhy/bpfwhy/internal/output/terminal"
	"github.com/bpfwhy/bpfwhy/loader"
)

// source is a running one; see sources.Source.
type source interface {
	Name() string
	Programs() []sources.Program
	Run(context.Context, func(*event.Event)) error
	Loss() event.Loss
	Files() *sources.Files
	Mute(event.Conn) error
	Close() error
}

type opener func(name string, o sources.Options) (source, error)

var sourceNames = []string{"syscalls", "openssl", "packets"}

func openSource(name string, o sources.Options) (source, error) {
	if err := mayOpen(name); err != nil {
		return nil, err
	}
	switch name {
	case "syscalls":
		return opened(sources.Syscalls(o))
	case "openssl":
		return opened(sources.OpenSSL(o))
	case "packets":
		return opened(sources.Packets(o))
	}
	return nil, fmt.Errorf("no source %q", name)
}

// opened keeps a nil pointer from becoming a source.
func opened(s *sources.Source, err error) (source, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// running is a source with its fate.
type running struct {
	source
	id   event.Source
	up   atomic.Bool
	told map[sources.FileReason]bool // that were complained of
}

// failure is a source that cannot be.
type failure struct {
	name string
	err  error
}

// open opens the sources, each on its own: one that cannot be says why and leaves the others alone.
func (p *probe) open(open opener) error {
	names := p.o.names
	if p.o.auto {
		names = []string{"syscalls", "openssl"}
	}
	if len(p.o.source.Ports) > 0 && slices.Contains(names, "openssl") {
		if p.o.auto {
			names = []string{"syscalls"}
			say(p.stderr, "without openssl: --port is given, and openssl does not know ports")
		} else {
			say(p.stderr, "openssl does not know ports: --port does not filter what it sees")
		}
	}
	p.openAll(open, names)
	if p.o.auto && !slices.ContainsFunc(p.sources, func(r *running) bool { return r.Name() == "syscalls" }) {
		p.openAll(open, []string{"packets"})
	}
	var missing *missingError
	incapable := 0
	for _, f := range p.failed {
		if errors.As(f.err, &missing) {
			incapable++
		}
	}
	if len(p.sources) == 0 && incapable == len(p.failed) && missing != nil {
		return missing.all()
	}
	p.explain()
	if len(p.sources) == 0 {
		return errNothing
	}
	return nil
}

// openAll opens sources at the same time.
func (p *probe) openAll(open opener, names []string) {
	type result struct {
		source
		error
	}
	results := make([]result, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			o := p.o.source
			o.Loader = &loader.Loader{}
			results[i].source, results[i].error = open(name, o)
		})
	}
	wg.Wait()
	for i, r := range results {
		if r.error != nil {
			p.failed = append(p.failed, failure{names[i], r.error})
			continue
		}
		s := &running{source: r.source, told: map[sources.FileReason]bool{}}
		s.id = sourceID(s.Name())
		s.up.Store(true)
		p.sources = append(p.sources, s)
	}
}

// sourceID is the number of a source, 0 if there is none of that name.
func sourceID(name string) event.Source {
	for id := event.Source(1); int(id) <= event.Sources; id++ {
		if metrics.SourceName(id) == name {
			return id
		}
	}
	return 0
}

// explain says why sources cannot be: what several have in common, once.
func (p *probe) explain() {
	told := map[string]bool{}
	for _, f := range p.failed {
		first, _, _ := strings.Cut(f.err.Error(), "\n")
		var e *loader.Error
		if !errors.As(f.err, &e) || e.Diagnosis.Rule == explain.Unknown {
			say(p.stderr, "without %s: %s", f.name, first)
			continue
		}
		rule := e.Diagnosis.Rule
		first, _, _ = strings.Cut(first, " ["+rule) // it is told below
		if told[rule] {
			say(p.stderr, "without %s: %s; %s, as above", f.name, first, rule)
			continue
		}
		told[rule] = true
		say(p.stderr, "without %s: %s", f.name, first)
		width, colour := terminal.Of(p.stderr)
		_ = render.NewText(p.stderr, width, colour).OwnDiagnosis(e.Diagnosis)
	}
}

// announce is the line that says what is watched, and that we are ready.
func (p *probe) announce() {
	var parts []string
	for _, s := range p.sources {
		programs := s.Programs()
		helped, unjited := 0, 0
		for _, g := range programs {
			if g.Repaired {
				helped++
			}
			if !g.JITed {
				unjited++
			}
		}
		part := fmt.Sprintf("%s (%d program", s.Name(), len(programs))
		if len(programs) != 1 {
			part += "s"
		}
		if f := s.Files(); f != nil {
			part += fmt.Sprintf(", %d files", f.Probed)
		}
		if helped > 0 {
			part += fmt.Sprintf(", %d with the loader's help", helped)
		}
		if unjited > 0 {
			part += fmt.Sprintf(", %d not jited", unjited)
		}
		parts = append(parts, part+")")
	}
	for _, s := range p.sources {
		if f := s.Files(); f != nil && f.Unaware != nil {
			say(p.stderr, "%s finds libraries later, up to five seconds after they are loaded: %v", s.Name(), f.Unaware)
		}
	}
	say(p.stderr, "watching by %s, after %v", strings.Join(parts, " and "), time.Since(p.began).Round(time.Millisecond))
}
