// SPDX-License-Identifier: Apache-2.0

package node

import (
	"testing"

	"github.com/go-quicktest/qt"
)

// TestCapability: numbers of include/uapi/linux/capability.h.
func TestCapability(t *testing.T) {
	qt.Assert(t, qt.Equals(Capability(21), "CAP_SYS_ADMIN"))
	qt.Assert(t, qt.Equals(Capability(40), "CAP_CHECKPOINT_RESTORE"))
	qt.Assert(t, qt.Equals(Capability(63), "CAP_63"))
}
