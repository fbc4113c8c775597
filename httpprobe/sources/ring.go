// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"

	"github.com/bpfwhy/bpfwhy/httpprobe/event"
)

// lookInterval is how often Run looks into the ring when nobody wakes it.
const lookInterval = 50 * time.Millisecond

// reentrantSuffix ends the name of a program that runs where the one without it was left out.
const reentrantSuffix = "_reentrant"

// ring is the buffer between the programs and Run, and what both sources that have one share.
type ring struct {
	source event.Source
	coll   *ebpf.Collection
	reader *ringbuf.Reader
	comms  map[[16]byte]string

	counters counters
}

func newRing(source event.Source, coll *ebpf.Collection) (*ring, error) {
	reader, err := ringbuf.NewReader(coll.Maps["events"])
	if err != nil {
		return nil, fmt.Errorf("open ring buffer: %w", err)
	}
	return &ring{source: source, coll: coll, reader: reader, comms: map[[16]byte]string{}}, nil
}

func (r *ring) run(ctx context.Context, f func(*event.Event)) error {
	var record ringbuf.Record
	var e event.Event
	for {
		done := ctx.Err() != nil
		deadline := time.Now()
		if !done {
			deadline = deadline.Add(lookInterval)
		}
		r.reader.SetDeadline(deadline)
		for {
			err := r.reader.ReadInto(&record)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return fmt.Errorf("read ring buffer: %w", err)
			}
			if err := r.decode(record.RawSample, &e); err != nil {
				return err
			}
			f(&e)
		}
		if done {
			return nil
		}
	}
}

// decode makes an event of a record. Its Data is the record's memory.
func (r *ring) decode(raw []byte, e *event.Event) error {
	const head = int(unsafe.Sizeof(syscallsEvent{}))
	if len(raw) < head {
		return fmt.Errorf("read ring buffer: record of %d bytes", len(raw))
	}
	w := *(*syscallsEvent)(unsafe.Pointer(unsafe.SliceData(raw))) // as the programs wrote it: encoding/binary takes as long as all the rest
	data := raw[head:]
	if int(w.Captured) > len(data) {
		return fmt.Errorf("read ring buffer: record of %d bytes with %d bytes of data", len(raw), w.Captured)
	}
	var comm [16]byte
	for i, c := range w.Comm {
		comm[i] = byte(c)
	}
	*e = event.Event{
		Kind:  event.Kind(w.Kind),
		Conn:  event.Conn{Source: r.source, ID: w.Id, Born: w.Born},
		Dir:   event.Direction(w.Dir),
		Fresh: w.Fresh != 0,
		Time:  w.Time,
		TGID:  w.Tgid, TID: w.Tid, Comm: r.comm(comm), CgroupID: w.Cgroup,
		LocalPort: w.LocalPort, RemotePort: w.RemotePort,
		Pos: w.Pos, Len: w.Len, Data: data[:w.Captured],
	}
	return nil
}

// comm makes a string of a name, the same for the same name. Names are anything that processes
// like.
func (r *ring) comm(b [16]byte) string {
	s, ok := r.comms[b]
	if !ok {
		if len(r.comms) >= 4096 {
			clear(r.comms)
		}
		name, _, _ := bytes.Cut(b[:], []byte{0})
		s = string(name)
		r.comms[b] = s
	}
	return s
}

func (r *ring) loss() event.Loss {
	var perCPU []syscallsLosses
	err := r.coll.Maps["lost"].Lookup(uint32(0), &perCPU)
	names := slices.Collect(maps.Keys(r.coll.Programs))
	return r.counters.lossOf(perCPU, err, names, func(program string) (uint64, error) { return misses(r.coll.Programs[program].FD()) })
}

func (r *ring) close() error {
	err := r.reader.Close()
	r.coll.Close()
	return err
}
