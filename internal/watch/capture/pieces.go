// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"slices"

	"github.com/bpfwhy/bpfwhy/internal/watch/redact"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
)

// pieces are what was seen of a call before its end.
type pieces struct {
	maps   []trace.Map
	attach *trace.Attach
	newBTF []byte
	hasBTF bool           // the program's BTF was read from the kernel
	chunks []trace.Record // held back until the call's end: an address may begin in one and end in the next
}

func (p *pieces) size() int {
	n := pieceBytes + len(p.newBTF) + pieceBytes*len(p.maps)
	if p.attach != nil {
		n += attachBytes
	}
	for _, r := range p.chunks {
		n += pieceBytes + len(r.Chunk.Data)
	}
	return n
}

// insns are the instructions up to the first hole.
func (p *pieces) insns() []byte {
	var code []byte
	for _, r := range p.chunks {
		if r.Chunk.What == trace.Insns && r.Chunk.Offset == uint64(len(code)) {
			code = append(code, r.Chunk.Data...)
		}
	}
	return code
}

// redact takes kernel addresses out of what was copied for a call, and out of its arguments where
// those are the kernel's own. The tag was made of the instructions as they were.
func (p *pieces) redact(l *redact.Load, call *trace.Call) {
	if call.Flags.FromKernel {
		l.Words(call.Attr)
	}
	of := func(what trace.What) (list []redact.Piece) {
		for _, r := range p.chunks {
			if r.Chunk.What == what {
				list = append(list, redact.Piece{At: r.Chunk.Offset, Data: r.Chunk.Data})
			}
		}
		return list
	}
	matched := l.Copied(&redact.Copied{Insns: of(trace.Insns), Translated: of(trace.Translated), Log: of(trace.Log), BTFLog: of(trace.BTFLog)}, call.Tag)
	call.Flags.TagMatched = matched || call.Flags.TagMatched
}

// Bounds of the pieces of calls that have not ended. Calls whose end was lost leave theirs behind.
const (
	maxPieces     = 1024
	maxPieceBytes = 16 << 20
	pieceBytes    = 256 // of a chunk or a map beside its data
	attachBytes   = 2 << 10
	// RecordBytes bounds one record: a chunk.
	RecordBytes = 128<<10 + pieceBytes
	// Memory bounds the heap that a Capture takes: pieces, with one that makes others give way;
	// objects, with one that does; the sample that is being read.
	Memory = maxPieceBytes + RecordBytes + 2*maxBTFBytes + (maxMaps+maxProgs)*pieceBytes + RecordBytes
)

// piecesOf are those of a call, for which the oldest make room: their calls are the least likely to
// end.
func (d *decoder) piecesOf(id trace.CallID) *pieces {
	if p, ok := d.pieces[id]; ok {
		return p
	}
	for len(d.pieces) >= maxPieces && d.dropOldest(id) {
	}
	if len(d.order) >= 2*maxPieces {
		d.order = slices.DeleteFunc(slices.Clone(d.order), func(id trace.CallID) bool { return d.pieces[id] == nil })
	}
	if d.pieces == nil {
		d.pieces = map[trace.CallID]*pieces{}
	}
	d.pieces[id] = &pieces{}
	d.size += d.pieces[id].size()
	d.order = append(d.order, id)
	return d.pieces[id]
}

// dropOldest gives up the pieces of the call that has waited longest, unless that is one in
// particular.
func (d *decoder) dropOldest(but trace.CallID) bool {
	for len(d.order) > 0 && d.order[0] != but {
		p, ok := d.pieces[d.order[0]]
		if ok {
			d.size -= p.size()
			delete(d.pieces, d.order[0])
			d.dropped++
		}
		d.order = d.order[1:]
		if ok {
			return true
		}
	}
	return false
}

// remember keeps what a chunk tells of the objects that programs refer to.
func (d *decoder) remember(c *trace.Chunk, what coreWhat) {
	p := d.piecesOf(c.ID)
	d.size -= p.size()
	switch {
	case what == coreWhatW_NEW_BTF && c.Offset == uint64(len(p.newBTF)):
		p.newBTF = append(p.newBTF, c.Data...)
	case what == coreWhatW_BTF:
		p.hasBTF = true
	}
	if c.What != "" {
		p.chunks = append(p.chunks, trace.Record{Chunk: c})
	}
	d.size += p.size()
	for d.size > maxPieceBytes && d.dropOldest(c.ID) {
	}
}
