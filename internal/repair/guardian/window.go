// SPDX-License-Identifier: Apache-2.0

package guardian

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Window is what became of a window.
type Window struct {
	// Open is how long the value was 1, 0 when it was not lowered at all.
	Open time.Duration `json:"open,omitempty"`
	// Touched says that the latch was what closed it.
	Touched bool `json:"touched,omitempty"`
	// Overdue says that its deadline was what closed it.
	Overdue bool `json:"overdue,omitempty"`
	// Foreign says that somebody else wrote the value meanwhile: it was left as found.
	Foreign bool `json:"foreign,omitempty"`
	// Error is why it did not open, or did not close.
	Error string `json:"error,omitempty"`
}

const (
	// ready is how long the guardian waits for the loader to be ready, with nothing lowered.
	ready = 5 * time.Second
	// late is how much longer its starter waits for the guardian itself, before it takes it for
	// stopped or hung.
	late = 400 * time.Millisecond
)

// Window asks a guardian that stands by for one window: the value is lowered from 2 to 1, and put
// back when the latch, a descriptor, becomes readable (-1 for none), when nobody has the gate open
// any more, when this process ends, or when the limit is over, whichever comes first.
//
// The gate is for who loads, in this process or another: see Pass. It is the caller's, who closes
// it. closed waits for the end of the window; it must be called, with the gate closed or on its way
// to be.
func (r *Raised) Window(limit time.Duration, latch int) (gate *os.File, closed func() (Window, error), err error) {
	gate, theirs, err := socketpair(unix.SOCK_STREAM)
	if err != nil {
		return nil, nil, err
	}
	defer theirs.Close()
	fds := []int{int(theirs.Fd())}
	if latch >= 0 {
		fds = append(fds, latch)
	}
	if err := unix.Sendmsg(int(r.leash.Fd()), binary.NativeEndian.AppendUint64(nil, uint64(limit)), unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL); err != nil {
		gate.Close()
		return nil, nil, fmt.Errorf("ask the guardian for a window: %w", err)
	}
	var w Window
	done := make(chan struct{})
	go func() {
		defer close(done)
		w, err = r.await(limit)
	}()
	return gate, func() (Window, error) {
		<-done
		return w, err
	}, nil
}

// await waits for the end of a window. A guardian that does not answer in time is replaced.
func (r *Raised) await(limit time.Duration) (Window, error) {
	tick := time.NewTicker(late / 4)
	defer tick.Stop()
	var idle, overdue time.Duration
	last := time.Now()
	failed := func(what string) (Window, error) {
		var w Window
		if open := r.lowered.since(); open > 0 {
			w = Window{Open: open, Overdue: open > limit}
		}
		return w, errors.Join(errors.New("the guardian of net.core.bpf_jit_harden "+what), r.err)
	}
	for {
		select {
		case w := <-r.windows:
			if w.Error != "" {
				return w, errors.New(w.Error)
			}
			return w, nil
		case <-r.ended:
			return failed("has ended")
		case <-tick.C:
			// Where nobody got a processor for long, the guardian is to get one before it is
			// judged. What passed before its deadline says nothing of it.
			passed := min(time.Since(last), late/2)
			last = time.Now()
			open := r.lowered.since()
			switch {
			case open > limit:
				overdue += passed
			case open == 0:
				idle += passed
			}
			if overdue > late || idle > ready+late {
				r.replace()
				<-r.ended
				return failed(fmt.Sprintf("did not answer for %v, and was killed", idle+open))
			}
		}
	}
}

// spin is how long Pass keeps its processor while it waits: to be woken takes as long as all else
// that a window is open for.
const spin = 2 * time.Millisecond

// Pass says at a gate that all is prepared, and waits until the value is lowered. The error is
// io.EOF when it will not be. The window is open until the gate is closed.
func Pass(gate *os.File) error {
	if _, err := gate.Write([]byte{0}); err != nil {
		return fmt.Errorf("open a window: %w", err)
	}
	fd := gate.Fd()
	var b [1]byte
	for start := time.Now(); time.Since(start) < spin; {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b)), uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0)
		if errno == 0 && n == 1 {
			return nil
		}
		if errno != unix.EAGAIN && errno != unix.EINTR {
			break
		}
	}
	_, err := gate.Read(b[:])
	if errors.Is(err, unix.ECONNRESET) { // the guardian left without having read what we wrote
		return io.EOF
	}
	return err
}
