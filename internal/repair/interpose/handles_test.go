// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/repair/surrogate"
)

// A program that names more descriptors than a load may have is left to the kernel before one of
// them is taken, and that is said; so is one that finds none left for it.
func TestDescriptors(t *testing.T) {
	p := &Proxy{descriptors: newRoom(2*surrogate.MaxObjects, surrogate.MaxObjects)}
	s := &snapshot{}
	for fd := range surrogate.MaxObjects + 1 {
		s.refs = append(s.refs, reference{0, fd})
	}
	_, err := p.enterDescriptors(s, len(s.descriptors()))
	qt.Check(t, qt.ErrorMatches(err, "no room for 241 descriptors"))
	qt.Check(t, qt.IsTrue(wantsRoom(err)))
	s.refs = s.refs[1:]
	leave, err := p.enterDescriptors(s, len(s.descriptors()))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(p.descriptors.free, surrogate.MaxObjects))
	h := &handles{room: leave}
	h.close()
	h.close()
	qt.Check(t, qt.Equals(p.descriptors.free, 2*surrogate.MaxObjects))

	for _, errno := range []unix.Errno{unix.EMFILE, unix.ENFILE} {
		qt.Check(t, qt.IsTrue(wantsRoom(fmt.Errorf("open: %w", &os.PathError{Op: "open", Path: "/proc/1/mem", Err: errno}))))
	}
	qt.Check(t, qt.IsFalse(wantsRoom(unix.EPERM)))
	p.countProcess(fmt.Errorf("make a socket: %w", unix.EMFILE))
	qt.Check(t, qt.Equals(p.unrepaired, Unrepaired{NoRoom: 1}))
}

// testOwnDescriptors: a thread that shares its descriptors with nobody has other objects there.
func testOwnDescriptors(t *testing.T) {
	mine, errno := newMap()
	qt.Assert(t, qt.Equals(errno, 0))
	defer unix.Close(mine)
	other, errno := newMap()
	qt.Assert(t, qt.Equals(errno, 0))
	defer unix.Close(other)
	id, err := identify(mine)
	qt.Assert(t, qt.IsNil(err))
	id.fd = mine
	tids, end := make(chan int), make(chan struct{})
	go func() {
		runtime.LockOSThread() // for good: the thread ends
		tids <- unix.Gettid()
		<-end
		if err := unix.Unshare(unix.CLONE_FILES); err == nil {
			_ = unix.Dup2(other, mine)
			tids <- unix.Gettid()
			<-end
		}
		close(tids)
	}()
	qt.Check(t, qt.IsNil(id.ofThread(<-tids)))
	end <- struct{}{}
	tid, ok := <-tids
	qt.Assert(t, qt.IsTrue(ok))
	qt.Check(t, qt.ErrorIs(id.ofThread(tid), errOwn))
	close(end)
	qt.Check(t, qt.Equals((Unrepaired{Own: 2}).String(), "2 because the thread may have descriptors of its own"))
}

// testHoard: on the way to the answer of a load that names hundreds of maps none of them is taken.
func testHoard(t *testing.T) {
	native := decode(t, natively(t, "hoard"))
	s, err := begin(true, "/proc/self/exe", []string{loaderArgv0, "hoard"}, nil)
	qt.Assert(t, qt.IsNil(err))
	r := decode(t, s.wait(t))
	qt.Check(t, qt.Not(qt.Equals(native.Errno, 0)))
	qt.Check(t, qt.Equals(r.Errno, native.Errno))
	qt.Check(t, qt.Equals(s.proxy.Unrepaired(), Unrepaired{NoRoom: 1}))
}

// hoard is far with many maps, each of a descriptor of its own.
func hoard() ([]insn.Instruction, error) {
	var p []insn.Instruction
	for range surrogate.MaxObjects + 60 {
		m, errno := newMap()
		if errno != 0 {
			return nil, errno
		}
		p = append(p, insn.Instruction{Code: 0x18, Dst: 2, Src: insn.PseudoMapFD, Imm: int32(m)}, insn.Instruction{})
	}
	return append(p, far(-1, farBody)...), nil
}
