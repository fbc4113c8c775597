// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"encoding/binary"
	"runtime"
	"slices"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
)

// mapSpec is a map to be made in the place of one that the loader had.
type mapSpec struct {
	Name                        string
	Type, Key, Value, Max, Flag uint32
	Extra                       uint64
	Inner                       *mapSpec
	// KeyType and ValueType are types of the program's BTF, 0 when not known.
	KeyType, ValueType uint32
}

// newestMap is the youngest type of map that there is a stand-in for.
const newestMap = abi.MapTypeArena

// arenaAddress is where an arena is said to be mapped: the verifier wants an address, and nothing
// is ever mapped there.
const arenaAddress = 1 << 44

// Memory that stand-ins may take: one of them, and all of one program.
const (
	maxMapBytes  = 1 << 20
	maxValue     = 32 << 20
	maxAllValues = 128 << 20
	maxRing      = 256 << 10
)

// ref is a place in a program that names a map.
type ref struct{ Slot, Map int }

// Maps remembers the maps that recorded processes made, as far as the trace has them: what is
// inside a map of maps is recorded nowhere else. Descriptors are closed and reused unseen, so that
// it only ever completes what the kernel's own list says.
type Maps struct {
	made map[descriptor][]byte // attr of BPF_MAP_CREATE
}

type descriptor struct{ pid, fd int }

const maxMade = 4096

// Add takes note of an attempt that made a map. Attempts come in the order of the trace.
func (m *Maps) Add(a *load.Attempt) {
	e := &a.Evidence
	if a.Kind != load.MapCreate || a.Outcome != load.Loaded || len(e.Calls) == 0 {
		return
	}
	if m.made == nil || len(m.made) >= maxMade {
		m.made = map[descriptor][]byte{}
	}
	m.made[descriptor{a.Process.PID, e.Calls[len(e.Calls)-1].Ret}] = e.Attr
}

// find returns the attr of the map that a descriptor stood for, nil when it is not known or has
// other sizes.
func (m *Maps) find(pid int, fd int32, s *mapSpec) []byte {
	if m == nil {
		return nil
	}
	attr := m.made[descriptor{pid, int(fd)}]
	if asked := abi.Read[abi.MapCreate](attr); attr == nil || s != nil && (asked.MapType != s.Type || asked.KeySize != s.Key || asked.ValueSize != s.Value) {
		return nil
	}
	return attr
}

// maps finds out which map each instruction means, and what to make in its place. The kernel lists
// the maps of a program in the order in which its instructions first name them
// (resolve_pseudo_ldimm64), or in that of fd_array where that was counted.
//
//revive:disable-next-line:cyclomatic a case for each way to name a map
func (p *plan) maps(a *load.Attempt, made *Maps) error {
	e := &a.Evidence
	counted := abi.Read[abi.ProgLoad](e.Attr).FDArrayCnt
	type name struct {
		index bool
		n     int32
	}
	var names []name
	for i, in := range p.prog {
		if !in.IsMapLoad() || insn.IsSecondHalf(p.prog, i) {
			continue
		}
		n := name{in.Src == insn.PseudoMapIdx || in.Src == insn.PseudoMapIdxValue, in.Imm}
		at := slices.Index(names, n)
		if at < 0 {
			if len(names) > len(e.Maps) {
				continue // more than the list has: said below
			}
			at = len(names)
			names = append(names, n)
		}
		if counted > 0 {
			if !n.index || n.n < 0 || uint32(n.n) >= counted || int(counted) != len(e.Maps) {
				return discard("it cannot be told which of the recorded maps instruction %d means", i)
			}
			at = int(n.n)
		}
		p.trial.Refs = append(p.trial.Refs, ref{i, at})
	}
	switch {
	case len(p.trial.Refs) == 0:
		return nil
	case len(e.Maps) == 0:
		return discard("the program refers to maps, and the trace does not say which: without them the verdict would mean nothing")
	case counted == 0 && len(names) != len(e.Maps):
		return discard("the program does not name as many maps as the trace lists (%d): it cannot be told which is which", len(e.Maps))
	}
	capped, unread, bytes := 0, 0, uint64(0)
	for i := range e.Maps {
		m := &e.Maps[i]
		s := &mapSpec{Name: m.Name, Type: m.Type, Key: m.KeySize, Value: m.ValueSize, Max: m.MaxEntries, Flag: m.Flags}
		var attr []byte
		if counted == 0 && !names[i].index {
			attr = made.find(a.Process.PID, names[i].n, s)
		}
		if err := s.complete(a, attr, made); err != nil {
			return err
		}
		if s.limit() {
			capped++
		}
		if s.Flag&abi.MapFlagRdOnlyProg != 0 {
			unread++
		}
		if bytes += uint64(s.Value); s.Value > maxValue || bytes > maxAllValues {
			return refuse("a stand-in for the map %q would take %d bytes", m.Name, s.Value)
		}
		p.setup.Maps = append(p.setup.Maps, *s)
	}
	p.note("its maps were stand-ins of the same type, sizes and flags: %d", len(e.Maps))
	if capped > 0 {
		p.note("stand-ins with fewer entries than the map had: %d", capped)
	}
	if unread > 0 {
		p.note("stand-ins of read-only maps, whose contents the verifier may have used and nobody recorded: %d", unread)
	}
	return nil
}

// complete adds what the kernel's list does not tell. attr is that of the map's creation, nil when
// the trace has none.
func (s *mapSpec) complete(a *load.Attempt, attr []byte, made *Maps) error {
	s.Flag &^= abi.MapFlagVtypeBTFObjFD | abi.MapFlagTokenFD
	asked := abi.Read[abi.MapCreate](attr)
	if asked.BTFFD != 0 && asked.BTFFD == abi.Read[abi.ProgLoad](a.Evidence.Attr).ProgBTFFD {
		s.KeyType, s.ValueType = asked.BTFKeyTypeID, asked.BTFValueTypeID
	}
	s.Extra = asked.MapExtra
	switch {
	case s.Type == abi.MapTypeStructOps, s.Type > newestMap:
		return refuse("there is no stand-in for a map of type %d", s.Type)
	case s.Type == abi.MapTypeArena:
		s.Extra = arenaAddress
	case s.Type == abi.MapTypeArrayOfMaps, s.Type == abi.MapTypeHashOfMaps:
		inner := made.find(a.Process.PID, int32(asked.InnerMapFD), nil)
		if attr == nil || inner == nil {
			return discard("the maps inside the map %q were not recorded", s.Name)
		}
		in := abi.Read[abi.MapCreate](inner)
		s.Inner = &mapSpec{Type: in.MapType, Key: in.KeySize, Value: in.ValueSize, Max: in.MaxEntries, Flag: in.MapFlags}
		if t := s.Inner.Type; t == abi.MapTypeArrayOfMaps || t == abi.MapTypeHashOfMaps || s.Inner.Value > maxValue {
			return discard("the maps inside the map %q are not what a kernel would take", s.Name)
		}
		if err := s.Inner.complete(a, inner, made); err != nil {
			return err
		}
		s.Inner.limit()
	}
	return nil
}

// limit keeps a stand-in small. A map of one entry, whose value instructions may point into, stays
// one.
func (s *mapSpec) limit() bool {
	switch s.Type {
	case abi.MapTypeArena: // its pages come with their use
		return false
	case abi.MapTypeRingbuf, abi.MapTypeUserRingbuf: // bytes, a power of two
		if s.Max <= maxRing {
			return false
		}
		s.Max = maxRing
		return true
	}
	each := uint64(s.Key) + uint64(s.Value) + 64
	switch s.Type {
	case abi.MapTypePercpuHash, abi.MapTypePercpuArray, abi.MapTypeLRUPercpuHash, abi.MapTypePercpuCgroupStorage:
		each *= processors()
	}
	if most := max(1, maxMapBytes/each); uint64(s.Max) > most {
		s.Max = uint32(most)
		return true
	}
	return false
}

// isStorage: local storage wants to know the types of its keys and values.
func (s *mapSpec) isStorage() bool {
	switch s.Type {
	case abi.MapTypeSkStorage, abi.MapTypeInodeStorage, abi.MapTypeTaskStorage, abi.MapTypeCgrpStorage:
		return true
	}
	return false
}

// storageBTF describes a key of 4 bytes (type 1) and a value of size bytes (type 3).
func storageBTF(size uint32) []byte {
	types := []uint32{
		1, 1 << 24, 4, 1<<24 | 32, // int, signed
		0, 1 << 24, 1, 8, // a byte
		0, 3 << 24, 0, 2, 1, size, // array of bytes, indexed by int
	}
	const strings = "\x00int\x00"
	b := binary.LittleEndian.AppendUint16(nil, 0xeb9f)
	b = append(b, 1, 0)
	for _, v := range []uint32{24, 0, uint32(4 * len(types)), uint32(4 * len(types)), uint32(len(strings))} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	for _, v := range types {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return append(b, strings...)
}

// processors is how many copies of a per-processor value there are, about.
func processors() uint64 { return uint64(max(1, runtime.NumCPU())) }
