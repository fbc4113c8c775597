// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/output/render"
	"github.com/bpfwhy/bpfwhy/internal/watch/diagnose"
	"github.com/bpfwhy/bpfwhy/internal/watch/hook"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// sink is where attempts go.
type sink interface {
	attempt(*load.Attempt) error
}

// counter is a sink that takes counts: of the repeats of a failure, which are then not told one by
// one, and of what was lost.
type counter interface {
	repeats(*load.Summary) error
	loss(*load.Loss) error
}

// hangSink is a sink that takes word of loads that do not come back.
type hangSink interface {
	hang(*load.Hang) error
}

// sink is what the flags ask for.
func (s *selection) sink(w io.Writer, text *render.Text) sink {
	switch {
	case !s.json:
		return &textSink{text: text}
	case s.schema.old():
		return oldSink{w}
	}
	return jsonSink{w}
}

type jsonSink struct{ w io.Writer }

func (s jsonSink) attempt(a *load.Attempt) error { return render.JSON(s.w, a) }

func (s jsonSink) repeats(r *load.Summary) error { return render.JSON(s.w, r) }

func (s jsonSink) loss(l *load.Loss) error { return render.JSON(s.w, l) }

func (s jsonSink) hang(h *load.Hang) error { return render.JSON(s.w, h) }

func (s jsonSink) story(t *load.Story) error { return render.JSON(s.w, t) }

// oldSink writes bpfwhy.load/v1, which has lines for attempts alone.
type oldSink struct{ w io.Writer }

func (s oldSink) attempt(a *load.Attempt) error {
	if a, ok := render.V1(a); ok {
		return render.JSON(s.w, a)
	}
	return nil
}

// textSink writes a line per attempt and an explanation beneath each finding; the heading comes
// before the first.
type textSink struct {
	text   *render.Text
	headed bool
}

func (s *textSink) attempt(a *load.Attempt) error {
	if !s.headed {
		s.headed = true
		if err := s.text.Heading(); err != nil {
			return err
		}
	}
	if err := s.text.Line(a); err != nil {
		return err
	}
	if a.Repair != nil {
		return s.text.Repaired(a)
	}
	if a.Diagnosis == nil {
		return nil
	}
	return s.text.Explain(a)
}

func (s *textSink) repeats(r *load.Summary) error { return s.text.Repeats(r) }

func (s *textSink) hang(h *load.Hang) error { return s.text.Hang(h) }

func (s *textSink) story(t *load.Story) error { return s.text.Story(t) }

// The text tells what was lost at its end.
func (*textSink) loss(*load.Loss) error { return nil }

// teller is a sink that takes the stories of loaders.
type teller interface {
	story(*load.Story) error
}

// session gives what is told of a kernel or a file to a sink, and counts.
type session struct {
	diagnose.Options
	header  trace.Header
	out     sink
	counts  counter // out, where it takes counts; else every attempt is told, alike or not
	record  *trace.Writer
	file    *os.File
	close   trace.End // of the recording
	summary render.Summary
	began   time.Time
	// beside is what this process holds besides the session, in bytes.
	beside int64
	// hung is told at once of loads that do not come back; nil: the sink is enough.
	hung func(*load.Hang)
}

func newSession(h trace.Header, sel *selection, out sink) (*session, error) {
	s := &session{Options: diagnose.Options{Shows: sel.shows}, header: h, out: out, began: time.Now()}
	s.counts, s.Count = out.(counter)
	if _, ok := out.(hangSink); !ok {
		s.hung = sel.sayHang
	}
	if sel.record != "" {
		f, err := trace.Create(sel.record)
		if err != nil {
			return nil, err
		}
		w, err := trace.NewWriter(f, h)
		if err != nil {
			f.Close()
			return nil, err
		}
		s.record, s.file = w, f
	}
	return s, nil
}

// replay tells of a recorded trace.
func (s *session) replay(r *trace.Reader) error { return s.tell(diagnose.File(r)) }

func (s *session) tell(feed diagnose.Feed) error {
	var ended error
	for e, err := range diagnose.Run(s.header, s.recorded(feed), s.Options) {
		if err != nil {
			ended = err
			break
		}
		if err := s.put(e); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	s.summary.For = time.Since(s.began)
	if s.record == nil {
		return ended
	}
	return errors.Join(ended, s.record.Close(s.close), s.file.Close())
}

// recorded passes a feed on and writes it down, if it is to be.
func (s *session) recorded(feed diagnose.Feed) diagnose.Feed {
	if s.record == nil {
		return feed
	}
	return func(yield func(diagnose.Step, error) bool) {
		for step, err := range feed {
			switch {
			case step.Tick || err != nil:
			case step.Record.End != nil:
				s.close = *step.Record.End
			default:
				if err = s.record.Write(step.Record); err != nil {
					s.record = nil // it stays without an end
					s.file.Close()
				}
			}
			if !yield(step, err) || err != nil {
				return
			}
		}
	}
}

// put counts an event and gives it to the sink.
func (s *session) put(e diagnose.Event) error {
	switch {
	case e.Repeat:
		s.summary.AddRepeat(e.Attempt)
	case e.Attempt != nil:
		s.summary.Add(e.Attempt, !e.Hidden)
		if !e.Hidden {
			return s.out.attempt(e.Attempt)
		}
	case e.Repeats != nil:
		return s.counts.repeats(e.Repeats)
	case e.Lost != nil:
		s.summary.Lose(e.Lost)
	case e.Loss != nil:
		return s.counts.loss(e.Loss)
	case e.Story != nil:
		if out, ok := s.out.(teller); ok {
			return out.story(e.Story)
		}
	case e.Hang != nil:
		s.summary.Hanging = e.Hang.Calls
		if s.hung != nil {
			s.hung(e.Hang)
		}
		if out, ok := s.out.(hangSink); ok {
			return out.hang(e.Hang)
		}
	}
	return nil
}

// sayHang says in one line that loads do not come back, or that they have.
func (io std) sayHang(h *load.Hang) {
	switch {
	case h.Calls == 0:
		io.say("the loads that hung have returned, or their threads have ended")
	default:
		io.say("%s %s ('bpfwhy explain %s')", h.Diagnosis.Cause, strings.Join(h.Diagnosis.Evidence, "; "), h.Diagnosis.Rule)
	}
}

// interruptible returns a context that also ends with the first SIGINT, SIGTERM or SIGHUP. One
// more, a second later or after, ends the process: until then it is the same one, which timeout(1)
// and terminals send to the process and to its group. SIGTERM and SIGHUP are left alone where they
// are ignored, as under nohup. SIGINT is not: a shell without job control starts all that runs in
// the background so, and a script that ends it with kill -INT would wait for ever.
func interruptible(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGINT)
	notify(c, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		<-c
		cancel()
		first := time.Now()
		for s := range c {
			if time.Since(first) > time.Second {
				signal.Reset(s)
				syscall.Kill(os.Getpid(), s.(syscall.Signal))
				time.Sleep(time.Second) // it is ignored again
				os.Exit(128 + int(s.(syscall.Signal)))
			}
		}
	}()
	return ctx
}

// notify leaves alone what we were started to ignore.
func notify(c chan<- os.Signal, signals ...os.Signal) {
	for _, s := range signals {
		if !signal.Ignored(s) {
			signal.Notify(c, s)
		}
	}
}

// coverage says by what hooks loads are watched, and which stages those do not show.
func coverage(h trace.Header) (by string, missing []string) {
	via := map[string]int{}
	seen := map[load.Stage]bool{}
	for _, k := range h.Hooks {
		if k.Via == "" {
			continue
		}
		via[k.Via]++
		for _, st := range hook.Of(k.Function).Shows {
			seen[st] = true
		}
	}
	kinds := slices.SortedFunc(maps.Keys(via), func(a, b string) int {
		return cmp.Or(via[b]-via[a], strings.Compare(a, b))
	})
	for _, st := range []load.Stage{load.Permission, load.Verifier, load.Blinding, load.JIT} {
		if !seen[st] {
			missing = append(missing, string(st))
		}
	}
	return cmp.Or(strings.Join(kinds, " and "), h.Backend, "no hook"), missing
}
