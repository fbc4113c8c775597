// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"errors"
	"os"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/wire"
	"github.com/bpfwhy/bpfwhy/loader"
)

func onHost(t *testing.T) {
	if os.Getuid() != 0 || os.Getenv(wire.KernelEnv) != "" {
		t.Skip("needs root, on a host")
	}
}

func TestHostPackets(t *testing.T) {
	onHost(t)
	testPackets(t)
}

// A host may refuse what the others need: then a diagnosis says why.
func TestHostSyscalls(t *testing.T) {
	onHost(t)
	s, err := Syscalls(Options{})
	if opened(t, s, err) {
		testSyscalls(t)
	}
}

func TestHostOpenSSL(t *testing.T) {
	onHost(t)
	s, err := OpenSSL(Options{})
	if opened(t, s, err) {
		testOpenSSL(t)
	}
}

func TestHostProxy(t *testing.T) {
	onHost(t)
	s, err := OpenSSL(Options{})
	if opened(t, s, err) {
		testProxy(t)
	}
}

// opened reports whether a source is to be tried out here: hosts differ, so that this is for the
// long tests, and the lab's kernels have the rest. A refused load must have its diagnosis.
func opened(t *testing.T, s *Source, err error) bool {
	var why *loader.Error
	switch {
	case errors.As(err, &why):
		qt.Check(t, qt.Not(qt.Equals(why.Diagnosis.Rule, "UNKNOWN")))
		t.Log(err)
		return false
	case err != nil:
		t.Log(err) // the node lacks something else, and the error says what
		return false
	}
	for _, p := range s.Programs() {
		qt.Check(t, qt.IsTrue(p.JITed), qt.Commentf("%s", p.Name))
	}
	s.Close()
	return vmtest.Long()
}

// What is asked for wrongly is refused in a line.
func TestOptions(t *testing.T) {
	for want, o := range map[string]Options{
		"watch packets: packets do not tell whose they are: filter by port": {PIDs: []int{1}},
		"watch packets: 65 ports: at most 64":                               {Ports: make([]uint16, 65)},
		"watch packets: 17 cgroups: at most 16":                             {Cgroups: make([]string, 17)},
		"watch packets: 4097 processes: at most 4096":                       {PIDs: make([]int, 4097)},
		"watch packets: buffer of -1 bytes: at most 1073741824":             {RingBytes: -1},
	} {
		_, err := Packets(o)
		qt.Check(t, qt.ErrorMatches(err, want))
	}
}

func TestRingBytes(t *testing.T) {
	for want, bytes := range map[uint32]int{8 << 20: 0, 4096: 1, 8192: 4097, 1 << 30: 1 << 30} {
		qt.Check(t, qt.Equals(Options{RingBytes: bytes}.ringBytes(), want))
	}
}
