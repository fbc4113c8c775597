// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"math"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/internal/assemble"
	"github.com/bpfwhy/bpfwhy/internal/render"
	"github.com/bpfwhy/bpfwhy/internal/repeat"
	"github.com/bpfwhy/bpfwhy/internal/trace"
	"github.com/bpfwhy/bpfwhy/load"
	"golang.org/x/sys/unix"
)

// sink is where attempts go.
type sink interface {
	attempt(*load.Attempt) error
}

// counter is a sink that takes counts: of the repeats of a failure, which are then not told one by one, and of what was lost.
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

// oldSink writes bpfwhy.load/v1, which has lines for attempts alone.
type oldSink struct{ w io.Writer }

func (s oldSink) attempt(a *load.Attempt) error {
	if a, ok := render.V1(a); ok {
		return render.JSON(s.w, a)
	}
	return nil
}

// textSink writes a line per attempt and an explanation beneath each finding; the heading comes before the first.
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

// The text tells what was lost at its end.
func (*textSink) loss(*load.Loss) error { return nil }

// session takes records to attempts, diagnoses and a sink, and counts.
type session struct {
	header  trace.Header
	shows   func(*load.Attempt) bool
	asm     *assemble.Assembler
	out     sink
	record  *trace.Writer
	file    *os.File
	close   trace.End // of the recording
	summary render.Summary
	began   time.Time
	// counts is out, where it takes counts; else every attempt is told, alike or not.
	counts  counter
	repeats *repeat.Table // findings that were told
	lost    losses        // since they were last told
	// mechanisms are the names that are told one by one.
	mechanisms map[string]bool
	// now is the time of day, in a replay that of the recording.
	now func() time.Time
	// others returns attempts that come from elsewhere than the source; nil: there are none.
	others func() []*load.Attempt
	// beside is what this process holds besides the session, in bytes.
	beside int64
	// hung is told at once of loads that do not come back; nil: the sink is enough.
	hung func(*load.Hang)
	// prove loads an attempt's program again; nil: nobody asked for it.
	prove func(*load.Attempt) error
}

func newSession(h trace.Header, sel *selection, out sink) (*session, error) {
	s := &session{header: h, shows: sel.shows, asm: assemble.New(h), out: out, repeats: repeat.New(), mechanisms: map[string]bool{trace.LostLoads: true}, now: time.Now, began: time.Now()}
	s.counts, _ = out.(counter)
	if _, ok := out.(hangSink); !ok {
		s.hung = sayHang
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

// source is a running kernel.
type source interface {
	Read() (trace.Record, error) // io.EOF after Close
	Close() error
}

// How often held-back failures are looked at, and by how much the clock is set back for it: what happened before that is
// no longer on its way through the buffers.
const (
	patience = 50 * time.Millisecond
	lateness = 100 * time.Millisecond
)

// live reads from the kernel until the channel stop gives something, and then to the end of what is buffered.
func (s *session) live(c source, stop <-chan struct{}) (err error) {
	defer limitMemory(s.beside)()
	type read struct {
		trace.Record
		error
	}
	records := make(chan read, queued)
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			r, err := c.Read()
			select {
			case records <- read{r, err}:
			case <-done:
				return
			}
			if err != nil {
				return
			}
		}
	}()
	tick := time.NewTicker(patience)
	defer tick.Stop()
	for {
		select {
		case r := <-records:
			if r.error != nil {
				return errors.Join(s.emitOthers(), s.end(), notEOF(r.error))
			}
			if err := s.add(r.Record); err != nil {
				return err
			}
		case <-tick.C:
			if err := s.emitOthers(); err != nil {
				return err
			}
			if err := s.emit(s.asm.Tick(monotonic() - uint64(lateness))); err != nil {
				return err
			}
			if err := s.count(); err != nil {
				return err
			}
		case <-stop:
			stop = nil
			if err := c.Close(); err != nil {
				return err
			}
		}
	}
}

// atMost is how many records of a replay are read before what was only counted is told, however little time they are of.
const atMost = 256

// replay reads a recorded trace to its end. The time is that of the recording.
func (s *session) replay(r *trace.Reader) error {
	var clock, counted uint64
	unlooked := 0
	s.now = func() time.Time {
		return time.Unix(0, s.header.Epoch).Add(time.Duration(min(clock, math.MaxInt64))).UTC()
	}
	for {
		rec, err := r.Next()
		switch {
		case rec.Call != nil:
			clock = max(clock, rec.Call.End)
		case rec.Loss != nil:
			clock = max(clock, rec.Loss.To)
		case rec.Hang != nil:
			clock = max(clock, rec.Hang.At)
		}
		if err != nil {
			return errors.Join(s.end(), notEOF(err))
		}
		if err := s.add(rec); err != nil {
			return err
		}
		if unlooked++; clock-counted < uint64(patience) && unlooked < atMost {
			continue
		}
		counted, unlooked = clock, 0
		if err := s.count(); err != nil {
			return err
		}
	}
}

func notEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

func (s *session) add(r trace.Record) error {
	if r.Loss != nil {
		s.lose(r.Loss)
	}
	if r.End != nil {
		s.close = *r.End
	} else if s.record != nil {
		if err := s.record.Write(r); err != nil {
			return err
		}
	}
	if r.Hang != nil {
		return s.hang(assemble.Hang(s.header, r.Hang))
	}
	return s.emit(s.asm.Add(r))
}

func (s *session) hang(h *load.Hang) error {
	explain.Hang(h)
	s.summary.Hanging = h.Calls
	if s.hung != nil {
		s.hung(h)
	}
	if out, ok := s.out.(hangSink); ok {
		if err := out.hang(h); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	return nil
}

// Bounds of the names of what lost something, of which a file may have any.
const (
	maxMechanisms  = 128
	maxMechanism   = 256 // bytes
	otherMechanism = "others"
)

func (s *session) lose(l *trace.Loss) {
	if !s.mechanisms[l.Mechanism] {
		if len(s.mechanisms) >= maxMechanisms || len(l.Mechanism) > maxMechanism {
			other := *l
			other.Mechanism = otherMechanism
			l = &other
		} else {
			s.mechanisms[strings.Clone(l.Mechanism)] = true
		}
	}
	s.lost.add(l, s.now())
	s.summary.Lose(l)
}

func (s *session) emitOthers() error {
	if s.others == nil {
		return nil
	}
	return s.emit(slices.Values(s.others()))
}

func (s *session) emit(attempts iter.Seq[*load.Attempt]) error {
	for a := range attempts {
		show := s.shows(a)
		if show || a.Finding() { // feature probes come by thousands
			explain.Conclude(a, &s.header.Node)
		}
		if show && s.counts != nil && a.Finding() && s.repeats.Add(a) {
			s.summary.AddRepeat(a)
			continue
		}
		if s.prove != nil {
			if err := s.prove(a); err != nil {
				return err
			}
			explain.Conclude(a, &s.header.Node)
		}
		s.summary.Add(a, show)
		if !show {
			continue
		}
		if err := s.out.attempt(a); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	return nil
}

// count tells what was only counted and is due.
func (s *session) count() error {
	if s.counts == nil {
		return nil
	}
	now := s.now()
	if err := s.tell(s.repeats.Due(now)); err != nil {
		return err
	}
	if l, ok := s.lost.due(now); ok {
		return s.counts.loss(l)
	}
	return nil
}

// countAll tells what was only counted, due or not.
func (s *session) countAll() error {
	if s.counts == nil {
		return nil
	}
	now := s.now()
	if err := s.tell(s.repeats.Flush(now)); err != nil {
		return err
	}
	if l, ok := s.lost.take(now); ok {
		return s.counts.loss(l)
	}
	return nil
}

func (s *session) tell(repeats []load.Summary) error {
	for i := range repeats {
		if err := s.counts.repeats(&repeats[i]); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	return nil
}

func (s *session) end() error {
	err := s.emit(s.asm.Flush())
	if n := s.asm.DroppedCalls(); n > 0 {
		s.lose(&trace.Loss{Mechanism: assemble.Dropped, Count: n})
	}
	err = errors.Join(err, s.countAll())
	s.summary.For = time.Since(s.began)
	if s.record == nil {
		return err
	}
	return errors.Join(err, s.record.Close(s.close), s.file.Close())
}

// monotonic is the kernel's clock of the records, in ns.
func monotonic() uint64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return 0
	}
	return uint64(ts.Nano())
}

// interruptible returns a context that ends with the first SIGINT, SIGTERM or SIGHUP (unless ignored, as under nohup). One
// more, a second later or after, ends the process: until then it is the same one, which timeout(1) and terminals send
// to the process and to its group.
func interruptible() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	c := make(chan os.Signal, 1)
	notify(c, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		<-c
		cancel()
		first := time.Now()
		for s := range c {
			if time.Since(first) > time.Second {
				signal.Reset(s)
				unix.Kill(os.Getpid(), s.(syscall.Signal))
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
		for _, st := range stagesOf(k.Function) {
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

// stagesOf says which stages a hook shows.
func stagesOf(f load.Function) []load.Stage {
	switch f {
	case load.FnSyscall:
		return []load.Stage{load.Request}
	case load.FnLoad:
		return []load.Stage{load.Request, load.Install}
	case load.FnCapable, load.FnLockdown, load.FnLSM, load.FnLSMLoad:
		return []load.Stage{load.Permission}
	case load.FnCheck, load.FnDoCheck:
		return []load.Stage{load.Verifier}
	case load.FnPatch, load.FnBlind:
		return []load.Stage{load.Blinding}
	case load.FnJIT, load.FnJITSubprogs, load.FnSelect, load.FnModmem:
		return []load.Stage{load.JIT}
	case load.FnNewFD:
		return []load.Stage{load.Install}
	}
	return nil
}
