// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
)

// System calls of i386 have numbers of their own: 321 is signalfd and 357 is bpf(2), whatever the
// width of the code that makes them.
func i386Calls() scene {
	const in32, in64 = "i386-calls", "i386-calls-in64"
	none := false // this kernel has no such system calls
	return scene{
		name: "system calls of i386",
		play: func(t *testing.T) {
			for name, program := range map[string][]byte{in32: elf32(i386Code), in64: elf64(i386Code)} {
				file := filepath.Join(t.TempDir(), name)
				qt.Assert(t, qt.IsNil(os.WriteFile(file, program, 0o755)))
				err := exec.Command(file).Run()
				if exit := (*exec.ExitError)(nil); errors.Is(err, syscall.ENOEXEC) || errors.As(err, &exit) {
					none = true
					t.Skip(err)
				}
				qt.Assert(t, qt.IsNil(err))
			}
		},
		check: func(t *testing.T, v story) {
			if none {
				t.Skip("this kernel has none")
			}
			for _, name := range []string{in32, in64} {
				if name == in64 && v.backend == tpBTF && v.kernel == "5.10" {
					continue // nothing there tells
				}
				calls := v.calls(func(c *trace.Call) bool { return c.Comm == name })
				if v.backend == tracepoint {
					qt.Check(t, qt.HasLen(calls, 0)) // ftrace has no events for them
					continue
				}
				qt.Assert(t, qt.HasLen(calls, 1), qt.Commentf("%s", name))
				qt.Check(t, qt.Equals(calls[0].Cmd, unix.BPF_PROG_LOAD))
				qt.Check(t, qt.Equals(calls[0].Ret, -int64(unix.EFAULT)))
			}
		},
	}
}

// i386Code makes signalfd(-5, NULL, 48), with 5 in the register that is the first argument of an
// x86-64 system call; bpf(BPF_PROG_LOAD, NULL, 48); exit(0). The bytes are the same for both
// widths.
var i386Code = mustHex("" +
	"b841010000" + "bbfbffffff" + "b900000000" + "ba30000000" + "be00000000" + "bf05000000" + "cd80" +
	"b865010000" + "bb05000000" + "b900000000" + "ba30000000" + "be00000000" + "bf00000000" + "cd80" +
	"b801000000" + "bb00000000" + "cd80")

// The smallest executables: a header, one segment, the code (elf(5)).
const codeAddress = 0x10000

func elf32(code []byte) []byte {
	le := binary.LittleEndian
	b := append([]byte("\x7fELF\x01\x01\x01"), make([]byte, 9)...)
	b = le.AppendUint16(b, 2) // ET_EXEC
	b = le.AppendUint16(b, 3) // EM_386
	b = le.AppendUint32(b, 1)
	b = le.AppendUint32(b, codeAddress+52+32)
	b = le.AppendUint32(b, 52) // program headers
	b = le.AppendUint32(b, 0)
	b = le.AppendUint32(b, 0)
	for _, v := range []uint16{52, 32, 1, 0, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	size := uint32(52 + 32 + len(code))
	for _, v := range []uint32{1, 0, codeAddress, codeAddress, size, size, 5, 0x1000} {
		b = le.AppendUint32(b, v)
	}
	return append(b, code...)
}

func elf64(code []byte) []byte {
	le := binary.LittleEndian
	b := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 9)...)
	b = le.AppendUint16(b, 2)  // ET_EXEC
	b = le.AppendUint16(b, 62) // EM_X86_64
	b = le.AppendUint32(b, 1)
	b = le.AppendUint64(b, codeAddress+64+56)
	b = le.AppendUint64(b, 64) // program headers
	b = le.AppendUint64(b, 0)
	b = le.AppendUint32(b, 0)
	for _, v := range []uint16{64, 56, 1, 0, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	b = le.AppendUint32(b, 1)
	b = le.AppendUint32(b, 5)
	size := uint64(64 + 56 + len(code))
	for _, v := range []uint64{0, codeAddress, codeAddress, size, size, 0x1000} {
		b = le.AppendUint64(b, v)
	}
	return append(b, code...)
}
