// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"testing"
	"unsafe"

	"github.com/cilium/ebpf/btf"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// Where the kernel never calls LSM programs, one that was attached is told though failures alone
// are asked for, and other attachments are not.
func TestGuestIdleLSM(t *testing.T) {
	vmtest.Sampled(t)
	for _, b := range backends {
		t.Run(string(b), func(t *testing.T) {
			w := watch(t, place{Options: Options{Backend: string(b), FailedOnly: true, Node: node.Profile{LSMs: []string{"lockdown"}}}})
			s := newStage(t)
			open := func(name string, progType, attachType uint32, function string) {
				s.keep(call(abi.CmdRawTracepointOpen, &abi.RawTracepointOpen{ProgFD: uint32(s.loadFor(name, progType, attachType, function))}))
			}
			open("idle_lsm", abi.ProgTypeLSM, abi.AttachLSMMac, "bpf_lsm_file_open")
			open("busy_fentry", abi.ProgTypeTracing, abi.AttachTraceFentry, "do_sys_openat2")
			told := w.stop().calls(func(c *trace.Call) bool { return c.Kind == load.RawTPOpen })
			qt.Assert(t, qt.HasLen(told, 1))
			qt.Assert(t, qt.IsTrue(told[0].Attach != nil && told[0].Attach.Prog != nil))
			qt.Check(t, qt.Equals(told[0].Attach.Prog.Type, uint32(abi.ProgTypeLSM)))
			qt.Check(t, qt.Equals(told[0].Attach.Prog.Name, "idle_lsm"))
		})
	}
}

// loadFor loads a program for a function of the kernel.
func (s *stage) loadFor(name string, progType, attachType uint32, function string) int {
	s.t.Helper()
	spec, err := btf.LoadKernelSpec()
	qt.Assert(s.t, qt.IsNil(err))
	var f *btf.Func
	qt.Assert(s.t, qt.IsNil(spec.TypeByName(function, &f)))
	id, err := spec.TypeID(f)
	qt.Assert(s.t, qt.IsNil(err))
	code, license := smallProgram, []byte("GPL\x00")
	s.pin.Pin(&code[0])
	s.pin.Pin(&license[0])
	a := abi.ProgLoad{
		ProgType: progType, InsnCnt: uint32(len(code) / 8), Insns: addr(code), License: addr(license), ProgName: abi.NameOf(name),
		ExpectedAttachType: attachType, AttachBTFID: uint32(id),
	}
	fd := bpf(abi.CmdProgLoad, unsafe.Pointer(&a), unsafe.Offsetof(a.CoreReloCnt))
	qt.Assert(s.t, qt.IsTrue(fd >= 0), qt.Commentf("%s: %d", name, fd))
	s.t.Cleanup(func() { unix.Close(fd) })
	return fd
}
