// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"bytes"
	"encoding/binary"
	"strings"
	"unicode/utf8"

	"github.com/bpfwhy/bpfwhy/load"
)

// Commands of bpf(2) that are attempts of a kind of their own.
var kinds = map[uint32]load.Kind{
	0: load.MapCreate, 5: load.ProgLoad, 8: load.ProgAttach, 17: load.RawTPOpen, 18: load.BTFLoad,
	28: load.LinkCreate, 36: load.TokenCreate,
}

// attr is union bpf_attr as the loader gave it. The kernel takes what is missing at its end for zeros, and so do the
// methods. Offsets are those of include/uapi/linux/bpf.h, where fields never move.
type attr []byte

// Fields of BPF_PROG_LOAD.
const (
	progType       = 0
	progInsnCnt    = 4
	progInsns      = 8
	progLicense    = 16
	progLogLevel   = 24
	progLogSize    = 28
	progLogBuf     = 32
	progVersion    = 40
	progFlags      = 44
	progName       = 48
	progIfindex    = 64
	progAttachType = 68
	progBTFFD      = 72
	progFuncRec    = 76
	progLineRec    = 92
	progLineCnt    = 104
	progAttachBTF  = 108
	progAttachFD   = 112
	progLogTrue    = 140
)

// Fields of BPF_MAP_CREATE.
const (
	mapType       = 0
	mapKeySize    = 4
	mapValueSize  = 8
	mapMaxEntries = 12
	mapFlags      = 16
	mapName       = 28
	mapBTF        = 48 // btf_fd, btf_key_type_id, btf_value_type_id
)

// Fields of BPF_BTF_LOAD.
const (
	btfLogBuf   = 8
	btfLogSize  = 20
	btfLogLevel = 24
	btfLogTrue  = 28
)

func (a attr) u32(off int) uint32 {
	var b [4]byte
	if off < len(a) {
		copy(b[:], a[off:])
	}
	return binary.LittleEndian.Uint32(b[:])
}

func (a attr) u64(off int) uint64 {
	return uint64(a.u32(off)) | uint64(a.u32(off+4))<<32
}

// name reads one of the 16-byte names.
func (a attr) name(off int) string {
	if off >= len(a) {
		return ""
	}
	b := a[off:min(off+16, len(a))]
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return visible(string(b))
}

// with returns a copy with some fields zeroed and trailing zeros cut off: two attrs that mean the same to the kernel
// become equal.
func (a attr) without(fields ...field) string {
	b := bytes.Clone(a)
	for _, f := range fields {
		if f.off < len(b) {
			clear(b[f.off:min(f.off+f.size, len(b))])
		}
	}
	return string(bytes.TrimRight(b, "\x00"))
}

type field struct{ off, size int }

// logFields are what a loader changes when it asks again with a log, or with a larger one. log_true_size is written by
// the kernel.
func logFields(kind load.Kind) []field {
	switch kind {
	case load.ProgLoad:
		return []field{{progLogLevel, 4}, {progLogSize, 4}, {progLogBuf, 8}, {progLogTrue, 4}}
	case load.BTFLoad:
		return []field{{btfLogBuf, 8}, {btfLogSize, 4}, {btfLogLevel, 4}, {btfLogTrue, 4}}
	}
	return nil
}

// version is what old kernels want of kprobe programs: bpftrace tries several ways to find it.
var version = field{progVersion, 4}

// optional are the fields that loaders drop one after the other when an old kernel may be in the way: the name, the
// expected attach type, BTF with its func_info and line_info, and of a map the BTF of its keys and values.
var optional = map[load.Kind][]field{
	load.ProgLoad:  {{progName, 16}, {progAttachType, 4}, {progBTFFD, 4}, {progFuncRec, 16}, {progLineRec, 16}},
	load.MapCreate: {{mapName, 16}, {mapBTF, 12}},
}

// dropped reports whether b is a without some of its optional fields, and else equal but for the log.
func dropped(kind load.Kind, a, b attr) bool {
	log := logFields(kind)
	if kind == load.ProgLoad {
		log = append(log, version)
	}
	optional := optional[kind]
	if a.without(append(log, optional...)...) != b.without(append(log, optional...)...) {
		return false
	}
	for _, f := range optional {
		was, is := a.at(f), b.at(f)
		if !bytes.Equal(was, is) && len(bytes.Trim(is, "\x00")) != 0 {
			return false
		}
	}
	return true
}

func (a attr) at(f field) []byte {
	b := make([]byte, f.size)
	if f.off < len(a) {
		copy(b, a[f.off:])
	}
	return b
}

func (a attr) logSettings(kind load.Kind) (level, size uint32) {
	switch kind {
	case load.ProgLoad:
		return a.u32(progLogLevel), a.u32(progLogSize)
	case load.BTFLoad:
		return a.u32(btfLogLevel), a.u32(btfLogSize)
	}
	return 0, 0
}

func (a attr) program() *load.Program {
	if len(a) == 0 {
		return &load.Program{Type: "unknown"}
	}
	typ := a.u32(progType)
	p := &load.Program{
		Name:  a.name(progName),
		Type:  typeName(programTypes[:], typ),
		Insns: int(a.u32(progInsnCnt)),
	}
	// 0 is cgroup_inet_ingress, and also what stands here when a type needs no attach type. For struct_ops the
	// field is the index of a member.
	const cgroupSKB, structOps = 8, 27
	if at := a.u32(progAttachType); typ != structOps && (at != 0 || typ == cgroupSKB) {
		p.AttachType = typeName(attachTypes[:], at)
	}
	return p
}

func (a attr) mapSpec() *load.Map {
	return &load.Map{
		Name:       a.name(mapName),
		Type:       typeName(mapTypes[:], a.u32(mapType)),
		KeySize:    a.u32(mapKeySize),
		ValueSize:  a.u32(mapValueSize),
		MaxEntries: a.u32(mapMaxEntries),
		Flags:      a.u32(mapFlags),
	}
}

// visible makes text of the traced side harmless to a terminal: control characters, and those that reorder text, are
// shown as \x1b or \u202e. Tabs stay.
func visible(s string) string {
	clean := utf8.ValidString(s)
	for i := 0; clean && i < len(s); i++ {
		clean = s[i] >= ' ' && s[i] < 0x7f || s[i] == '\t'
	}
	if clean {
		return s
	}
	const hex = "0123456789abcdef"
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1, r < ' ' && r != '\t', r == 0x7f:
			b.WriteString(`\x`)
			b.WriteByte(hex[s[i]>>4])
			b.WriteByte(hex[s[i]&15])
		case r >= 0x80 && r < 0xa0, r >= 0x200b && r <= 0x200f, r >= 0x2028 && r <= 0x202e, r >= 0x2060 && r <= 0x206f, r == 0xfeff:
			b.WriteString(`\u`)
			for shift := 12; shift >= 0; shift -= 4 {
				b.WriteByte(hex[r>>shift&15])
			}
		default:
			b.WriteString(s[i : i+size])
		}
		i += size
	}
	return b.String()
}

// clip cuts s to about n bytes.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
