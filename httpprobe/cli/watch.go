// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/httpprobe/connection"
	"github.com/bpfwhy/bpfwhy/httpprobe/event"
	"github.com/bpfwhy/bpfwhy/httpprobe/exchangejson"
	"github.com/bpfwhy/bpfwhy/httpprobe/metrics"
	"github.com/bpfwhy/bpfwhy/httpprobe/sources"
	"github.com/bpfwhy/bpfwhy/httpprobe/table"
	"github.com/bpfwhy/bpfwhy/internal/output/render"
	"github.com/bpfwhy/bpfwhy/internal/output/terminal"
	"github.com/bpfwhy/bpfwhy/internal/sys/scrape"
	"github.com/bpfwhy/bpfwhy/internal/sys/threads"
)

// probe is everything between sources and outputs.
type probe struct {
	o           options
	stdout      *os.File
	stderr      *os.File
	out         *output // to stdout
	told        *exchanges
	sources     []*running
	failed      []failure
	connections *connection.Table
	metrics     *metrics.Metrics
	boot        time.Time // at which the events' clock was zero
	began       time.Time

	complained time.Time

	containers containers // of exchanges that are told

	mu        sync.Mutex
	table     *table.Table
	uncovered []sources.Uncovered
}

func watch(o options, stdout, stderr *os.File, open opener, drop func(keep ...int) error) error {
	debug.SetGCPercent(400) // until the programs are loaded: what that leaves behind is collected once
	limitMemory(o.series)
	defer threads.LimitProcessors()()
	ctx, stop := signal.NotifyContext(context.Background(), signals()...)
	defer stop()
	// One more signal ends us at once, but not the same one, which timeout(1) and terminals send to
	// a process and to its group.
	context.AfterFunc(ctx, func() { time.AfterFunc(time.Second, stop) })
	p := &probe{o: o, stdout: stdout, stderr: stderr, table: table.New(), began: time.Now()}
	p.told = newExchanges(p.tell)
	p.boot = p.began.Add(-time.Duration(monotonic()))
	p.connections = connection.New(connection.Options{Emit: p.told.add, Mute: p.mute, Panicked: p.panicked})
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
	if err := drop(needed...); err != nil {
		say(stderr, "could not give up capabilities: %v", err)
	}
	p.announce()
	stopServing := func() {}
	if listener != nil {
		say(stderr, "metrics at http://%s/metrics", listener.Addr())
		stopServing = serve(listener, p.metrics.Handler(), scrape.WriteTime, func(err error) { say(stderr, "no more metrics for Prometheus: %v", err) })
	}
	err := p.run(ctx)
	stopServing() // without sources counters would fall
	return errors.Join(err, p.close())
}

// needed is what the probe still needs when its programs are attached: to read and mute maps, to
// look at and attach to processes that start later, and to read what belongs to others under /proc.
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

// tick is how often connections look at their watch, and lines leave.
const tick = 100 * time.Millisecond

// run watches until the context ends, or nothing is left to watch.
func (p *probe) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan struct{})
	census := make(chan struct{})
	go func() {
		defer close(census)
		p.lookForUncovered(ctx)
	}()
	defer func() {
		cancel()
		select {
		case <-census:
		case <-time.After(time.Second): // it hangs at somebody's executable, on a file system that does not answer
		}
	}()
	var wg sync.WaitGroup
	for _, s := range p.sources {
		wg.Go(func() {
			err := s.Run(ctx, p.connections.Event)
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
			p.connections.Tick(monotonic())
			p.complain(time.Now())
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
	p.connections.Tick(monotonic())
	p.connections.Flush()
	p.told.close()
	p.end()
	_, err := p.out.state()
	if early {
		err = errors.Join(err, errors.New("every source has ended"))
	}
	return err
}

// complain says once of each reason that a source has a file that it cannot probe: when it was
// tried again in vain, so that what passes is not told.
func (p *probe) complain(now time.Time) {
	if now.Sub(p.complained) < time.Second {
		return
	}
	p.complained = now
	for _, s := range p.sources {
		f := s.Files()
		if f == nil {
			continue
		}
		for _, u := range f.Unprobed {
			if s.told[u.Reason] || u.Tries < 2 {
				continue
			}
			s.told[u.Reason] = true
			say(p.stderr, "%s cannot see into %s of process %d, %s: %v. It will be tried again. More failures like it are counted and listed at the end", s.Name(), u.Path, u.PID, u.Reason, u.Err)
		}
	}
}

// lookForUncovered looks for processes that cannot be seen, now and then.
func (p *probe) lookForUncovered(ctx context.Context) {
	var c sources.Census
	every := time.NewTicker(time.Minute)
	defer every.Stop()
	for {
		list := slices.DeleteFunc(c.Take(), func(b sources.Uncovered) bool { return ours(b.PID) })
		p.mu.Lock()
		p.uncovered = list
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

// tell takes an exchange to everything that shows it.
func (p *probe) tell(e *connection.Exchange) {
	container := p.containers.of(e.TGID, e.CgroupID)
	p.metrics.Observe(e, container)
	p.mu.Lock()
	p.table.Add(e, container)
	p.mu.Unlock()
	if p.o.json {
		_ = render.JSON(p.out, exchangejson.Of(e, p.boot, p.metrics.Route(e), container)) // out says later what went wrong
	}
}

func (p *probe) panicked(cause any, at string) {
	say(p.stderr, "a bug of httpprobe ended the tracking of a connection; please report it: %v (%s). More like it are only counted", cause, at)
}

func (p *probe) mute(c event.Conn) {
	for _, s := range p.sources {
		if s.id == c.Source {
			_ = s.Mute(c) // its events are merely of no use
		}
	}
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
	width, colour := terminal.Of(f)
	fmt.Fprintf(to, "%s:\n%s\n", title, table.Text(r, width, colour))
}

// monotonic is the clock of events, in ns.
func monotonic() uint64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return 0
	}
	return uint64(ts.Nano())
}
