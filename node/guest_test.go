// SPDX-License-Identifier: Apache-2.0

package node

import (
	"testing"

	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/go-quicktest/qt"
)

func TestKernels(t *testing.T) {
	vmtest.Run(t, "^TestGuest", vm.Machine{Sysctls: map[string]string{"net.core.bpf_jit_harden": "2"}})
}

// TestGuestHost: all kernels of the lab but the hardened one have an interpreter. That one carries
// its configuration, the others give theirs away by their symbols.
func TestGuestHost(t *testing.T) {
	kernel := vmtest.Guest(t)
	p := Host()
	on, known := p.JITAlwaysOn()
	qt.Check(t, qt.IsTrue(known))
	qt.Check(t, qt.Equals(on, kernel == "hardened"))
	source := "kallsyms"
	if kernel == "hardened" {
		source = "/proc/config.gz"
	}
	qt.Check(t, qt.Equals(p.ConfigSource, source))
	qt.Check(t, qt.Equals(p.Sysctls["net.core.bpf_jit_harden"], "2"))
	qt.Check(t, qt.Equals(p.Lockdown, "none"))
	qt.Check(t, qt.IsTrue(p.BTF))
	qt.Check(t, qt.IsTrue(p.CgroupV2))
	qt.Check(t, qt.IsFalse(p.CgroupV1))
	qt.Check(t, qt.Equals(p.Container, ""))
	qt.Check(t, qt.Equals(p.Does(ChargesNoMemlock), Known(kernel != "5.10")))
	// The kernel itself compiles a filter at boot.
	if qt.Check(t, qt.IsNotNil(p.JITUsed), qt.Commentf("%s", p.Unknown["jit_used_bytes"])) {
		qt.Check(t, qt.IsTrue(*p.JITUsed >= 4096 && *p.JITUsed < 64<<20))
	}
}
