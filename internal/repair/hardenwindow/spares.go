// SPDX-License-Identifier: Apache-2.0

package hardenwindow

import (
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/node"
)

// Spares reports whether a window can be of use to a loader with these capabilities: whether
// net.core.bpf_jit_harden=1 may spare it. Where that is not known, the answer is yes.
func Spares(release string, caps uint64) bool {
	n := node.Profile{Release: release}
	return n.Spares(caps&(1<<unix.CAP_SYS_ADMIN) != 0, caps&(1<<unix.CAP_BPF) != 0) != node.No
}
