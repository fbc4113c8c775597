// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"testing"
	"time"
	"unsafe"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/freeing"
)

// TestBenchLoads measures what a load costs under a proxy, next to what it costs without, at net.core.bpf_jit_harden=2. Runs with and without
// take turns. BPFWHY_BENCH=1 asks for it.
func TestBenchLoads(t *testing.T) {
	if os.Getenv("BPFWHY_BENCH") != "1" {
		t.Skip("BPFWHY_BENCH=1 asks for it")
	}
	hardened(t)
	for _, what := range []struct{ name, rounds string }{
		{"small", "2000"}, {"12000", "60"}, {"far", "8"}, {"map", "20000"}, {"getppid", "200000"},
	} {
		var without, with []time.Duration
		for range 5 {
			for _, under := range []bool{false, true} {
				args := []string{"time", what.name, what.rounds}
				var out string
				if under {
					out, _ = loads(t, true, args...)
				} else {
					out = natively(t, args...)
				}
				var d []time.Duration
				qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(out), &d)))
				if under {
					with = append(with, d...)
				} else {
					without = append(without, d...)
				}
			}
		}
		slices.Sort(without)
		slices.Sort(with)
		p := func(d []time.Duration, percent int) time.Duration { return d[len(d)*percent/100] }
		t.Logf("%-8s without: p50 %v, p90 %v; with: p50 %v, p90 %v", what.name, p(without, 50), p(without, 90), p(with, 50), p(with, 90))
	}
}

// timed makes the same call over and over and prints how long each took.
func timed(args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	m, errno := newMap()
	if errno != 0 {
		return errno
	}
	r := request{name: "timed", code: small}
	call := func() error {
		l := r.load()
		for l.Errno == int(unix.EAGAIN) { // a signal
			l = r.load()
		}
		if l.Errno != 0 && l.Errno != 524 {
			return unix.Errno(l.Errno)
		}
		unix.Close(l.FD)
		return nil
	}
	switch args[0] {
	case "small":
	case "12000":
		r.code = slices.Repeat([]insn.Instruction{{Code: 0xbf, Dst: 2, Src: 1}}, 12_000-2)
		r.code = append(r.code, small...)
	case "far":
		r.code = far(-1, farBody)
	case "map":
		var key uint32
		var value uint64
		call = func() error {
			e := struct {
				fd         uint32
				_          uint32
				key, value uint64
				flags      uint64
			}{fd: uint32(m)}
			_, err := bpfWith(unix.BPF_MAP_LOOKUP_ELEM, unsafe.Pointer(&e), unsafe.Sizeof(e), pointer{&e.key, unsafe.Pointer(&key)}, pointer{&e.value, unsafe.Pointer(&value)})
			return err
		}
	case "getppid":
		call = func() error { unix.Getppid(); return nil }
	default:
		return fmt.Errorf("no call %q", args[0])
	}
	debug.SetGCPercent(-1) // it sends signals
	took := make([]time.Duration, n)
	var closed freeing.Bound
	for i := range took {
		if args[0] != "map" && args[0] != "getppid" {
			if err := closed.Closed(); err != nil {
				return err
			}
		}
		start := time.Now()
		if err := call(); err != nil {
			return err
		}
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	if n > 1000 { // every so many tell as much
		step := n / 1000
		for i := range 1000 {
			took[i] = took[i*step]
		}
		took = took[:1000]
	}
	return json.NewEncoder(os.Stdout).Encode(took)
}
