// SPDX-License-Identifier: Apache-2.0

package loader_test

import (
	"os"
	"testing"

	"github.com/bpfwhy/bpfwhy/internal/vm/vmtest"
	"github.com/go-quicktest/qt"
)

// The examples work, on nodes that are hardened and on others.
func TestGuestExamples(t *testing.T) {
	vmtest.Guest(t)
	for _, harden := range []string{"2", "0"} { // as the other tests leave it
		qt.Assert(t, qt.IsNil(os.WriteFile("/proc/sys/net/core/bpf_jit_harden", []byte(harden), 0)))
		Example()
		ExampleLoadAndAssign()
		ExampleLoader()
	}
}
