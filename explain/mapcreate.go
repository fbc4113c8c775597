// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"strings"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

func mapRules() []Rule {
	return []Rule{map001(), map002(), map003(), map004(), map005(), map006(), map007()}
}

func (f *Facts) lruWithoutPrealloc() bool {
	asked := f.mapAttr()
	t := asked.MapType
	return (t == abi.MapTypeLRUHash || t == abi.MapTypeLRUPercpuHash) && asked.MapFlags&abi.MapFlagNoPrealloc != 0
}

// mapTypeSince gives the kernels that brought the younger map types, by
// number.
var mapTypeSince = map[int]insn.Version{
	abi.MapTypeCpumap:              release(4, 15),
	abi.MapTypeXskmap:              release(4, 18),
	abi.MapTypeSockhash:            release(4, 18),
	abi.MapTypeCgroupStorage:       release(4, 19),
	abi.MapTypeReuseportSockarray:  release(4, 19),
	abi.MapTypePercpuCgroupStorage: release(4, 20),
	abi.MapTypeQueue:               release(4, 20),
	abi.MapTypeStack:               release(4, 20),
	abi.MapTypeSkStorage:           release(5, 2),
	abi.MapTypeDevmapHash:          release(5, 4),
	abi.MapTypeStructOps:           release(5, 6),
	abi.MapTypeRingbuf:             release(5, 8),
	abi.MapTypeInodeStorage:        release(5, 10),
	abi.MapTypeTaskStorage:         release(5, 11),
	abi.MapTypeBloomFilter:         release(5, 16),
	abi.MapTypeUserRingbuf:         release(6, 1),
	abi.MapTypeCgrpStorage:         release(6, 2),
	abi.MapTypeArena:               release(6, 9),
	abi.MapTypeInsnArray:           release(6, 19),
}

// MapTypeSince is the release that brought a map type, false for the oldest ones.
func MapTypeSince(t uint32) (insn.Version, bool) {
	v, ok := mapTypeSince[int(t)]
	return v, ok
}

func matchMapType(f *Facts) *Match {
	if f.kind() != load.MapCreate || !f.failed() || f.errno() != abi.EINVAL {
		return nil
	}
	t := f.mapTypeAsked()
	if t < 0 {
		return nil
	}
	name := fmt.Sprintf("number %d", t)
	if mp := f.Attempt.Map; mp != nil && mp.Type != "" {
		name = printable(mp.Type, 40)
	}
	m := &Match{Strength: Possible, How: load.Inferred, Why: "a map type that was not built into the kernel ends so too"}
	m.Cause = fmt.Sprintf("This kernel has no maps of type %s.", name)
	since, dated := mapTypeSince[t]
	switch {
	case t == 0 || t > abi.MapTypes:
		m.Strength = Strong
		m.Cause = fmt.Sprintf("No kernel known today has a map type %d.", t)
		m.Evidence = append(m.Evidence, fmt.Sprintf("map_type was %d", t))
	case dated && f.before(since):
		m.Strength = Strong
		m.Evidence = append(m.Evidence, fmt.Sprintf("the type %s came with %s, the kernel is %d.%d", name, since, f.kernel.Major, f.kernel.Minor))
	}
	return m
}

// mapTypeAsked is the number of the map's type, -1 where it is not known.
func (f *Facts) mapTypeAsked() int {
	if len(f.ev.Attr) >= 4 {
		return int(f.mapAttr().MapType)
	}
	for t := 1; t <= abi.MapTypes && f.mapType() != ""; t++ {
		if abi.MapTypeName(uint32(t)) == f.mapType() {
			return t
		}
	}
	return -1
}

func map001() Rule {
	return Rule{
		ID:    "MAP001",
		Title: "Invalid map definition: a size or flag does not fit the map type",
		Class: "R10",
		Stage: load.Request,
		Text: `Each map type has its own rules. An array has keys of 4 bytes. A ring
buffer has no key and no value, and its size is a power of two and a multiple of the page size (16
or 64 KiB on some kernels of arm64 and ppc64). An LPM trie needs BPF_F_NO_PREALLOC. Stacks and
queues have no key. A stack trace has 8 bytes for each frame, and at most
kernel.perf_event_max_stack frames. An arena needs BPF_F_MMAPABLE, a local storage needs BTF, and
a map of maps needs an inner map. No map may be larger than memory allows.

The kernel answers EINVAL or E2BIG, and does not say which rule was broken.`,
		Kernels: "All. Flags were added over time.",
		Remedies: []load.Remedy{
			{
				ID:    "map-definition",
				Title: "Correct the map's definition",
				Price: "Pinned maps of the old definition must be removed or migrated.",
			},
		},
		Match: matchMapDefinition,
	}
}

// mapWords are what libraries say of a definition that they refuse, or see refused.
var mapWords = lazyregexp.New(`(?i)ring ?(?:buf(?:fer)?)? map size \d+ not a (?:multiple of page size|power of two)|(?:key|value|max_entries|map)[ _]?size[^\n]{0,60}(?:must|should|not a)|` +
	`ARENA map should be explicitly declared|invalid (?:key|value) size`)

func matchMapDefinition(f *Facts) *Match {
	if f.kind() != load.MapCreate || !f.failed() {
		return nil
	}
	if m := f.saidOfMap(); m != nil {
		return m
	}
	asked := f.mapAttr()
	if !f.errnoOfDefinition(asked) {
		return nil
	}
	m := &Match{Strength: Possible, How: load.Inferred}
	m.Why = "sizes and flags that do not fit the type end so too"
	m.Cause = "The sizes or flags are not what this map type takes."
	if f.errno() == abi.E2BIG {
		m.Strength, m.Cause = Likely, "The map is larger than the kernel allows: in all, one of its values, or (a cpumap) more entries than CPUs that the kernel was built for."
	}
	if len(f.ev.Attr) < withMapFlags {
		if f.errno() == abi.E2BIG && f.text != nil {
			m.Strength = Likely
			m.Cause = "The map is larger than the kernel allows: its entries, or one of its sizes."
		}
		return m
	}
	if wrong := mapDefect(asked); wrong != "" {
		m.Strength = Strong
		m.Cause = "The map's definition is not what its type takes: " + wrong + "."
	} else if wrong := f.mapSuspicion(asked); wrong != "" {
		m.Strength = Likely
		m.Cause = "The map's definition is probably not what this kernel takes: " + wrong + "."
	}
	m.Evidence = append(m.Evidence, fmt.Sprintf("key_size %d, value_size %d, max_entries %d, map_flags %#x",
		asked.KeySize, asked.ValueSize, asked.MaxEntries, asked.MapFlags))
	return m
}

// saidOfMap is what the kernel's log of the call (7.0) or the library says of the definition.
func (f *Facts) saidOfMap() *Match {
	switch said := f.said(); {
	case f.words.is(verifierlog.MapAttribute):
		m := f.verifierMatch()
		if m.Cause == "" {
			m.Cause = fmt.Sprintf("The kernel does not accept the map's definition: %s", f.words.message)
		}
		return m
	case mapWords.MatchString(said):
		return &Match{Strength: Certain, How: f.heard(),
			Cause: "The map's definition is not what its type takes, as the library says: " + printable(strings.TrimSpace(said), 200) + "."}
	}
	return nil
}

// errnoOfDefinition reports an errno with which the kernel refuses a definition.
func (f *Facts) errnoOfDefinition(asked abi.MapCreate) bool {
	switch f.errno() {
	case abi.EBADF:
		return asked.MapType == abi.MapTypeArrayOfMaps || asked.MapType == abi.MapTypeHashOfMaps
	case abi.E2BIG:
		return !isPercpu(asked.MapType) || asked.ValueSize <= percpuLimit // which MAP005 tells
	}
	return f.errno() == abi.EINVAL || f.errno() == abi.ERANGE
}

func map002() Rule {
	return Rule{
		ID:    "MAP002",
		Title: "LRU maps cannot use BPF_F_NO_PREALLOC",
		Class: "R10",
		Stage: load.Request,
		Text: `An LRU hash map recycles its elements, so it must have all of them from
the start. With BPF_F_NO_PREALLOC, the kernel answers ENOTSUPP (524).`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:    "preallocate",
				Title: "Remove BPF_F_NO_PREALLOC",
				Price: "The map takes all of its memory at once.",
			},
		},
		Match: func(f *Facts) *Match {
			if f.kind() != load.MapCreate || !f.failed() || f.errno() != abi.ENOTSUPP {
				return nil
			}
			asked := f.mapAttr()
			if !f.lruWithoutPrealloc() {
				return nil
			}
			return &Match{Strength: Strong, How: load.Inferred, Cause: "The map is an LRU hash with BPF_F_NO_PREALLOC, which do not go together.",
				Evidence: []string{fmt.Sprintf("map_type was %d, map_flags %#x", asked.MapType, asked.MapFlags)}}
		},
	}
}

func map003() Rule {
	return Rule{
		ID:    "MAP003",
		Title: "The kernel rejects the BTF of the map's key or value",
		Class: "R10",
		Stage: load.BTF,
		Text: `A map can have BTF for the types of its keys and values. If the map type
takes none, the kernel answers ENOTSUPP (524). If the sizes differ from the types, it answers
EINVAL. If the descriptor of the BTF is not open, it answers EBADF. Loaders then create the map
without BTF. So this failure alone is harmless.`,
		Kernels: "Since 4.18.",
		Remedies: []load.Remedy{
			{
				ID:    "without-btf",
				Title: "If the loader does not do so itself, create the map without BTF",
				Price: "Dumps show raw bytes. Spin locks, timers and kptrs in values do not work without BTF.",
			},
		},
		Match: func(f *Facts) *Match {
			if f.kind() != load.MapCreate || !f.failed() || f.mapAttr().BTFFD == 0 || f.lruWithoutPrealloc() {
				return nil
			}
			m := &Match{How: load.Inferred, Cause: "The kernel does not take this BTF for the map's keys and values.",
				Evidence: []string{fmt.Sprintf("btf_fd was %d", int32(f.mapAttr().BTFFD))}}
			m.Why = "the call names BTF for the map's keys and values"
			switch f.errno() {
			case abi.ENOTSUPP:
				m.Strength = Likely
			case abi.EBADF:
				m.Strength = Likely
			case abi.EINVAL:
				m.Strength = Possible
			default:
				return nil
			}
			return m
		},
	}
}

// percpuLimit is the largest value of a per-CPU map (PCPU_MIN_UNIT_SIZE) where pages have 4 or 16
// KiB; with 64 KiB it is one page.
const percpuLimit = 32 << 10

func map005() Rule {
	return Rule{
		ID:    "MAP005",
		Title: "The value of a per-CPU map is too large (32 KiB)",
		Class: "R10",
		Stage: load.Request,
		Text: `A value of a per-CPU map has at most 32 KiB, or 64 KiB where pages have 64
KiB. The kernel allocates memory for each CPU in units of this size. Older kernels answer ENOMEM,
however much memory is free. Newer kernels check the size first, and answer E2BIG, "Argument list
too long".`,
		Kernels: "All. E2BIG since 6.12, and in stable kernels since 5.10.227, 6.1.113 and 6.11.4; ENOMEM before.",
		Remedies: []load.Remedy{
			{
				ID:    "smaller-value",
				Title: "Make the value smaller, or split it over several elements",
				Price: "A change of the program.",
			},
			{
				ID:    "plain-array",
				Title: "Use a plain array with one element for each CPU, indexed by bpf_get_smp_processor_id",
				Price: "Programs that interrupt each other on a CPU share the element.",
			},
		},
		Match: matchPercpuValue,
	}
}

func matchPercpuValue(f *Facts) *Match {
	if f.kind() != load.MapCreate || !f.failed() || f.errno() != abi.ENOMEM && f.errno() != abi.E2BIG {
		return nil
	}
	m := &Match{Strength: Possible, How: load.Inferred, Cause: "A value of the per-CPU map is larger than the kernel allows, which is 32 KiB."}
	m.Why = "if it is a per-CPU map whose values have over 32 KiB it ends so too, however much memory there is"
	if len(f.ev.Attr) < withMapFlags {
		if t := f.mapType(); t != "" && !strings.Contains(t, "percpu") {
			return nil
		}
		return m
	}
	asked := f.mapAttr()
	size := (asked.ValueSize + 7) / 8 * 8
	if !isPercpu(asked.MapType) || size <= percpuLimit {
		return nil
	}
	m.Strength = Strong
	if size <= largePage && f.machine() != "x86_64" {
		m.Strength = Likely // pages of 64 KiB allow it
	}
	m.Evidence = append(m.Evidence, fmt.Sprintf("value_size was %d, the limit is %d", asked.ValueSize, percpuLimit))
	if f.does(node.RefusesLargePercpu) && f.errno() == abi.ENOMEM {
		m.Strength = Possible // this kernel says E2BIG
	}
	return m
}
