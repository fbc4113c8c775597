// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

// The log tells where the value in a register came from, if it has the instructions before the
// failing one. The same complaint then has one cause instead of several.

var (
	packetChanges = lazyregexp.New(`^call bpf_(?:clone_redirect|l[34]_csum_replace|lwt_push_encap|lwt_seg6_\w+|msg_(?:pop|pull|push)_data|skb_(?:adjust_room|change_head|change_proto|change_tail|pull_data|store_bytes|vlan_pop|vlan_push)|store_hdr_opt|xdp_adjust_(?:head|meta|tail)|tail_call)#\d+`)
	calledHelper  = lazyregexp.New(`^call (\w+)#\d+`)
	readsMemory   = lazyregexp.New(`^[rw]\d+ = \*\([us]\d+ \*\)\((r\d+) ([+-]\d+)\)$`)
	isZero        = lazyregexp.New(`^[rw]\d+ = (?:0x)?0(?: ll)?$`)
	readsStack    = lazyregexp.New(`^r\d+ = \*\(u64 \*\)\(r10 (-\d+)\)$`)
)

// packetFields are the offsets of data, data_end and data_meta in __sk_buff: the log of kernels
// before 5.17 does not show what reading them gave.
var packetFields = []string{"+76", "+80", "+140"}

// typeAfter is the type that a step says a register has after it, "" where it does not say.
func typeAfter(s verifierlog.Step, reg string) string {
	for _, field := range strings.Fields(s.State) {
		name, value, ok := strings.Cut(field, "=")
		if name, _, _ = strings.Cut(name, "_"); ok && name == reg {
			return strings.TrimRight(value[:len(value)-len(strings.TrimLeft(value, "abcdefghijklmnopqrstuvwxyz_"))], "_")
		}
	}
	return ""
}

// origin is where a number came from that the program follows as a pointer.
type origin struct {
	cause   string
	first   []load.Remedy
	useless []string // remedies of the rule
}

// originOf looks for the origin of a register's value; false where the log does not show it.
func (f *Facts) originOf(reg string) (origin, bool) {
	steps := f.words.log.History(reg)
	if len(steps) == 0 {
		return origin{}, false
	}
	path := f.words.log.Path
	first := steps[0]
	from := len(path) - 1
	for from > 0 && path[from].Insn != first.Insn {
		from--
	}
	for _, find := range []func([]verifierlog.Step, []verifierlog.Step) (origin, bool){stalePacket, spilledPointer, arenaPointer, plainNumber} {
		if o, ok := find(steps, path[from:]); ok {
			return o, true
		}
	}
	return origin{}, false
}

// ownType is the type that the value had at one of its steps.
func ownType(s verifierlog.Step) string {
	if len(s.Text) < 2 || s.Text[0] != 'r' && s.Text[0] != 'w' {
		return ""
	}
	reg, _, _ := strings.Cut(s.Text[1:], " ")
	return typeAfter(s, "R"+reg)
}

// stalePacket: a packet pointer that a call in between made void.
func stalePacket(steps, path []verifierlog.Step) (origin, bool) {
	m := readsMemory.FindStringSubmatch(steps[0].Text)
	was := slices.ContainsFunc(steps, func(s verifierlog.Step) bool { return strings.HasPrefix(ownType(s), "pkt") })
	if !was && (m == nil || ownType(steps[0]) != "" || !slices.Contains(packetFields, m[2])) {
		return origin{}, false
	}
	last := steps[len(steps)-1].Insn
	for _, s := range slices.Backward(path[:len(path)-1]) {
		name := "the function that is called"
		if h := calledHelper.FindStringSubmatch(s.Text); h != nil {
			name = h[1]
		}
		if packetChanges.MatchString(s.Text) || was && strings.HasPrefix(s.Text, "call pc") {
			return origin{
				cause: fmt.Sprintf("It was a packet pointer, set at instruction %d. %s at instruction %d may move the packet, which makes all packet pointers void.",
					max(steps[0].Insn, min(last, s.Insn-1)), capital(name), s.Insn),
				first: []load.Remedy{{
					ID: "reload-packet", Title: "Read data and data_end from the context again after the call, and compare again",
					Price:   "Two loads and a branch.",
					Command: "data = (void *)(long)ctx->data; data_end = (void *)(long)ctx->data_end;",
				}},
				useless: []string{"probe-read"},
			}, true
		}
	}
	return origin{}, false
}

// spilledPointer: a pointer that went through the stack and came back as a number.
func spilledPointer(steps, _ []verifierlog.Step) (origin, bool) {
	for i, s := range steps {
		m := readsStack.FindStringSubmatch(s.Text)
		back := ownType(s)
		if m == nil || i == 0 || back != "scalar" && back != "inv" {
			continue
		}
		before := slices.IndexFunc(steps[:i], func(b verifierlog.Step) bool {
			t := ownType(b)
			return t != "" && t != "scalar" && t != "inv"
		})
		if before < 0 {
			continue
		}
		return origin{
			cause: fmt.Sprintf("It was a pointer (%s), was saved on the stack at %s, and came back at instruction %d as a number. Kernels before 5.10.10 lose the type of some pointers so; otherwise part of the place was overwritten.",
				ownType(steps[before]), m[1], s.Insn),
			first: []load.Remedy{{
				ID: "avoid-spill", Title: "Get the pointer again after the calls in between, or use it before them, so that the compiler need not save it",
				Price: "A second lookup; or a kernel from 5.10.10 on.",
			}},
			useless: []string{"probe-read"},
		}, true
	}
	return origin{}, false
}

// arenaPointer: what is read from an arena is a number until it is cast.
func arenaPointer(steps, path []verifierlog.Step) (origin, bool) {
	m := readsMemory.FindStringSubmatch(steps[0].Text)
	if m == nil {
		return origin{}, false
	}
	base := "R" + m[1][1:]
	inArena := slices.ContainsFunc(path, func(s verifierlog.Step) bool { return typeAfter(s, base) == "arena" })
	if !inArena {
		return origin{}, false
	}
	return origin{
		cause: fmt.Sprintf("It was read from the arena at instruction %d. A pointer into the arena is a number until it is cast.", steps[0].Insn),
		first: []load.Remedy{{
			ID: "arena-cast", Title: "Declare the pointer as __arena, so that the compiler casts it, or call cast_kern on it (bpf_arena_common.h)",
			Price: "clang 19 for the former.",
		}},
		useless: []string{"probe-read"},
	}, true
}

// plainNumber says where a value came from that never was a pointer to the verifier.
func plainNumber(steps, _ []verifierlog.Step) (origin, bool) {
	first := steps[0]
	if isZero.MatchString(first.Text) {
		return origin{
			cause: fmt.Sprintf("It is 0, set at instruction %d: NULL, or an address that the loader did not fill in (a map, a global variable, a __ksym).", first.Insn),
			first: []load.Remedy{{
				ID: "check-object", Title: "Compare the submitted instructions with the object: a relocation may be missing",
				Price: "Nothing.",
			}},
			useless: []string{"probe-read"},
		}, true
	}
	if m := readsMemory.FindStringSubmatch(first.Text); m != nil {
		where := map[string]string{"map_value": "a map value", "ctx": "the context", "fp": "the stack"}[typeAfter(first, "R"+m[1][1:])]
		if where == "" {
			where = "memory"
		}
		return origin{cause: fmt.Sprintf("It was read from %s at instruction %d, where the verifier knows no pointers of this kind: an address of the kernel, or of a process.", where, first.Insn)}, true
	}
	if h := calledHelper.FindStringSubmatch(first.Text); h != nil && !strings.HasPrefix(h[1], "bpf_map_lookup") {
		o := origin{cause: fmt.Sprintf("It is what %s returned at instruction %d, a number to the verifier.", h[1], first.Insn)}
		if h[1] == "bpf_get_current_task" {
			o.first = []load.Remedy{{
				ID: "typed-task", Title: "Call bpf_get_current_task_btf (5.11), which returns a typed pointer",
				Price: "Kernel 5.11, in tracing, LSM and iterator programs; elsewhere read by BPF_CORE_READ.",
			}}
		}
		return o, true
	}
	return origin{}, false
}

func capital(s string) string {
	if strings.HasPrefix(s, "bpf_") {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// otherOrigins are named where the log does not decide.
const otherOrigins = "The log does not show where the value came from: it may be an address of the kernel that was read from memory, " +
	"a packet pointer from before a call that may move the packet, or an arena pointer that was not cast."

// refineNumber tells the causes of a number used as a pointer apart.
func refineNumber(f *Facts, m *Match) {
	if t := f.words.arg("type"); t != "scalar" && t != "inv" {
		return
	}
	o, ok := f.originOf(f.words.arg("reg"))
	if !ok {
		m.Cause += " " + otherOrigins
		return
	}
	m.Cause += " " + o.cause
	m.First, m.Without = append(o.first, m.First...), append(m.Without, o.useless...)
}

// Types whose context has nothing but fields of 4 bytes up to this offset.
var narrowContexts = map[string]int{
	"xdp": 24, "socket_filter": 144, "sched_cls": 144, "sched_act": 144, "cgroup_skb": 144, "sk_skb": 144,
	"lwt_in": 144, "lwt_out": 144, "lwt_xmit": 144, "lwt_seg6local": 144, "cgroup_sock": 80,
}

var oneRead = load.Remedy{
	ID: "one-read", Title: "Keep the compiler from merging accesses: read the field once, through a volatile pointer, or put a barrier behind it",
	Price:   "An instruction; needed for some clang versions only.",
	Command: "__u32 len = *(volatile __u32 *)&ctx->len;",
}

// contextWrite is an instruction that writes to memory, as the verifier prints it.
var contextWrite = lazyregexp.New(`\*\(u(?:8|16|32|64) \*\)\(r\d+ ?[+-]\d+\) = `)

// refineContext tells an access that the compiler made of two, or moved, from a field that is not
// there.
func refineContext(f *Facts, m *Match) {
	off, _ := strconv.Atoi(f.words.arg("off"))
	t, known := f.progType()
	switch {
	case contextWrite.MatchString(f.words.insnText) && strings.Contains(f.words.message, "invalid bpf_context access"):
		m.Cause = fmt.Sprintf("The program writes to its context at offset %d, where nothing may be written: the field may only be read in this type of program, or there is none.", off)
		m.First = append(m.First, load.Remedy{ID: "no-write", Title: "Leave the write out, or write to a field that this type of program may write to", Price: "A change of the source."})
		m.Without = append(m.Without, "context-field")
	case strings.Contains(f.words.message, "dereference of modified"), strings.Contains(f.words.message, "variable ctx access"):
		m.Cause = "The compiler added the offset of the field to the context pointer, and follows the sum. The verifier takes accesses of the context only by the pointer itself, with a constant offset."
		m.First = append(m.First, oneRead)
		m.Without = append(m.Without, "context-field")
	case f.words.arg("size") == "8" && off >= 0 && known && off+8 <= narrowContexts[t]:
		m.Cause = fmt.Sprintf("The program reads 8 bytes at offset %d of its context, where there are two fields of 4 bytes each: the compiler merged two accesses, or the variable is wider than the field.", off)
		m.First = append(m.First, oneRead)
		m.Without = append(m.Without, "context-field")
	case f.words.arg("size") == "8" && off >= 0 && (!known || t == "") && off < 144:
		m.Cause = fmt.Sprintf("The program reads 8 bytes at offset %d of its context, and there is no such field in this type of program and kernel. If two fields of 4 bytes lie there, the compiler merged their accesses.", off)
		m.First = append(m.First, oneRead)
	}
}

// refineStack tells addresses above the frame, and variables that are smaller than what is done
// with them, from a stack that is too small.
func refineStack(f *Facts, m *Match) {
	off, errOff := strconv.Atoi(f.words.arg("off"))
	size, errSize := strconv.Atoi(f.words.arg("size"))
	if errOff != nil || errSize != nil || off < -512 {
		return
	}
	switch {
	case off >= 0:
		f.refineAboveFrame(m, off, size)
	case off+size > 0:
		m.Cause = fmt.Sprintf("%d bytes from offset %d on are used, and only %d are left to the top of the stack frame: the variable is smaller than what is done with it. For a map helper that is the key or value size of the map.", size, off, -off)
		m.First = append(m.First, load.Remedy{
			ID: "same-size", Title: "Give the variable the size that the helper uses: key_size and value_size of the map, or the length that is passed",
			Price: "Nothing.",
		})
	default:
		return
	}
	m.Without = append(m.Without, "percpu-scratch")
}

// refineArgument tells a map that the loader did not put in from a wrong argument.
func refineArgument(f *Facts, m *Match) {
	if n, err := strconv.ParseUint(f.words.arg("map_type"), 10, 32); err == nil && f.words.match.Kind == verifierlog.HelperMap {
		refineMapArgument(f, m, uint32(n))
		return
	}
	reg, have := f.words.arg("reg"), f.words.arg("type")
	if !strings.HasPrefix(f.words.arg("want"), "map_ptr") || have != "scalar" && have != "inv" {
		return
	}
	steps := f.words.log.History(reg)
	if len(steps) == 0 {
		m.Cause = fmt.Sprintf("%s should be a map and is a number: the loader did not put the map there, or the program passes something else.", reg)
	} else if last := steps[len(steps)-1]; isZero.MatchString(last.Text) {
		m.Cause = fmt.Sprintf("%s should be a map and is 0, set at instruction %d: the loader did not put the map there.", reg, last.Insn)
		m.Without = append(m.Without, "right-argument")
	} else {
		return
	}
	m.First = append(m.First, load.Remedy{
		ID: "relocate-map", Title: "Load with a library that knows this form of map definition: tc and ip need libbpf for maps in SEC(\".maps\") (ip -V names it), others know struct bpf_elf_map only",
		Price: "Another build of the loader, or map definitions in its form.",
	})
}

// helperMaps are the types of maps that a helper takes, for helpers that take few, by what their
// names begin with.
var helperMaps = []struct{ helper, types string }{
	{"bpf_ringbuf_", "ringbuf"}, {"bpf_user_ringbuf_", "user_ringbuf"}, {"bpf_perf_event_", "perf_event_array"}, {"bpf_skb_output", "perf_event_array"}, {"bpf_xdp_output", "perf_event_array"},
	{"bpf_tail_call", "prog_array"}, {"bpf_get_stackid", "stack_trace"}, {"bpf_redirect_map", "devmap, devmap_hash, cpumap or xskmap"}, {"bpf_sk_redirect_map", "sockmap"}, {"bpf_msg_redirect_map", "sockmap"},
	{"bpf_sk_storage_", "sk_storage"}, {"bpf_task_storage_", "task_storage"}, {"bpf_inode_storage_", "inode_storage"}, {"bpf_cgrp_storage_", "cgrp_storage"}, {"bpf_get_local_storage", "cgroup_storage"},
	{"bpf_skb_under_cgroup", "cgroup_array"}, {"bpf_current_task_under_cgroup", "cgroup_array"}, {"bpf_sk_select_reuseport", "reuseport_sockarray or sockmap"},
}

// refineMapArgument says which type of map a helper got, and which it takes.
func refineMapArgument(f *Facts, m *Match, number uint32) {
	name := printable(f.words.arg("name"), 60)
	m.Cause = fmt.Sprintf("The helper %s does not take a map of the type %s.", name, abi.MapTypeName(number))
	instead := "the right type"
	for _, h := range helperMaps {
		if strings.HasPrefix(name, h.helper) {
			m.Cause = fmt.Sprintf("The helper %s takes a map of the type %s, and the program gives it one of the type %s.", name, h.types, abi.MapTypeName(number))
			instead = "the type " + h.types
			break
		}
	}
	m.First = append(m.First, load.Remedy{ID: "map-type", Title: "Declare the map with " + instead + ", or use the helper that goes with the map", Price: "A change of the program."})
	m.Without = append(m.Without, "right-argument")
}

// refineCall says which argument of the global function was wrong.
func refineCall(f *Facts, m *Match) {
	if !strings.HasPrefix(f.words.message, "Caller passes") {
		return
	}
	who := "the global function"
	if n := f.words.arg("name"); n != "" {
		who = "the global function " + printable(n, 60)
	}
	m.Cause = fmt.Sprintf("The program calls %s with an argument that its declaration does not allow.", who)
	for _, l := range f.words.complaint {
		if l != f.words.message {
			m.Cause = fmt.Sprintf("The program calls %s with an argument that its declaration does not allow (%s).", who, l)
			return
		}
	}
}

// helperOptions are helpers that exist only in kernels that are built with an option.
var helperOptions = map[string]string{
	"bpf_override_return": "CONFIG_BPF_KPROBE_OVERRIDE",
}

// optionOf returns the configuration option that a refused helper depends on, "" where the node has
// it or there is none.
func (f *Facts) optionOf(helper string) string {
	option := helperOptions[helper]
	if t, _ := f.progType(); t == "struct_ops" && slices.Contains(readHelpers, helper) {
		option = "CONFIG_BPF_EVENTS"
	}
	if option == "" || f.Node.Config[option] == "y" {
		return ""
	}
	return option
}

// refineHelper names the option that a kernel must be built with to have a helper.
func (f *Facts) refineHelper(m *Match, helper string) bool {
	option := f.optionOf(helper)
	if option == "" {
		return false
	}
	m.Cause = fmt.Sprintf("%s exists only in kernels that are built with %s, and not for all program types.", printable(helper, 60), option)
	if f.Node.Config[option] != "" {
		m.Cause = fmt.Sprintf("%s exists only in kernels that are built with %s, and this one is not.", printable(helper, 60), option)
		m.Evidence = append(m.Evidence, fmt.Sprintf("%s is %s", option, f.Node.Config[option]))
	}
	return true
}
