// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"testing"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
)

func TestKernels(t *testing.T) {
	limit := 10 * time.Minute
	if vmtest.Long() {
		limit *= 3 // 50 rounds of faults, and 7.x is slow
	}
	vmtest.RunIn(t, vmtest.Sample(), "^TestGuest", vm.Machine{
		Timeout: limit,
		// An ordinary user may load here, and so could be given what it may not have.
		Sysctls: map[string]string{"kernel.unprivileged_bpf_disabled": "0"},
	})
}

func TestGuest(t *testing.T) {
	vmtest.Guest(t)
	everywhere(t)
}
