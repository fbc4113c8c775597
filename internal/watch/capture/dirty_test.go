// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"testing"
	"unsafe"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// What a failed load's log buffer held before is known, and whether the kernel says that it wrote
// there.
func dirtyLog(newest bool) scene {
	const (
		badFlag     = 1 << 30
		withoutSize = 120 // the attr of 5.10
		withSize    = 144 // log_true_size is at its end
	)
	tests := []struct {
		name  string
		log   string // before the call
		level uint32
		flags uint32
		attr  int    // bytes
		size  uint32 // log_true_size before the call
		want  bool
	}{
		{name: "fresh", level: 1, attr: withSize},
		{name: "refused_early", log: "R0 !read_ok", level: 1, flags: badFlag, attr: withSize, want: true},
		{name: "no_log", log: "R0 !read_ok", flags: badFlag, attr: withSize},
		{name: "written", log: "R0 !read_ok", level: 1, attr: withSize, want: !newest},
		{name: "unsaid", log: "R0 !read_ok", level: 1, attr: withoutSize, want: true},
		{name: "forged", log: "R0 !read_ok", level: 1, flags: badFlag, attr: withSize, size: 11, want: true},
	}
	return scene{
		name: "used log buffers",
		play: func(t *testing.T) {
			for _, test := range tests {
				qt.Check(t, qt.IsTrue(loadWithLog(test.name, test.log, test.level, test.flags, test.attr, test.size) < 0))
			}
		},
		check: func(t *testing.T, v story) {
			for _, test := range tests {
				qt.Check(t, qt.Equals(v.one(t, test.name).Flags.LogDirty, test.want && v.backend != kprobe), qt.Commentf("%s", test.name))
			}
		},
	}
}

// loadWithLog loads a program that reads a register that was never written.
func loadWithLog(name, text string, level, flags uint32, size int, trueSize uint32) int {
	code, license, log := smallProgram[8:], []byte("GPL\x00"), append([]byte(text), make([]byte, 4096)...)
	a := socketFilter(name, code)
	a.license, a.logLevel, a.flags = addr(license), level, flags
	if level > 0 {
		a.logBuf, a.logSize = addr(log), uint32(len(log))
	}
	var pin runtime.Pinner
	defer pin.Unpin()
	for _, b := range [][]byte{code, license, log} {
		pin.Pin(&b[0])
	}
	attr := bytes.Clone(unsafe.Slice((*byte)(unsafe.Pointer(a)), unsafe.Sizeof(*a)))
	attr = append(attr, make([]byte, 144-len(attr))...)[:size]
	if trueSize != 0 {
		binary.LittleEndian.PutUint32(attr[140:], trueSize)
	}
	return bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr[0]), uintptr(size))
}

// saysLogSize reports whether this kernel writes log_true_size (6.4).
func saysLogSize(t *testing.T) bool {
	t.Helper()
	var u unix.Utsname
	qt.Assert(t, qt.IsNil(unix.Uname(&u)))
	var major, minor int
	_, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	qt.Assert(t, qt.IsNil(err))
	return major > 6 || major == 6 && minor >= 4
}
