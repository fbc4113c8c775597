// SPDX-License-Identifier: Apache-2.0

package blinding_test

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/repair/guardian"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

const hardenPath = "/proc/sys/net/core/bpf_jit_harden"

// TestPredictionHoldsOnThisKernel loads programs within four slots of the limit
// with blinding on and compares the kernel's verdict with ours. It changes a
// sysctl of the machine for some seconds, so it runs only as root and when
// BPFWHY_HOST_SYSCTL=1 asks for it.
func TestPredictionHoldsOnThisKernel(t *testing.T) {
	if os.Getuid() != 0 || os.Getenv("BPFWHY_HOST_SYSCTL") != "1" {
		t.Skip("needs root and BPFWHY_HOST_SYSCTL=1")
	}
	host := node.Uname()
	k := host.Blinds()
	if host.Reached(6, 6) != node.Yes {
		t.Skip("needs gotol, kernel 6.6")
	}
	hardenAll(t)
	rnd := rand.New(rand.NewPCG(5, 5))
	fits, fails := 0, 0
	for delta := -4; delta <= 4; delta++ {
		for _, code := range []uint8{0x15, 0x1d} {
			for _, forward := range []bool{true, false} {
				grown := 50 + rnd.IntN(200)
				span := blinding.MaxOffset - 2*grown + delta
				prog := farJump(rnd, span, grown, code, forward)
				v, err := blinding.Check(prog, k)
				qt.Assert(t, qt.IsNil(err))
				if v.Wraps {
					continue // the kernel would compile it wrongly
				}
				qt.Check(t, qt.Equals(loads(t, prog), v.Fits),
					qt.Commentf("delta %d, opcode %02x, forward %v: need %d", delta, code, forward, v.Jump.Need))
				if v.Fits {
					fits++
				} else {
					fails++
				}
			}
		}
	}
	t.Logf("%d programs fit, %d do not", fits, fails)
	qt.Check(t, qt.IsTrue(fits >= 8 && fails >= 8))
}

// farJump is like longJump in a form that the verifier accepts: a backward jump
// that is no loop, reached by a jump of unlimited range.
func farJump(rnd *rand.Rand, span, grown int, code uint8, forward bool) []insn.Instruction {
	body := blinding.LongJump(rnd, span, grown, true)[1 : 1+span]
	jump := insn.Instruction{Code: code, Dst: 1}
	if code&insn.SourceX == 0 {
		jump.Imm = 1
	} else {
		jump.Src = insn.RegFP
	}
	enter := []insn.Instruction{{Code: 0xb7, Dst: 4}} // r4 = 0
	done := []insn.Instruction{{Code: 0xbf, Src: 4}, {Code: 0x95}}
	if forward {
		jump.Off = int16(span)
		return slices.Concat(enter, []insn.Instruction{jump}, body, done)
	}
	// enter; gotol over the body; body; exit; jump back to the body; exit
	jump.Off = int16(-span - 1)
	body = slices.Concat(body[:len(body)-len(done)], done)
	over := insn.Instruction{Code: insn.OpcodeGotol, Imm: int32(len(body))}
	return slices.Concat(enter, []insn.Instruction{over}, body, []insn.Instruction{jump}, done)
}

// hardenAll blinds the programs of everybody until the test ends. A child puts
// the old value back when its standard input closes, however this process dies.
func hardenAll(t *testing.T) {
	lock, err := guardian.Lock(unix.LOCK_EX)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { lock.Close() })
	old, err := os.ReadFile(hardenPath)
	qt.Assert(t, qt.IsNil(err))

	restore := exec.Command("sh", "-c", `cat >/dev/null; echo "$1" > "$2"`, "sh", strings.TrimSpace(string(old)), hardenPath)
	restore.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	restore.ExtraFiles = []*os.File{lock} // the lock lasts until it is done
	stdin, err := restore.StdinPipe()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(restore.Start()))
	t.Cleanup(func() {
		stdin.Close()
		qt.Check(t, qt.IsNil(restore.Wait()))
		now, _ := os.ReadFile(hardenPath)
		qt.Check(t, qt.Equals(string(now), string(old)))
	})
	qt.Assert(t, qt.IsNil(os.WriteFile(hardenPath, []byte("2"), 0)))
}

// loads reports whether the kernel takes the program and compiles it. An error
// other than the one for a program that it cannot compile fails the test.
func loads(t *testing.T, prog []insn.Instruction) bool {
	t.Helper()
	const (
		cmdProgLoad   = 5
		cmdInfo       = 15
		socketFilter  = 1
		errNotSupp    = syscall.Errno(524)
		jitedLenStart = 16
	)
	code := insn.Encode(prog)
	license := []byte("Apache-2.0\x00")
	log := make([]byte, 1<<16)
	attr := make([]byte, 72)
	put := func(at int, p *byte) { binary.LittleEndian.PutUint64(attr[at:], uint64(uintptr(unsafe.Pointer(p)))) }
	binary.LittleEndian.PutUint32(attr[0:], socketFilter)
	binary.LittleEndian.PutUint32(attr[4:], uint32(len(prog)))
	put(8, &code[0])
	put(16, &license[0])
	fd, err := bpf(cmdProgLoad, attr)
	runtime.KeepAlive(code)
	runtime.KeepAlive(license)
	if errors.Is(err, errNotSupp) {
		return false
	}
	if err != nil {
		binary.LittleEndian.PutUint32(attr[24:], 1)
		binary.LittleEndian.PutUint32(attr[28:], uint32(len(log)))
		put(32, &log[0])
		_, again := bpf(cmdProgLoad, attr)
		text := unix.ByteSliceToString(log)
		t.Errorf("load: %v, then %v: %s", err, again, text[max(0, len(text)-300):])
		return false
	}
	defer unix.Close(fd)
	info := make([]byte, 224)
	attr = make([]byte, 16)
	binary.LittleEndian.PutUint32(attr[0:], uint32(fd))
	binary.LittleEndian.PutUint32(attr[4:], uint32(len(info)))
	put(8, &info[0])
	_, err = bpf(cmdInfo, attr)
	runtime.KeepAlive(info)
	qt.Assert(t, qt.IsNil(err))
	return binary.LittleEndian.Uint32(info[jitedLenStart:]) > 0
}

func bpf(cmd uintptr, attr []byte) (int, error) {
	r, _, errno := unix.Syscall(unix.SYS_BPF, cmd, uintptr(unsafe.Pointer(&attr[0])), uintptr(len(attr)))
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}
