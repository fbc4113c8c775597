// SPDX-License-Identifier: Apache-2.0

package hardenwindow

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/node"
)

// Spares reports whether a window can be of use to a loader with these capabilities: whether net.core.bpf_jit_harden=1 may spare it. From 6.1 on
// the kernel asks for CAP_BPF (bfeb7e399bac), before for CAP_SYS_ADMIN. Vendors have taken the change over, RHEL 9 in 5.14.0-175: where that
// may be, and where the release cannot be read, the answer is yes.
func Spares(release string, caps uint64) bool {
	if caps&(1<<unix.CAP_SYS_ADMIN) != 0 {
		return true
	}
	v, ok := node.ParseKernel(release)
	return caps&(1<<unix.CAP_BPF) != 0 && (!ok || !v.Before(6, 1) || strings.Contains(release, ".el"))
}
