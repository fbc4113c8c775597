// SPDX-License-Identifier: Apache-2.0

package failing

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/abi"
)

// StormThreads is the number of threads of a storm. Those below StormPairs come in pairs that load
// one program.
const (
	StormThreads = 50
	StormPairs   = 16
)

// StormLoad is one load of a storm: what a thread tried, and what the kernel told it.
type StormLoad struct {
	Thread int    `json:"thread"` // from 0
	TID    int    `json:"tid"`
	Pair   bool   `json:"pair,omitempty"` // its neighbour loads the same program at the same time
	Rule   string `json:"rule,omitempty"` // why it fails; "" for one that works; "BLIND" for one that blinding breaks
	// Start and End enclose the call, in ns of the monotonic clock.
	Start int64 `json:"start"`
	End   int64 `json:"end"`
	Result
}

// stormKind is one way in which a thread of a storm may fare.
type stormKind struct {
	errno int
	rule  string
	make  func(name string, mapFD int) func() Result
	// before is what the thread takes away from itself.
	before func() error
}

// stormKinds are the ways of single threads, and those of pairs, whose programs are long: the two
// loads are to overlap.
func stormKinds() (singles, pairs []stormKind) {
	prog := func(level uint32, insns func(fd int) []ins) func(string, int) func() Result {
		return func(name string, fd int) func() Result {
			p := program{name: name, typ: abi.ProgTypeSocketFilter, insns: insns(fd), logLevel: level}
			return p.load
		}
	}
	fixed := func(insns ...ins) func(int) []ins { return func(int) []ins { return insns } }
	long := func(end func(fd int) []ins) func(int) []ins {
		return func(fd int) []ins { return join(longBody(5000), end(fd)) }
	}
	far := func(int) []ins { return farJump() }
	uninit := fixed(movX(0, 5), exit())
	wrongHelper := fixed(movK(2, 0), call(fnXDPAdjustHead), movK(0, 0), exit())
	badFD := fixed(join(mapFD(1, 9999), movK(0, 0), exit())...)
	singles = []stormKind{
		{make: prog(1, fixed(small()...))},
		{errno: 13, rule: "VER001", make: prog(1, nullMapValue)},
		{errno: 13, rule: "VER002", make: prog(1, uninit)},
		{errno: 13, rule: "VER003", make: prog(1, outOfBounds)},
		{make: prog(0, fixed(smallCalls()...))},
		{errno: 22, rule: "FEAT002", make: prog(1, wrongHelper)},
		{errno: 9, rule: "REQ002", make: prog(1, badFD)},
		{errno: 22, rule: "FEAT006", make: prog(1, fixed(ins{op: opCall, src: pseudoKfunc, imm: 0x7ffffff}, movK(0, 0), exit()))},
		{errno: 13, rule: "VER001", make: prog(0, nullMapValue)},
		{errno: 13, rule: "VER002", make: prog(0, uninit)},
		{make: prog(1, withMap)},
		{errno: 22, rule: "FEAT002", make: prog(0, wrongHelper)},
		{errno: 13, rule: "VER011", make: prog(1, fixed(ldW(0, 1, 400), exit()))},
		{errno: 1, rule: "PERM001", before: func() error { return keepCaps() },
			make: func(name string, _ int) func() Result {
				return program{name: name, typ: abi.ProgTypeKprobe, insns: small()}.load
			}},
		{errno: 28, rule: "REQ004", make: func(name string, _ int) func() Result {
			return program{name: name, typ: abi.ProgTypeSocketFilter, insns: longFilter(100), logLevel: 2, logSize: 128}.load
		}},
		{errno: 1, rule: "PERM006", before: func() error { return Confine(unix.SYS_BPF) }, make: prog(0, fixed(small()...))},
	}
	pairs = []stormKind{
		{errno: 13, rule: "VER002", make: prog(1, long(uninit))},
		{rule: "BLIND", make: prog(0, far)},
		{errno: 13, rule: "VER001", make: prog(0, long(nullMapValue))},
		{make: prog(1, long(withMap))},
		{errno: 13, rule: "VER003", make: prog(1, long(outOfBounds))},
		{errno: 22, rule: "FEAT002", make: prog(0, long(wrongHelper))},
		{make: prog(0, long(withMap))},
		{errno: 13, rule: "VER002", make: prog(0, long(uninit))},
	}
	return singles, pairs
}

// longBody is n slots of nothing that leave r1, and every register that was not written, as they
// are.
func longBody(n int) []ins {
	insns := make([]ins, n)
	for i := range insns {
		insns[i] = movX(0, 1)
	}
	return insns
}

// Storm makes one load in each of StormThreads threads, all at once. A program's name says what is
// expected: thread or pair, errno and rule, as in "t17_13_VER001". "BLIND" fails, or is not
// compiled, at net.core.bpf_jit_harden=2, as the kernel has it.
func Storm() ([]StormLoad, error) {
	// A signal makes the verifier give up, and the collector of garbage sends some.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	fd, err := newMap("values", abi.MapTypeHash, 4, 8, 1)
	if err != nil {
		return nil, err
	}
	singles, pairs := stormKinds()
	var (
		loads   = make([]StormLoad, StormThreads)
		errs    = make([]error, StormThreads)
		started = make(chan struct{})
		ready   sync.WaitGroup
		done    sync.WaitGroup
	)
	for i := range StormThreads {
		kind, name := singles[i%len(singles)], fmt.Sprintf("t%02d", i)
		if i < StormPairs {
			kind, name = pairs[i/2%len(pairs)], fmt.Sprintf("p%02d", i/2)
		}
		if kind.errno == 0 && kind.rule == "" {
			name += "_ok"
		} else {
			name += fmt.Sprintf("_%d_%s", kind.errno, kind.rule)
		}
		ready.Add(1)
		done.Go(func() {
			runtime.LockOSThread() // never unlocked: what the thread lost is lost with it
			l := &loads[i]
			l.Thread, l.TID, l.Pair, l.Rule = i, unix.Gettid(), i < StormPairs, kind.rule
			do := kind.make(name, fd)
			if kind.before != nil {
				errs[i] = kind.before()
			}
			ready.Done()
			<-started
			if errs[i] != nil {
				return
			}
			l.Start = monotonic()
			l.Result = do()
			l.End = monotonic()
		})
	}
	ready.Wait()
	close(started)
	done.Wait()
	return loads, errors.Join(errs...)
}

func monotonic() int64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return 0
	}
	return ts.Nano()
}

// WriteStorm makes a storm and writes one line of JSON for each load.
func WriteStorm(w io.Writer) error {
	loads, err := Storm()
	if err != nil {
		return fmt.Errorf("prepare storm: %w", err)
	}
	out := bufio.NewWriter(w)
	enc := json.NewEncoder(out)
	for _, l := range loads {
		l.Log = ""
		if err := enc.Encode(l); err != nil {
			return err
		}
	}
	return out.Flush()
}

const stormArg = "storm"

// StormProcess is a storm in a process of its own, which waits for Go.
type StormProcess struct{ *child }

// StartStorm starts the process. It makes no bpf(2) before Go.
func StartStorm(ctx context.Context) (StormProcess, error) {
	c, err := startChild(ctx, stormArg)
	return StormProcess{c}, err
}

// Go lets the storm loose, waits for its end, and returns its loads by thread.
func (s StormProcess) Go() ([]StormLoad, error) {
	var loads []StormLoad
	err := s.finish(func(d *json.Decoder) error {
		for {
			var l StormLoad
			if err := d.Decode(&l); err != nil {
				if err == io.EOF && len(loads) == StormThreads {
					return nil
				}
				return fmt.Errorf("after %d loads: %w", len(loads), err)
			}
			loads = append(loads, l)
		}
	})
	return loads, err
}

func stormChild() error {
	if err := awaitStart(); err != nil {
		return err
	}
	return WriteStorm(os.Stdout)
}
