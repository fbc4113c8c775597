// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/abi"
)

// bpf makes one bpf(2). Errors are unix.Errno, ENOTSUPP included. What attr points to must be
// pinned.
func bpf[T abi.Attr](cmd uintptr, attr *T) (int, error) {
	r, _, errno := unix.Syscall(unix.SYS_BPF, cmd, uintptr(unsafe.Pointer(attr)), unsafe.Sizeof(*attr))
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}

func loadBTF(b []byte) (int, error) {
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&b[0])
	return bpf(abi.CmdBTFLoad, &abi.BTFLoad{BTF: uint64(uintptr(unsafe.Pointer(&b[0]))), BTFSize: uint32(len(b))})
}

// makeMap makes a stand-in. With BTF that the kernel does not like for it, it does without.
func (c *child) makeMap(s *mapSpec) (int, error) {
	attr := abi.MapCreate{MapType: s.Type, KeySize: s.Key, ValueSize: s.Value, MaxEntries: s.Max, MapFlags: s.Flag, MapExtra: s.Extra}
	if s.Inner != nil {
		fd, err := c.makeMap(s.Inner)
		if err != nil {
			return -1, fmt.Errorf("the map inside it: %w", err)
		}
		defer unix.Close(fd)
		attr.InnerMapFD = uint32(fd)
	}
	types := func(btf int, key, value uint32) {
		attr.BTFFD, attr.BTFKeyTypeID, attr.BTFValueTypeID = uint32(btf), key, value
	}
	if c.btf != 0 && s.ValueType != 0 {
		types(c.btf, s.KeyType, s.ValueType)
		if fd, err := bpf(abi.CmdMapCreate, &attr); err == nil {
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
	return bpf(abi.CmdMapCreate, &attr)
}

// jitedBytes reads jited_prog_len of struct bpf_prog_info. The kernel tells it to holders of
// CAP_BPF only.
func jitedBytes(fd int) (int, error) {
	var info abi.ProgInfo
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&info)
	attr := abi.ObjInfo{BPFFD: uint32(fd), InfoLen: uint32(unsafe.Sizeof(info)), Info: uint64(uintptr(unsafe.Pointer(&info)))}
	if _, err := bpf(abi.CmdObjGetInfoByFD, &attr); err != nil {
		return 0, fmt.Errorf("read program info: %w", err)
	}
	return int(info.JitedProgLen), nil
}
