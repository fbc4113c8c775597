// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"unsafe"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
)

// attr is the attributes of a load as of Linux 7.2, zero beyond what was submitted. All that is not
// in it, and flags in it that need understanding, mean hands off.
type attr = abi.ProgLoad

const (
	attrSize    = int(unsafe.Sizeof(attr{}))
	attrMinSize = int(unsafe.Offsetof(attr{}.KernVersion)) // up to log_buf
	trueSizeAt  = int(unsafe.Offsetof(attr{}.LogTrueSize))
)

// records are those that attributes may point to.
type records struct {
	at             uint64  // where they are
	pointer        uintptr // the offset of at in the attributes
	cnt, size      uint32
	least, aligned int // of how many bytes one is at least, and a multiple of what
	unit           int // of the place in the program with which each begins, in bytes
}

// recordsOf are func_info, line_info and the CO-RE relocations.
func recordsOf(a *attr) [3]records {
	return [3]records{
		{a.FuncInfo, unsafe.Offsetof(a.FuncInfo), a.FuncInfoCnt, a.FuncInfoRecSize, 8, 4, 1},
		{a.LineInfo, unsafe.Offsetof(a.LineInfo), a.LineInfoCnt, a.LineInfoRecSize, 16, 4, 1},
		{a.CoreRelos, unsafe.Offsetof(a.CoreRelos), a.CoreReloCnt, a.CoreReloRecSize, 16, 4, insn.Size},
	}
}
