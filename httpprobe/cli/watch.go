// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/muesli/termenv"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/httpprobe/document"
	"github.com/bpfwhy/bpfwhy/httpprobe/event"
	"github.com/bpfwhy/bpfwhy/httpprobe/http1"
	"github.com/bpfwhy/bpfwhy/httpprobe/metrics"
	"github.com/bpfwhy/bpfwhy/httpprobe/sources"
	"github.com/bpfwhy/bpfwhy/httpprobe/streams"
	"github.com/bpfwhy/bpfwhy/httpprobe/table"
	"github.com/bpfwhy/bpfwhy/internal/privilege"
	"github.com/bpfwhy/bpfwhy/internal/render"
	"github.com/bpfwhy/bpfwhy/loader"
)

// source is a running one; see sources.Source.
type source interface {
	Name() string
	Programs() []sources.Program
	Run(context.Context, func(*event.Event)) error
	Loss() (event.Loss, error)
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
	id event.Source
	up atomic.Bool
}

// failure is a source that cannot be.
type failure struct {
	name string
	err  error
}

// probe is everything between sources and outputs.
type probe struct {
	o       options
	stdout  *os.File
	stderr  *os.File
	out     *output // to stdout
	sources []*running
	failed  []failure
	streams *streams.Table
	metrics *metrics.Metrics
	boot    time.Time // at which the events' clock was zero
	began   time.Time

	// What takes exchanges, one at a time: the table of streams is locked meanwhile.
	mu         sync.Mutex
	table      *table.Table
	containers containers
	blind      []sources.Blind
}

// Memory: a garbage collector that starts early, and earlier near the limit.
const (
	gcPercent = 50
	memory    = 40 << 20
)

func watch(o options, stdout, stderr *os.File, open opener) error {
	debug.SetGCPercent(400) // until the programs are loaded: what that leaves behind is collected once
	debug.SetMemoryLimit(memory)
	ctx, stop := signal.NotifyContext(context.Background(), signals()...)
	defer stop()
	// One more signal ends us at once, but not the same one, which timeout(1) and terminals send to a process and to its group.
	context.AfterFunc(ctx, func() { time.AfterFunc(time.Second, stop) })
	p := &probe{o: o, stdout: stdout, stderr: stderr, table: table.New(), began: time.Now()}
	p.boot = p.began.Add(-time.Duration(monotonic()))
	p.streams = streams.New(streams.Options{Emit: p.emit, Mute: p.mute, Panicked: p.panicked})
	p.metrics = metrics.New(o.routes, o.series, p.accounts)

	var listener net.Listener
	if o.listen != "" {
		var err error
		if listener, err = net.Listen("tcp", o.listen); err != nil {
			return fmt.Errorf("--listen: %w", err)
		}
		defer listener.Close()
	}
	if err := p.open(open); err != nil {
		return err
	}
	debug.SetGCPercent(gcPercent)
	if ctx.Err() != nil {
		return p.close()
	}
	p.out = newOutput(stdout)
	if err := privilege.Drop(needed...); err != nil {
		say(stderr, "keeps its capabilities: %v", err)
	}
	p.announce()
	stopServing := func() {}
	if listener != nil {
		say(stderr, "figures at http://%s/metrics", listener.Addr())
		stopServing = p.serve(listener)
	}
	err := p.run(ctx)
	stopServing() // without sources counters would fall
	return errors.Join(err, p.close())
}

// needed is what the probe still needs when its programs are attached: to read and mute maps, to look at and attach to processes that start
// later, and to read what belongs to others under /proc.
var needed = []int{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH, unix.CAP_CHECKPOINT_RESTORE}

// signals that end the probe, but those that we were started to ignore.
func signals() (s []os.Signal) {
	for _, n := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(n) {
			s = append(s, n)
		}
	}
	return s
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
			say(p.stderr, "without openssl: it does not know ports, and --port is given")
		} else {
			say(p.stderr, "openssl does not know ports: --port does not filter what it sees")
		}
	}
	p.openAll(open, names)
	if p.o.auto && !slices.ContainsFunc(p.sources, func(r *running) bool { return r.Name() == "syscalls" }) {
		p.openAll(open, []string{"packets"})
	}
	var lack *lackError
	lacking := 0
	for _, f := range p.failed {
		if errors.As(f.err, &lack) {
			lacking++
		}
	}
	if len(p.sources) == 0 && lacking == len(p.failed) && lack != nil {
		return lack.all()
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
		s := &running{source: r.source}
		for id := event.Syscalls; id <= event.OpenSSL; id++ {
			if metrics.SourceName(id) == s.Name() {
				s.id = id
			}
		}
		s.up.Store(true)
		p.sources = append(p.sources, s)
	}
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
		width, colour := terminal(p.stderr)
		_ = render.NewText(p.stderr, width, colour).Diagnosis(e.Diagnosis)
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
		if helped > 0 {
			part += fmt.Sprintf(", %d with the loader's help", helped)
		}
		if unjited > 0 {
			part += fmt.Sprintf(", %d not jited", unjited)
		}
		parts = append(parts, part+")")
	}
	say(p.stderr, "watching by %s, after %v", strings.Join(parts, " and "), time.Since(p.began).Round(time.Millisecond))
}

// serve answers Prometheus until the returned function is called.
func (p *probe) serve(l net.Listener) (stop func()) {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", p.metrics.Handler())
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(l); err != http.ErrServerClosed {
			say(p.stderr, "no more figures for Prometheus: %v", err)
		}
	}()
	return func() {
		s.Close()
		<-done
	}
}

// tick is how often streams look at their watch, and lines leave.
const tick = 100 * time.Millisecond

// run watches until the context ends, or nothing is left to watch.
func (p *probe) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan struct{})
	census := make(chan struct{})
	go func() {
		defer close(census)
		p.lookForBlind(ctx)
	}()
	defer func() { cancel(); <-census }()
	var wg sync.WaitGroup
	for _, s := range p.sources {
		wg.Go(func() {
			err := s.Run(ctx, p.streams.Event)
			s.up.Store(false)
			if err != nil {
				say(p.stderr, "%s has ended: %v", s.Name(), err)
			}
		})
	}
	go func() { wg.Wait(); close(ended) }()

	ticks := time.NewTicker(tick)
	defer ticks.Stop()
	shown := time.Now()
	for over := false; !over; {
		select {
		case <-ended:
			over = true
		case <-ticks.C:
			p.streams.Tick(monotonic())
			p.out.flush()
			if _, err := p.out.state(); err != nil {
				cancel()
			}
			if since := time.Since(shown); !p.o.json && p.o.interval > 0 && since >= p.o.interval {
				shown = time.Now()
				p.show(p.out, "last "+since.Round(tick).String(), func() []render.Row { return p.table.Recent(since) })
			}
		}
	}
	early := ctx.Err() == nil
	p.streams.Tick(monotonic())
	p.streams.Flush()
	p.end()
	_, err := p.out.state()
	if early {
		err = errors.Join(err, errors.New("every source has ended"))
	}
	return err
}

// lookForBlind looks for processes that cannot be seen, now and then.
func (p *probe) lookForBlind(ctx context.Context) {
	var c sources.Census
	every := time.NewTicker(time.Minute)
	defer every.Stop()
	for {
		list := slices.DeleteFunc(c.Take(), func(b sources.Blind) bool { return ours(b.PID) })
		p.mu.Lock()
		p.blind = list
		p.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
	}
}

// ours reports a process that runs our own executable: this one, or another probe.
func ours(pid int) bool {
	own, err := os.Stat("/proc/self/exe")
	if err != nil {
		return pid == os.Getpid()
	}
	exe, err := os.Stat("/proc/" + strconv.Itoa(pid) + "/exe")
	return err == nil && os.SameFile(own, exe)
}

// close closes the sources.
func (p *probe) close() error {
	var errs []error
	for _, s := range p.sources {
		if err := s.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close %s: %w", s.Name(), err))
		}
	}
	return errors.Join(errs...)
}

// emit takes an exchange.
func (p *probe) emit(e *streams.Exchange) {
	p.mu.Lock()
	defer p.mu.Unlock()
	container := p.containers.of(e.TGID, e.CgroupID)
	p.metrics.Observe(e, container)
	p.table.Add(e, container)
	if p.o.json {
		_ = render.JSON(p.out, document.Of(e, p.boot, p.metrics.Route(e), container)) // out says later what went wrong
	}
}

func (p *probe) panicked(cause any, at string) {
	say(p.stderr, "a connection is given up by a defect of httpprobe, please report it: %v (%s). Others like it are counted, not told", cause, at)
}

func (p *probe) mute(c event.Conn) {
	for _, s := range p.sources {
		if s.id == c.Source {
			_ = s.Mute(c) // its events are merely of no use
		}
	}
}

// accounts adds up what the sources say.
func (p *probe) accounts() (a metrics.Accounts) {
	for _, s := range p.sources {
		loss, _ := s.Loss() // a source that cannot be asked has ended
		a.Sources = append(a.Sources, metrics.Source{Name: s.Name(), Up: s.up.Load(), Stats: p.streams.Stats(s.id), Loss: loss})
	}
	a.Blind = map[string]int{}
	for _, r := range sources.Reasons {
		a.Blind[string(r)] = 0
	}
	a.Dropped, _ = p.out.state()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.blind {
		a.Blind[string(b.Reason)]++
	}
	return a
}

// show writes a table.
func (p *probe) show(to io.Writer, title string, rows func() []render.Row) {
	p.mu.Lock()
	r := rows()
	p.mu.Unlock()
	if len(r) == 0 {
		fmt.Fprintf(to, "%s: no requests\n\n", title)
		return
	}
	f := p.stdout
	if p.o.json {
		f = p.stderr
	}
	width, colour := terminal(f)
	fmt.Fprintf(to, "%s:\n%s\n", title, table.Text(r, width, colour))
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
		fmt.Fprintln(to, render.Clean(line))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, line := range named(p.blind) {
		fmt.Fprintln(to, render.Clean(line))
	}
}

// mostNamed is how many processes a line names.
const mostNamed = 5

// named lists the processes that cannot be seen, a line for each reason.
func named(blind []sources.Blind) (lines []string) {
	for _, r := range sources.Reasons {
		var names []string
		n := 0
		for _, b := range blind {
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
		line += fmt.Sprintf("; %d connections", s.Stats.Connections)
		line += list(func(add func(string, uint64)) {
			for pr := range http1.Protocols {
				add(pr.String(), s.Stats.Spoke[pr])
			}
		})
		lines = append(lines, line)
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

// terminal is the width of the terminal that a file is, 0 if it is none, and whether it may be colourful: not where NO_COLOR is set
// (no-color.org) or the terminal is dumb.
func terminal(f *os.File) (width int, colour bool) {
	fd := int(f.Fd())
	if !term.IsTerminal(fd) {
		return 0, false
	}
	width, _, err := term.GetSize(fd)
	if err != nil || width <= 0 {
		width = 80
	}
	return width, !termenv.EnvNoColor() && os.Getenv("TERM") != "dumb"
}

// monotonic is the clock of events, in ns.
func monotonic() uint64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return 0
	}
	return uint64(ts.Nano())
}
