// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"testing"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/vm"
	"github.com/bpfwhy/bpfwhy/internal/vm/vmtest"
)

func TestKernels(t *testing.T) {
	vmtest.RunIn(t, vmtest.Sample(), "^TestGuest", vm.Machine{
		Timeout: 10 * time.Minute,
		// An ordinary user may load here, and so could be given what it may not have.
		Sysctls: map[string]string{"kernel.unprivileged_bpf_disabled": "0"},
	})
}

func TestGuest(t *testing.T) {
	vmtest.Guest(t)
	everywhere(t)
}
