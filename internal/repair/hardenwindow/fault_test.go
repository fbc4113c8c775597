// SPDX-License-Identifier: Apache-2.0

package hardenwindow

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/repair/guardian"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
)

// Roles of the test binary: who wants loads made, and who makes each, in a process of its own.
const (
	proxyArgv0   = "hardenwindow-test-proxy"
	loadingArgv0 = "hardenwindow-test-loading"
	faultLimit   = 300 * time.Millisecond
)

var small = []insn.Instruction{{Code: 0xb7}, {Code: 0x95}}

func act() {
	var err error
	switch os.Args[0] {
	case proxyArgv0:
		err = proxy(os.Args[1] == "whole")
	case loadingArgv0:
		err = loading()
	default:
		return
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// proxy has loads made for ever.
func proxy(whole bool) error {
	for {
		if _, err := loadOnce(Options{WholeCall: whole, Limit: faultLimit}); err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println("loaded")
	}
}

func loadOnce(o Options) (Report, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var p loadingProcess
	defer func() { p.end() }()
	fd, r, err := Load(ctx, Loader{
		Code: insn.Encode(small),
		Missing: func(int) (fd int, address uintptr, err error) {
			p.end()
			return p.start()
		},
		Load: func(address uintptr, gate *os.File) (int, error) {
			if address == 0 {
				p.end()
				page, _, err := p.start()
				if err != nil {
					return -1, err
				}
				unix.Close(page)
			}
			return p.load(address, gate)
		},
		Works: jited,
	}, o)
	closeProgram(fd)
	return r, err
}

type loadingProcess struct {
	cmd    *exec.Cmd
	socket *os.File
	limit  *time.Timer
}

func (p *loadingProcess) start() (page int, address uintptr, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, 0, err
	}
	theirs := os.NewFile(uintptr(pair[1]), "theirs")
	defer theirs.Close()
	p.socket = os.NewFile(uintptr(pair[0]), "ours")
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{loadingArgv0}
	cmd.Stdin, cmd.Stderr = theirs, os.Stderr
	if err := cmd.Start(); err != nil {
		return -1, 0, err
	}
	p.cmd = cmd
	// As for a real proxy, a load that is not over in time is given up.
	p.limit = time.AfterFunc(5*time.Second, func() { cmd.Process.Kill() })
	a, fds, err := receive(pair[0])
	if err != nil {
		return -1, 0, err
	}
	return fds[0], uintptr(a), nil
}

func (p *loadingProcess) load(address uintptr, gate *os.File) (int, error) {
	err := send(int(p.socket.Fd()), uint64(address), int(gate.Fd()))
	gate.Close() // so that the loading process alone has it
	if err != nil {
		return -1, err
	}
	errno, fds, err := receive(int(p.socket.Fd()))
	switch {
	case err != nil:
		return -1, err
	case len(fds) == 0:
		return -1, unix.Errno(errno)
	}
	return fds[0], nil
}

func (p *loadingProcess) end() {
	if p.cmd != nil {
		p.limit.Stop()
		p.cmd.Process.Kill()
		p.cmd.Wait()
		p.cmd = nil
	}
	if p.socket != nil {
		p.socket.Close()
	}
}

// loading makes one load.
func loading() error {
	l := loader(small)
	page, err := newMissing(os.Getpagesize())
	if err != nil {
		return err
	}
	if err := send(0, uint64(page.address), page.fd); err != nil {
		return err
	}
	address, fds, err := receive(0)
	if err != nil {
		return err
	}
	gate := os.NewFile(uintptr(fds[0]), "gate")
	var fd int
	if address != 0 {
		fd, err = l.Load(uintptr(address), gate)
	} else if err = guardian.Pass(gate); err == nil {
		time.Sleep(time.Duration(rand.IntN(40)) * time.Millisecond) // a load that takes its time
		fd, err = l.Load(0, nil)
	}
	gate.Close()
	if err != nil {
		var errno unix.Errno
		errors.As(err, &errno)
		return send(0, uint64(errno))
	}
	return send(0, 0, fd)
}

func send(socket int, n uint64, fds ...int) error {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	return unix.Sendmsg(socket, binary.NativeEndian.AppendUint64(nil, n), rights, nil, unix.MSG_NOSIGNAL)
}

func receive(socket int) (n uint64, fds []int, err error) {
	var b [8]byte
	control := make([]byte, unix.CmsgSpace(4))
	var size, controls int
	for {
		size, controls, _, _, err = unix.Recvmsg(socket, b[:], control, unix.MSG_CMSG_CLOEXEC)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil || size != len(b) {
		return 0, nil, errors.Join(io.EOF, err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:controls])
	if err == nil && len(messages) > 0 {
		fds, err = unix.ParseUnixRights(&messages[0])
	}
	return binary.NativeEndian.Uint64(b[:]), fds, err
}

// sampler reads the setting all the time.
type sampler struct {
	low     int           // lowest value seen
	longest time.Duration // that it was 1 in one go
	windows int           // times that it became 1
	last    int
	since   time.Time // it has been 1
	stop    chan struct{}
	done    sync.WaitGroup
}

func sample(t *testing.T) *sampler {
	f, err := os.Open(settingFile)
	qt.Assert(t, qt.IsNil(err))
	s := &sampler{low: 2, last: 2, stop: make(chan struct{})}
	s.done.Go(func() {
		defer f.Close()
		var b [2]byte
		for {
			select {
			case <-s.stop:
				return
			default:
			}
			_, _ = f.ReadAt(b[:], 0)
			s.saw(int(b[0] - '0'))
			time.Sleep(time.Millisecond) // more often, an emulated machine does little else
		}
	})
	return s
}

func (s *sampler) saw(v int) {
	if v == 1 && s.last != 1 {
		s.since = time.Now()
		s.windows++
	}
	if s.last == 1 {
		s.longest = max(s.longest, time.Since(s.since))
	}
	s.last, s.low = v, min(s.low, v)
}

// named lists the processes of a role that are not dead, by pid.
func named(argv0 string) []int {
	var pids []int
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		b, _ := os.ReadFile(f)
		if strings.Split(string(b), "\x00")[0] == argv0 {
			pid, _ := strconv.Atoi(strings.Split(f, "/")[2])
			pids = append(pids, pid)
		}
	}
	return pids
}

// until waits for a condition.
func until(limit time.Duration, is func() bool) bool {
	for end := time.Now().Add(limit); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			return is()
		}
	}
	return true
}

// A process of its own makes the load.
func TestWindowOfAnotherProcess(t *testing.T) {
	o := prepare(t)
	for _, o.WholeCall = range []bool{false, true} {
		r, err := loadOnce(o)
		qt.Check(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(r.WholeCall, o.WholeCall))
		qt.Check(t, qt.IsTrue(r.Open > 0))
		qt.Check(t, qt.Equals(value(t), "2"))
		t.Logf("%+v", r)
	}
}

// Any one process is stopped or killed at a random moment, or all but the guardian together. The
// setting is never below 1, and not longer at 1 than the deadline and a second. In every third
// round a third party writes 0 meanwhile, which stays.
func TestWindowFaults(t *testing.T) {
	if !inGuest() {
		t.Skip("runs in guests")
	}
	rounds := 4 // each of the four, two stopped and two killed
	if vmtest.Long() {
		rounds = 40 // on each of five kernels
	}
	victims := map[string][]string{
		"guardian": {guardian.Argv0}, "proxy": {proxyArgv0}, "loading": {loadingArgv0}, "all but the guardian": {proxyArgv0, loadingArgv0},
	}
	names := slices.Sorted(maps.Keys(victims))
	struck, open := map[string]int{}, 0
	var longest time.Duration
	var windows int
	for i := range rounds {
		how := []string{"latched", "whole"}[rand.IntN(2)]
		victim := names[i%len(names)]
		signal := []syscall.Signal{unix.SIGSTOP, unix.SIGKILL}[(i+i/len(names))%2]
		foreign := i%3 == 2
		what := fmt.Sprintf("round %d: %s, %s, %s, foreign %v", i, how, victim, signal, foreign)

		s := sample(t)
		cmd := exec.Command("/proc/self/exe")
		cmd.Args = []string{proxyArgv0, how}
		out, err := cmd.StdoutPipe()
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(cmd.Start()))
		lines := bufio.NewReader(out)
		for line, tries := "", 0; line != "loaded\n"; tries++ { // under emulation the first may take too long
			qt.Assert(t, qt.IsTrue(tries < 5), qt.Commentf("%s: %s", what, line))
			line, err = lines.ReadString('\n')
			qt.Assert(t, qt.IsNil(err), qt.Commentf("%s: %s", what, line))
		}
		go io.Copy(io.Discard, lines)

		// At random, but when some process of the role is there; half of them with the window open.
		time.Sleep(time.Duration(rand.IntN(50)) * time.Millisecond)
		var pids []int
		until(5*time.Second, func() bool {
			pids = nil
			for _, role := range victims[victim] {
				pids = append(pids, named(role)...)
			}
			return len(pids) >= len(victims[victim])
		})
		if i/2%2 == 0 {
			until(2*time.Second, func() bool { return value(t) == "1" })
		}
		if foreign && rand.IntN(2) == 0 {
			qt.Assert(t, qt.IsNil(os.WriteFile(settingFile, []byte("0"), 0)))
		}
		for _, pid := range pids {
			if unix.Kill(pid, signal) == nil {
				struck[victim+" "+signal.String()]++
			}
		}
		if value(t) == "1" {
			open++
		}
		if foreign {
			qt.Assert(t, qt.IsNil(os.WriteFile(settingFile, []byte("0"), 0)))
		}
		until(faultLimit+time.Second, func() bool { return value(t) != "1" })
		time.Sleep(20 * time.Millisecond)
		// Whoever goes on later does no harm. A guardian that was stopped is killed by its starter.
		if signal == unix.SIGSTOP {
			if victim == "guardian" {
				qt.Check(t, qt.IsTrue(until(15*time.Second, func() bool { return !slices.Contains(named(guardian.Argv0), pids[0]) })), qt.Commentf("%s", what))
			}
			for _, pid := range pids {
				_ = unix.Kill(pid, unix.SIGCONT)
			}
			time.Sleep(20 * time.Millisecond)
		}
		cmd.Process.Kill()
		cmd.Wait()
		for _, pid := range named(loadingArgv0) {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		qt.Check(t, qt.IsTrue(until(10*time.Second, func() bool { return len(named(guardian.Argv0)) == 0 })), qt.Commentf("%s: the guardian stays", what))
		want := "2"
		if foreign {
			want = "0"
		}
		qt.Check(t, qt.Equals(value(t), want), qt.Commentf("%s", what))
		close(s.stop)
		s.done.Wait()
		if !foreign {
			qt.Check(t, qt.IsTrue(s.low >= 1), qt.Commentf("%s: it was %d", what, s.low))
		}
		qt.Check(t, qt.IsTrue(s.longest <= faultLimit+time.Second), qt.Commentf("%s: 1 for %v", what, s.longest))
		longest, windows = max(longest, s.longest), windows+s.windows
		if foreign {
			qt.Assert(t, qt.IsNil(os.WriteFile(settingFile, []byte("2"), 0)))
		}
	}
	t.Logf("%d rounds, %d with the window open; struck: %v; %d windows seen, the longest %v", rounds, open, struck, windows, longest)
}
