// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/trace"
)

// objects remembers the maps and the BTF that processes made, by descriptor, for backends that cannot look behind a descriptor in the
// kernel. A program that fails is then told with the maps and the source lines that it refers to. Descriptors are closed and
// reused unseen: the last object made under a number is the best guess, and it is what loaders do.
type objects struct {
	maps  map[descriptor]trace.Map
	btf   map[descriptor][]byte
	order []descriptor // of btf, oldest first
	bytes int
}

type descriptor struct {
	tgid uint32
	fd   int32
}

// Bounds of what is remembered.
const (
	maxMaps     = 4096
	maxBTFBytes = 4 << 20
)

// Offsets in union bpf_attr (include/uapi/linux/bpf.h).
const (
	attrMapName  = 28
	attrBTFFD    = 72
	attrLineInfo = 96 // line_info; line_info_cnt is 8 bytes behind
)

func (o *objects) addMap(call *trace.Call) {
	if len(call.Attr) < 20 {
		return
	}
	if o.maps == nil || len(o.maps) >= maxMaps {
		o.maps = map[descriptor]trace.Map{}
	}
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(call.Attr[at:]) }
	m := trace.Map{Type: u32(0), KeySize: u32(4), ValueSize: u32(8), MaxEntries: u32(12), Flags: u32(16)}
	if len(call.Attr) >= attrMapName+16 {
		m.Name = text(call.Attr[attrMapName : attrMapName+16])
	}
	o.maps[descriptor{call.TGID, int32(call.Ret)}] = m
}

func (o *objects) addBTF(call *trace.Call, data []byte) {
	if len(data) == 0 || len(data) > maxBTFBytes {
		return
	}
	if o.btf == nil {
		o.btf = map[descriptor][]byte{}
	}
	d := descriptor{call.TGID, int32(call.Ret)}
	if old, ok := o.btf[d]; ok {
		o.bytes -= len(old)
	} else {
		o.order = append(o.order, d)
	}
	o.btf[d] = data
	for o.bytes += len(data); o.bytes > maxBTFBytes; o.order = o.order[1:] {
		o.bytes -= len(o.btf[o.order[0]])
		delete(o.btf, o.order[0])
	}
}

// programBTF is the BTF that a load refers to, nil when it carries no lines or its BTF was not seen.
func (o *objects) programBTF(call *trace.Call) []byte {
	if len(call.Attr) < attrLineInfo+12 || binary.LittleEndian.Uint32(call.Attr[attrLineInfo+8:]) == 0 {
		return nil
	}
	return o.btf[descriptor{call.TGID, int32(binary.LittleEndian.Uint32(call.Attr[attrBTFFD:]))}]
}

// programMaps are the maps that instructions refer to by descriptor.
func (o *objects) programMaps(tgid uint32, code []byte) []trace.Map {
	const (
		ldImm64    = 0x18
		pseudoFD   = 1
		pseudoMapV = 2
	)
	var list []trace.Map
	seen := map[int32]bool{}
	for ; len(code) >= 8 && len(list) < 64; code = code[8:] {
		src := code[1] >> 4
		if code[0] != ldImm64 || src != pseudoFD && src != pseudoMapV {
			continue
		}
		fd := int32(binary.LittleEndian.Uint32(code[4:]))
		if m, ok := o.maps[descriptor{tgid, fd}]; ok && !seen[fd] {
			seen[fd] = true
			list = append(list, m)
		}
	}
	return list
}

// complete adds to a call what the backend could not read, and takes in what calls made.
func (o *objects) complete(call *trace.Call, pieces *pieces, to *[]trace.Record) {
	switch {
	case call.Ret >= 0 && call.Cmd == unix.BPF_MAP_CREATE:
		o.addMap(call)
	case call.Ret >= 0 && call.Cmd == unix.BPF_BTF_LOAD:
		o.addBTF(call, pieces.newBTF)
	case call.Cmd == unix.BPF_PROG_LOAD && (call.Ret < 0 || call.Prog != nil && !call.Prog.JITed):
		if call.Maps == nil {
			call.Maps = o.programMaps(call.TGID, pieces.insns())
		}
		if b := o.programBTF(call); b != nil && !pieces.hasBTF {
			*to = append(*to, trace.Record{Chunk: &trace.Chunk{ID: call.ID, What: trace.BTF, Total: uint64(len(b)), Data: b}})
		}
	}
}
