// SPDX-License-Identifier: Apache-2.0

// Package surrogate loads a program in the place of somebody else's thread, in a process of its own
// that is, to the kernel, that thread's equal: with its ids and no capability that it has not.
//
// Whoever has the same ids may do to that process what the kernel allows: send it signals, change
// its limits, and, if it could be traced, read its memory and take its descriptors. So there is
// nothing in it but the load: no memory of the process that asks, no descriptor that the load does
// not name, one thread, no capability that the thread has not; and it cannot be traced by those who
// could not trace a process with more. It makes the system calls of a list that was written
// beforehand (script.go), answers, and ends. It is killed when it does not.
//
// The processes are copies of one that does nothing but start them. That one is an executable of
// Go, started anew, before anybody could be there who attacks it, and out of the reach of signals:
// see Apart.
//
// Linux 5.10 and later.
package surrogate

import (
	"errors"
	"fmt"
	"sync"
)

// ErrEnded is a process that ended, or was ended, before it had an answer.
var ErrEnded = errors.New("the process that loads has ended")

// ErrTimeout is a process that had no answer in time, and was killed.
var ErrTimeout = errors.New("the process that loads did not answer in time")

// As is who a load is made as.
type As struct {
	UID, GID [3]int // real, effective, saved
	Groups   []int
	Caps     uint64 // effective and permitted
}

// Load is one load.
type Load struct {
	As   As
	Attr []byte // of union bpf_attr; pointers are filled in
	Code []byte
	// Missing says that the instructions are not to be there: Process.Missing.
	Missing bool
	// Gated makes the process wait before the load: Process.Gate.
	Gated   bool
	Parts   []Part
	LogSize int // room for the verifier's log, 0 for none
	Objects []int
	// Offsets in Attr of the pointers to the instructions and to the log.
	CodeAt, LogAt int

	attr uint64
}

// Part is memory that a pointer in the attributes points to.
type Part struct {
	At    int // of the pointer
	Bytes []byte
}

// guards are what tests do without, to show what they are good for.
type guards struct {
	dumpable bool // the memory is not hidden
	apart    bool // whoever starts the processes has our own ids and pid namespace
	outlives bool // a process does not end with who started it
	unheard  bool // the end of a process is not noticed: its socket stays open, and its handle is not looked at
	pause    int  // the step before which a process reads from its last descriptor, so that it can be met there; -1 for none
}

// Source starts processes.
type Source struct {
	o guards

	mu     sync.Mutex
	server *server // nil: none at work
	closed bool

	exposed error
}

// Start makes ready. The executable must call Main first in main.
func Start(options ...Option) (*Source, error) {
	o := guards{pause: -1}
	for _, set := range options {
		set(&o)
	}
	return newSource(o)
}

// Option leaves a guard out, for tests that show what it is good for.
type Option func(*guards)

// Without leaves the memory of processes to those who have the same ids, and lets who starts them
// be in reach of signals.
func Without(hidden, apart bool) Option {
	return func(o *guards) { o.dumpable, o.apart = hidden, apart }
}

func newSource(o guards) (*Source, error) {
	server, exposed, err := startServer(o)
	if err != nil {
		return nil, err
	}
	return &Source{o: o, server: server, exposed: exposed}, nil
}

// Exposed says why who starts the processes can be signalled by others, nil when he cannot.
func (s *Source) Exposed() error { return s.exposed }

// Close ends the source, and the processes that are at work with it.
func (s *Source) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.server.close()
	s.server = nil
}

// ready starts the server anew where it is gone. The caller holds the lock.
func (s *Source) ready() (err error) {
	if s.closed {
		return ErrEnded
	}
	if s.server == nil {
		s.server, _, err = startServer(s.o)
	}
	return err
}

// New starts a process, which sets out for the load at once. The descriptors of the load are needed
// no longer when it returns.
func (s *Source) New(l *Load) (*Process, error) {
	if len(l.Objects) > MaxObjects {
		return nil, fmt.Errorf("start a process for a load: %d descriptors", len(l.Objects))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.ready(); err != nil {
		return nil, err
	}
	p, err := s.server.new(l, s.o)
	if errors.Is(err, errServer) {
		s.server.close()
		s.server = nil
	}
	return p, err
}
