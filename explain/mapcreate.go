// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"

	"github.com/bpfwhy/bpfwhy/load"
)

func mapRules() []Rule {
	return []Rule{
		{
			ID:    "MAP001",
			Title: "A size or flag does not go with the map type",
			Class: "R10",
			Stage: load.Request,
			Text: `Each map type has its own rules: arrays have keys of 4 bytes, ring buffers no key and value and a size that is a power of two and a multiple
of the page, LPM tries need BPF_F_NO_PREALLOC, stacks and queues have no key, per-CPU values are at most 32 KiB, and no map may exceed what
fits into memory. The kernel answers EINVAL or E2BIG and does not say which.`,
			Kernels: "All; flags were added over time.",
			Remedies: []load.Remedy{
				{
					ID:    "map-definition",
					Title: "Mend the map's definition",
					Price: "Pinned maps of the old definition must be removed or migrated.",
				},
			},
			Match: matchMapDefinition,
		},
		{
			ID:      "MAP002",
			Title:   "LRU maps cannot do without preallocation",
			Class:   "R10",
			Stage:   load.Request,
			Text:    `An LRU hash map with BPF_F_NO_PREALLOC is refused with ENOTSUPP (524): it recycles its elements and must have them from the start.`,
			Kernels: "All.",
			Remedies: []load.Remedy{
				{
					ID:    "preallocate",
					Title: "Leave BPF_F_NO_PREALLOC out",
					Price: "The map takes its memory at once.",
				},
			},
			Match: func(f *Facts) *Match {
				if f.kind() != load.MapCreate || !f.failed() || f.errno() != errENOTSUPP {
					return nil
				}
				t, flags := f.attrU32(attrMapType), f.attrU32(attrMapFlags)
				if !f.lruWithoutPrealloc() {
					return nil
				}
				return &Match{Strength: Strong, How: load.Inferred, Cause: "The map is an LRU hash with BPF_F_NO_PREALLOC, which do not go together.",
					Evidence: []string{fmt.Sprintf("map_type was %d, map_flags %#x", t, flags)}}
			},
		},
		{
			ID:    "MAP003",
			Title: "The map's key or value BTF is refused",
			Class: "R10",
			Stage: load.BTF,
			Text: `A map may carry the types of its keys and values. Map types that take none answer ENOTSUPP (524), sizes that differ from the types' EINVAL,
a descriptor that is not open EBADF. Loaders repeat the call without BTF: by itself it is noise.`,
			Kernels: "Since 4.18.",
			Remedies: []load.Remedy{
				{
					ID:    "without-btf",
					Title: "Create the map without BTF if the loader does not do so by itself",
					Price: "Dumps show raw bytes; spin locks, timers and kptrs in values need BTF.",
				},
			},
			Match: func(f *Facts) *Match {
				if f.kind() != load.MapCreate || !f.failed() || f.attrU32(attrMapBTFFD) == 0 || f.lruWithoutPrealloc() {
					return nil
				}
				m := &Match{How: load.Inferred, Cause: "The kernel does not take this BTF for the map's keys and values.",
					Evidence: []string{fmt.Sprintf("btf_fd was %d", int32(f.attrU32(attrMapBTFFD)))}}
				m.Why = "the call names BTF for the map's keys and values"
				switch f.errno() {
				case errENOTSUPP:
					m.Strength = Likely
				case errEBADF:
					m.Strength = Likely
				case errEINVAL:
					m.Strength = Possible
				default:
					return nil
				}
				return m
			},
		},
	}
}

func (f *Facts) lruWithoutPrealloc() bool {
	t := f.attrU32(attrMapType)
	return (t == mapLRUHash || t == mapLRUPercpuHash) && f.attrU32(attrMapFlags)&mapNoPrealloc != 0
}

// Numbers of enum bpf_map_type and map flags.
const (
	mapHash          = 1
	mapArray         = 2
	mapProgArray     = 3
	mapPerfArray     = 4
	mapPercpuHash    = 5
	mapPercpuArray   = 6
	mapLRUHash       = 9
	mapLRUPercpuHash = 10
	mapLPMTrie       = 11
	mapQueue         = 22
	mapStack         = 23
	mapRingBuf       = 27
	knownMapTypes    = 35 // up to BPF_MAP_TYPE_INSN_ARRAY, 34

	mapNoPrealloc = 1
)

// mapTypeSince gives the kernels that brought the younger map types, by
// number.
var mapTypeSince = map[int][2]int{
	16: {4, 15}, 17: {4, 18}, 18: {4, 18}, 19: {4, 19}, 20: {4, 19}, 21: {4, 20}, 22: {4, 20}, 23: {4, 20}, 24: {5, 2}, 25: {5, 4},
	26: {5, 6}, 27: {5, 8}, 28: {5, 10}, 29: {5, 11}, 30: {5, 16}, 31: {6, 1}, 32: {6, 2}, 33: {6, 9}, 34: {6, 19},
}

func matchMapType(f *Facts) *Match {
	if f.kind() != load.MapCreate || !f.failed() || f.errno() != errEINVAL || len(f.ev.Attr) < 4 {
		return nil
	}
	t := int(f.attrU32(attrMapType))
	name := fmt.Sprintf("number %d", t)
	if mp := f.Attempt.Map; mp != nil && mp.Type != "" {
		name = printable(mp.Type, 40)
	}
	m := &Match{Strength: Possible, How: load.Inferred, Why: "a map type that was not built into the kernel ends so too"}
	m.Cause = fmt.Sprintf("This kernel has no maps of type %s.", name)
	since, dated := mapTypeSince[t]
	switch {
	case t == 0 || t >= knownMapTypes:
		m.Strength = Strong
		m.Cause = fmt.Sprintf("No kernel known today has a map type %d.", t)
		m.Evidence = append(m.Evidence, fmt.Sprintf("map_type was %d", t))
	case dated && f.before(since[0], since[1]):
		m.Strength = Strong
		m.Evidence = append(m.Evidence, fmt.Sprintf("the type %s came with %d.%d, the kernel is %d.%d", name, since[0], since[1], f.kernel.Major, f.kernel.Minor))
	}
	return m
}

func matchMapDefinition(f *Facts) *Match {
	if f.kind() != load.MapCreate || !f.failed() || f.errno() != errEINVAL && f.errno() != errE2BIG {
		return nil
	}
	m := &Match{Strength: Possible, How: load.Inferred}
	m.Why = "sizes and flags that do not fit the type end so too"
	m.Cause = "The sizes or flags are not what this map type takes."
	if len(f.ev.Attr) < attrMapFlags+4 {
		return m
	}
	t, key, value, max, flags := f.attrU32(attrMapType), f.attrU32(attrKeySize), f.attrU32(attrValueSize), f.attrU32(attrMaxElems), f.attrU32(attrMapFlags)
	if wrong := mapDefect(t, key, value, max, flags); wrong != "" {
		m.Strength = Strong
		m.Cause = "The map's definition is not what its type takes: " + wrong + "."
	} else if f.errno() == errE2BIG {
		m.Strength = Likely
		m.Cause = "The map is larger than the kernel allows."
	}
	m.Evidence = append(m.Evidence, fmt.Sprintf("key_size %d, value_size %d, max_entries %d, map_flags %#x", key, value, max, flags))
	return m
}

// mapDefect says what is wrong with a map definition on every kernel, empty
// when nothing is known to be.
func mapDefect(t, key, value, max, flags uint32) string {
	hash := t == mapHash || t == mapPercpuHash || t == mapLRUHash || t == mapLRUPercpuHash
	array := t == mapArray || t == mapPercpuArray || t == mapProgArray || t == mapPerfArray
	switch {
	case t == mapRingBuf && (key != 0 || value != 0):
		return fmt.Sprintf("a ring buffer has no keys and values, key_size is %d and value_size %d", key, value)
	case t == mapRingBuf && (max == 0 || max&(max-1) != 0 || max%4096 != 0):
		return fmt.Sprintf("max_entries of a ring buffer is a power of two and a multiple of the page size, not %d", max)
	case (t == mapQueue || t == mapStack) && key != 0:
		return fmt.Sprintf("a queue or stack has no keys, key_size is %d", key)
	case array && key != 4:
		return fmt.Sprintf("keys of an array have 4 bytes, key_size is %d", key)
	case (hash || array) && max == 0:
		return "max_entries is 0"
	case hash && key == 0:
		return "key_size is 0"
	case (t == mapHash || t == mapArray || t == mapLRUHash) && value == 0:
		return "value_size is 0"
	case t == mapLPMTrie && flags&mapNoPrealloc == 0:
		return "an LPM trie needs BPF_F_NO_PREALLOC"
	case (t == mapPercpuHash || t == mapPercpuArray || t == mapLRUPercpuHash) && value > 32<<10:
		return fmt.Sprintf("values of a per-CPU map have at most 32768 bytes, value_size is %d", value)
	case (t == mapProgArray || t == mapPerfArray) && value != 4:
		return fmt.Sprintf("values of this type have 4 bytes, value_size is %d", value)
	}
	return ""
}
