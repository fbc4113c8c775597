// SPDX-License-Identifier: Apache-2.0

package planted

import (
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"golang.org/x/sys/unix"
)

const (
	capBPF   = 39      // want capability bit
	sysAdmin = 1 << 21 // want capability bit
	CAP_KILL = 5       // want capability bit
	capacity = 21
	kill     = 9
	pageSize = 1 << 12
)

var names = map[int]string{12: "CAP_NET_ADMIN"} // want capability bit

func privileged(caps uint64, bit int) bool {
	return caps&(1<<38) != 0 || // want capability bit
		caps&(1<<unix.CAP_NET_ADMIN) != 0 || // want capability bit
		caps&(1<<unix.CAP_SYS_ADMIN|1<<abi.CapSyslog) != 0 || // want capability bit
		caps>>39&1 == 1 || // want capability bit
		caps>>bit&1 == 1 || caps&(1<<unix.SIGKILL) != 0 || caps>>32 != 0
}
