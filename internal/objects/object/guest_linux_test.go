// SPDX-License-Identifier: Apache-2.0

package object

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
)

// sparse are objects that no kernel compiles hardened, and that an emulated machine
// blinds in seconds.
var sparse = []string{"far_jump.o", "far_calls.o"}

func TestKernels(t *testing.T) {
	files := map[string]string{}
	for _, p := range sparse {
		path, err := filepath.Abs("../../demo/failing/testdata/" + p)
		qt.Assert(t, qt.IsNil(err))
		files["/"+p] = path
	}
	vmtest.RunIn(t, vmtest.Sample(), "^TestGuest", vm.Machine{Files: files})
}

// TestGuestFix: hardened, the original is not compiled and what fix makes of it is; and that
// computes what the original does where nothing is hardened.
func TestGuestFix(t *testing.T) {
	vmtest.Guest(t)
	for _, name := range sparse {
		b, err := os.ReadFile("/" + name)
		qt.Assert(t, qt.IsNil(err))
		o, f := fixed(t, b, FixOptions{})
		qt.Assert(t, qt.IsFalse(fits(t, o)))
		qt.Assert(t, qt.IsTrue(f.Changed()))

		harden(t, "0")
		want := results(t, b, true)
		harden(t, "2")
		qt.Check(t, qt.IsNil(results(t, b, false)), qt.Commentf("%s", name))
		qt.Check(t, qt.DeepEquals(results(t, f.Bytes, true), want), qt.Commentf("%s, fixed", name))
	}
}

func harden(t *testing.T, value string) {
	t.Helper()
	qt.Assert(t, qt.IsNil(os.WriteFile("/proc/sys/net/core/bpf_jit_harden", []byte(value), 0)))
}

// results loads the one program of an object and runs it on some packets. nil: the kernel did not
// compile it, which must be told.
func results(t *testing.T, b []byte, wanted bool) []uint32 {
	t.Helper()
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(b))
	qt.Assert(t, qt.IsNil(err))
	c, err := ebpf.NewCollection(spec)
	if !wanted && errors.Is(err, unix.Errno(524)) {
		return nil
	}
	qt.Assert(t, qt.IsNil(err))
	defer c.Close()
	qt.Assert(t, qt.Equals(len(c.Programs), 1))
	var list []uint32
	for _, p := range c.Programs {
		info, err := p.Info()
		qt.Assert(t, qt.IsNil(err))
		if _, err := info.JitedSize(); errors.Is(err, ebpf.ErrNotSupported) {
			qt.Assert(t, qt.IsFalse(wanted), qt.Commentf("it is interpreted"))
			return nil
		}
		qt.Assert(t, qt.IsTrue(vmtest.MayRun(true))) // it is compiled
		for i := range uint32(100) {
			packet := make([]byte, 64+i)
			for n := range packet {
				packet[n] = byte(uint32(n)*7 + i*31)
			}
			binary.LittleEndian.PutUint32(packet[14:], i)
			packet[14+i%40] = 64
			got, err := p.Run(&ebpf.RunOptions{Data: packet})
			qt.Assert(t, qt.IsNil(err))
			list = append(list, got)
		}
	}
	return list
}
