// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/sys/proc"
	"github.com/bpfwhy/bpfwhy/internal/watch/hang"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// HangAfter is how long a call may take before it is told that it hangs.
const HangAfter = 30 * time.Second

// Bounds of what is told of calls that hang.
const (
	maxHanging  = 64               // calls with their places
	mostSilence = 10 * time.Minute // between two reports while there are more and more
)

// inflight looks for calls that do not come back. It has a goroutine of its own, because a look at
// a thread may itself take long.
type inflight struct {
	calls *ebpf.Map
	// reader reads that map without bpf(2): while bpf(2) reads a map, the kernel runs no kprobe's
	// program on that processor, and in a storm it is that of others for long. nil: not to be had.
	reader *link.Iter
	after  time.Duration
	// earlier are threads that were inside a load before anybody watched. nil where only some are
	// watched.
	earlier []hang.Thread
	// begun are the calls that have taken too long, with the looks at their threads.
	begun map[trace.CallID]*hang.Begun
	found chan *trace.Hang
	stop  chan struct{}

	told    map[trace.CallID]bool
	silence time.Duration
	next    uint64 // not to be told again before
}

// startInflight watches for calls that take too long, until stop is closed.
func startInflight(c *collection, opts Options) (*inflight, error) {
	calls, err := c.maps["calls"].Clone() // ours to close: a look may outlast the capture
	if err != nil {
		return nil, fmt.Errorf("keep the map of calls: %w", err)
	}
	var reader *link.Iter
	if c.inFlight != nil {
		reader, _ = link.AttachIter(link.IterOptions{Program: c.inFlight, Map: calls})
	}
	f := &inflight{
		calls: calls, reader: reader, after: cmp.Or(opts.HangAfter, HangAfter), begun: make(map[trace.CallID]*hang.Begun),
		found: make(chan *trace.Hang), stop: make(chan struct{}),
	}
	everything := !opts.OnlyFollowed && opts.Comm == "" && opts.CgroupID == 0
	go f.run(everything)
	return f, nil
}

func (f *inflight) run(everything bool) {
	defer f.calls.Close()
	if f.reader != nil {
		defer f.reader.Close()
	}
	if everything {
		f.earlier = hang.Scan()
	}
	began := monotonic()
	// Not sooner: who has hung for longer by then is told at once.
	tick := time.NewTicker(max(f.after/6, 100*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-f.stop:
			return
		case <-tick.C:
		}
		h := f.look(monotonic(), began)
		if h == nil {
			continue
		}
		select {
		case <-f.stop:
			return
		case f.found <- h:
		}
	}
}

// look returns what is to be told now, nil for nothing.
func (f *inflight) look(now, began uint64) *trace.Hang {
	calls, ok := f.hanging(now)
	if !ok {
		return nil
	}
	calls = f.inside(calls)
	if now-began > uint64(f.after) && len(f.earlier) > 0 {
		// Those that are still where they were.
		f.earlier = hang.Still(f.earlier)
		for _, t := range f.earlier {
			if slices.ContainsFunc(calls, func(c trace.HangingCall) bool { return c.ID.TID == uint32(t.TID) }) {
				continue // it began just after the hooks were there
			}
			calls = append(calls, earlier(t, began))
		}
	}
	h := f.news(calls, now)
	if h == nil {
		return nil
	}
	for i := range h.Calls {
		if c := &h.Calls[i]; c.Earlier || seesThreads() {
			describeHanging(c)
		}
	}
	return h
}

// news is what there is to tell of the calls that hang now: that there are more than were told of,
// or none any more.
func (f *inflight) news(calls []trace.HangingCall, now uint64) *trace.Hang {
	slices.SortStableFunc(calls, func(a, b trace.HangingCall) int {
		if a.Earlier != b.Earlier {
			return map[bool]int{true: -1, false: 1}[a.Earlier]
		}
		return cmp.Compare(a.ID.Start, b.ID.Start)
	})
	more, told := false, map[trace.CallID]bool{}
	for _, c := range calls {
		told[c.ID] = true
		more = more || !f.told[c.ID]
	}
	back := len(calls) == 0 && len(f.told) > 0
	if back {
		f.told, f.silence, f.next = nil, 0, 0
		return &trace.Hang{At: now, After: uint64(f.after)}
	}
	if !more || now < f.next {
		return nil
	}
	f.told = told
	f.silence = min(max(2*f.silence, f.after), mostSilence)
	f.next = now + uint64(f.silence)
	return &trace.Hang{At: now, After: uint64(f.after), Calls: calls[:min(len(calls), maxHanging)], More: max(len(calls)-maxHanging, 0)}
}

// Earlier is a thread that was found waiting inside a load, at a time of the monotonic clock,
// without having been seen to begin.
func Earlier(t hang.Thread, found uint64) trace.HangingCall {
	c := earlier(t, found)
	describeHanging(&c)
	return c
}

func earlier(t hang.Thread, found uint64) trace.HangingCall {
	return trace.HangingCall{ID: trace.CallID{TID: uint32(t.TID), Start: found}, TGID: uint32(t.PID), Kind: kindOfCall(t.Call), Earlier: true}
}

// inside leaves out the calls that are over: the programs that see their ends are left out by
// kernels that preempt, and the entry of such a call stays until its thread makes the next, or
// ends. Where the thread cannot be looked at, the call is unsure.
func (f *inflight) inside(calls []trace.HangingCall) []trace.HangingCall {
	present := make(map[trace.CallID]bool)
	for _, c := range calls {
		present[c.ID] = true
	}
	maps.DeleteFunc(f.begun, func(id trace.CallID, _ *hang.Begun) bool { return !present[id] })
	sees := seesThreads()
	list := calls[:0]
	for _, c := range calls {
		doing := hang.Unknown
		if sees {
			doing = f.begun[c.ID].Look()
		}
		c.Unsure = doing == hang.Unknown
		if c.Unsure || doing == hang.Inside || doing == hang.Undecided && f.told[c.ID] {
			list = append(list, c)
		}
	}
	return list
}

// hanging are the calls that our programs have seen begin, and not end, in time. It is not ok when
// they cannot be read.
func (f *inflight) hanging(now uint64) (list []trace.HangingCall, ok bool) {
	err := f.each(func(r *coreCallRecord) {
		c := &r.Call
		if c.Head.Start == 0 || c.Head.Start > now || now-c.Head.Start < uint64(f.after) {
			return
		}
		h := trace.HangingCall{ID: trace.CallID{TID: c.Head.Tid, Start: c.Head.Start}}
		if f.begun[h.ID] == nil {
			f.begun[h.ID] = &hang.Begun{
				TID: int(h.ID.TID), BPF: coreCallKind(c.Kind) == coreCallKindK_BPF, Command: c.Cmd, Attr: c.Uattr,
				Kernel: coreCallFlags(c.Flags)&coreCallFlagsF_KERNEL != 0,
			}
		}
		switch coreCallKind(c.Kind) {
		case coreCallKindK_SECCOMP:
			h.Kind = load.Seccomp
		case coreCallKindK_SOCKFILTER:
			h.Kind = load.SocketFilter
		default:
			h.Kind = cmp.Or(kinds[c.Cmd], load.OtherCommand)
			if h.Kind == load.ProgLoad && coreCallFlags(c.Flags)&coreCallFlagsF_ATTR_FAULT == 0 {
				name := abi.Read[abi.ProgLoad](c.Attr[:]).ProgName
				h.Program = text(name[:])
			}
		}
		list = append(list, h)
	})
	if err != nil {
		return nil, false
	}
	// A map that changes meanwhile may show an entry twice.
	slices.SortFunc(list, func(a, b trace.HangingCall) int {
		return cmp.Or(cmp.Compare(a.ID.TID, b.ID.TID), cmp.Compare(a.ID.Start, b.ID.Start))
	})
	return slices.CompactFunc(list, func(a, b trace.HangingCall) bool { return a.ID == b.ID }), true
}

// each calls do for the calls in flight: what a record begins with.
func (f *inflight) each(do func(*coreCallRecord)) error {
	var r coreCallRecord
	value := unsafe.Slice((*byte)(unsafe.Pointer(&r.Call)), unsafe.Sizeof(r.Call))
	if f.reader != nil {
		elements, err := f.reader.Open()
		if err != nil {
			return err
		}
		defer elements.Close()
		for {
			switch _, err := io.ReadFull(elements, value); err {
			case nil:
				do(&r)
			case io.EOF:
				return nil
			default:
				return err
			}
		}
	}
	var key uint32
	var element []byte
	all := f.calls.Iterate()
	for all.Next(&key, &element) {
		copy(value, element)
		do(&r)
	}
	if err := all.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return err
	}
	return nil
}

// kindOfCall is the kind of what hang.Scan has found.
func kindOfCall(call string) load.Kind {
	switch call {
	case "BPF_PROG_LOAD":
		return load.ProgLoad
	case "BPF_MAP_CREATE":
		return load.MapCreate
	case "BPF_BTF_LOAD":
		return load.BTFLoad
	case "BPF_LINK_CREATE":
		return load.LinkCreate
	case "BPF_PROG_ATTACH":
		return load.ProgAttach
	case "BPF_RAW_TRACEPOINT_OPEN":
		return load.RawTPOpen
	case "SO_ATTACH_FILTER":
		return load.SocketFilter
	}
	return load.Seccomp
}

// describeHanging adds who hangs and where. Threads have their numbers of the first pid namespace:
// elsewhere they cannot be looked at.
func describeHanging(c *trace.HangingCall) {
	dir := "/proc/" + strconv.Itoa(int(c.ID.TID)) + "/"
	if tgid, err := strconv.ParseUint(proc.Field(proc.Read(dir+"status"), "Tgid"), 10, 32); err == nil {
		c.TGID = uint32(tgid)
	}
	c.Comm = strings.TrimSuffix(proc.Read(dir+"comm"), "\n")
	c.Cgroup2, _ = cgroupNames(proc.Read(dir+"cgroup"), &trace.Cgroup{})
	p := hang.Of(int(c.ID.TID))
	c.Functions, c.From = p.Functions, p.From
}
