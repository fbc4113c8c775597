// SPDX-License-Identifier: Apache-2.0

package surrogate

import (
	"syscall"
	"unsafe"
)

type unixStat = syscall.Stat_t

func pointerTo[T any](p *T) uintptr { return uintptr(unsafe.Pointer(p)) }
