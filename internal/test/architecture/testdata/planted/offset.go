// SPDX-License-Identifier: Apache-2.0

// Package planted has what the test must find.
package planted

import "encoding/binary"

const (
	attrInsnCnt    = 4   // want attr offset
	offLogTrueSize = 140 // want attr offset
	progAttachType = 68  // want attr offset
	mapMaxEntries  = 12  // want attr offset
	attrs          = 4
	mapName        = 7
)

type call struct{ Attr []byte }

func (c call) read() {
	_ = binary.LittleEndian.Uint32(c.Attr[24:])              // want attr offset
	_ = binary.LittleEndian.Uint32(c.Attr[attrInsnCnt:])     // want attr offset
	binary.NativeEndian.PutUint64(c.Attr[attrInsnCnt+4:], 1) // want attr offset
	_ = c.Attr[28:44]                                        // want attr offset
	_ = c.attrU32(116)                                       // want attr offset
	_ = field(c.Attr, 12)                                    // want attr offset
	c.Attr[140] = 7                                          // want attr offset
	const btfFD = 72                                         // want attr offset
	_ = c.attrU32(btfFD)                                     // want attr offset

	i, attr := 8, make([]byte, 168)
	_ = binary.LittleEndian.Uint32(c.Attr[i:])
	_ = append(attr, 0)
	binary.LittleEndian.PutUint32(attr[i:], 1)
	_ = attr[:min(len(attr), 4096)]
	_ = binary.LittleEndian.Uint32([]byte{4: 0}[4:])
}

func (c call) attrU32(off int) uint32   { return 0 }
func field(attr []byte, off int) uint32 { return 0 }
