// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"encoding/binary"
	"os"
	"testing"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// perfRecord is a record as the kernel writes it.
func perfRecord(kind uint32, misc uint16, body []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, kind)
	b = binary.NativeEndian.AppendUint16(b, misc)
	b = binary.NativeEndian.AppendUint16(b, uint16(8+len(body)))
	return append(b, body...)
}

func perfMapping(pid uint32, path string) []byte {
	b := binary.NativeEndian.AppendUint32(nil, pid)
	b = append(b, make([]byte, 28)...)
	return perfRecord(unix.PERF_RECORD_MMAP, 0, append(append(b, path...), make([]byte, 8-len(path)%8)...))
}

// Records are read where the ring goes round, and only what may matter is told.
func TestPerfRing(t *testing.T) {
	page := os.Getpagesize()
	r := perfRing{meta: &unix.PerfEventMmapPage{}, data: make([]byte, page)}
	write := func(records ...[]byte) {
		for _, b := range records {
			for i := range b {
				r.data[(int(r.meta.Data_head)+i)%page] = b[i]
			}
			r.meta.Data_head += uint64(len(b))
		}
	}
	read := func() (pids []int) {
		r.read(func(kind uint32, misc uint16, body []byte) {
			if pid := arrived(kind, misc, body); pid != 0 {
				pids = append(pids, pid)
			}
		})
		return pids
	}
	name := append(binary.NativeEndian.AppendUint32(nil, 9), make([]byte, 12)...)
	for range 100 { // many times round
		write(perfMapping(7, "/usr/lib/libc.so.6"), perfMapping(7, "/opt/my libs/libssl.so.3"), perfMapping(0, "/libssl.so"), perfMapping(1<<32-1, "/libssl.so"),
			perfRecord(unix.PERF_RECORD_COMM, 0, name), perfRecord(unix.PERF_RECORD_COMM, unix.PERF_RECORD_MISC_COMM_EXEC, name),
			perfRecord(unix.PERF_RECORD_LOST, 0, make([]byte, 16)), perfRecord(unix.PERF_RECORD_MMAP, 0, nil))
		qt.Assert(t, qt.DeepEquals(read(), []int{7, 9, anybody}))
	}
	// What cannot be is left, all of it.
	write(perfMapping(7, "/libssl.so"), []byte{1, 0, 0, 0, 0, 0, 4, 0})
	qt.Check(t, qt.DeepEquals(read(), []int{7}))
	qt.Check(t, qt.HasLen(read(), 0))
}
