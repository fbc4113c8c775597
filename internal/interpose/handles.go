// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/surrogate"
)

// kind is what a descriptor is of.
type kind int

const (
	mapKind kind = iota
	progKind
	btfKind
)

// ident says which object of the kernel a descriptor of a thread stands for. An id is not given twice while the object lives.
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

// enterDescriptors waits until there is room for our duplicates, of which a load has as many as its program names.
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

// newestMap is BPF_MAP_TYPE_ARENA. Of maps that came later the first is the instruction array, which holds offsets into the program that
// it belongs to.
const newestMap = 33

// duplicate takes what a thread's descriptors stand for, and finds out what that is.
func (s *snapshot) duplicate(fds []int) (*handles, error) {
	h := &handles{of: map[int]int{}}
	if len(fds) == 0 {
		return h, nil
	}
	pidfd, err := openThread(s.tid, s.who.tgid)
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
		if err != nil {
			h.close()
			return nil, err
		}
		id.fd = fd
		s.idents = append(s.idents, id)
	}
	return h, nil
}

// openThread opens a thread, whose descriptors may be others than those of its process (Linux 6.9), or a process whose threads share
// them.
func openThread(tid, tgid int) (int, error) {
	fd, err := unix.PidfdOpen(tid, unix.PIDFD_THREAD)
	if err == nil {
		return fd, nil
	}
	if tid != tgid {
		const kcmpFiles = 2
		r, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(tid), uintptr(tgid), kcmpFiles, 0, 0, 0)
		if errno != 0 || r != 0 {
			return -1, fmt.Errorf("thread %d may have descriptors of its own", tid)
		}
	}
	fd, err = unix.PidfdOpen(tgid, 0)
	if err != nil {
		return -1, fmt.Errorf("open process %d: %w", tgid, err)
	}
	return fd, nil
}

func identify(fd int) (ident, error) {
	name, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return ident{}, err
	}
	var is ident
	at := 1 // where the id is, in words
	switch name {
	case "anon_inode:bpf-map":
		is.kind = mapKind
	case "anon_inode:bpf-prog":
		is.kind = progKind
	case "anon_inode:btf":
		is.kind, at = btfKind, 3 // after the pointer and its size
	default:
		return ident{}, fmt.Errorf("%s is no object of BPF", name)
	}
	var info [8]uint32
	if err := objInfo(fd, &info); err != nil {
		return ident{}, err
	}
	if is.kind == mapKind && info[0] > newestMap {
		return ident{}, fmt.Errorf("a map of type %d", info[0])
	}
	is.id = info[at]
	return is, nil
}

// objInfo reads the first 32 bytes of struct bpf_map_info, bpf_prog_info or bpf_btf_info.
func objInfo(fd int, info *[8]uint32) error {
	a := struct {
		fd, len uint32
		info    uint64
	}{uint32(fd), uint32(unsafe.Sizeof(*info)), 0}
	if _, err := bpfWith(unix.BPF_OBJ_GET_INFO_BY_FD, unsafe.Pointer(&a), unsafe.Sizeof(a), pointer{&a.info, unsafe.Pointer(info)}); err != nil {
		return fmt.Errorf("ask about an object: %w", err)
	}
	return nil
}
