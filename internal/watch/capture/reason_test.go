// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/abi"
)

// The kernel refuses trampolines with ENOTSUPP, which is no errno of user space: it has its name
// all the same.
func TestReasonNamesTheErrno(t *testing.T) {
	for errno, want := range map[int]string{abi.ENOTSUPP: "ENOTSUPP (524)", abi.EINVAL: "EINVAL (22)"} {
		qt.Check(t, qt.Equals(reason(fmt.Errorf("attach: %w", syscall.Errno(errno))), want))
	}
}
