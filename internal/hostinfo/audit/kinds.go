// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"cmp"
	"slices"
	"unsafe"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"golang.org/x/sys/unix"
)

// Kind counts the programs of one type that are loaded.
type Kind struct {
	Type     string
	JITed    bool
	Programs int
}

// Kinds counts what is loaded now. It looks at nothing but what each program is.
func Kinds() ([]Kind, error) {
	type key struct {
		kind  uint32
		jited bool
	}
	counts := map[key]int{}
	id := uint32(0)
	for range maxPrograms {
		next, more, err := nextID(abi.CmdProgGetNextID, id)
		if err != nil {
			return nil, err
		}
		if !more {
			break
		}
		id = next
		fd, err := byID(abi.CmdProgGetFDByID, id)
		if err == unix.ENOENT {
			continue // unloaded meanwhile
		}
		if err != nil {
			return nil, err
		}
		var info abi.ProgInfo
		err = infoByFD(fd, unsafe.Pointer(&info), unsafe.Sizeof(info))
		unix.Close(fd)
		if err != nil {
			return nil, err
		}
		counts[key{info.Type, info.JitedProgLen > 0}]++
	}
	var list []Kind
	for k, n := range counts {
		list = append(list, Kind{abi.ProgTypeName(k.kind), k.jited, n})
	}
	slices.SortFunc(list, func(a, b Kind) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(b.Programs, a.Programs))
	})
	return list, nil
}
