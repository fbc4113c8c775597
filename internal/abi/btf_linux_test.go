// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
)

func TestKernels(t *testing.T) { vmtest.Run(t, "^TestGuest", vm.Machine{}) }

func TestHostBTF(t *testing.T) { compareWithBTF(t) }

func TestGuestBTF(t *testing.T) {
	vmtest.Guest(t)
	compareWithBTF(t)
}

func compareWithBTF(t *testing.T) {
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); os.IsNotExist(err) {
		t.Skip("this kernel has no BTF")
	}
	kernel, err := btf.LoadKernelSpec()
	qt.Assert(t, qt.IsNil(err))
	t.Run("attributes", func(t *testing.T) { compareAttributes(t, kernel) })
	t.Run("enums", func(t *testing.T) { compareEnums(t, kernel) })
}

// place is where a field lies.
type place struct{ off, size int }

// fields flattens a struct or union of the kernel. Members of one that has a name have it in front
// of theirs.
func fields(members []btf.Member, prefix string, off int, into map[string]place) {
	for _, m := range members {
		size, err := btf.Sizeof(m.Type)
		if err != nil {
			continue
		}
		at, name := off+int(m.Offset.Bytes()), prefix+m.Name
		inner := prefix
		if m.Name != "" {
			into[name], inner = place{at, size}, name+"."
		}
		switch inside := btf.UnderlyingType(m.Type).(type) {
		case *btf.Struct:
			fields(inside.Members, inner, at, into)
		case *btf.Union:
			fields(inside.Members, inner, at, into)
		}
	}
}

var (
	word    = regexp.MustCompile(`([a-z0-9])([A-Z])`)
	acronym = regexp.MustCompile(`([A-Z])([A-Z][a-z])`)
)

// ours are the fields of a struct of this package, by each name that the kernel has for them.
func ours(typ reflect.Type, off int, into map[string]place) {
	for i := range typ.NumField() {
		f := typ.Field(i)
		at := off + int(f.Offset)
		switch {
		case f.Anonymous:
			ours(f.Type, at, into)
			continue
		case f.Name == "_":
			continue
		}
		names := f.Tag.Get("kernel")
		if names == "" {
			names = strings.ToLower(word.ReplaceAllString(acronym.ReplaceAllString(f.Name, "${1}_${2}"), "${1}_${2}"))
		}
		for _, name := range strings.Fields(names) {
			into[name] = place{at, int(f.Type.Size())}
		}
	}
}

func compareAttributes(t *testing.T, kernel *btf.Spec) {
	var union *btf.Union
	qt.Assert(t, qt.IsNil(kernel.TypeByName("bpf_attr", &union)))
	// A command's part of the union is found by a field that no other has, or by its name.
	parts := map[string]map[string]place{}
	for _, m := range union.Members {
		part, ok := btf.UnderlyingType(m.Type).(*btf.Struct)
		if !ok {
			continue
		}
		all := map[string]place{}
		fields(part.Members, "", 0, all)
		if m.Name != "" {
			parts[m.Name] = all
			continue
		}
		for name := range all {
			parts["with "+name] = all
		}
	}
	for _, name := range []string{"bpf_prog_info", "bpf_map_info", "bpf_btf_info", "bpf_link_info"} {
		var info *btf.Struct
		qt.Assert(t, qt.IsNil(kernel.TypeByName(name, &info)))
		all := map[string]place{}
		fields(info.Members, "", 0, all)
		parts[name] = all
	}
	for _, c := range []struct {
		part string
		attr any
		// some: the kernel's part has fields that ours leaves out.
		some bool
		// late: older kernels of the lab have none.
		late bool
	}{
		{part: "with map_type", attr: MapCreate{}},
		{part: "with next_key", attr: MapElem{}},
		{part: "batch", attr: MapBatch{}},
		{part: "with insn_cnt", attr: ProgLoad{}},
		{part: "with pathname", attr: ObjPin{}},
		{part: "with attach_bpf_fd", attr: ProgAttach{}},
		{part: "with start_id", attr: ID{}},
		{part: "info", attr: ObjInfo{}},
		{part: "raw_tracepoint", attr: RawTracepointOpen{}},
		{part: "with btf_log_buf", attr: BTFLoad{}},
		{part: "task_fd_query", attr: TaskFDQuery{}},
		{part: "link_create", attr: LinkCreate{}, some: true},
		{part: "link_create", attr: LinkCreateKprobeMulti{}, some: true},
		{part: "link_create", attr: LinkCreateUprobeMulti{}, some: true},
		{part: "link_update", attr: LinkUpdate{}},
		{part: "token_create", attr: TokenCreate{}, late: true},
		{part: "bpf_prog_info", attr: ProgInfo{}},
		{part: "bpf_map_info", attr: MapInfo{}, some: true},
		{part: "bpf_btf_info", attr: BTFInfo{}, some: true},
		{part: "bpf_link_info", attr: LinkInfo{}, some: true},
	} {
		t.Run(reflect.TypeOf(c.attr).Name(), func(t *testing.T) {
			theirs := parts[c.part]
			if theirs == nil && c.late {
				t.Skip("this kernel has no such command")
			}
			mine := map[string]place{}
			ours(reflect.TypeOf(c.attr), 0, mine)
			known := 0
			for name, at := range theirs {
				if own, ok := mine[name]; ok {
					known++
					if name == "gpl_compatible" {
						at.size = 4
					}
					qt.Check(t, qt.Equals(own, at), qt.Commentf("%s", name))
				} else {
					qt.Check(t, qt.IsTrue(c.some), qt.Commentf("the kernel has %s at %+v", name, at))
				}
			}
			qt.Check(t, qt.IsTrue(known >= 2), qt.Commentf("%d fields found", known))
			for name := range mine {
				if _, ok := theirs[name]; !ok {
					t.Logf("this kernel has no %s", name)
				}
			}
		})
	}
}

func compareEnums(t *testing.T, kernel *btf.Spec) {
	for _, c := range []struct {
		enum, prefix string
		names        []string
		// also are other names for a number.
		also []string
	}{
		{enum: "bpf_prog_type", prefix: "BPF_PROG_TYPE_", names: progTypes[:]},
		{enum: "bpf_map_type", prefix: "BPF_MAP_TYPE_", names: mapTypes[:], also: []string{"cgroup_storage_deprecated", "percpu_cgroup_storage_deprecated"}},
		{enum: "bpf_attach_type", prefix: "BPF_", names: attachTypes[:]},
		{enum: "bpf_link_type", prefix: "BPF_LINK_TYPE_", names: linkTypes[:]},
		{enum: "perf_type_id", prefix: "PERF_TYPE_", names: perfTypes[:], also: []string{"max"}},
		{enum: "bpf_cmd", names: commands[:], also: []string{"BPF_PROG_RUN", "BPF_COMMON_ATTRS"}},
	} {
		t.Run(c.enum, func(t *testing.T) {
			var enum *btf.Enum
			qt.Assert(t, qt.IsNil(kernel.TypeByName(c.enum, &enum)))
			found := 0
			for _, v := range enum.Values {
				if strings.HasPrefix(v.Name, "__") || strings.HasPrefix(v.Name, "MAX_BPF") {
					continue
				}
				name := v.Name
				if c.prefix != "" {
					name = strings.ToLower(strings.TrimPrefix(v.Name, c.prefix))
				}
				if slices.Contains(c.also, name) {
					continue
				}
				found++
				if qt.Check(t, qt.IsTrue(v.Value < uint64(len(c.names))), qt.Commentf("the kernel has %s, %d", v.Name, v.Value)) {
					qt.Check(t, qt.Equals(c.names[v.Value], name))
				}
			}
			qt.Check(t, qt.IsTrue(found > 5))
		})
	}
	t.Run("flags", func(t *testing.T) {
		// The flags of a load are macros, which BTF does not have.
		want := map[string]uint64{
			"BPF_F_NO_PREALLOC": MapFlagNoPrealloc, "BPF_F_NO_COMMON_LRU": MapFlagNoCommonLRU, "BPF_F_NUMA_NODE": MapFlagNumaNode,
			"BPF_F_RDONLY": MapFlagRdOnly, "BPF_F_WRONLY": MapFlagWrOnly, "BPF_F_STACK_BUILD_ID": MapFlagStackBuildID,
			"BPF_F_ZERO_SEED": MapFlagZeroSeed, "BPF_F_RDONLY_PROG": MapFlagRdOnlyProg, "BPF_F_WRONLY_PROG": MapFlagWrOnlyProg,
			"BPF_F_CLONE": MapFlagClone, "BPF_F_MMAPABLE": MapFlagMmapable, "BPF_F_PRESERVE_ELEMS": MapFlagPreserveElems,
			"BPF_F_INNER_MAP": MapFlagInnerMap, "BPF_F_LINK": MapFlagLink, "BPF_F_VTYPE_BTF_OBJ_FD": MapFlagVtypeBTFObjFD,
			"BPF_F_TOKEN_FD": MapFlagTokenFD, "BPF_F_UPROBE_MULTI_RETURN": UprobeMultiFlagReturn, "BPF_F_KPROBE_MULTI_RETURN": KprobeMultiFlagReturn,
		}
		found := 0
		for typ, err := range kernel.All() {
			qt.Assert(t, qt.IsNil(err))
			enum, ok := typ.(*btf.Enum)
			if !ok {
				continue
			}
			for _, v := range enum.Values {
				if value, ok := want[v.Name]; ok {
					found++
					qt.Check(t, qt.Equals(v.Value, value), qt.Commentf("%s", v.Name))
				}
			}
		}
		qt.Check(t, qt.IsTrue(found >= 10), qt.Commentf("%d", found))
	})
}
