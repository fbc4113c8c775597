// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"bytes"
	"encoding/binary"
)

// Offsets of the part of union bpf_attr that BPF_PROG_LOAD uses, as of Linux 7.2. All that is not listed here, and flags in it that need
// understanding, mean hands off.
const (
	offProgType        = 0
	offInsnCnt         = 4
	offInsns           = 8
	offLicense         = 16
	offLogLevel        = 24
	offLogSize         = 28
	offLogBuf          = 32
	offProgFlags       = 44
	offProgName        = 48
	offProgIfindex     = 64
	offAttachType      = 68
	offProgBTFFD       = 72
	offFuncInfoRecSize = 76
	offFuncInfo        = 80
	offFuncInfoCnt     = 88
	offLineInfoRecSize = 92
	offLineInfo        = 96
	offLineInfoCnt     = 104
	offAttachFD        = 112 // attach_prog_fd or attach_btf_obj_fd
	offCoreReloCnt     = 116
	offFDArray         = 120
	offCoreRelos       = 128
	offCoreReloRecSize = 136
	offLogTrueSize     = 140 // written by the kernel (6.4)
	offTokenFD         = 144
	offFDArrayCnt      = 148
	offSignature       = 152
	offSignatureSize   = 160
	offKeyring         = 164

	attrSize    = 168
	attrMinSize = offLogBuf + 8
)

// attr is the attributes of a load, zero beyond what was submitted.
type attr [attrSize]byte

func (a *attr) u32(off int) uint32       { return binary.NativeEndian.Uint32(a[off:]) }
func (a *attr) u64(off int) uint64       { return binary.NativeEndian.Uint64(a[off:]) }
func (a *attr) putU32(off int, v uint32) { binary.NativeEndian.PutUint32(a[off:], v) }
func (a *attr) putU64(off int, v uint64) { binary.NativeEndian.PutUint64(a[off:], v) }
func (a *attr) zero(off, end int) bool   { return len(bytes.TrimLeft(a[off:end], "\x00")) == 0 }
func (a *attr) fd(off int) int           { return int(int32(a.u32(off))) }

// name is the program's name, as far as it goes.
func (a *attr) name() string {
	b, _, _ := bytes.Cut(a[offProgName:offProgName+16], []byte{0})
	return string(b)
}
