// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/repair/surrogate"
	"github.com/bpfwhy/bpfwhy/internal/sys/fdinfo"
)

// Argv0 is the name under which the executable acts as guardian of a proxy: see Main.
const Argv0 = "bpfwhy-proxy-guardian"

// Main is the guardian, or who starts processes for loads (package surrogate), and ends the
// process, if the executable was started as one; otherwise it returns at once. Call it first in
// main, and in TestMain of packages that start a proxy.
func Main() {
	surrogate.Main()
	if len(os.Args) == 0 || os.Args[0] != Argv0 {
		return
	}
	if err := guard(); err != nil {
		fmt.Fprintln(os.Stderr, Argv0+": "+err.Error())
		os.Exit(1)
	}
	os.Exit(0)
}

// slots are the notifications that were received and not answered yet. They lie in memory that
// proxy and guardian share, and the kernel writes each one there itself, so that there is no moment
// in which one is known to a proxy alone that is killed then.
type slots struct {
	memory []byte
	free   chan int
}

const (
	maxWaiting = 4096
	// sharedSize is that of all slots and the pulse.
	sharedSize = (maxWaiting + 1) * slotSize
)

func mapSlots(fd int) ([]byte, error) {
	b, err := unix.Mmap(fd, 0, sharedSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the shared memory: %w", err)
	}
	return b, nil
}

func newSlots() (*slots, *os.File, error) {
	f, err := surrogate.Memory("bpfwhy-waiting", sharedSize)
	if err != nil {
		return nil, nil, err
	}
	s := &slots{free: make(chan int, maxWaiting)}
	if s.memory, err = mapSlots(int(f.Fd())); err != nil {
		f.Close()
		return nil, nil, err
	}
	for i := range maxWaiting {
		s.free <- i
	}
	return s, f, nil
}

func (s *slots) at(i int) []byte { return s.memory[i*slotSize : (i+1)*slotSize] }

// release gives back the slot of a notification that was answered.
func (s *slots) release(i int) {
	clear(s.at(i))
	s.free <- i
}

// Descriptors of the guardian. It learns from the end of standard input that its proxy is gone.
const (
	guardLeash    = 0
	guardListener = 3
	guardSlots    = 4
)

// guardianProcess is a guardian at work, and the next one when that is killed.
type guardianProcess struct {
	listener, slots *os.File
	apart           bool  // it is out of reach of signals: surrogate.Apart
	exposed         error // why the first was not

	mu     sync.Mutex
	cmd    *exec.Cmd
	leash  io.Closer
	closed bool
	done   chan struct{}
}

func startGuardian(listener, slots *os.File, apart bool) (*guardianProcess, error) {
	g := &guardianProcess{listener: listener, slots: slots, apart: apart, done: make(chan struct{})}
	if err := g.start(); err != nil {
		return nil, err
	}
	go g.keep()
	return g, nil
}

func (g *guardianProcess) start() error {
	if !g.apart {
		return g.startAs(&syscall.SysProcAttr{Setsid: true})
	}
	exposed, err := surrogate.Apart(g.startAs)
	g.exposed = cmp.Or(g.exposed, exposed)
	return err
}

func (g *guardianProcess) startAs(attr *syscall.SysProcAttr) error {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{Argv0}
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{g.listener, g.slots}
	cmd.SysProcAttr = attr // it holds no descriptor of ours: nobody who reads our output waits for it
	in, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("open the guardian's pipe: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("open the guardian's pipe: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the guardian: %w", err)
	}
	var ready [1]byte
	if _, err := io.ReadFull(out, ready[:]); err != nil {
		in.Close()
		return errors.Join(errors.New("start the guardian: it did not come up"), cmd.Wait())
	}
	g.cmd, g.leash = cmd, in
	return nil
}

// keep replaces a guardian that dies.
func (g *guardianProcess) keep() {
	defer close(g.done)
	for {
		g.mu.Lock()
		cmd := g.cmd
		g.mu.Unlock()
		_ = cmd.Wait()
		g.mu.Lock()
		if g.closed {
			g.mu.Unlock()
			return
		}
		err := g.start()
		g.mu.Unlock()
		if err != nil {
			return // the proxy itself is still there
		}
	}
}

// pid is that of the guardian now at work.
func (g *guardianProcess) pid() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.cmd.Process.Pid
}

// takeOver lets the guardian answer from now on. It ends when the last process with the filter has
// ended.
func (g *guardianProcess) takeOver() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.closed = true
		g.leash.Close()
	}
}

// guard is the life of a guardian: it waits for the end of its proxy, lets the kernel carry out all
// that was left unanswered, and then every other load, until nobody is left who could make one. It
// does the same while a proxy does not move, until it moves again: whoever answers a load first has
// answered it.
func guard() error {
	// What ends the proxy should not end its guardian.
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE, unix.SIGTSTP, unix.SIGUSR1, unix.SIGUSR2)
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("hide our memory: %w", err)
	}
	memory, err := mapSlots(guardSlots)
	if err != nil {
		return err
	}
	if _, err := os.Stdout.Write([]byte{1}); err != nil {
		return nil // gone already: nothing was received
	}
	os.Stdout.Close()
	s := slots{memory: memory}
	for {
		gone := s.pulse().await(guardLeash)
		if some, err := s.standIn(gone); err != nil || !some {
			return err
		}
	}
}

// standIn leaves loads to the kernel, until a proxy that is not gone moves, or is gone after all.
// some: there may be further loads.
func (s *slots) standIn(gone bool) (some bool, err error) {
	pulse := s.pulse()
	beats := pulse.beats.Load()
	take := func(slot []byte) error { return receive(guardListener, slot) }
	limit := time.Duration(-1)
	if !gone {
		pulse.stoodIn.Store(true)
		take = func(slot []byte) error { return pulse.receive(byGuardian, guardListener, slot) }
		limit = beat
	}
	passThrough := func(id uint64) {
		if sendContinue(guardListener, id) == nil && !gone { // answered already: no harm
			pulse.unseen.Add(1)
		}
	}
	for i := range maxWaiting {
		if n := parseNotification(i, s.at(i)); n.id != 0 {
			passThrough(n.id)
		}
	}
	slot := make([]byte, slotSize)
	for gone || pulse.beats.Load() == beats && !fdinfo.Readable(guardLeash, 0) {
		switch what, err := wait(guardListener, -1, limit); {
		case err != nil:
			return false, err
		case what == nobodyLeft:
			return false, nil
		case what == nothing:
			continue
		}
		clear(slot)
		if err := take(slot); err == nil {
			passThrough(parseNotification(0, slot).id)
		} else if !errors.Is(err, errGone) {
			return false, fmt.Errorf("receive a load: %w", err)
		}
	}
	return true, nil
}

// What there is to do for who answers loads.
type event int

const (
	nothing    event = iota // for as long as was waited
	aLoad                   // can be received
	nobodyLeft              // who has the filter
	toStop
)

// wait waits until a load is there, no process is left that has the filter, or stop, unless -1, can
// be read; for a while, unless negative.
func wait(listener, stop int, while time.Duration) (event, error) {
	limit := -1
	if while >= 0 {
		limit = int(while.Milliseconds())
	}
	for {
		fds := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}, {Fd: int32(stop), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, limit); err == unix.EINTR {
			continue
		} else if err != nil {
			return nothing, fmt.Errorf("wait for loads: %w", err)
		}
		switch {
		case fds[1].Revents != 0:
			return toStop, nil
		case fds[0].Revents&unix.POLLIN != 0:
			return aLoad, nil
		case fds[0].Revents != 0:
			return nobodyLeft, nil
		}
		return nothing, nil
	}
}
