// SPDX-License-Identifier: Apache-2.0

// Package capture watches BPF loads in the running kernel and turns what it sees into records.
//
// Every hook is optional and chosen by probing: a watched function is reached by fentry where the
// kernel allows it, else by kprobe, else it is named as not watched. The system call itself has two
// more ways: classic tracepoints, and tp_btf, which still attaches under lockdown=confidentiality.
// Linux 5.10 and later, x86-64.
package capture

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/hostinfo/rights"
	"github.com/bpfwhy/bpfwhy/internal/hostinfo/sysctl"
	"github.com/bpfwhy/bpfwhy/internal/sys/kmsg"
	"github.com/bpfwhy/bpfwhy/internal/watch/redact"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// Options say what to watch. The zero value watches every load on the machine by the best means it
// has.
type Options struct {
	// Backend forces one: fentry, kprobe, tracepoint or tp_btf.
	Backend string
	// OnlyFollowed watches only PIDs, what Follow adds, and their children. PIDs are of our own pid
	// namespace.
	OnlyFollowed bool
	PIDs         []int
	Comm         string // only threads of this name (at most 15 bytes)
	CgroupID     uint64 // only this cgroup v2 and those below it
	FailedOnly   bool
	All          bool // successful maps, BTF, links too
	// HangAfter is how long a call may take before it is told that it hangs; 0: HangAfter.
	HangAfter time.Duration
	// Calm is for who watches for ever, and waits for failures. What works is counted (Worked), and
	// told only where something of its process, or a program of its name, failed before. Losses are
	// told later, and so is what hangs.
	Calm bool
	// Node goes into the trace's header. Read by the caller, who may know more.
	Node node.Profile
	Tool string // version, for the header
}

// Bounds of what one failed attempt may copy.
const (
	copyMax = 2 << 20   // instructions, line_info, BTF: bytes each (262,144 instructions)
	logMax  = 256 << 10 // head and tail of the log: bytes each
)

// pollInterval is how often losses are looked at.
const pollInterval = 250 * time.Millisecond

// The same for who is calm: soon after something came, and else seldom.
const (
	calmPollInterval = time.Second
	idlePollInterval = 10 * time.Second
	idleAfter        = 5 * time.Second
)

// readInterval is how long calls that worked may wait in the buffer: nobody is woken for them. Who
// is calm is woken for all that comes.
const readInterval = 50 * time.Millisecond

// Capture is a running observation. Close it.
type Capture struct {
	header trace.Header
	opts   Options
	reader *ringbuf.Reader
	coll   *collection
	// pending are records that do not come from the ring.
	pending      []trace.Record
	waits        atomic.Bool // for an event: all that had come are read
	reading      sync.Mutex  // keeps the buffer until it has been looked at
	decoder      decoder
	losses       lossMeter
	followedPIDs followedPIDs
	hangs        *inflight
	// What compiled programs held when it was last looked at.
	jitUsed  uint64
	jitKnown bool
	jitRead  time.Time
	polled   time.Time
	came     time.Time // the last event
	worked   Worked
	released bool
	// When the decisive sysctls were last read.
	refreshed time.Time
	calls     uint64
	ended     bool
	sample    ringbuf.Record
	settings  []*sysctl.Setting // decisive ones, nil where one cannot be read

	closeOnce sync.Once
	closeErr  error
}

// Open attaches and returns when events flow: a call of our own has come through. Package rights
// has what it needs. The error says what was tried.
//
//revive:disable-next-line:cyclomatic one step after the other, and each may fail
func Open(ctx context.Context, opts Options) (*Capture, error) {
	if len(opts.Comm) > 15 {
		return nil, fmt.Errorf("comm %q: a thread's name has at most 15 bytes", opts.Comm)
	}
	switch backend(opts.Backend) {
	case "", fentry, kprobe, tracepoint, tpBTF:
	default:
		return nil, fmt.Errorf("backend %q: know fentry, kprobe, tracepoint, tp_btf", opts.Backend)
	}
	if len(opts.PIDs) > 0 {
		opts.OnlyFollowed = true
	}
	_ = rlimit.RemoveMemlock() // only kernels before 5.11 need it, and they say so themselves at the load
	c := &Capture{opts: opts}
	nonce, err := newNonce()
	if err != nil {
		return nil, err
	}
	coll, err := attach(opts, nonce)
	if err != nil {
		return nil, rights.Watch.Explain(err)
	}
	c.coll = coll
	c.decoder = decoder{levels: redact.Host(), keep: coll.objects, all: opts.All, failed: opts.FailedOnly}
	c.decoder.log, _ = kmsg.Open() // not everybody may
	if c.reader, err = ringbuf.NewReader(coll.records); err != nil {
		coll.Close()
		return nil, fmt.Errorf("open ring buffer: %w", err)
	}
	if err := c.greet(ctx, nonce); err != nil {
		return nil, errors.Join(err, c.Close(), c.release())
	}
	if opts.CgroupID != 0 {
		if err := coll.watchCgroup(opts.CgroupID); err != nil {
			return nil, errors.Join(err, c.Close(), c.release())
		}
	}
	for _, pid := range opts.PIDs {
		if err := c.Follow(pid); err != nil {
			return nil, errors.Join(err, c.Close(), c.release())
		}
	}
	c.header = trace.Header{
		Levels: int(c.decoder.levels), All: opts.All,
		Schema: trace.Schema, Tool: opts.Tool, Node: opts.Node, Backend: string(coll.backend), Hooks: coll.hooks, Epoch: epoch(),
	}
	if coll.locked && c.header.Node.Lockdown == "" { // securityfs is often not mounted; the refusal is as good
		c.header.Node.Lockdown = "confidentiality"
	}
	for _, name := range decisive {
		s, _ := sysctl.Open(name) // the header's profile says what is wrong
		c.settings = append(c.settings, s)
	}
	c.losses.coll = coll
	c.losses.loads.counted = func() (uint64, error) { return coll.counter(coreLossL_FAILED) }
	c.polled = time.Now()
	if c.hangs, err = startInflight(coll, opts); err != nil {
		return nil, errors.Join(err, c.Close(), c.release())
	}
	return c, nil
}

// newNonce makes the call that only we can make: its low half is no bpf command.
func newNonce() (uint64, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, fmt.Errorf("read random bytes: %w", err)
	}
	return binary.LittleEndian.Uint64(b[:])&^(1<<63) | 1<<31, nil
}

// greet makes a call that the programs recognise: they learn which process is ours, and we learn
// that the hooks really fire.
func (c *Capture) greet(ctx context.Context, nonce uint64) error {
	c.reader.SetDeadline(time.Now().Add(5 * time.Second))
	defer c.reader.SetDeadline(time.Time{})
	_, _, _ = unix.Syscall(unix.SYS_BPF, uintptr(uint32(nonce)), uintptr(nonce), 0) // refused, of course
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.reader.ReadInto(&c.sample); err != nil {
			return fmt.Errorf("see our own call to bpf(2) through %s: the hooks are attached, but nothing came: %w", c.coll.backend, err)
		}
		if h, ok := view[coreHead](c.sample.RawSample); ok && coreRecordType(h.Type) == coreRecordTypeR_HELLO {
			// what we loaded ourselves before we were known
			c.pending = slices.DeleteFunc(c.pending, func(r trace.Record) bool { return r.Call != nil && r.Call.TGID == h.Tid })
			return nil
		}
		// somebody else's load in the same moment is not lost
		if err := c.decoder.add(c.sample.RawSample, &c.pending); err != nil {
			return err
		}
	}
}

// Header describes the node and the hooks.
func (c *Capture) Header() trace.Header { return c.header }

// Next returns the next record and blocks until there is one. After Close it hands out what is
// left, then a trace.End, then io.EOF.
func (c *Capture) Next() (trace.Record, error) {
	for {
		if len(c.pending) > 0 {
			r := c.pending[0]
			c.pending = c.pending[1:]
			if r.Call != nil {
				c.calls++
			}
			return r, nil
		}
		c.pending = nil
		if c.ended {
			return trace.Record{}, io.EOF
		}
		wait := c.pollInterval() - time.Since(c.polled)
		if wait <= 0 {
			c.poll()
			continue
		}
		if !c.opts.Calm {
			wait = readInterval
		}
		c.reader.SetDeadline(time.Now().Add(wait))
		c.waits.Store(c.reader.AvailableBytes() == 0)
		err := c.reader.ReadInto(&c.sample)
		c.waits.Store(false)
		switch {
		case err == nil:
			c.came = time.Now()
			n := len(c.pending)
			if err := c.decoder.add(c.sample.RawSample, &c.pending); err != nil {
				return trace.Record{}, err
			}
			c.refresh(n, c.reader.AvailableBytes() > late)
		case errors.Is(err, os.ErrDeadlineExceeded):
		case errors.Is(err, ringbuf.ErrFlushed), errors.Is(err, ringbuf.ErrClosed):
			c.look(true)
			c.ended = true
			if err := c.release(); err != nil {
				return trace.Record{}, err
			}
			c.pending = append(c.pending, trace.Record{End: &trace.End{Calls: c.calls, Lost: c.losses.total()}})
		default:
			return trace.Record{}, fmt.Errorf("read ring buffer: %w", err)
		}
	}
}

func (c *Capture) pollInterval() time.Duration {
	switch {
	case !c.opts.Calm:
		return pollInterval
	case time.Since(c.came) < idleAfter:
		return calmPollInterval
	}
	return idlePollInterval
}

// Behind reports that there are events which Next has not read, or is reading: also where its
// thread has not run since they came.
func (c *Capture) Behind() bool {
	c.reading.Lock()
	defer c.reading.Unlock()
	return !c.waits.Load() || c.reader.AvailableBytes() > 0
}

func (c *Capture) poll() {
	c.polled = time.Now()
	c.followedPIDs.sweep(c.coll.followedPIDs)
	c.decoder.readLog()
	c.look(false)
}

// look tells what was lost, and what hangs.
func (c *Capture) look(final bool) {
	c.losses.dropped, c.losses.loads.arrived = c.decoder.dropped, c.decoder.failedLoads
	c.pending = append(c.pending, c.losses.read(final || c.reader.AvailableBytes() == 0, final)...)
	if c.hangs == nil {
		return
	}
	select {
	case h := <-c.hangs.found:
		c.pending = append(c.pending, trace.Record{Hang: h})
	default:
	}
}

// decisive are the sysctls that decide loads and can have been changed since we started.
var decisive = []string{"net.core.bpf_jit_harden", "net.core.bpf_jit_enable", "net.core.bpf_jit_limit", "kernel.unprivileged_bpf_disabled"}

// late is how many bytes in the ring mean that they are read long after they were written.
const late = 1 << 20

// refresh puts the values of the decisive sysctls, as they are now, before a failed load, and
// before one that the JIT left alone how much memory its programs hold. Of calls that have waited
// for long, what is now says little: it is read less often then.
func (c *Capture) refresh(from int, waited bool) {
	if waited && time.Since(c.refreshed) < pollInterval {
		return
	}
	for i := from; i < len(c.pending); i++ {
		call := c.pending[i].Call
		if call == nil || call.Ret >= 0 && (call.Prog == nil || call.Prog.JITed) {
			continue
		}
		put := func(name, value string) {
			c.pending = slices.Insert(c.pending, i, trace.Record{Sysctl: &trace.Sysctl{Name: name, Value: value, At: call.End}})
		}
		if call.Ret >= 0 || call.Ret == notSupported {
			if n, ok := c.jitMemory(); ok {
				put(load.JITUsed, strconv.FormatUint(n, 10))
			}
		}
		for i, s := range c.settings {
			if s == nil {
				continue // the header's profile says why
			}
			if v, err := s.Read(); err == nil {
				put(decisive[i], v)
			}
		}
		c.refreshed = time.Now()
		return
	}
}

// notSupported is the kernel's own ENOTSUPP, which is not among the errnos of user space: no JIT,
// and no interpreter.
const notSupported = -abi.ENOTSUPP

// jitMemory is what compiled programs hold. Thousands of areas are summed for it, so that a storm
// of failures gets the last answer.
func (c *Capture) jitMemory() (uint64, bool) {
	if time.Since(c.jitRead) >= pollInterval {
		c.jitUsed, c.jitKnown = node.JITMemory()
		c.jitRead = time.Now()
	}
	return c.jitUsed, c.jitKnown
}

const membarrierGlobal = 1 // MEMBARRIER_CMD_GLOBAL, which is synchronize_rcu

// Close detaches everything. Next then drains what is left, and lets go of the buffer when it comes
// to the end.
func (c *Capture) Close() error {
	c.closeOnce.Do(func() {
		if c.hangs != nil {
			close(c.hangs.stop)
		}
		c.losses.freeze()
		err := c.coll.detach()
		// Programs that run at this moment are waited for: what they count, they write to the ring.
		_, _, _ = unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0)
		c.closeErr = errors.Join(err, c.reader.Flush())
	})
	return c.closeErr
}

// release closes what Next needed.
func (c *Capture) release() error {
	c.followedPIDs.release()
	for _, s := range c.settings {
		if s != nil {
			s.Close()
		}
	}
	c.settings = nil
	c.reading.Lock()
	defer c.reading.Unlock()
	c.released = true
	return errors.Join(c.decoder.close(), c.reader.Close(), c.coll.Close())
}

// epoch is the wall-clock time at which the monotonic clock read zero.
func epoch() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return time.Now().UnixNano() - ts.Nano()
}
