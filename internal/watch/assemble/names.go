// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"cmp"
	"fmt"

	"github.com/bpfwhy/bpfwhy/internal/abi"
)

func errnoName(errno int) string {
	if errno == 0 {
		return ""
	}
	return cmp.Or(abi.ErrnoName(errno), fmt.Sprintf("errno_%d", errno))
}
