// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

func put32(b []byte, at int, v uint32) { binary.LittleEndian.PutUint32(b[at:], v) }
func put64(b []byte, at int, v uint64) { binary.LittleEndian.PutUint64(b[at:], v) }

// bpf makes one bpf(2). Errors are unix.Errno, 524 included. What attr points to must be pinned.
func bpf(cmd uintptr, attr []byte) (int, error) {
	r, _, errno := unix.Syscall(unix.SYS_BPF, cmd, uintptr(unsafe.Pointer(&attr[0])), uintptr(len(attr)))
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}

func loadBTF(b []byte) (int, error) {
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&b[0])
	attr := make([]byte, 32)
	put64(attr, 0, uint64(uintptr(unsafe.Pointer(&b[0]))))
	put32(attr, 16, uint32(len(b)))
	return bpf(unix.BPF_BTF_LOAD, attr)
}

// makeMap makes a stand-in. With BTF that the kernel does not like for it, it does without.
func (c *child) makeMap(s *mapSpec) (int, error) {
	attr := make([]byte, 72)
	for i, v := range []uint32{s.Type, s.Key, s.Value, s.Max, s.Flag} {
		put32(attr, 4*i, v)
	}
	put64(attr, mapAttrExtra, s.Extra)
	if s.Inner != nil {
		fd, err := c.makeMap(s.Inner)
		if err != nil {
			return -1, fmt.Errorf("the map inside it: %w", err)
		}
		defer unix.Close(fd)
		put32(attr, mapAttrInner, uint32(fd))
	}
	types := func(btf int, key, value uint32) {
		put32(attr, mapAttrBTF, uint32(btf))
		put32(attr, mapAttrBTF+4, key)
		put32(attr, mapAttrBTF+8, value)
	}
	if c.btf != 0 && s.ValueType != 0 {
		types(c.btf, s.KeyType, s.ValueType)
		if fd, err := bpf(unix.BPF_MAP_CREATE, attr); err == nil {
			return fd, nil
		}
		types(0, 0, 0)
	}
	if s.isStorage() {
		btf, err := loadBTF(storageBTF(s.Value))
		if err != nil {
			return -1, err
		}
		defer unix.Close(btf)
		types(btf, 1, 3)
	}
	return bpf(unix.BPF_MAP_CREATE, attr)
}

// jitedBytes reads jited_prog_len of struct bpf_prog_info. The kernel tells it to holders of CAP_BPF only.
func jitedBytes(fd int) (int, error) {
	info := make([]byte, 64)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&info[0])
	attr := make([]byte, 16)
	put32(attr, 0, uint32(fd))
	put32(attr, 4, uint32(len(info)))
	put64(attr, 8, uint64(uintptr(unsafe.Pointer(&info[0]))))
	if _, err := bpf(unix.BPF_OBJ_GET_INFO_BY_FD, attr); err != nil {
		return 0, fmt.Errorf("read program info: %w", err)
	}
	return int(binary.LittleEndian.Uint32(info[16:])), nil
}
