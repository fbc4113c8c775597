// SPDX-License-Identifier: Apache-2.0

// Command loader repeats one operation and says what each repetition cost. It is what the
// benchmarks measure: static, one thread, one raw bpf(2) a load, nothing allocated between two of
// them.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/abi"
)

// Report is what one run prints, as JSON.
type Report struct {
	Kind   string `json:"kind"`
	N      int    `json:"n"`
	WallNS int64  `json:"wallNS"` // median duration of one load, mean of the other calls
	CPUNS  int64  `json:"cpuNS"`  // mean processor time of the thread for one repetition, closing the program included
}

func main() {
	kind := flag.String("kind", "small", "small, medium, log, blind, fail, or a call that is no load: "+strings.Join(callKinds, ", "))
	n := flag.Int("n", 1, "repetitions")
	pause := flag.Duration("pause", 0, "between two loads")
	limit := flag.Duration("for", 0, "stop then, whatever -n says")
	flag.Parse()
	report, err := run(*kind, *n, *pause, *limit)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(report)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "loader:", err)
		os.Exit(1)
	}
}

func run(kind string, n int, pause, limit time.Duration) (Report, error) {
	if n < 1 {
		return Report{}, fmt.Errorf("-n %d: at least one", n)
	}
	debug.SetGCPercent(-1)
	runtime.LockOSThread()
	// A pending signal ends the verifier's work with EAGAIN, and Go's scheduler sends one to a
	// thread that is long in a call.
	var urgent unix.Sigset_t
	urgent.Val[0] = 1 << (unix.SIGURG - 1)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &urgent, nil); err != nil {
		return Report{}, fmt.Errorf("block SIGURG: %w", err)
	}
	r := Report{Kind: kind, N: n}
	if slices.Contains(callKinds, kind) {
		return r, r.calls()
	}
	load, err := newLoad(kind)
	if err != nil {
		return r, err
	}
	if n > 1 {
		load.once(0) // warms up
	}
	walls := make([]int64, 0, n)
	began := time.Now()
	before := clock(unix.CLOCK_THREAD_CPUTIME_ID)
	for i := range n {
		wall, errno := load.once(i + 1)
		if errno != load.errno {
			return r, fmt.Errorf("load %s: repetition %d: errno %d, and not %d", kind, i, errno, load.errno)
		}
		walls = append(walls, wall)
		if limit > 0 && time.Since(began) > limit {
			break
		}
		time.Sleep(pause)
	}
	r.N = len(walls)
	r.CPUNS = (clock(unix.CLOCK_THREAD_CPUTIME_ID) - before) / int64(r.N)
	slices.Sort(walls)
	r.WallNS = walls[r.N/2]
	return r, nil
}

func clock(id int32) int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		panic(err) // clocks that every kernel has
	}
	return ts.Nano()
}

type load struct {
	attr  abi.ProgLoad
	errno unix.Errno // what it has to end with
	pin   runtime.Pinner
}

func newLoad(kind string) (*load, error) {
	insns, log := program(kind)
	if insns == nil {
		return nil, fmt.Errorf("-kind %q: no such kind", kind)
	}
	l := &load{}
	if kind == "fail" {
		l.errno = unix.EACCES
	}
	code := encode(insns)
	license := []byte("GPL\x00")
	l.attr = abi.ProgLoad{ProgType: abi.ProgTypeSocketFilter, InsnCnt: uint32(len(insns)), Insns: l.address(code), License: l.address(license)}
	if log > 0 {
		buf := make([]byte, 16<<20)
		l.attr.LogLevel, l.attr.LogSize, l.attr.LogBuf = log, uint32(len(buf)), l.address(buf)
	}
	return l, nil
}

func (l *load) address(b []byte) uint64 {
	l.pin.Pin(&b[0])
	return uint64(uintptr(unsafe.Pointer(&b[0])))
}

// once loads the program, closes it, and says how long the load took. The name tells repetitions
// apart: two loads that are alike in all and fail are one loader that tries again.
func (l *load) once(i int) (int64, unix.Errno) {
	name := l.attr.ProgName[:]
	copy(name, "bench_")
	for at := 13; at > 5; at-- {
		name[at] = "0123456789abcdef"[i&15]
		i >>= 4
	}
	start := clock(unix.CLOCK_MONOTONIC)
	fd, _, errno := unix.RawSyscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&l.attr)), unsafe.Offsetof(l.attr.ProgIfindex))
	end := clock(unix.CLOCK_MONOTONIC)
	if errno == 0 {
		unix.Close(int(fd))
	}
	return end - start, errno
}
