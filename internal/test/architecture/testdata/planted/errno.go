// SPDX-License-Identifier: Apache-2.0

package planted

import "syscall"

const notSupported = -524 // want errno 524

var err error = syscall.Errno(0x20c) // want errno 524

func failed(ret int) bool {
	switch -ret {
	case 1, 524: // want errno 524
		return true
	}
	return ret == 5240 || "524" == "it fails with 524"
}
