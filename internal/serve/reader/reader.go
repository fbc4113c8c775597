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

	"github.com/bpfwhy/bpfwhy/internal/serve/config"
	"github.com/bpfwhy/bpfwhy/internal/serve/stream"
	"github.com/bpfwhy/bpfwhy/internal/watch/diagnose"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
)

// How often the exporter hears that time has passed: soon after a record, and else seldom, since
// each time costs two processes.
const (
	// interval is how often it is looked whether time is to be told.
	interval = 250 * time.Millisecond
	busy     = 5 * time.Second
	quietly  = time.Second
)

// Options are what a reader is given.
type Options struct {
	Config config.Config
	Page   *stream.Page
	Header trace.Header
	Since  time.Time
	Less   []string // what is not seen
	// Clock is the kernel's monotonic clock in ns.
	Clock func() uint64
	Say   func(format string, args ...any)
}

// Run hands over what a source gives until ctx ends, and then what is left.
func Run(ctx context.Context, source diagnose.Source, o Options) error {
	p := &pump{Options: o, loads: newLoads(), facts: openFacts(o.Header.Node.Sysctls)}
	defer p.facts.close()
	p.exporter = newExporter(ctx, o)
	if err := p.exporter.start(); err != nil {
		return errors.Join(err, source.Close())
	}
	var ended error
	for step, err := range diagnose.LiveEvery(interval, source, ctx.Done(), o.Clock) {
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
	exporter     *exporter
	loads        *loads
	facts        *facts
	record, tick time.Time // when the last was sent
	learnt       time.Time
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
	p.record = s.Now
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
		f.Loads, f.Programs = p.loads.worked, p.loads.programs()
		if err := p.exporter.send(false, stream.Message{Facts: f}); err != nil {
			return err
		}
	}
	if s.Now.Sub(p.tick) < quietly && s.Now.Sub(p.record) > busy || s.Seen == 0 {
		return nil
	}
	p.tick = s.Now
	return p.exporter.send(true, stream.Message{Seen: s.Seen})
}
