// SPDX-License-Identifier: Apache-2.0

package node

import "github.com/bpfwhy/bpfwhy/internal/abi"

// Capability names one capability.
func Capability(c int) string { return abi.CapName(c) }

// Capabilities names the capabilities of a mask such as CapEff of /proc/PID/status, in the order of
// their numbers. It is never nil.
func Capabilities(mask uint64) []string {
	names := []string{}
	for c := range 64 {
		if mask>>c&1 == 1 {
			names = append(names, abi.CapName(c))
		}
	}
	return names
}
