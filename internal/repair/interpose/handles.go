// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/repair/surrogate"
	"github.com/bpfwhy/bpfwhy/internal/sys/fdinfo"
)

// kind is what a descriptor is of.
type kind int

const (
	mapKind kind = iota
	progKind
	btfKind
)

// ident says which object of the kernel a descriptor of a thread stands for. An id is not given
// twice while the object lives.
type ident struct {
	fd   int // the thread's
	kind kind
	id   uint32
}

// handles are our duplicates of a thread's descriptors.
type handles struct {
	fds []int       // ours
	of  map[int]int // indexes of fds, by the thread's number

	room func() // gives back the room that they take, unless nil
}

func (h *handles) close() {
	for _, fd := range h.fds {
		unix.Close(fd)
	}
	h.fds = nil
	if h.room != nil {
		h.room()
		h.room = nil
	}
}

// enterDescriptors waits until there is room for our duplicates, of which a load has as many as its
// program names.
func (p *Proxy) enterDescriptors(s *snapshot, n int) (leave func(), err error) {
	if n > surrogate.MaxObjects {
		return nil, fmt.Errorf("%w for %d descriptors", errRoom, n)
	}
	user, w := s.user(), int64(n)
	if n == 0 {
		return func() {}, nil
	}
	if !p.descriptors.enter(user, w, patience) {
		return nil, fmt.Errorf("%w for %d descriptors", errRoom, n)
	}
	return func() { p.descriptors.leave(user, w) }, nil
}

// newDescriptors is room for half of those that we may have; each load takes some besides.
func newDescriptors() *room {
	var limit unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	size := int64(min(limit.Cur/2, 1<<16))
	size = max(size, 2*surrogate.MaxObjects)
	return newRoom(size, size/2)
}

// errRoom is a load that was left to the kernel since there was no room for it.
var errRoom = errors.New("no room")

// wantsRoom reports whether an error says so: there are only so many descriptors.
func wantsRoom(err error) bool {
	return errors.Is(err, errRoom) || errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE)
}

// newestMap is the youngest type of map that a program may use. Of those that came later the first
// is the instruction array, which holds offsets into the program that it belongs to.
const newestMap = abi.MapTypeArena

// duplicate takes what a thread's descriptors stand for, and finds out what that is.
func (s *snapshot) duplicate(fds []int) (*handles, error) {
	h := &handles{of: map[int]int{}}
	if len(fds) == 0 {
		return h, nil
	}
	pidfd, shared, err := openThread(s.tid, s.who.tgid)
	if err != nil {
		return nil, err
	}
	defer unix.Close(pidfd)
	for _, fd := range fds {
		dup, err := unix.PidfdGetfd(pidfd, fd, 0)
		if err != nil {
			h.close()
			return nil, fmt.Errorf("take descriptor %d of thread %d: %w", fd, s.tid, err)
		}
		h.of[fd] = len(h.fds)
		h.fds = append(h.fds, dup)
		id, err := identify(dup)
		if id.fd = fd; err == nil && !shared {
			err = id.ofThread(s.tid)
		}
		if err != nil {
			h.close()
			return nil, err
		}
		s.idents = append(s.idents, id)
	}
	return h, nil
}

// errOwn is a load that was left to the kernel since it is not known whose its descriptors are.
var errOwn = errors.New("the thread may have descriptors of its own")

// openThread opens a thread, whose descriptors may be others than those of its process (Linux 6.9),
// or its process. Then shared says that they are known to be the same: kcmp(2) takes CONFIG_KCMP.
func openThread(tid, tgid int) (fd int, shared bool, err error) {
	if fd, err = unix.PidfdOpen(tid, unix.PIDFD_THREAD); err == nil {
		return fd, true, nil
	}
	shared = tid == tgid
	if !shared {
		const kcmpFiles = 2
		r, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(tid), uintptr(tgid), kcmpFiles, 0, 0, 0)
		if errno == 0 && r != 0 {
			return -1, false, errOwn
		}
		shared = errno == 0
	}
	if fd, err = unix.PidfdOpen(tgid, 0); err != nil {
		return -1, false, fmt.Errorf("open process %d: %w", tgid, err)
	}
	return fd, shared, nil
}

// ofThread reports whether a thread has this very object at the descriptor.
func (i ident) ofThread(tid int) error {
	field := map[kind]string{mapKind: "map_id", progKind: "prog_id", btfKind: "btf_id"}[i.kind]
	if id, err := fdinfo.NumberOf(tid, i.fd, field); err != nil || id != uint64(i.id) {
		return errOwn
	}
	return nil
}

func identify(fd int) (ident, error) {
	name, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return ident{}, err
	}
	switch name {
	case "anon_inode:bpf-map":
		info, err := objInfo[abi.MapInfo](fd)
		if err == nil && info.Type > newestMap {
			err = fmt.Errorf("a map of type %d", info.Type)
		}
		return ident{kind: mapKind, id: info.ID}, err
	case "anon_inode:bpf-prog":
		info, err := objInfo[abi.ProgInfo](fd)
		return ident{kind: progKind, id: info.ID}, err
	case "anon_inode:btf":
		info, err := objInfo[abi.BTFInfo](fd)
		return ident{kind: btfKind, id: info.ID}, err
	}
	return ident{}, fmt.Errorf("%s is no object of BPF", name)
}

// has reports whether there is one for a descriptor of the thread.
func (h *handles) has(fd int) bool {
	_, ok := h.of[fd]
	return ok
}

// objInfo asks about an object of ours.
func objInfo[T abi.MapInfo | abi.ProgInfo | abi.BTFInfo](fd int) (info T, err error) {
	a := abi.ObjInfo{BPFFD: uint32(fd), InfoLen: uint32(unsafe.Sizeof(info))}
	if _, err := bpfWith(unix.BPF_OBJ_GET_INFO_BY_FD, unsafe.Pointer(&a), unsafe.Sizeof(a), pointer{&a.Info, unsafe.Pointer(&info)}); err != nil {
		return info, fmt.Errorf("ask about an object: %w", err)
	}
	return info, nil
}

// hasProgram reports whether a descriptor of a thread is of a program. It opens no file of the
// thread's, since to close that may take long.
func hasProgram(tid, fd int, id uint32) bool {
	name, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", tid, fd))
	if err != nil || name != "anon_inode:bpf-prog" {
		return false
	}
	is, err := fdinfo.NumberOf(tid, fd, "prog_id")
	return err == nil && is == uint64(id)
}
