// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"bytes"
	"fmt"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// memory is the address space that a thread has when its notification is received, and no other:
// not that of a program which the process of that thread executes later.
type memory struct {
	fd    int
	users atomic.Int32 // it is closed by the last
	waits int          // for tests: the thread whose memory is read in the way that waits for pages of userfaultfd, too
}

// openMemory opens the memory of the thread that waits, which is in a user namespace. Both were
// found by the thread's number; that the notification is valid afterwards says that they are that
// thread's.
func (p *Proxy) openMemory(n *notification, ns nsID) (*memory, error) {
	p.before(opening)
	m, err := openMemoryOf(n.tid)
	if err != nil {
		return nil, err
	}
	switch {
	case !p.waits(n):
		err = errGone
	case ns != p.we.userNS: // who makes one has as many users there as he likes
		err = errOtherUserNS
	default:
		return m, nil
	}
	m.close()
	return nil, err
}

func openMemoryOf(tid int) (*memory, error) {
	fd, err := unix.Open("/proc/"+strconv.Itoa(tid)+"/mem", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the memory of thread %d: %w", tid, err)
	}
	m := &memory{fd: fd}
	m.users.Store(1)
	return m, nil
}

// hold is one more user of memory that is open.
func (m *memory) hold() *memory {
	m.users.Add(1)
	return m
}

func (m *memory) close() {
	if m.users.Add(-1) == 0 {
		unix.Close(m.fd)
	}
}

// read may take as long as who owns the memory likes, whose pages may be those of a file on a
// server of his: see Proxy.within. It does not wait for pages of userfaultfd, which give EIO (seen
// on 5.10 and 7.2).
func (m *memory) read(address uint64, n int) ([]byte, error) {
	b := make([]byte, n)
	for done := 0; done < n; {
		got, err := m.pread(b[done:], address+uint64(done))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read %d bytes: %w", n, err)
		}
		if got <= 0 { // nobody is left who has this memory
			return nil, errGone
		}
		done += got
	}
	return b, nil
}

func (m *memory) pread(b []byte, address uint64) (int, error) {
	if m.waits != 0 {
		local := []unix.Iovec{{Base: &b[0], Len: uint64(len(b))}}
		return unix.ProcessVMReadv(m.waits, local, []unix.RemoteIovec{{Base: uintptr(address), Len: len(b)}}, 0)
	}
	return unix.Pread(m.fd, b, int64(address))
}

func (m *memory) pwrite(b []byte, address uint64) (int, error) {
	if m.waits != 0 {
		local := []unix.Iovec{{Base: &b[0], Len: uint64(len(b))}}
		return unix.ProcessVMWritev(m.waits, local, []unix.RemoteIovec{{Base: uintptr(address), Len: len(b)}}, 0)
	}
	return unix.Pwrite(m.fd, b, int64(address))
}

// text reads a string of less than n bytes, with its final zero.
func (m *memory) text(address uint64, n int) ([]byte, error) {
	const page = 4096
	var all []byte
	for len(all) < n {
		part := min(n-len(all), page-int(address%page))
		b, err := m.read(address, part)
		if err != nil {
			return nil, err
		}
		if i := bytes.IndexByte(b, 0); i >= 0 {
			return append(all, b[:i+1]...), nil
		}
		all = append(all, b...)
		address += uint64(part)
	}
	return append(all[:n-1], 0), nil
}

// write may take long, as read.
func (m *memory) write(address uint64, b []byte) error {
	for len(b) > 0 {
		got, err := m.pwrite(b, address)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("write %d bytes: %w", len(b), err)
		}
		if got <= 0 {
			return errGone
		}
		b, address = b[got:], address+uint64(got)
	}
	return nil
}
