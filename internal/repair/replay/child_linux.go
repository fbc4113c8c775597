// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/watch/redact"
)

// Argv0 is the name under which an executable loads programs for Prove: see Main.
const Argv0 = "bpfwhy-replay"

// Main acts as a child of Prove and ends the process, if the executable was started as one;
// otherwise it returns at once. It belongs at the very start of main, and of TestMain in packages
// that use Prove.
func Main() {
	if len(os.Args) == 0 || os.Args[0] != Argv0 {
		return
	}
	if err := runChild(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", Argv0, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// child has two kinds of rights: its loader thread those of the recorded loader, the others ours.
type child struct {
	loader chan func()
	maps   []int
	btf    int
}

func runChild() error {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	var s setup
	if err := in.Decode(&s); err != nil {
		return fmt.Errorf("read setup: %w", err)
	}
	c := &child{loader: make(chan func())}
	var a answer
	if err := c.setUp(&s, &a); err != nil {
		a.Error = err.Error()
	}
	if err := out.Encode(a); err != nil || a.Error != "" {
		return err
	}
	for in.More() {
		var t trial
		if err := in.Decode(&t); err != nil {
			return fmt.Errorf("read trial: %w", err)
		}
		if err := out.Encode(c.try(&t)); err != nil {
			return err
		}
	}
	return nil // the kernel closes what is open
}

// as runs f on the thread with the loader's rights.
func (c *child) as(f func()) {
	done := make(chan struct{})
	c.loader <- func() { defer close(done); f() }
	<-done
}

func (c *child) setUp(s *setup, a *answer) error {
	// Stand-ins are not what is to be tried: they are not counted against the limit. Without
	// CAP_SYS_RESOURCE it stays.
	_ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY})
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with the process
		lacks, err := become(s)
		a.Lacks = lacks
		ready <- err
		for f := range c.loader {
			f()
		}
	}()
	if err := <-ready; err != nil {
		return err
	}
	// A loader that could not have made a map itself was given it by somebody who could.
	made := func(make func() (int, error)) (fd int, err error) {
		c.as(func() { fd, err = make() })
		if errors.Is(err, unix.EPERM) {
			if fd, err = make(); err == nil {
				a.Stronger++
			}
		}
		return fd, err
	}
	var err error
	if len(s.BTF) > 0 {
		if c.btf, err = made(func() (int, error) { return loadBTF(s.BTF) }); err != nil {
			return fmt.Errorf("load its BTF: %w", err)
		}
	}
	for i := range s.Maps {
		m := &s.Maps[i]
		fd, err := made(func() (int, error) { return c.makeMap(m) })
		if err != nil {
			return fmt.Errorf("make a map of type %d in the place of %q: %w", m.Type, m.Name, err)
		}
		c.maps = append(c.maps, fd)
	}
	if s.Memlock != ^uint64(0) {
		if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: s.Memlock, Max: s.Memlock}); err != nil {
			return fmt.Errorf("set RLIMIT_MEMLOCK to %d: %w", s.Memlock, err)
		}
	}
	return nil
}

// become gives the calling thread, and no other, the user and at most the capabilities of the
// setup.
func become(s *setup) (lacks uint64, err error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fmt.Errorf("read capabilities: %w", err)
	}
	// The system calls themselves, because Go's functions change every thread.
	call := func(what string, nr, a, b, c uintptr) {
		if _, _, errno := unix.RawSyscall(nr, a, b, c); errno != 0 && err == nil {
			err = fmt.Errorf("%s: %w", what, errno)
		}
	}
	call("keep capabilities", unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0)
	call("give up groups", unix.SYS_SETGROUPS, 0, 0, 0)
	call(fmt.Sprintf("become gid %d", s.GID), unix.SYS_SETRESGID, uintptr(s.GID), uintptr(s.GID), uintptr(s.GID))
	call(fmt.Sprintf("become uid %d", s.UID), unix.SYS_SETRESUID, uintptr(s.UID), uintptr(s.UID), uintptr(s.UID))
	if err != nil {
		return 0, err
	}
	ours := uint64(data[1].Permitted)<<32 | uint64(data[0].Permitted)
	for i := range data {
		data[i].Effective = data[i].Permitted & uint32(s.Caps>>(32*i))
		data[i].Permitted, data[i].Inheritable = data[i].Effective, 0
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return 0, fmt.Errorf("take the loader's capabilities: %w", err)
	}
	return s.Caps &^ ours, nil
}

// Settings of the log. Without a level that walks through the program, the verifier writes its
// complaint and statistics only.
const (
	logPath  = 1
	logStats = 4
	logSize  = 1<<24 - 1 // the most that 5.10 takes
	logKept  = 256 << 10 // its end is what says why
	attempts = 10        // a signal ends the verifier's work with EAGAIN
)

func (c *child) try(t *trial) answer {
	a := c.load(t, 0, nil)
	if !t.Log || a.Error != "" {
		return a
	}
	buf := make([]byte, logSize)
	b := c.load(t, logPath, buf)
	if b.Errno == int(unix.ENOSPC) && a.Errno != int(unix.ENOSPC) {
		b = c.load(t, logStats, buf)
	}
	if b.Errno != a.Errno {
		return a // with a log it ended otherwise: the log is about something else
	}
	text := bytes.TrimRight(buf, "\x00")
	redact.New(redact.Host()).Log(text, false) // it may be printed in the place of the recorded one
	if len(text) > logKept {
		text, a.LogCut = text[len(text)-logKept:], true
		text = text[bytes.IndexByte(text, '\n')+1:]
	}
	a.Log = string(text)
	return a
}

// load makes the call with the loader's rights, asks with ours what became of it, and closes it.
func (c *child) load(t *trial, level uint32, log []byte) answer {
	insns := bytes.Clone(t.Insns)
	for _, r := range t.Refs {
		if r.Map >= len(c.maps) || (r.Slot+1)*insn.Size > len(insns) {
			return answer{Error: "a map or an instruction that is not there"}
		}
		binary.LittleEndian.PutUint32(insns[r.Slot*insn.Size+4:], uint32(c.maps[r.Map]))
	}
	license := append(bytes.Clone(t.License), 0)
	attr := abi.Read[abi.ProgLoad](t.Attr)
	var pin runtime.Pinner
	defer pin.Unpin()
	address := func(b []byte) uint64 {
		if len(b) == 0 {
			return 0
		}
		pin.Pin(&b[0])
		return uint64(uintptr(unsafe.Pointer(&b[0])))
	}
	attr.InsnCnt = uint32(len(insns) / insn.Size)
	attr.Insns, attr.License = address(insns), address(license)
	if t.BTF {
		attr.ProgBTFFD, attr.FuncInfoRecSize, attr.LineInfoRecSize = uint32(c.btf), t.FuncRec, t.LineRec
		attr.FuncInfo, attr.LineInfo = address(t.FuncInfo), address(t.LineInfo)
		if t.FuncRec > 0 {
			attr.FuncInfoCnt = uint32(len(t.FuncInfo)) / t.FuncRec
		}
		if t.LineRec > 0 {
			attr.LineInfoCnt = uint32(len(t.LineInfo)) / t.LineRec
		}
	}
	if level != 0 {
		clear(log)
		attr.LogLevel, attr.LogSize, attr.LogBuf = level, uint32(len(log)), address(log)
	}
	var a answer
	var fd int
	var err error
	c.as(func() {
		for range attempts {
			start := time.Now()
			fd, err = bpf(abi.CmdProgLoad, &attr)
			a.Took = time.Since(start)
			if !errors.Is(err, unix.EAGAIN) {
				break
			}
		}
	})
	if err != nil {
		a.Errno = int(err.(unix.Errno))
		return a
	}
	defer unix.Close(fd)
	if a.JITed, err = jitedBytes(fd); err != nil {
		a.Error = err.Error()
	}
	return a
}
