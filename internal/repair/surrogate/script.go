// SPDX-License-Identifier: Apache-2.0

package surrogate

import (
	"encoding/binary"
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// base is where the memory of a load lies in its process. The address is known before the process
// is there, so that all pointers can be written beforehand. Neither Go's heap nor a program of Go
// is near it.
const base = 1 << 36

// missingBase is where instructions lie that are not there yet.
const missingBase = base + 1<<33

const page = 4096

// A step is a system call. The process makes one after the other, and ends after the first whose
// result is not the one that is wanted.
type step struct {
	nr     uint64
	args   [6]uint64
	want   uint64
	state  uint32
	errno  uint32 // written by the process
	result uint64 // likewise
}

// The states of a step. Memory that holds none is zero.
const (
	toDo = 1
	done = 2
)

// The memory of a load begins with its steps.
const (
	stepSize = 80
	maxSteps = 32
)

// script is a load as a list of system calls, and the memory that they use.
type script struct {
	steps []step
	names []string
	load  int    // which step is the load
	data  []byte // what comes after the steps
	log   int    // offset of the log, which is not part of data
	size  int    // of all
}

// at makes room for bytes that begin at a multiple of align, and returns their address in the
// process.
func (s *script) at(b []byte, align int) uint64 {
	for (stepSize*maxSteps+len(s.data))%align != 0 {
		s.data = append(s.data, 0)
	}
	address := base + stepSize*maxSteps + uint64(len(s.data))
	s.data = append(s.data, b...)
	return address
}

func (s *script) do(name string, want uint64, nr uint64, args ...uint64) {
	st := step{nr: nr, want: want, state: toDo}
	copy(st.args[:], args)
	s.steps = append(s.steps, st)
	s.names = append(s.names, name)
}

// message is a struct msghdr with one byte and room for one descriptor, whose number in a message
// to be sent is fd.
func (s *script) message(fd int) uint64 {
	b := s.at(make([]byte, 1), 8)
	var iov [16]byte
	binary.NativeEndian.PutUint64(iov[:], b)
	binary.NativeEndian.PutUint64(iov[8:], 1)
	rights := unix.UnixRights(fd)
	var header [56]byte
	binary.NativeEndian.PutUint64(header[16:], s.at(iov[:], 8))
	binary.NativeEndian.PutUint64(header[24:], 1)
	binary.NativeEndian.PutUint64(header[32:], s.at(rights, 8))
	binary.NativeEndian.PutUint64(header[40:], uint64(len(rights)))
	return s.at(header[:], 8)
}

func words(n []uint32) []byte {
	var b []byte
	for _, v := range n {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	return b
}

// Numbers of descriptors in the process: first is that of its socket, the memory's comes next, then
// those of the load. All below first are closed, so that what the process opens has the lowest
// numbers. No message puts a descriptor there by itself.
const first = 512

// Object is the number that the descriptor Load.Objects[i] has in the process: what instructions
// and attributes name.
func Object(i int) int { return first + 2 + i }

const socket = first

// newScript writes down a load.
func newScript(l *Load, groups []int, o guards) *script {
	s := &script{}
	s.do("close what is not the load's", 0, unix.SYS_CLOSE_RANGE, 0, socket-1, 0)
	s.do("close what is not the load's", 0, unix.SYS_CLOSE_RANGE, uint64(Object(len(l.Objects))), 1<<32-1, 0)
	s.do("close the memory", 0, unix.SYS_CLOSE, socket+1)
	// Not for the first time: whoever started this process is not dumpable either.
	s.do("hide the memory", 0, unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0)
	code := uint64(missingBase)
	if l.Missing {
		s.missing(len(l.Code))
	} else {
		code = s.at(l.Code, page)
	}
	s.become(&l.As, groups)
	if !o.dumpable {
		// Taking ids has made it what fs.suid_dumpable says.
		s.do("hide the memory", 0, unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0)
		s.do("look whether the memory is hidden", 0, unix.SYS_PRCTL, unix.PR_GET_DUMPABLE)
	} else {
		s.do("show the memory", 0, unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1)
	}
	if !o.outlives {
		// Stopped by somebody, it would stay when bpfwhy is gone. Taking ids forgets this.
		s.do("end with who started it", 0, unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uint64(unix.SIGKILL))
	}
	program := uint64(0)
	if l.Gated {
		s.passGate()
		program = 1
	}
	attr := append([]byte{}, l.Attr...)
	point := func(off int, to uint64) {
		if off+8 <= len(attr) {
			binary.NativeEndian.PutUint64(attr[off:], to)
		}
	}
	point(l.CodeAt, code)
	for _, p := range l.Parts {
		to := uint64(0)
		if len(p.Bytes) > 0 {
			to = s.at(p.Bytes, 8)
		}
		point(p.At, to)
	}
	given := s.message(int(program))
	gate := uint64(0)
	if o.pause >= 0 {
		gate = s.at(make([]byte, 1), 8)
	}
	l.attr = s.at(nil, 8) // its final place
	place := int(l.attr-base) + len(attr)
	s.log = (place + page - 1) &^ (page - 1)
	s.size = s.log
	if l.LogSize > 0 {
		s.size += (l.LogSize + page - 1) &^ (page - 1)
		point(l.LogAt, base+uint64(s.log))
	}
	s.at(attr, 8)
	s.load = len(s.steps)
	s.do("load", program, unix.SYS_BPF, unix.BPF_PROG_LOAD, l.attr, uint64(len(attr)))
	s.do("give the program", 1, unix.SYS_SENDMSG, socket, given, unix.MSG_NOSIGNAL)
	if o.pause >= 0 {
		s.pause(o.pause, uint64(Object(len(l.Objects)-1)), gate)
	}
	return s
}

// missing makes memory of which every page is missing, and gives its userfaultfd away.
func (s *script) missing(code int) {
	size := uint64(code+page-1) &^ (page - 1)
	api := make([]byte, 24)
	binary.NativeEndian.PutUint64(api, uffdAPI)
	register := make([]byte, 32)
	binary.NativeEndian.PutUint64(register, missingBase)
	binary.NativeEndian.PutUint64(register[8:], size)
	binary.NativeEndian.PutUint64(register[16:], registerMissing)
	s.do("userfaultfd", 0, unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK)
	s.do("userfaultfd", 0, unix.SYS_IOCTL, 0, uffdioAPI, s.at(api, 8))
	s.do("map missing memory", missingBase, unix.SYS_MMAP, missingBase, size, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED_NOREPLACE, 1<<64-1, 0)
	s.do("userfaultfd", 0, unix.SYS_IOCTL, 0, uffdioRegister, s.at(register, 8))
	s.do("give the userfaultfd", 1, unix.SYS_SENDMSG, socket, s.message(0), unix.MSG_NOSIGNAL)
	s.do("close the userfaultfd", 0, unix.SYS_CLOSE, 0)
}

// passGate waits until the window is open.
func (s *script) passGate() {
	const gate = 0
	s.do("take the gate", 1, unix.SYS_RECVMSG, socket, s.message(-1), 0)
	s.do("be ready", 1, unix.SYS_WRITE, gate, s.at(make([]byte, 1), 8), 1)
	var fds [8]byte
	binary.NativeEndian.PutUint32(fds[:], gate)
	binary.NativeEndian.PutUint16(fds[4:], unix.POLLIN)
	s.do("wait at the gate", 1, unix.SYS_PPOLL, s.at(fds[:], 8), 1, 0, 0) // the file may not block by itself
	s.do("pass the gate", 1, unix.SYS_READ, gate, s.at(make([]byte, 1), 8), 1)
}

// pause makes the process wait before a step until it can read a byte.
func (s *script) pause(before int, fd, to uint64) {
	s.do("pause", 1, unix.SYS_READ, fd, to, 1)
	last := len(s.steps) - 1
	s.steps = slices.Insert(s.steps[:last:last], before, s.steps[last])
	s.names = slices.Insert(s.names[:last:last], before, s.names[last])
	if s.load >= before {
		s.load++
	}
}

// become takes the ids. What is given up last is what giving up takes.
func (s *script) become(as *As, groups []int) {
	list := make([]uint32, 0, len(as.Groups))
	for _, g := range as.Groups {
		list = append(list, uint32(g))
	}
	if !slices.Equal(as.Groups, groups) {
		s.do("set groups", 0, unix.SYS_SETGROUPS, uint64(len(list)), s.at(words(list), 8))
	}
	ids := func(n [3]int) (uint64, uint64, uint64) {
		return uint64(uint32(n[0])), uint64(uint32(n[1])), uint64(uint32(n[2]))
	}
	r, e, v := ids(as.GID)
	s.do("set gid", 0, unix.SYS_SETRESGID, r, e, v)
	// Else leaving uid 0 clears all capabilities.
	s.do("keep capabilities", 0, unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1)
	r, e, v = ids(as.UID)
	s.do("set uid", 0, unix.SYS_SETRESUID, r, e, v)
	header := words([]uint32{unix.LINUX_CAPABILITY_VERSION_3, 0})
	low, high := uint32(as.Caps), uint32(as.Caps>>32)
	data := words([]uint32{low, low, 0, high, high, 0}) // effective, permitted, inheritable
	s.do("set capabilities", 0, unix.SYS_CAPSET, s.at(header, 8), s.at(data, 8))
}

// writeTo puts the steps and their memory where the process will find them.
func (s *script) writeTo(memory []byte) error {
	if len(s.steps) > maxSteps {
		return fmt.Errorf("a load of %d steps", len(s.steps))
	}
	for i := range s.steps {
		*(*step)(unsafe.Pointer(&memory[i*stepSize])) = s.steps[i]
	}
	copy(memory[stepSize*maxSteps:], s.data)
	return nil
}

func (s *script) step(memory []byte, i int) *step {
	return (*step)(unsafe.Pointer(&memory[i*stepSize]))
}

// sends is which step sends the message of a number, counted from 0.
func (s *script) sends(message int) int {
	for i := range s.steps {
		if s.steps[i].nr == unix.SYS_SENDMSG {
			if message == 0 {
				return i
			}
			message--
		}
	}
	return len(s.steps) - 1
}

// stopped says at which step the process ended, from what it left in memory: the error is an errno
// where that was the load.
func (s *script) stopped(memory []byte) error {
	for i := range s.steps {
		st := s.step(memory, i)
		switch {
		case st.state != done:
			return fmt.Errorf("%s: %w", s.names[i], ErrEnded)
		case st.errno == 0 && st.result == st.want:
		case i == s.load && st.errno != 0:
			return unix.Errno(st.errno)
		case st.errno != 0:
			return fmt.Errorf("%s: %w", s.names[i], unix.Errno(st.errno))
		default:
			return fmt.Errorf("%s: the result is %d and not %d", s.names[i], st.result, st.want)
		}
	}
	return ErrEnded
}

// Of include/uapi/linux/userfaultfd.h.
const (
	uffdAPI         = 0xaa
	uffdioAPI       = 0xc018aa3f
	uffdioRegister  = 0xc020aa00
	registerMissing = 1
)
