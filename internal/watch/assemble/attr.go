// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
)

// Commands of bpf(2) that are attempts of a kind of their own.
var kinds = map[uint32]load.Kind{
	abi.CmdMapCreate: load.MapCreate, abi.CmdProgLoad: load.ProgLoad, abi.CmdProgAttach: load.ProgAttach,
	abi.CmdRawTracepointOpen: load.RawTPOpen, abi.CmdBTFLoad: load.BTFLoad,
	abi.CmdLinkUpdate: load.LinkUpdate, abi.CmdObjPin: load.ObjPin, abi.CmdMapUpdateElem: load.MapUpdate,
	abi.CmdLinkCreate: load.LinkCreate, abi.CmdTokenCreate: load.TokenCreate,
}

// attr is union bpf_attr as the loader gave it, from which the parts of the commands are read.
type attr []byte

func (a attr) prog() abi.ProgLoad         { return abi.Read[abi.ProgLoad](a) }
func (a attr) mapCreate() abi.MapCreate   { return abi.Read[abi.MapCreate](a) }
func (a attr) btf() abi.BTFLoad           { return abi.Read[abi.BTFLoad](a) }
func (a attr) progAttach() abi.ProgAttach { return abi.Read[abi.ProgAttach](a) }
func (a attr) linkCreate() abi.LinkCreate { return abi.Read[abi.LinkCreate](a) }
func (a attr) kprobes() (cnt uint32)      { return abi.Read[abi.LinkCreateKprobeMulti](a).Cnt }
func (a attr) uprobePID() uint32          { return abi.Read[abi.LinkCreateUprobeMulti](a).PID }
func nameOf(n abi.Name) string            { return visible(n.String()) }

// zero reports that a request has nothing in it.
func (a attr) zero() bool { return len(bytes.TrimRight(a, "\x00")) == 0 }

// request is what was asked for, apart from the log: two attrs that mean the same to the kernel
// become equal. What a loader changes when it asks again with a log, or with a larger one, is left
// out, and so is log_true_size, which the kernel writes.
func (a attr) request(kind load.Kind) string {
	switch kind {
	case load.ProgLoad:
		p := a.prog()
		p.LogLevel, p.LogSize, p.LogBuf, p.LogTrueSize = 0, 0, 0, 0
		return meaning(&p, a)
	case load.BTFLoad:
		b := a.btf()
		b.BTFLogLevel, b.BTFLogSize, b.BTFLogBuf, b.BTFLogTrueSize = 0, 0, 0, 0
		return meaning(&b, a)
	}
	return string(bytes.TrimRight(a, "\x00"))
}

// meaning is a request without the zeros at its end, which may be missing as well. What of whole
// lies behind the known fields is part of it.
func meaning[T abi.Attr](known *T, whole attr) string {
	return string(bytes.TrimRight(append(bytes.Clone(abi.Bytes(known)), abi.Tail[T](whole)...), "\x00"))
}

// dropped reports whether b is a without some of its optional fields, and else equal but for the
// log. Optional is what loaders drop one after the other when an old kernel may be in the way: the
// name, the expected attach type, BTF with its func_info and line_info, and of a map the BTF of its
// keys and values. The kernel version is what old kernels want of kprobe programs: bpftrace tries
// several ways to find it.
func dropped(kind load.Kind, a, b attr) bool {
	switch kind {
	case load.ProgLoad:
		type info struct {
			size uint32
			at   uint64
			cnt  uint32
		}
		was, is := a.prog(), b.prog()
		if was.ProgType != is.ProgType || was.InsnCnt != is.InsnCnt || was.Insns != is.Insns { // nearly always, and soon known
			return false
		}
		if !mayDrop(was.ProgName, is.ProgName) || !mayDrop(was.ExpectedAttachType, is.ExpectedAttachType) || !mayDrop(was.ProgBTFFD, is.ProgBTFFD) ||
			!mayDrop(info{was.FuncInfoRecSize, was.FuncInfo, was.FuncInfoCnt}, info{is.FuncInfoRecSize, is.FuncInfo, is.FuncInfoCnt}) ||
			!mayDrop(info{was.LineInfoRecSize, was.LineInfo, was.LineInfoCnt}, info{is.LineInfoRecSize, is.LineInfo, is.LineInfoCnt}) {
			return false
		}
		rest := func(p abi.ProgLoad, a attr) string {
			p.ProgName, p.ExpectedAttachType, p.ProgBTFFD, p.KernVersion = abi.Name{}, 0, 0, 0
			p.FuncInfoRecSize, p.FuncInfo, p.FuncInfoCnt = 0, 0, 0
			p.LineInfoRecSize, p.LineInfo, p.LineInfoCnt = 0, 0, 0
			return attr(meaning(&p, a)).request(kind)
		}
		return rest(was, a) == rest(is, b)
	case load.MapCreate:
		was, is := a.mapCreate(), b.mapCreate()
		type types struct{ btf, key, value uint32 }
		if !mayDrop(was.MapName, is.MapName) ||
			!mayDrop(types{was.BTFFD, was.BTFKeyTypeID, was.BTFValueTypeID}, types{is.BTFFD, is.BTFKeyTypeID, is.BTFValueTypeID}) {
			return false
		}
		rest := func(m abi.MapCreate, a attr) string {
			m.MapName, m.BTFFD, m.BTFKeyTypeID, m.BTFValueTypeID = abi.Name{}, 0, 0, 0
			return meaning(&m, a)
		}
		return rest(was, a) == rest(is, b)
	}
	return a.request(kind) == b.request(kind)
}

// mayDrop reports that what was given is given again, or no more.
func mayDrop[T comparable](was, is T) bool {
	var none T
	return is == was || is == none
}

func (a attr) logSettings(kind load.Kind) (level, size uint32) {
	switch kind {
	case load.ProgLoad:
		p := a.prog()
		return p.LogLevel, p.LogSize
	case load.BTFLoad:
		b := a.btf()
		return b.BTFLogLevel, b.BTFLogSize
	}
	return 0, 0
}

func (a attr) program() *load.Program {
	if len(a) == 0 {
		return &load.Program{Type: "unknown"}
	}
	attr := a.prog()
	p := &load.Program{
		Name:  nameOf(attr.ProgName),
		Type:  abi.ProgTypeName(attr.ProgType),
		Insns: int(attr.InsnCnt),
	}
	// 0 is cgroup_inet_ingress, and also what stands here when a type needs no attach type. For
	// struct_ops the field is the index of a member.
	if at := attr.ExpectedAttachType; attr.ProgType != abi.ProgTypeStructOps && (at != 0 || attr.ProgType == abi.ProgTypeCgroupSKB) {
		p.AttachType = abi.AttachTypeName(at)
	}
	return p
}

func (a attr) mapSpec() *load.Map {
	m := a.mapCreate()
	return &load.Map{
		Name:       nameOf(m.MapName),
		Type:       abi.MapTypeName(m.MapType),
		KeySize:    m.KeySize,
		ValueSize:  m.ValueSize,
		MaxEntries: m.MaxEntries,
		Flags:      m.MapFlags,
	}
}

// visible makes text of the traced side harmless to a terminal: control characters, and those that
// reorder text, are shown as \x1b or \u202e. Tabs stay.
//
//revive:disable-next-line:cyclomatic a case for each kind of character
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
