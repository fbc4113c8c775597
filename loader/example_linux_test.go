// SPDX-License-Identifier: Apache-2.0

package loader_test

import (
	"os"
	"testing"

	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/go-quicktest/qt"
)

// The examples work where they are needed.
func TestGuestExamples(t *testing.T) {
	vmtest.Guest(t)
	harden := func(value string) {
		qt.Assert(t, qt.IsNil(os.WriteFile("/proc/sys/net/core/bpf_jit_harden", []byte(value), 0)))
	}
	harden("2")
	defer harden("0")
	Example()
	ExampleLoadAndAssign()
	ExampleLoader()
}
