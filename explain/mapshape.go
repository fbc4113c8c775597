// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/abi"
)

// shape is what maps of a type must look like.
type shape struct {
	// key and value are the sizes that they may have; nil: any but 0.
	key, value []uint32
	entries    entries
	flags      uint32 // that it must have
}

// entries is what max_entries must be.
type entries int

const (
	some    entries = iota // not 0
	none                   // 0
	whole                  // a power of two, in pages
	oneOnly                // 1
)

var (
	zero  = []uint32{0}
	index = []uint32{4}
	fd    = []uint32{4}
	wide  = []uint32{4, 8} // a descriptor and what goes with it, or a cookie
	// ofTrie is from the shortest key to the longest: a prefix length and 1 to 256 bytes.
	ofTrie = span32(5, 260)
)

func span32(from, to uint32) (list []uint32) {
	for n := from; n <= to; n++ {
		list = append(list, n)
	}
	return list
}

// shapes has the types of maps by number. Kernels since 5.2 agree on them.
var shapes = map[uint32]shape{
	abi.MapTypeHash: {}, abi.MapTypePercpuHash: {}, abi.MapTypeLRUHash: {}, abi.MapTypeLRUPercpuHash: {},
	abi.MapTypeArray:               {key: index},
	abi.MapTypePercpuArray:         {key: index},
	abi.MapTypeProgArray:           {key: index, value: fd},
	abi.MapTypePerfEventArray:      {key: index, value: fd},
	abi.MapTypeCgroupArray:         {key: index, value: fd},
	abi.MapTypeArrayOfMaps:         {key: index, value: fd},
	abi.MapTypeHashOfMaps:          {value: fd},
	abi.MapTypeStackTrace:          {key: index},
	abi.MapTypeLPMTrie:             {key: ofTrie, flags: abi.MapFlagNoPrealloc},
	abi.MapTypeDevmap:              {key: index, value: wide},
	abi.MapTypeDevmapHash:          {key: index, value: wide},
	abi.MapTypeCpumap:              {key: index, value: wide},
	abi.MapTypeXskmap:              {key: index, value: fd},
	abi.MapTypeSockmap:             {key: index, value: wide},
	abi.MapTypeSockhash:            {value: wide},
	abi.MapTypeReuseportSockarray:  {key: index, value: wide},
	abi.MapTypeQueue:               {key: zero},
	abi.MapTypeStack:               {key: zero},
	abi.MapTypeBloomFilter:         {key: zero},
	abi.MapTypeRingbuf:             {key: zero, value: zero, entries: whole},
	abi.MapTypeUserRingbuf:         {key: zero, value: zero, entries: whole},
	abi.MapTypeArena:               {key: zero, value: zero, flags: abi.MapFlagMmapable},
	abi.MapTypeSkStorage:           {key: index, entries: none, flags: abi.MapFlagNoPrealloc},
	abi.MapTypeInodeStorage:        {key: index, entries: none, flags: abi.MapFlagNoPrealloc},
	abi.MapTypeTaskStorage:         {key: index, entries: none, flags: abi.MapFlagNoPrealloc},
	abi.MapTypeCgrpStorage:         {key: index, entries: none, flags: abi.MapFlagNoPrealloc},
	abi.MapTypeCgroupStorage:       {entries: none},
	abi.MapTypePercpuCgroupStorage: {entries: none},
	abi.MapTypeStructOps:           {key: index, entries: oneOnly},
}

// flagHomes are flags that make sense for some types alone.
var flagHomes = []struct {
	flag  uint32
	name  string
	types []uint32
}{
	{abi.MapFlagNoCommonLRU, "BPF_F_NO_COMMON_LRU", []uint32{abi.MapTypeLRUHash, abi.MapTypeLRUPercpuHash}},
	{abi.MapFlagMmapable, "BPF_F_MMAPABLE", []uint32{abi.MapTypeArray, abi.MapTypeArena}},
	{abi.MapFlagInnerMap, "BPF_F_INNER_MAP", []uint32{abi.MapTypeArray}},
	{abi.MapFlagPreserveElems, "BPF_F_PRESERVE_ELEMS", []uint32{abi.MapTypePerfEventArray}},
	{abi.MapFlagStackBuildID, "BPF_F_STACK_BUILD_ID", []uint32{abi.MapTypeStackTrace}},
	{abi.MapFlagNoPrealloc, "BPF_F_NO_PREALLOC", []uint32{
		abi.MapTypeHash, abi.MapTypePercpuHash, abi.MapTypeLRUHash, abi.MapTypeLRUPercpuHash, abi.MapTypeHashOfMaps, abi.MapTypeLPMTrie,
		abi.MapTypeSkStorage, abi.MapTypeInodeStorage, abi.MapTypeTaskStorage, abi.MapTypeCgrpStorage, abi.MapTypeRhash,
	}},
}

// mapDefect says what is wrong with a map definition on every kernel, empty when nothing is known
// to be.
func mapDefect(m abi.MapCreate) string {
	s, known := shapes[m.MapType]
	if !known {
		return ""
	}
	of := "a map of type " + abi.MapTypeName(m.MapType)
	for _, check := range []string{
		sizeDefect("keys", "key_size", of, s.key, m.KeySize), sizeDefect("values", "value_size", of, s.value, m.ValueSize),
		entriesDefect(of, s.entries, m.MaxEntries), flagDefect(of, s.flags, m), ownDefect(of, m),
	} {
		if check != "" {
			return check
		}
	}
	return ""
}

func sizeDefect(what, field, of string, allowed []uint32, size uint32) string {
	switch {
	case allowed == nil && size == 0:
		return field + " is 0"
	case allowed == nil || slices.Contains(allowed, size):
		return ""
	case allowed[0] == 0:
		return fmt.Sprintf("%s has no %s, %s is %d and not 0", of, what, field, size)
	case len(allowed) > 2:
		return fmt.Sprintf("%s of %s have %d to %d bytes, %s is %d", what, of, allowed[0], allowed[len(allowed)-1], field, size)
	}
	return fmt.Sprintf("%s of %s have %s bytes, %s is %d", what, of, strings.Trim(strings.ReplaceAll(fmt.Sprint(allowed), " ", " or "), "[]"), field, size)
}

func entriesDefect(of string, want entries, n uint32) string {
	switch {
	case want == some && n == 0:
		return "max_entries is 0"
	case want == none && n != 0:
		return fmt.Sprintf("max_entries of %s is 0 (it grows with what it belongs to), not %d", of, n)
	case want == oneOnly && n != 1:
		return fmt.Sprintf("max_entries of %s is 1, not %d", of, n)
	case want == whole && (n == 0 || n&(n-1) != 0 || n%smallPage != 0):
		return fmt.Sprintf("max_entries of a ring buffer is a power of two and a multiple of the page size, not %d", n)
	}
	return ""
}

func flagDefect(of string, needed uint32, m abi.MapCreate) string {
	switch {
	case needed == abi.MapFlagNoPrealloc && m.MapFlags&needed == 0:
		return of + " needs BPF_F_NO_PREALLOC"
	case needed == abi.MapFlagMmapable && m.MapFlags&needed == 0:
		return of + " needs BPF_F_MMAPABLE"
	}
	for _, h := range flagHomes {
		if m.MapFlags&h.flag != 0 && !slices.Contains(h.types, m.MapType) {
			return fmt.Sprintf("%s takes no %s", of, h.name)
		}
	}
	return ""
}

// smallPage is the smallest page of any machine, largePage the largest.
const (
	smallPage = 4 << 10
	largePage = 64 << 10
)

// ownDefect are the checks that one type has.
func ownDefect(of string, m abi.MapCreate) string {
	switch {
	case m.MapType == abi.MapTypeStackTrace && m.ValueSize%8 != 0:
		return fmt.Sprintf("a stack is of 8 bytes for each frame, value_size is %d", m.ValueSize)
	case m.MapType == abi.MapTypeBloomFilter && m.MapExtra > 15:
		return fmt.Sprintf("map_extra of a bloom filter is the number of hash functions, 0 to 15, not %d", m.MapExtra)
	case m.MapType == abi.MapTypeArena && m.MapExtra%smallPage != 0:
		return fmt.Sprintf("map_extra of an arena is an address at the beginning of a page, not %#x", m.MapExtra)
	case m.MapExtra != 0 && m.MapType != abi.MapTypeBloomFilter && m.MapType != abi.MapTypeArena && m.MapType != abi.MapTypeRhash:
		return fmt.Sprintf("%s takes no map_extra, which is %d", of, m.MapExtra)
	case isStorage(m.MapType) && (m.BTFKeyTypeID == 0 || m.BTFValueTypeID == 0):
		return of + " needs the BTF of its key and value"
	}
	return ""
}

func isStorage(t uint32) bool {
	return t == abi.MapTypeSkStorage || t == abi.MapTypeInodeStorage || t == abi.MapTypeTaskStorage || t == abi.MapTypeCgrpStorage
}

func isPercpu(t uint32) bool {
	return t == abi.MapTypePercpuHash || t == abi.MapTypePercpuArray || t == abi.MapTypeLRUPercpuHash || t == abi.MapTypePercpuCgroupStorage
}

// defaultStack is kernel.perf_event_max_stack as kernels have it.
const defaultStack = 127

// mapSuspicion says what is wrong with a map definition on some nodes, empty when nothing is.
func (f *Facts) mapSuspicion(m abi.MapCreate) string {
	ring := m.MapType == abi.MapTypeRingbuf || m.MapType == abi.MapTypeUserRingbuf
	frames := int64(defaultStack)
	if v, ok := f.sysctl("kernel.perf_event_max_stack"); ok {
		frames = v
	}
	inner := m.MapType == abi.MapTypeArrayOfMaps || m.MapType == abi.MapTypeHashOfMaps
	switch {
	case ring && m.MaxEntries < largePage && f.machine() != "x86_64":
		return fmt.Sprintf("max_entries of a ring buffer is a multiple of the page size, and %d is none where pages have 16 or 64 KiB", m.MaxEntries)
	case m.MapType == abi.MapTypeStackTrace && m.MapFlags&abi.MapFlagStackBuildID == 0 && int64(m.ValueSize/8) > frames:
		return fmt.Sprintf("value_size is that of %d frames, and kernel.perf_event_max_stack allows %d unless it was raised", m.ValueSize/8, frames)
	case inner && m.InnerMapFD == 0:
		return "a map of maps needs an inner map (inner_map_fd), which must not be a map of maps itself"
	}
	return ""
}
