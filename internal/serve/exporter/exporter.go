// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package exporter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"sync/atomic"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/fleet/nodereport"
	"github.com/bpfwhy/bpfwhy/internal/serve/failures"
	"github.com/bpfwhy/bpfwhy/internal/serve/metrics"
	"github.com/bpfwhy/bpfwhy/internal/serve/otlp"
	"github.com/bpfwhy/bpfwhy/internal/serve/sink"
	"github.com/bpfwhy/bpfwhy/internal/serve/statefolder"
	"github.com/bpfwhy/bpfwhy/internal/serve/stream"
	"github.com/bpfwhy/bpfwhy/internal/watch/diagnose"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// How often what is known is told, looked over, and written for node_exporter.
const (
	stateInterval    = time.Second
	lookInterval     = 30 * time.Second
	textfileInterval = 15 * time.Second
	closeTime        = 8 * time.Second
	silence          = 30 * time.Second // of the reader, after which something is wrong
)

type exporter struct {
	start    *stream.Start
	page     *stream.Page
	folder   *statefolder.Folder // nil: no state folder
	recent   *recent             // nil: nor recordings
	recorder *recorder
	otlp     *otlp.Metrics // nil: none
	table    *failures.Table
	queues   []*sink.Queue
	name     func(nodereport.Workload) nodereport.Workload
	metrics  *metrics.Metrics
	listener net.Listener

	status   nodereport.Status
	profile  node.Profile
	facts    stream.Facts
	hanging  int
	received uint64 // calls of this stream
	ended    bool   // the reader said so

	dirty              bool
	stated, looked     time.Time
	alive              atomic.Int64 // when the reader was last heard, in ns since 1970
	stopFile, fileDone chan struct{}
}

// open makes ready for all that follows the first line.
func open(s *stream.Start, page *stream.Page) (e *exporter, err error) {
	e = &exporter{start: s, page: page, table: failures.New(), profile: s.Header.Node}
	e.profile.Sysctls = maps.Clone(e.profile.Sysctls)
	if e.profile.Sysctls == nil {
		e.profile.Sysctls = map[string]string{}
	}
	e.metrics = metrics.New(e.stats)
	list, name, err := sinks(s, e.metrics)
	if err != nil {
		return nil, err
	}
	if s.Config.OTLP.Endpoint != "" {
		if e.otlp, err = otlp.NewMetrics(context.Background(), otlpOptions(s), e.metrics.Gatherer()); err != nil {
			return nil, err
		}
	}
	e.name = name
	e.status.Lost = map[string]uint64{}
	if s.Config.State != "" {
		if err := e.openFolder(); err != nil {
			return nil, err
		}
		list = append(list, e.folder)
	} else {
		e.resume(&nodereport.Status{Calls: page.Accounted()})
	}
	e.watching()
	for _, l := range list {
		e.queues = append(e.queues, sink.NewQueue(l))
	}
	return e, e.listen()
}

func (e *exporter) openFolder() error {
	folder, err := statefolder.Open(e.start.Config.State, func(s *nodereport.Status) { e.page.Account(s.Accounted()) })
	if err != nil {
		return err
	}
	was, err := folder.Read()
	if err != nil {
		say("%v; it is replaced", err)
		was = nil
	}
	e.folder, e.recent, e.recorder = folder, newRecent(e.start.Header), newRecorder(folder)
	if was == nil {
		was = &nodereport.Report{}
	}
	e.resume(&was.Status)
	return nil
}

// resume begins where an earlier exporter was, and counts the calls that it got and did not account
// for.
func (e *exporter) resume(was *nodereport.Status) {
	e.table.Resume(was)
	e.status.Calls, e.status.Changes, e.status.Conditions = was.Calls, was.Changes, was.Conditions
	maps.Copy(e.status.Lost, was.Lost)
	if w := was.Watching; w != nil {
		e.status.Watching = &nodereport.Watching{Before: w.Last}
	}
	if n := was.Accounted(); n < e.start.Arrived {
		e.lose(nodereport.LostExporter, e.start.Arrived-n)
	}
	for where, n := range was.Lost {
		e.metrics.Lose(where, n)
	}
	e.dirty = true
}

// watching notes since when, and by what.
func (e *exporter) watching() {
	h := &e.start.Header
	w := &nodereport.Watching{Since: e.start.Since, Backend: h.Backend, Version: h.Tool, Missing: e.start.Less}
	if was := e.status.Watching; was != nil {
		w.Before = was.Before
	}
	e.status.Watching = w
}

func (e *exporter) stats() (list []sink.Stats) {
	for _, q := range e.queues {
		list = append(list, q.Stats())
	}
	if e.otlp != nil {
		list = append(list, sink.Stats{Name: "otlp metrics", Failed: e.otlp.Failed()})
	}
	return list
}

func (e *exporter) listen() (err error) {
	e.alive.Store(time.Now().UnixNano())
	if address := e.start.Config.Listen; address != "" {
		if e.listener, err = net.Listen("tcp", address); err != nil {
			return fmt.Errorf("serve metrics: %w", err)
		}
		health := metrics.Health{Healthy: e.healthy, Ready: func() error { return nil }} // the hooks came first
		go func() {
			if err := e.metrics.Serve(e.listener, health); !errors.Is(err, net.ErrClosed) {
				say("no more metrics: %v", err)
			}
		}()
		say("metrics at http://%s/metrics", e.listener.Addr())
	}
	if path := e.start.Config.Textfile; path != "" {
		e.stopFile, e.fileDone = make(chan struct{}), make(chan struct{})
		go e.writeFiles(path)
	}
	return nil
}

func (e *exporter) healthy() error {
	if d := time.Since(time.Unix(0, e.alive.Load())); d > silence {
		return fmt.Errorf("the process that reads the kernel has said nothing for %s", d.Round(time.Second))
	}
	return nil
}

// writeFiles writes the figures from time to time. That it cannot is said once.
func (e *exporter) writeFiles(path string) {
	defer close(e.fileDone)
	tick := time.NewTicker(textfileInterval)
	defer tick.Stop()
	failed := false
	for more := true; more; {
		select {
		case <-tick.C:
		case <-e.stopFile:
			more = false
		}
		err := e.metrics.WriteFile(path)
		if err != nil && !failed {
			say("%v", err)
		}
		failed = err != nil
	}
}

// run takes what the reader says to its end.
func (e *exporter) run(in *stream.Reader) error {
	var ended error
	for event, err := range diagnose.Run(e.start.Header, e.feed(in), diagnose.Options{Shows: (*load.Attempt).Finding, Count: true}) {
		if err != nil {
			ended = err
			break
		}
		e.take(event)
	}
	if !e.ended {
		if n := e.page.Arrived() - min(e.page.Arrived(), e.start.Arrived+e.received); n > 0 {
			e.lose(nodereport.LostReader, n)
		}
		if ended == nil {
			ended = errors.New("the process that reads the kernel was killed")
		}
	}
	e.close()
	return ended
}

// close tells the last state, and gives each sink its time. A sink that does not take it is no
// failure of the service.
func (e *exporter) close() {
	if e.recorder != nil {
		e.recorder.close()
	}
	e.look(time.Now())
	e.tell(time.Now())
	if e.listener != nil {
		e.listener.Close()
	}
	if e.stopFile != nil {
		close(e.stopFile)
		<-e.fileDone
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	errs := make(chan error, len(e.queues))
	for _, q := range e.queues {
		go func() {
			if err := q.Close(ctx); err != nil {
				errs <- fmt.Errorf("close sink %s: %w", q.Stats().Name, err)
				return
			}
			errs <- nil
		}()
	}
	for range e.queues {
		if err := <-errs; err != nil {
			say("%v", err)
		}
	}
	if e.otlp != nil {
		if err := e.otlp.Close(ctx); err != nil {
			say("close OTLP metrics: %v", err)
		}
	}
}

// feed is the stream as a feed of records.
func (e *exporter) feed(in *stream.Reader) diagnose.Feed {
	return func(yield func(diagnose.Step, error) bool) {
		for {
			m, line, err := in.Next()
			now := time.Now()
			e.alive.Store(now.UnixNano())
			if err != nil {
				if err != io.EOF {
					yield(diagnose.Step{Now: now}, err)
				}
				return
			}
			step := diagnose.Step{Record: m.Record, Now: now}
			switch {
			case m.Facts != nil:
				e.learn(m.Facts, now)
				continue
			case m.Seen != 0:
				step = diagnose.Step{Tick: true, Seen: m.Seen, Now: now}
			default:
				e.keep(&m.Record, line)
			}
			if !yield(step, nil) {
				return
			}
			if step.Tick {
				e.tick(now)
			}
		}
	}
}

// keep looks at a record before it becomes part of an attempt.
func (e *exporter) keep(r *trace.Record, line []byte) {
	switch {
	case r.Call != nil:
		e.received++
	case r.End != nil:
		e.ended = true
	case r.Sysctl != nil && r.Sysctl.Name != load.JITUsed:
		e.setting(r.Sysctl.Name, r.Sysctl.Value, time.Now())
	}
	if e.recent != nil {
		e.recent.add(r, line)
	}
}

// tick tells what has changed, and looks over what may have ended.
func (e *exporter) tick(now time.Time) {
	if now.Sub(e.looked) >= lookInterval {
		e.looked = now
		e.look(now)
	}
	if e.dirty && now.Sub(e.stated) >= stateInterval {
		e.tell(now)
	}
}
