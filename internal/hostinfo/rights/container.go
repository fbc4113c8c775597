// SPDX-License-Identifier: Apache-2.0

package rights

import (
	"slices"
	"strings"
)

// SecurityContext is what a container of Kubernetes may do, as far as its pod says.
type SecurityContext struct {
	Privileged   bool `json:"privileged,omitempty"`
	Capabilities struct {
		Add []string `json:"add,omitempty"`
	} `json:"capabilities"`
}

// Loads reports that the container may load BPF programs: it has CAP_BPF, or what stands for it.
// CAP_PERFMON alone loads nothing.
func (s *SecurityContext) Loads() bool {
	return s.Privileged || slices.ContainsFunc(s.Capabilities.Add, func(name string) bool {
		return slices.Contains([]string{"BPF", "SYS_ADMIN", "ALL"}, strings.TrimPrefix(name, "CAP_"))
	})
}
