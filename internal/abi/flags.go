// SPDX-License-Identifier: Apache-2.0

package abi

// Flags of a load: prog_flags.
const (
	ProgFlagStrictAlignment   = 1 << 0 // BPF_F_STRICT_ALIGNMENT
	ProgFlagAnyAlignment      = 1 << 1
	ProgFlagTestRndHi32       = 1 << 2
	ProgFlagTestStateFreq     = 1 << 3
	ProgFlagSleepable         = 1 << 4
	ProgFlagXDPHasFrags       = 1 << 5
	ProgFlagXDPDevBoundOnly   = 1 << 6
	ProgFlagTestRegInvariants = 1 << 7
	ProgFlagTokenFD           = 1 << 16 // BPF_F_TOKEN_FD, which maps and BTF have too
)

// Flags of a map: map_flags.
const (
	MapFlagNoPrealloc    = 1 << 0 // BPF_F_NO_PREALLOC
	MapFlagNoCommonLRU   = 1 << 1
	MapFlagNumaNode      = 1 << 2
	MapFlagRdOnly        = 1 << 3
	MapFlagWrOnly        = 1 << 4
	MapFlagStackBuildID  = 1 << 5
	MapFlagZeroSeed      = 1 << 6
	MapFlagRdOnlyProg    = 1 << 7
	MapFlagWrOnlyProg    = 1 << 8
	MapFlagClone         = 1 << 9
	MapFlagMmapable      = 1 << 10
	MapFlagPreserveElems = 1 << 11
	MapFlagInnerMap      = 1 << 12
	MapFlagLink          = 1 << 13
	MapFlagVtypeBTFObjFD = 1 << 15
	MapFlagTokenFD       = 1 << 16
)

// Flags of attaching.
const (
	AttachFlagOverride    = 1 << 0 // BPF_F_ALLOW_OVERRIDE, of BPF_PROG_ATTACH as the next two
	AttachFlagMulti       = 1 << 1 // BPF_F_ALLOW_MULTI
	AttachFlagReplace     = 1 << 2 // BPF_F_REPLACE
	XDPFlagUnlessThere    = 1 << 0 // XDP_FLAGS_UPDATE_IF_NOEXIST, of XDP as the next ones
	XDPFlagSKBMode        = 1 << 1
	XDPFlagDRVMode        = 1 << 2
	XDPFlagHWMode         = 1 << 3
	XDPFlagReplace        = 1 << 4
	KprobeMultiFlagReturn = 1 << 0
	UprobeMultiFlagReturn = 1 << 0
)
