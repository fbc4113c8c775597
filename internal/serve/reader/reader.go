// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

// Package reader is the process of 'bpfwhy serve' that has rights. It watches the kernel, and hands
// what it sees to the exporter, which it starts, and starts again. It looks into nothing, and takes
// nothing from the exporter.
package reader

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/fleet"
	"github.com/bpfwhy/bpfwhy/internal/serve/config"
	"github.com/bpfwhy/bpfwhy/internal/serve/stream"
	"github.com/bpfwhy/bpfwhy/internal/watch/capture"
	"github.com/bpfwhy/bpfwhy/internal/watch/diagnose"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
)

// How often the exporter hears that time has passed: soon after a record, and else seldom, since
// each time costs two processes.
const (
	interval = 250 * time.Millisecond
	busy     = 5 * time.Second
	quietly  = 5 * time.Second
)

func pace(quiet time.Duration) time.Duration {
	if quiet < busy {
		return interval
	}
	return quietly
}

// Source is a running kernel, which counts what works.
type Source interface {
	diagnose.Source
	Worked() (capture.Worked, error)
}

// Options are what a reader is given.
type Options struct {
	Config config.Config
	Page   *stream.Page
	Header trace.Header
	Since  time.Time
	Less   []string // what is not seen
	// Audit says what hardening would do to the programs that are loaded; nil: nobody asks. It may
	// take minutes.
	Audit func(context.Context) (*fleet.Audit, error)
	// Clock is the kernel's monotonic clock in ns.
	Clock func() uint64
	Say   func(format string, args ...any)
}

// Run hands over what a source gives until ctx ends, and then what is left.
func Run(ctx context.Context, source Source, o Options) error {
	p := &pump{Options: o, source: source, loads: newLoads(), facts: openFacts(o.Header.Node.Sysctls)}
	defer p.facts.close()
	if o.Audit != nil {
		ctx, cancel := context.WithCancel(ctx)
		p.audits = newAudits(ctx, o)
		defer p.audits.wait()
		defer cancel()
	}
	p.exporter = newExporter(ctx, o)
	if err := p.exporter.start(); err != nil {
		return errors.Join(err, source.Close())
	}
	var ended error
	for step, err := range diagnose.LiveEvery(pace, source, ctx.Done(), o.Clock) {
		if err != nil {
			ended = fmt.Errorf("read the kernel: %w", err)
			break
		}
		if ended = p.step(step); ended != nil {
			ended = errors.Join(ended, source.Close())
			break
		}
	}
	return errors.Join(ended, p.exporter.end())
}

type pump struct {
	Options
	source   Source
	exporter *exporter
	loads    *loads
	facts    *facts
	audits   *audits // nil: none
	learnt   time.Time
	said     bool
}

func (p *pump) step(s diagnose.Step) error {
	if s.Tick {
		return p.passed(s)
	}
	if !p.loads.matters(&s.Record) {
		return nil
	}
	if p.same(s.Record.Sysctl) {
		return nil
	}
	return p.exporter.send(s.Record.End != nil, stream.Message{Record: s.Record})
}

// same reports a setting that has the value that it had. It is read for each failure.
func (p *pump) same(s *trace.Sysctl) bool {
	if s == nil || p.exporter.settings[s.Name] == s.Value {
		return s != nil
	}
	p.exporter.settings[s.Name] = s.Value
	return false
}

// passed tells that time has passed, and what the node is like.
func (p *pump) passed(s diagnose.Step) error {
	if s.Now.Sub(p.learnt) >= factsInterval {
		p.learnt = s.Now
		f := p.facts.read(s.Now)
		worked, err := p.source.Worked()
		if err != nil && !p.said {
			p.Say("serve: %v", err)
		}
		p.said = err != nil
		f.Loads, f.Programs = p.loads.types(worked.Types), p.loads.programs(worked.Programs)
		if p.audits != nil {
			f.Audit = p.audits.last(s.Now, f)
		}
		if err := p.exporter.send(false, stream.Message{Facts: f}); err != nil {
			return err
		}
	}
	if s.Seen == 0 {
		return nil
	}
	return p.exporter.send(true, stream.Message{Seen: s.Seen})
}
