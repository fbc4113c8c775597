// SPDX-License-Identifier: Apache-2.0

package render

import "github.com/bpfwhy/bpfwhy/explain"

// errnoName is "" for an errno that no rule knows.
func errnoName(n int) string {
	e, ok := explain.ErrnoByNumber(n)
	if !ok {
		return ""
	}
	return e.Name
}
