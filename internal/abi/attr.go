// SPDX-License-Identifier: Apache-2.0

// Package abi is what the kernel promises to user space about BPF: the parts of union bpf_attr, the
// numbers of types, commands and flags, errnos, capabilities and system calls. It knows nothing
// else, and imports nothing of this module. A test compares it with the BTF of the running kernel,
// on the host and on every kernel of the lab.
//
// A command's part of union bpf_attr is a struct of the same layout, so that there are no offsets
// to write down:
//
//	attr := abi.Read[abi.ProgLoad](recorded)
//	fmt.Println(attr.InsnCnt)
//
// Where the kernel's name of a field is not that of the Go field in another spelling, the tag has
// it.
package abi

import "unsafe"

// Attr is a command's part of union bpf_attr, or what BPF_OBJ_GET_INFO_BY_FD tells of an object.
type Attr interface {
	MapCreate | MapElem | MapBatch | ProgLoad | ObjPin | ProgAttach | ID | ObjInfo | RawTracepointOpen | BTFLoad | TaskFDQuery |
		LinkCreate | LinkCreateKprobeMulti | LinkCreateUprobeMulti | LinkUpdate | TokenCreate | ProgInfo | MapInfo | LinkInfo
}

// Read reads the attributes of a call as the kernel does. A call may pass fewer bytes than the
// kernel knows: what is missing counts as zero, and of a field that is cut in its middle the bytes
// that are there count. Bytes behind the struct are not looked at: see Tail.
//
// BPF runs on little-endian machines as far as this program is concerned, and so is every machine
// that reads their recordings.
func Read[T Attr](b []byte) T {
	var attr T
	copy(Bytes(&attr), b)
	return attr
}

// Bytes are the bytes of attributes, in place: what is written to them is written to attr.
func Bytes[T Attr](attr *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(attr)), unsafe.Sizeof(*attr))
}

// Tail are the bytes of a call behind those that T names. Newer kernels may know them.
func Tail[T Attr](b []byte) []byte {
	var attr T
	return b[min(len(b), int(unsafe.Sizeof(attr))):]
}

// Name is the name of a program or map, ended by a zero where it is shorter.
type Name [16]byte

// NameOf is a name as the kernel takes it, cut to 15 bytes.
func NameOf(s string) (n Name) {
	copy(n[:len(n)-1], s)
	return n
}

func (n Name) String() string {
	for i, c := range n {
		if c == 0 {
			return string(n[:i])
		}
	}
	return string(n[:])
}

// MapCreate is what BPF_MAP_CREATE takes.
type MapCreate struct {
	MapType               uint32
	KeySize               uint32
	ValueSize             uint32
	MaxEntries            uint32
	MapFlags              uint32
	InnerMapFD            uint32
	NumaNode              uint32
	MapName               Name
	MapIfindex            uint32
	BTFFD                 uint32 `kernel:"btf_fd"`
	BTFKeyTypeID          uint32
	BTFValueTypeID        uint32
	BTFVmlinuxValueTypeID uint32
	MapExtra              uint64
	ValueTypeBTFObjFD     uint32
	MapTokenFD            uint32
	ExclProgHash          uint64
	ExclProgHashSize      uint32
	_                     uint32
}

// MapElem is what the commands take that read, write and delete one element.
type MapElem struct {
	MapFD uint32
	_     uint32
	Key   uint64
	Value uint64 `kernel:"value next_key"`
	Flags uint64
}

// MapBatch is the part of BPF_MAP_LOOKUP_BATCH, BPF_MAP_UPDATE_BATCH and their kin.
type MapBatch struct {
	InBatch   uint64
	OutBatch  uint64
	Keys      uint64
	Values    uint64
	Count     uint32
	MapFD     uint32
	ElemFlags uint64
	Flags     uint64
}

// ProgLoad is what BPF_PROG_LOAD takes.
type ProgLoad struct {
	ProgType           uint32
	InsnCnt            uint32
	Insns              uint64
	License            uint64
	LogLevel           uint32
	LogSize            uint32
	LogBuf             uint64
	KernVersion        uint32
	ProgFlags          uint32
	ProgName           Name
	ProgIfindex        uint32
	ExpectedAttachType uint32
	ProgBTFFD          uint32 `kernel:"prog_btf_fd"`
	FuncInfoRecSize    uint32
	FuncInfo           uint64
	FuncInfoCnt        uint32
	LineInfoRecSize    uint32
	LineInfo           uint64
	LineInfoCnt        uint32
	AttachBTFID        uint32 `kernel:"attach_btf_id"`
	AttachFD           uint32 `kernel:"attach_prog_fd attach_btf_obj_fd"`
	CoreReloCnt        uint32
	FDArray            uint64
	CoreRelos          uint64
	CoreReloRecSize    uint32
	LogTrueSize        uint32 // written by the kernel (6.4)
	ProgTokenFD        uint32
	FDArrayCnt         uint32
	Signature          uint64
	SignatureSize      uint32
	KeyringID          uint32
}

// ObjPin is what BPF_OBJ_PIN and BPF_OBJ_GET take.
type ObjPin struct {
	Pathname  uint64
	BPFFD     uint32 `kernel:"bpf_fd"`
	FileFlags uint32
	PathFD    uint32
	_         uint32
}

// ProgAttach is what BPF_PROG_ATTACH and BPF_PROG_DETACH take.
type ProgAttach struct {
	TargetFD         uint32 `kernel:"target_fd target_ifindex"`
	AttachBPFFD      uint32 `kernel:"attach_bpf_fd"`
	AttachType       uint32
	AttachFlags      uint32
	ReplaceBPFFD     uint32 `kernel:"replace_bpf_fd"`
	RelativeFD       uint32 `kernel:"relative_fd relative_id"`
	ExpectedRevision uint64
}

// ID is what the commands take that list objects by id, and open them.
type ID struct {
	StartID       uint32 `kernel:"start_id prog_id map_id btf_id link_id"`
	NextID        uint32
	OpenFlags     uint32
	FDByIDTokenFD uint32 `kernel:"fd_by_id_token_fd"`
}

// ObjInfo is what BPF_OBJ_GET_INFO_BY_FD takes.
type ObjInfo struct {
	BPFFD   uint32 `kernel:"bpf_fd"`
	InfoLen uint32
	Info    uint64
}

// RawTracepointOpen is what BPF_RAW_TRACEPOINT_OPEN takes.
type RawTracepointOpen struct {
	Name   uint64
	ProgFD uint32
	_      uint32
	Cookie uint64
}

// BTFLoad is what BPF_BTF_LOAD takes.
type BTFLoad struct {
	BTF            uint64
	BTFLogBuf      uint64
	BTFSize        uint32
	BTFLogSize     uint32
	BTFLogLevel    uint32
	BTFLogTrueSize uint32 // written by the kernel (6.4)
	BTFFlags       uint32
	BTFTokenFD     uint32
}

// TaskFDQuery is what BPF_TASK_FD_QUERY takes.
type TaskFDQuery struct {
	PID         uint32
	FD          uint32
	Flags       uint32
	BufLen      uint32
	Buf         uint64
	ProgID      uint32
	FDType      uint32
	ProbeOffset uint64
	ProbeAddr   uint64
}

// LinkCreate is what BPF_LINK_CREATE takes, whatever the attach type.
type LinkCreate struct {
	ProgFD     uint32 `kernel:"prog_fd map_fd"`
	TargetFD   uint32 `kernel:"target_fd target_ifindex"`
	AttachType uint32
	Flags      uint32
}

// LinkCreateKprobeMulti is what it takes for AttachTraceKprobeMulti and AttachTraceKprobeSession.
type LinkCreateKprobeMulti struct {
	LinkCreate
	MultiFlags uint32 `kernel:"kprobe_multi.flags"`
	Cnt        uint32 `kernel:"kprobe_multi.cnt"`
	Syms       uint64 `kernel:"kprobe_multi.syms"`
	Addrs      uint64 `kernel:"kprobe_multi.addrs"`
	Cookies    uint64 `kernel:"kprobe_multi.cookies"`
}

// LinkCreateUprobeMulti is what it takes for AttachTraceUprobeMulti and AttachTraceUprobeSession.
type LinkCreateUprobeMulti struct {
	LinkCreate
	Path          uint64 `kernel:"uprobe_multi.path"`
	Offsets       uint64 `kernel:"uprobe_multi.offsets"`
	RefCtrOffsets uint64 `kernel:"uprobe_multi.ref_ctr_offsets"`
	Cookies       uint64 `kernel:"uprobe_multi.cookies"`
	Cnt           uint32 `kernel:"uprobe_multi.cnt"`
	MultiFlags    uint32 `kernel:"uprobe_multi.flags"`
	PID           uint32 `kernel:"uprobe_multi.pid"`
	_             uint32
}

// LinkUpdate is what BPF_LINK_UPDATE takes.
type LinkUpdate struct {
	LinkFD    uint32 `kernel:"link_fd"`
	NewProgFD uint32 `kernel:"new_prog_fd new_map_fd"`
	Flags     uint32
	OldProgFD uint32 `kernel:"old_prog_fd old_map_fd"`
}

// TokenCreate is what BPF_TOKEN_CREATE takes.
type TokenCreate struct {
	Flags   uint32
	BPFFSFD uint32 `kernel:"bpffs_fd"`
}

// ProgInfo is struct bpf_prog_info. Kernels leave what they do not know as it is.
type ProgInfo struct {
	Type                 uint32
	ID                   uint32
	Tag                  [8]byte
	JitedProgLen         uint32
	XlatedProgLen        uint32
	JitedProgInsns       uint64
	XlatedProgInsns      uint64
	LoadTime             uint64
	CreatedByUID         uint32
	NrMapIDs             uint32 `kernel:"nr_map_ids"`
	MapIDs               uint64 `kernel:"map_ids"`
	Name                 Name
	Ifindex              uint32
	GPLCompatible        uint32 // a bit field
	NetnsDev             uint64
	NetnsIno             uint64
	NrJitedKsyms         uint32
	NrJitedFuncLens      uint32
	JitedKsyms           uint64
	JitedFuncLens        uint64
	BTFID                uint32 `kernel:"btf_id"`
	FuncInfoRecSize      uint32
	FuncInfo             uint64
	NrFuncInfo           uint32
	NrLineInfo           uint32
	LineInfo             uint64
	JitedLineInfo        uint64
	NrJitedLineInfo      uint32
	LineInfoRecSize      uint32
	JitedLineInfoRecSize uint32
	NrProgTags           uint32
	ProgTags             uint64
	RunTimeNs            uint64
	RunCnt               uint64
	RecursionMisses      uint64
	VerifiedInsns        uint32
	AttachBTFObjID       uint32
	AttachBTFID          uint32 `kernel:"attach_btf_id"`
	_                    uint32
}

// MapInfo is the beginning of struct bpf_map_info.
type MapInfo struct {
	Type       uint32
	ID         uint32
	KeySize    uint32
	ValueSize  uint32
	MaxEntries uint32
	MapFlags   uint32
	Name       Name
}

// BTFInfo is the beginning of struct bpf_btf_info.
type BTFInfo struct {
	BTF     uint64
	BTFSize uint32
	ID      uint32
}

// LinkInfo is struct bpf_link_info, without what it says of single types.
type LinkInfo struct {
	Type   uint32
	ID     uint32
	ProgID uint32
	_      uint32
	_      [112]byte
}
