// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// objects remembers the programs, the maps and the BTF that processes made, by descriptor, for
// backends that cannot look behind a descriptor in the kernel. A program that fails is then told
// with the maps and the source lines that it refers to, and an attachment with its program.
// Descriptors are closed and reused unseen: the last object made under a number is the best guess,
// and it is what loaders do.
type objects struct {
	maps  map[descriptor]trace.Map
	progs map[descriptor]trace.AttachProg
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
	maxMaps     = 3072
	maxProgs    = 1024
	maxBTFBytes = 4 << 20
)

func (o *objects) addMap(call *trace.Call) {
	if o.maps == nil || len(o.maps) >= maxMaps {
		o.maps = map[descriptor]trace.Map{}
	}
	asked := abi.Read[abi.MapCreate](call.Attr)
	m := trace.Map{
		Type: asked.MapType, KeySize: asked.KeySize, ValueSize: asked.ValueSize, MaxEntries: asked.MaxEntries,
		Flags: asked.MapFlags, Name: text(asked.MapName[:]),
	}
	o.maps[descriptor{call.TGID, int32(call.Ret)}] = m
}

func (o *objects) addProg(call *trace.Call) {
	if o.progs == nil || len(o.progs) >= maxProgs {
		o.progs = map[descriptor]trace.AttachProg{}
	}
	asked := abi.Read[abi.ProgLoad](call.Attr)
	p := trace.AttachProg{
		Type: asked.ProgType, AttachType: asked.ExpectedAttachType, Name: text(asked.ProgName[:]), AttachBTFID: asked.AttachBTFID,
	}
	if call.Prog != nil {
		p.ID, p.Tag = call.Prog.ID, call.Prog.Tag
	}
	o.progs[descriptor{call.TGID, int32(call.Ret)}] = p
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

// programBTF is the BTF that a load refers to, nil when it carries no lines or its BTF was not
// seen.
func (o *objects) programBTF(call *trace.Call) []byte {
	asked := abi.Read[abi.ProgLoad](call.Attr)
	if asked.LineInfoCnt == 0 {
		return nil
	}
	return o.btf[descriptor{call.TGID, int32(asked.ProgBTFFD)}]
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

// take remembers what a call made.
func (o *objects) take(call *trace.Call, newBTF []byte) {
	switch {
	case call.Ret < 0:
	case call.Kind == load.MapCreate:
		o.addMap(call)
	case call.Kind == load.BTFLoad:
		o.addBTF(call, newBTF)
	case call.Kind == load.ProgLoad && (call.Prog == nil || call.Prog.BlindedUnknown):
		o.addProg(call) // the kernel was not read
	}
}

// complete adds to a call what the backend could not read, and takes in what calls made.
func (o *objects) complete(call *trace.Call, pieces *pieces, to *[]trace.Record) {
	o.take(call, pieces.newBTF)
	if call.Cmd == unix.BPF_PROG_LOAD && (call.Ret < 0 || call.Prog != nil && !call.Prog.JITed) {
		if call.Maps == nil {
			call.Maps = o.programMaps(call.TGID, pieces.insns())
		}
		if b := o.programBTF(call); b != nil && !pieces.hasBTF {
			*to = append(*to, trace.Record{Chunk: &trace.Chunk{ID: call.ID, What: trace.BTF, Total: uint64(len(b)), Data: b}})
		}
	}
}
