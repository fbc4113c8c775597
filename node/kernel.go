// SPDX-License-Identifier: Apache-2.0

package node

import (
	"strconv"
	"strings"
)

// KernelVersion is the upstream version of a release, for advice only: vendors backport, so no
// behaviour is decided by it where it can be probed.
type KernelVersion struct{ Major, Minor, Patch int }

// Kernel parses Release ("6.1.0-49-cloud-amd64" is 6.1.0; Debian carries the upstream patch level
// in Version).
func (p *Profile) Kernel() (KernelVersion, bool) { return ParseKernel(p.Release) }

// ParseKernel parses the leading numbers of a release.
func ParseKernel(release string) (KernelVersion, bool) {
	var v KernelVersion
	parts := strings.SplitN(release, ".", 3)
	if len(parts) < 2 {
		return v, false
	}
	nums := make([]int, 3)
	for i, s := range parts {
		end := 0
		for end < len(s) && s[end] >= '0' && s[end] <= '9' {
			end++
		}
		n, err := strconv.Atoi(s[:end])
		if err != nil {
			if i < 2 {
				return v, false
			}
			n = 0
		}
		nums[i] = n
	}
	return KernelVersion{nums[0], nums[1], nums[2]}, true
}

func parseInt(s string) (int64, bool) {
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	return n, err == nil
}
