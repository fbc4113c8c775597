// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"os"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
)

// TestKernels runs all on each kernel, hardened.
func TestKernels(t *testing.T) {
	vmtest.Need(t)
	files, err := vm.Binary("/usr/bin/curl")
	qt.Assert(t, qt.IsNil(err))
	files[parserCopy] = parserObject
	vmtest.RunIn(t, vmtest.Distinct(), "^TestGuest", vm.Machine{
		Sysctls: map[string]string{"net.core.bpf_jit_harden": "2"},
		Files:   files,
		Env:     []string{"PATH=/usr/bin"},
	})
}

// guest is for tests that everything on a kernel of the lab is hardened for.
func guest(t *testing.T) string {
	kernel := vmtest.Guest(t)
	b, err := os.ReadFile("/proc/sys/net/core/bpf_jit_harden")
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(string(b), "2\n"))
	return kernel
}

func TestGuestSyscalls(t *testing.T) {
	guest(t)
	testSyscalls(t)
}

func TestGuestPackets(t *testing.T) {
	guest(t)
	testPackets(t)
}

func TestGuestOpenSSL(t *testing.T) {
	guest(t)
	testOpenSSL(t)
}

func TestGuestProxy(t *testing.T) {
	vmtest.Sampled(t)
	guest(t)
	testProxy(t)
}

func TestGuestCalls(t *testing.T) {
	vmtest.Sampled(t)
	guest(t)
	testCalls(t)
}

func TestGuestLoss(t *testing.T) {
	vmtest.Sampled(t)
	guest(t)
	testLoss(t)
}

func TestGuestMute(t *testing.T) {
	vmtest.Sampled(t)
	guest(t)
	testMute(t)
}

func TestGuestFilters(t *testing.T) {
	vmtest.Sampled(t)
	guest(t)
	testFilters(t)
}

func TestGuestLoad(t *testing.T) {
	guest(t)
	if !vmtest.Long() {
		t.Skip("long")
	}
	testLoad(t)
}
