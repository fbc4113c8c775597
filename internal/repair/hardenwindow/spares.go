// SPDX-License-Identifier: Apache-2.0

package hardenwindow

import (
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/node"
)

// Spares reports whether a window can be of use to a loader with these capabilities: whether
// net.core.bpf_jit_harden=1 may spare it. Where that is not known, the answer is yes.
func Spares(release string, caps uint64) bool {
	n := node.Profile{Release: release}
	return n.Spares(abi.HasCap(caps, abi.CapSysAdmin), abi.HasCap(caps, abi.CapBPF)) != node.No
}
