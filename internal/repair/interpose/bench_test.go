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
	"github.com/bpfwhy/bpfwhy/internal/sys/freeing"
	"github.com/bpfwhy/bpfwhy/load"
)

// TestBenchLoads measures what a load costs under a proxy, next to what it costs without, at
// net.core.bpf_jit_harden=2. Runs with and without take turns. A program that blinding breaks costs
// more the first time, when it is found out what helps, than when that is known: each run has a
// proxy of its own, and "far again" leaves the first load of a run out. All of them must have been
// repaired. BPFWHY_BENCH=1 asks for it.
func TestBenchLoads(t *testing.T) {
	if os.Getenv("BPFWHY_BENCH") != "1" {
		t.Skip("BPFWHY_BENCH=1 asks for it")
	}
	hardened(t)
	for _, what := range []struct {
		name     string
		rounds   int
		runs     int
		repaired int // of a run
	}{
		{"small", 2000, 5, 0}, {"12000", 60, 5, 0}, {"far", 1, 20, 1}, {"far again", 8, 5, 9}, {"map", 20_000, 5, 0}, {"getppid", 200_000, 5, 0},
	} {
		var without, with []time.Duration
		for range what.runs {
			for _, under := range []bool{false, true} {
				args := []string{"time", what.name, strconv.Itoa(what.rounds)}
				var out string
				if under {
					var repairs []*load.Attempt
					out, repairs = loads(t, true, args...)
					qt.Assert(t, qt.Equals(len(repairs), what.repaired))
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
		t.Logf("%-9s without: p50 %v, p90 %v; with: p50 %v, p90 %v", what.name, p(without, 50), p(without, 90), p(with, 50), p(with, 90))
	}
}

// dense is far with 506 constants in 32,400 slots, each of which costs the kernel a copy of the
// program: what is measured stays the same, whatever other tests are content with.
func dense() []insn.Instruction {
	const body, every = 32_400, 64
	p := far(-1, body)
	for i := len(p) - body; i < len(p)-every; i += every {
		p[i] = insn.Instruction{Code: 0x07, Dst: 7, Imm: int32(i)}
	}
	return p
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
	case "far", "far again":
		r.code = dense()
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
	if args[0] == "far again" {
		if err := call(); err != nil {
			return err
		}
	}
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
