// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/sys/tracefs"
)

// arrivals tell of processes that map a file to run code of, if it may be a TLS library by its
// name, and of those that run another program: by perf's records of these, which need neither a
// program nor tracefs, in all containers. CAP_PERFMON is enough.
type arrivals struct {
	rings []perfRing
	stop  chan struct{}
	done  chan struct{}
}

// arrivalInterval is how often the rings are looked into: to be woken for each record would cost
// those who are watched.
const arrivalInterval = 20 * time.Millisecond

// ringPages are data pages of each processor's ring, a power of two. What there is no room for is
// found by the next scans.
const ringPages = 8

// anybody stands for processes whose records were lost.
const anybody = -1

// watchArrivals calls f with their numbers in our own pid namespace, or anybody, until it is
// closed.
func watchArrivals(f func(pid int)) (*arrivals, error) {
	a := &arrivals{stop: make(chan struct{}), done: make(chan struct{})}
	for _, cpu := range online() {
		r, err := openPerfRing(cpu)
		if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) { // it has just gone
			continue
		}
		if err != nil {
			a.closeRings()
			return nil, err
		}
		a.rings = append(a.rings, r)
	}
	go func() {
		defer close(a.done)
		every := time.NewTicker(arrivalInterval)
		defer every.Stop()
		for {
			select {
			case <-a.stop:
				return
			case <-every.C:
			}
			for i := range a.rings {
				a.rings[i].read(func(kind uint32, misc uint16, body []byte) {
					if pid := arrived(kind, misc, body); pid != 0 {
						f(pid)
					}
				})
			}
		}
	}()
	return a, nil
}

func (a *arrivals) close() {
	if a == nil {
		return
	}
	close(a.stop)
	<-a.done
	a.closeRings()
}

func (a *arrivals) closeRings() {
	for _, r := range a.rings {
		r.close()
	}
}

// online are the processors, from "0-3,5".
func online() (list []int) {
	b, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return nil
	}
	for part := range strings.SplitSeq(strings.TrimSpace(string(b)), ",") {
		from, to, ok := strings.Cut(part, "-")
		first, err := strconv.Atoi(from)
		last := first
		if ok && err == nil {
			last, err = strconv.Atoi(to)
		}
		if err != nil || last-first > 1<<16 {
			return list
		}
		for cpu := first; cpu <= last; cpu++ {
			list = append(list, cpu)
		}
	}
	return list
}

// arrived reads a record: struct { u32 pid, tid; u64 addr, len, pgoff; char filename[]; } of a
// mapping, struct { u32 pid, tid; char comm[]; } of a name. It returns 0 for what is of no
// interest.
func arrived(kind uint32, misc uint16, body []byte) int {
	if kind == unix.PERF_RECORD_LOST {
		return anybody
	}
	if len(body) < 8 {
		return 0
	}
	pid := max(0, int(int32(binary.NativeEndian.Uint32(body)))) // below 1: of a namespace that is not below ours
	switch kind {
	case unix.PERF_RECORD_COMM:
		if misc&unix.PERF_RECORD_MISC_COMM_EXEC != 0 {
			return pid
		}
	case unix.PERF_RECORD_MMAP:
		const name = 32
		if len(body) > name {
			if path, _, _ := bytes.Cut(body[name:], []byte{0}); mayBeTLS(string(path)) {
				return pid
			}
		}
	}
	return 0
}

// perfRing is the ring of one processor.
type perfRing struct {
	fd   int
	meta *unix.PerfEventMmapPage
	mem  []byte
	data []byte
	buf  []byte
}

func openPerfRing(cpu int) (perfRing, error) {
	attr := unix.PerfEventAttr{
		Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_DUMMY, Size: unix.PERF_ATTR_SIZE_VER1,
		Bits:   unix.PerfBitMmap | unix.PerfBitComm | unix.PerfBitCommExec | unix.PerfBitWatermark | unix.PerfBitExcludeKernel | unix.PerfBitExcludeHv,
		Wakeup: 1 << 30, // nobody waits
	}
	fd, err := unix.PerfEventOpen(&attr, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return perfRing{}, fmt.Errorf("open perf event: %w", tracefs.ExplainPerf(err))
	}
	page := os.Getpagesize()
	mem, err := unix.Mmap(fd, 0, (1+ringPages)*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return perfRing{}, errors.Join(fmt.Errorf("map perf event: %w", err), unix.Close(fd))
	}
	return perfRing{fd: fd, meta: (*unix.PerfEventMmapPage)(unsafe.Pointer(unsafe.SliceData(mem))), mem: mem, data: mem[page:]}, nil
}

// read calls f for each record.
func (r *perfRing) read(f func(kind uint32, misc uint16, body []byte)) {
	const head = 8 // struct { u32 type; u16 misc; u16 size; }
	at, end := r.meta.Data_tail, atomic.LoadUint64(&r.meta.Data_head)
	for end-at >= head && end-at <= uint64(len(r.data)) {
		h := r.copy(at, head)
		kind, misc, size := binary.NativeEndian.Uint32(h), binary.NativeEndian.Uint16(h[4:]), uint64(binary.NativeEndian.Uint16(h[6:]))
		if size < head || size > end-at {
			break // cannot be
		}
		f(kind, misc, r.copy(at+head, int(size-head)))
		at += size
	}
	atomic.StoreUint64(&r.meta.Data_tail, end)
}

// copy returns bytes of the ring, which goes round, until the next call.
func (r *perfRing) copy(at uint64, n int) []byte {
	r.buf = r.buf[:0]
	for len(r.buf) < n {
		from := int((at + uint64(len(r.buf))) % uint64(len(r.data)))
		r.buf = append(r.buf, r.data[from:min(len(r.data), from+n-len(r.buf))]...)
	}
	return r.buf
}

func (r *perfRing) close() {
	_ = unix.Munmap(r.mem)
	_ = unix.Close(r.fd)
}
