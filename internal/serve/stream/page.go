// SPDX-License-Identifier: Apache-2.0

//go:build linux

package stream

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Page is memory that the reader and the exporter share. What one has written there the other finds
// also after it was killed. In a state folder it is a file, and so outlives both.
type Page struct {
	file *os.File
	mem  []byte
}

const (
	pageSize = 4096
	magic    = 0x62706677687901 // "bpfwhy", version 1
)

// ErrInUse says that another process holds the page.
var ErrInUse = errors.New("another bpfwhy serve uses it")

// CreatePage makes the page of a reader: in the file of that name, or with no name in memory alone.
func CreatePage(path string) (*Page, error) {
	f, err := pageFile(path)
	if err != nil {
		return nil, fmt.Errorf("share memory with the exporter: %w", err)
	}
	p, err := OpenPage(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	if *p.word(0) != magic {
		clear(p.mem)
		*p.word(0) = magic
	}
	return p, nil
}

func pageFile(path string) (*os.File, error) {
	if path == "" {
		fd, err := unix.MemfdCreate("bpfwhy", unix.MFD_CLOEXEC)
		if err != nil {
			return nil, err
		}
		f := os.NewFile(uintptr(fd), "memory")
		return f, f.Truncate(pageSize)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	err = lock(f)
	if err == nil {
		err = allocate(f)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// patience is how long the exporter of a reader that was killed may take to end. It holds the lock
// until then.
const patience = 12 * time.Second

func lock(f *os.File) error {
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err != unix.EWOULDBLOCK:
			return err
		case time.Since(began) > patience:
			return fmt.Errorf("%s: %w", f.Name(), ErrInUse)
		}
	}
}

// allocate gives the file its size. A page without a block on a full disk would end the process
// that writes to it (SIGBUS).
func allocate(f *os.File) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, pageSize)
	if err == unix.EOPNOTSUPP {
		_, err = f.WriteAt(make([]byte, pageSize), 0)
	}
	if err == nil {
		err = f.Truncate(pageSize)
	}
	return err
}

// OpenPage maps the page that another process made. The page owns the file from then on.
func OpenPage(f *os.File) (*Page, error) {
	mem, err := unix.Mmap(int(f.Fd()), 0, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map shared memory: %w", err)
	}
	return &Page{f, mem}, nil
}

// File is what another process opens it by.
func (p *Page) File() *os.File { return p.file }

func (p *Page) word(i int) *uint64 { return (*uint64)(unsafe.Pointer(&p.mem[8*i])) }

// Arrived counts calls that the reader had from the kernel and that the exporter is to account for.
func (p *Page) Arrived() uint64 { return atomic.LoadUint64(p.word(1)) }

// Arrive counts one more.
func (p *Page) Arrive() { atomic.AddUint64(p.word(1), 1) }

// Accounted is how many the exporter has accounted for where there is no state folder.
func (p *Page) Accounted() uint64 { return atomic.LoadUint64(p.word(2)) }

// Account sets it.
func (p *Page) Account(n uint64) { atomic.StoreUint64(p.word(2), n) }

// Close unmaps it and closes its file.
func (p *Page) Close() error { return errors.Join(unix.Munmap(p.mem), p.file.Close()) }
