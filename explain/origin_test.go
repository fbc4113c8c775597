// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/load"
)

const stats = "\nprocessed 9 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0\n"

// Causes that the verifier says with the same words, told apart by what its log shows, each beside
// one that looks like it.
func TestOrigin(t *testing.T) {
	for _, tt := range []struct {
		name, log, progType string
		rule                string
		says, saysNot       string
		first               string // the first remedy
		not                 string // a remedy that is not among them
	}{
		{
			name: "a packet pointer from before a call that moves the packet",
			log: `0: R1=ctx() R10=fp0
0: (bf) r7 = r1                       ; R1=ctx() R7_w=ctx()
1: (61) r6 = *(u32 *)(r1 +76)         ; R1=ctx() R6_w=pkt(r=0)
2: (61) r8 = *(u32 *)(r1 +80)         ; R1=ctx() R8_w=pkt_end()
3: (b7) r2 = 64                       ; R2_w=64
4: (85) call bpf_skb_pull_data#39     ; R0_w=scalar()
5: (71) r0 = *(u8 *)(r6 +0)
R6 invalid mem access 'scalar'`,
			rule: "VER007", says: "It was a packet pointer, set at instruction 1. bpf_skb_pull_data at instruction 4 may move the packet", first: "reload-packet", not: "probe-read",
		},
		{
			name: "the same on 5.10, whose log shows no types after instructions",
			log: `0: (bf) r7 = r1
1: (61) r6 = *(u32 *)(r1 +76)
2: (b7) r2 = 64
3: (85) call bpf_skb_pull_data#39
4: (71) r0 = *(u8 *)(r6 +0)
R6 invalid mem access 'inv'`,
			rule: "VER007", says: "bpf_skb_pull_data at instruction 3", first: "reload-packet", not: "probe-read",
		},
		{
			name: "near miss: an address that was read from the packet",
			log: `0: R1=ctx() R10=fp0
1: (61) r6 = *(u32 *)(r1 +76)         ; R1=ctx() R6_w=pkt(r=8)
2: (79) r7 = *(u64 *)(r6 +0)          ; R6_w=pkt(r=8) R7_w=scalar()
3: (85) call bpf_skb_pull_data#39     ; R0_w=scalar()
4: (71) r0 = *(u8 *)(r7 +0)
R7 invalid mem access 'scalar'`,
			rule: "VER007", says: "It was read from memory at instruction 2", saysNot: "packet pointer", first: "probe-read",
		},
		{
			name: "near miss: the call was before the pointer was read",
			log: `0: R1=ctx() R10=fp0
0: (85) call bpf_skb_pull_data#39     ; R0_w=scalar()
1: (79) r6 = *(u64 *)(r7 +8)          ; R6_w=scalar() R7=ctx()
2: (71) r0 = *(u8 *)(r6 +0)
R6 invalid mem access 'scalar'`,
			rule: "VER007", says: "It was read from the context at instruction 1", saysNot: "packet pointer", first: "probe-read",
		},
		{
			name: "a pointer that came back from the stack as a number",
			log: `0: R1=ctx() R10=fp0
3: (85) call bpf_ringbuf_reserve#131  ; R0_w=mem(id=2,ref_obj_id=2,off=0,imm=0)
4: (bf) r6 = r0                       ; R0=mem(id=2) R6_w=mem(id=2)
5: (7b) *(u64 *)(r10 -16) = r6        ; R6_w=mem(id=2) R10=fp0
6: (85) call bpf_ktime_get_ns#5       ; R0_w=inv(id=0)
7: (79) r1 = *(u64 *)(r10 -16)        ; R1_w=inv(id=0) R10=fp0
8: (7b) *(u64 *)(r1 +0) = r0
R1 invalid mem access 'inv'`,
			rule: "VER007", says: "was saved on the stack at -16, and came back at instruction 7 as a number", first: "avoid-spill", not: "probe-read",
		},
		{
			name: "near miss: a number that was saved on the stack",
			log: `0: R1=ctx() R10=fp0
3: (79) r6 = *(u64 *)(r1 +104)        ; R1=ctx() R6_w=scalar()
5: (7b) *(u64 *)(r10 -16) = r6        ; R6_w=scalar() R10=fp0
7: (79) r1 = *(u64 *)(r10 -16)        ; R1_w=scalar() R10=fp0
8: (79) r0 = *(u64 *)(r1 +0)
R1 invalid mem access 'scalar'`,
			rule: "VER007", says: "It was read from the context at instruction 3", saysNot: "lose the type", first: "probe-read",
		},
		{
			name: "a pointer that was read from the arena",
			log: `0: R1=ctx() R10=fp0
2: (bf) r2 = addr_space_cast(r1, 0, 1) ; R1=scalar() R2_w=arena
3: (79) r3 = *(u64 *)(r2 +8)          ; R2=arena R3_w=scalar()
4: (79) r0 = *(u64 *)(r3 +0)
R3 invalid mem access 'scalar'`,
			rule: "VER007", says: "It was read from the arena at instruction 3", first: "arena-cast", not: "probe-read",
		},
		{
			name: "near miss: read from a map value beside an arena",
			log: `0: R1=ctx() R10=fp0
2: (bf) r2 = addr_space_cast(r1, 0, 1) ; R1=scalar() R2_w=arena
3: (79) r3 = *(u64 *)(r7 +8)          ; R3_w=scalar() R7=map_value(ks=4,vs=16)
4: (79) r0 = *(u64 *)(r3 +0)
R3 invalid mem access 'scalar'`,
			rule: "VER007", says: "It was read from a map value at instruction 3", saysNot: "arena", first: "probe-read",
		},
		{
			name: "what bpf_get_current_task returns",
			log: `0: R1=ctx() R10=fp0
0: (85) call bpf_get_current_task#35  ; R0_w=scalar()
1: (79) r0 = *(u64 *)(r0 +1000)
R0 invalid mem access 'scalar'`,
			rule: "VER007", says: "It is what bpf_get_current_task returned at instruction 0", first: "typed-task",
		},
		{
			name: "NULL",
			log: `0: R1=ctx() R10=fp0
0: (b7) r1 = 0                        ; R1_w=0
1: (79) r0 = *(u64 *)(r1 +0)
R1 invalid mem access 'scalar'`,
			rule: "VER007", says: "It is 0, set at instruction 0", first: "check-object", not: "probe-read",
		},
		{
			name: "near miss: the sentence alone leaves all of them open",
			log:  "R6 invalid mem access 'scalar'",
			rule: "VER007", says: "it may be an address of the kernel that was read from memory, a packet pointer from before a call", first: "probe-read",
		},
		{
			name: "the compiler moved the context pointer",
			log:  "3: (61) r0 = *(u32 *)(r1 +0)\ndereference of modified ctx ptr R1 off=16 disallowed", progType: "sched_cls",
			rule: "VER011", says: "The compiler added the offset of the field to the context pointer", first: "one-read", not: "context-field",
		},
		{
			name: "the compiler merged two reads",
			log:  "3: (79) r0 = *(u64 *)(r1 +24)\ninvalid bpf_context access off=24 size=8", progType: "sched_cls",
			rule: "VER011", says: "8 bytes at offset 24 of its context, where there are two fields of 4 bytes", first: "one-read", not: "context-field",
		},
		{
			name: "near miss: a field that this type has not",
			log:  "3: (61) r0 = *(u32 *)(r1 +140)\ninvalid bpf_context access off=140 size=4", progType: "sched_cls",
			rule: "VER011", saysNot: "merged", first: "context-field",
		},
		{
			name: "near miss: 8 bytes where the type has a field of 8 bytes that this kernel may lack",
			log:  "3: (79) r0 = *(u64 *)(r1 +184)\ninvalid bpf_context access off=184 size=8", progType: "sched_cls",
			rule: "VER011", saysNot: "merged", first: "context-field",
		},
		{
			name: "near miss: 8 bytes of a context of which nothing is known",
			log:  "3: (79) r0 = *(u64 *)(r1 +24)\ninvalid bpf_context access off=24 size=8", progType: "tracing",
			rule: "VER011", saysNot: "merged", first: "context-field",
		},
		{
			name: "a write above the frame",
			log:  "1: (7b) *(u64 *)(r10 +8) = r1\ninvalid write to stack R10 off=8 size=8",
			rule: "VER008", says: "at offset 8 above the top of its stack frame", first: "inside-frame", not: "percpu-scratch",
		},
		{
			name: "a key that is smaller than the map's",
			log:  "4: (85) call bpf_map_lookup_elem#1\ninvalid indirect access to stack R2 off=-4 size=8",
			rule: "VER008", says: "8 bytes from offset -4 on are used, and only 4 are left", first: "same-size", not: "percpu-scratch",
		},
		{
			name: "near miss: a variable that is too large for the stack",
			log:  "1: (7b) *(u64 *)(r10 -520) = r1\ninvalid write to stack R10 off=-520 size=8",
			rule: "VER008", saysNot: "top of", first: "percpu-scratch",
		},
		{
			name: "a map that the loader did not put in",
			log: `0: R1=ctx() R10=fp0
5: (b7) r1 = 0                        ; R1_w=0
6: (85) call bpf_map_lookup_elem#1
R1 type=scalar expected=map_ptr`,
			rule: "VER010", says: "R1 should be a map and is 0, set at instruction 5", first: "relocate-map", not: "right-argument",
		},
		{
			name: "near miss: a map value in place of the map",
			log: `0: R1=ctx() R10=fp0
5: (bf) r1 = r0                       ; R0=map_value(ks=4,vs=8) R1_w=map_value(ks=4,vs=8)
6: (85) call bpf_map_lookup_elem#1
R1 type=map_value expected=map_ptr`,
			rule: "VER010", saysNot: "loader", first: "right-argument",
		},
		{
			name: "a global function with a wrong argument",
			log: `0: R1=ctx() R10=fp0
5: (85) call pc+3
R1 type=ctx expected=fp
Caller passes invalid args into func#1 ('parse')`,
			rule: "VER025", says: "calls the global function parse with an argument that its declaration does not allow (R1 type=ctx expected=fp)",
		},
		{
			name: "near miss: the same words about a helper's argument",
			log: `0: R1=ctx() R10=fp0
5: (85) call bpf_map_lookup_elem#1
R2 type=ctx expected=fp`,
			rule: "VER010", first: "right-argument",
		},
		{
			name: "a helper that needs an option",
			log:  "5: (85) call bpf_override_return#58\nunknown func bpf_override_return#58", progType: "kprobe",
			rule: "FEAT002", says: "built with CONFIG_BPF_KPROBE_OVERRIDE",
		},
		{
			name: "a helper that struct_ops programs have with an option",
			log:  "5: (85) call bpf_probe_read_kernel#113\nprogram of this type cannot use helper bpf_probe_read_kernel#113", progType: "struct_ops",
			rule: "FEAT002", says: "built with CONFIG_BPF_EVENTS",
		},
		{
			name: "near miss: a helper of another program type",
			log:  "5: (85) call bpf_xdp_adjust_head#44\nunknown func bpf_xdp_adjust_head#44", progType: "kprobe",
			rule: "FEAT002", saysNot: "CONFIG_",
		},
		{
			name: "cilium/ebpf's poison for a weak kernel function",
			log:  "5: (85) call unknown#233685214\ninvalid func unknown#233685214", progType: "kprobe",
			rule: "FEAT006",
		},
		{
			name: "near miss: a number that is no poison",
			log:  "5: (85) call unknown#233685215\ninvalid func unknown#233685215", progType: "kprobe",
			rule: "FEAT001",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			opts := []option{unhooked(), log(tt.log + stats)}
			if tt.progType != "" {
				opts = append(opts, progType(tt.progType))
			}
			d := Explain(progLoad(13, opts...), lab("6.12.1"))
			qt.Check(t, qt.Equals(d.Rule, tt.rule))
			qt.Check(t, qt.StringContains(d.Cause, tt.says))
			if tt.saysNot != "" {
				qt.Check(t, qt.IsFalse(strings.Contains(d.Cause, tt.saysNot)), qt.Commentf("%s", d.Cause))
			}
			if tt.first != "" {
				qt.Check(t, qt.Equals(d.Remedies[0].ID, tt.first))
			}
			qt.Check(t, qt.IsFalse(slices.ContainsFunc(d.Remedies, func(r load.Remedy) bool { return r.ID == tt.not })), qt.Commentf("%s", tt.not))
		})
	}
}

// In a user namespace capabilities of a file count for nothing.
func TestUnprivilegedInUserNamespace(t *testing.T) {
	for level, want := range map[int]string{0: "grant-caps", 1: "delegate-token"} {
		a := progLoad(13, unhooked(), caps(0), log(reject("R1 pointer comparison prohibited")), set(func(a *load.Attempt) { a.Evidence.UserNSLevel = level }))
		d := Explain(a, lab("6.12.1"))
		qt.Check(t, qt.Equals(d.Rule, "PERM009"))
		qt.Check(t, qt.Equals(d.Remedies[0].ID, want))
	}
}
