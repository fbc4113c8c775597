// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// verdicts of the verifier: a message as a kernel prints it, and the rule.
var verdicts = []struct {
	rule    string
	errno   int
	message string
	cause   string // substring
}{
	{"VER001", 13, "R0 invalid mem access 'map_value_or_null'", "uses R0, a pointer that may be NULL"},
	{"VER001", 13, "R1 invalid mem access 'ptr_or_null_'", "R1"},
	{"VER001", 22, "Possibly NULL pointer passed to trusted arg0", "passes on a pointer"},
	{"VER002", 13, "R0 !read_ok", "reads R0, which has no value"},
	{"VER003", 13, "invalid access to map value, value_size=8 off=8 size=8\nR0 min value is outside of the allowed memory range", "accesses 8 bytes at offset 8 of a map value of 8 bytes"},
	{"VER003", 13, "R2 unbounded memory access, make sure to bounds check any such access", "R2"},
	{"VER004", 13, "invalid read from stack R10 off=-16 size=8", ""},
	{"VER004", 13, "invalid indirect read from stack R2 off -8+4 size 8", ""},
	{"VER004", 13, "invalid read from stack off -8+0 size 8", ""},
	{"VER005", 22, "Unreleased reference id=2 alloc_insn=7", "What instruction 7 acquired"},
	{"VER006", 13, "invalid access to packet, off=12 size=2, R3(id=0,off=12,r=0)\nR3 offset is outside of the packet", ""},
	{"VER007", 13, "R1 invalid mem access 'scalar'", "follows R1 as a pointer"},
	{"VER007", 13, "R1 invalid mem access 'inv'", "follows R1 as a pointer"},
	{"VER008", 13, "invalid write to stack R10 off=-520 size=8", ""},
	{"VER009", 13, "R1 pointer arithmetic with /= operator prohibited", ""},
	{"VER009", 13, "R2 32-bit pointer arithmetic prohibited", ""},
	{"VER010", 13, "R2 type=scalar expected=fp, pkt, pkt_meta, map_key, map_value", ""},
	{"VER010", 22, "cannot pass map_type 27 into func bpf_map_lookup_elem#1", ""},
	{"VER011", 13, "invalid bpf_context access off=4000 size=8", ""},
	{"VER012", 22, "back-edge from insn 2 to 0", ""},
	{"VER012", 22, "infinite loop detected at insn 1", ""},
	{"VER013", 22, "unreachable insn 2", ""},
	{"VER013", 22, "jump out of range from insn 1 to 12", ""},
	{"VER014", 22, "At program exit the register R0 has smin=5 smax=5 should have been in [0, 1]", ""},
	{"VER016", 13, "combined stack size of 2 calls is 832. Too large", ""},
	{"VER016", 7, "the call stack of 9 frames is too deep !", ""},
	{"VER017", 13, "misaligned stack access off 0+-3+0 size 8", ""},
	{"VER018", 22, "bpf_spin_unlock is missing", ""},
	{"VER019", 22, "div by zero", ""},
	{"VER019", 22, "invalid shift 64", ""},
	{"VER021", 13, "R1 cannot write into rdonly_mem", ""},
	{"VER022", 22, "helper call might sleep in a non-sleepable prog", ""},
	{"VER023", 13, "R2 unbounded memory access, use 'var &= const' or 'if (var < const)'", ""},
	{"VER023", 13, "R2 min value is negative, either use unsigned or 'var &= const'", ""},
	{"VER024", 22, "socket filter progs cannot use bpf_spin_lock yet", ""},
	{"VER025", 22, "Caller passes invalid args into func#1 ('f')", ""},
	{"VER026", 22, "Expected an initialized dynptr as arg #1", "not set up on this path"},
	{"VER026", 22, "expected uninitialized iter_num as arg #1", "sets up an iter_num gets one that is in use"},
	{"VER026", 22, "expected an initialized irq flag as R1", "The irq flag was not set up on this path"},
	{"VER026", 22, "cannot pass in dynptr at an offset=-12", "not the beginning of a dynptr"},
	{"VER027", 22, "map 'counts' has no valid bpf_timer", "value of map counts has no bpf_timer"},
	{"VER027", 22, "R1 doesn't have constant offset. bpf_spin_lock has to be at the constant offset", "the bpf_spin_lock has an offset that is not a constant"},
	{"VER027", 13, "bpf_timer cannot be accessed directly by load/store", "reads or writes a bpf_timer itself"},
	{"VER028", 22, "bpf_spin_lock at off=16 must be held for bpf_list_head", "A bpf_list_head is used while the lock beside it"},
	{"VER028", 22, "allocated object must be referenced", "The object is borrowed"},
	{"VER029", 22, "callback function not static", "A callback is a global function"},
	{"VER029", 22, "cannot tail call within exception cb", "may not throw, make tail calls"},
	{"VER030", 13, "access beyond struct sock at off 1704 size 4", "4 bytes at offset 1704 of struct sock, which is smaller: the pointer was cast to a larger struct"},
	{"VER030", 13, "access beyond the end of member comm (mend:2936) in struct task_struct with off 2936 size 8", "beyond the end of its member comm"},
	{"VER030", 13, "R1 is ptr_task_struct access user memory: off=8", "R1 points to user memory"},
	{"VER030", 13, "R1 invalid sock_common access off=60 size=4", "A sock_common has no field"},
	{"VER008", 13, "invalid indirect access to stack R2 off=-4 size=8", ""},
	{"VER010", 22, "R1 must be referenced or trusted", "R1 points to a kernel object that may be gone"},
	{"VER010", 22, "func bpf_sk_release#86 reference has not been acquired before", "releases something that it did not acquire"},
	{"VER016", 13, "tail_calls are not allowed when call stack of previous frames is 264 bytes. Too large", "called with 264 bytes of stack in use"},
	{"VER018", 22, "2 bpf_preempt_enables are missing", ""},
	{"VER021", 13, "no write support to tcp_sock at off 1704", "may write some fields of tcp_sock"},
	{"VER024", 7, "The total number of maps per program has reached the limit of 64", "more than 64 maps"},
	{"VER025", 22, "R1 type=ctx expected=fp\nCaller passes invalid args into func#1 ('f')", ""},
	{"VER099", 22, "BPF_LD_[ABS|IND] instructions not allowed for this program type", "LD_ABS and LD_IND read packets in socket filters"},
	{"FEAT003", 22, "Cannot access kernel 'struct task_struct' from non-GPL compatible program", "reads fields of the kernel's struct task_struct"},
	{"BTF005", 22, "attach to unsupported member foo of struct sched_ext_ops", "The struct_ops member foo does not exist in this kernel"},
	{"VER099", 22, "something that no kernel has said yet", "something that no kernel has said yet"},
	{"VER101", 7, "BPF program is too large. Processed 1000001 insn", "walked 1000001 instructions"},
	{"VER102", 7, "The sequence of 8193 jumps is too complex.", "8193 branches"},
	{"VER102", 14, "The sequence of 8193 jumps is too complex.", "8193 branches"},
	{"VER105", 7, "too many subprograms", ""},
	{"VER202", 14, "verifier bug: REG INVARIANTS VIOLATION (true_reg1)", ""},
	{"FEAT001", 22, "invalid func unknown#211", "Helper 211 is bpf_cgrp_storage_delete, which kernels have since 6.2"},
	{"FEAT001", 22, "invalid func unknown#9999", "No kernel known today has a helper with the number 9999"},
	{"FEAT002", 22, "unknown func bpf_xdp_adjust_head#44", "type socket_filter may not call bpf_xdp_adjust_head"},
	{"FEAT002", 22, "program of this type cannot use helper bpf_xdp_adjust_head#44", "type socket_filter may not call bpf_xdp_adjust_head"},
	{"FEAT003", 22, "cannot call GPL-restricted function from non-GPL compatible program", "licence is \"GPL\""},
	{"FEAT006", 13, "calling kernel function bpf_task_acquire is not allowed", "the kernel function bpf_task_acquire"},
	{"FEAT006", 22, "kernel btf_id 1 is not a function", ""},
	{"FEAT006", 22, "invalid func unknown#2002000003", ""},
	{"FEAT007", 524, "JIT does not support calling kernel function", ""},
	{"REQ002", 9, "fd 999 is not pointing to valid bpf_map", "file descriptor 999"},
	{"REQ006", 22, "unknown opcode ff", ""},
	{"REQ006", 22, "R12 is invalid", ""},
	{"REQ009", 22, "invalid func unknown#2001000003", ""},
	{"BTF001", 22, "invalid func unknown#195896080", "a kernel field or type that this kernel does not have"},
	{"BTF001", 22, "failed to resolve CO-RE relocation <byte_off> [7] struct task_struct.nope (0:1 @ offset 4)", "struct task_struct.nope"},
	{"BTF003", 22, "calling kernel function is not supported without CONFIG_DEBUG_INFO_BTF", ""},
	{"BTF004", 22, "func_info BTF section doesn't match subprog layout in BPF program", ""},
	{"BTF005", 22, "attach_btf_id 7 is not a function", ""},
	{"BTF005", 22, "The address of function tcp_foo cannot be found", ""},
}

func verdictFixtures() []fixture {
	var all []fixture
	for _, v := range verdicts {
		stage := load.Verifier
		if strings.HasPrefix(v.rule, "BTF") {
			stage = load.BTF
		}
		fx := fixture{
			rule: v.rule, how: load.Observed, stage: stage,
			node: lab("6.1.0-49-cloud-amd64"),
		}
		if v.cause != "" {
			fx.evidence = []string{v.cause}
		}
		first, _, _ := strings.Cut(v.message, "\n")
		// The same words in the loader's log without any hook, and read from the
		// verifier with hooks.
		fx.name = v.rule + " by the log: " + first
		fx.attempt = progLoad(v.errno, unhooked(), log(reject(v.message)))
		all = append(all, fx)
		fx.name = v.rule + " by the kernel's words: " + first
		fx.attempt = progLoad(v.errno, with(early(v.errno), said(strings.Split(v.message, "\n")...))...)
		all = append(all, fx)
	}
	return all
}

// nearMisses have the errno of a well-known cause, and another cause or none.
var nearMisses = []fixture{
	// -524.
	{
		name:    "524, harden 2, but the program fits with room to spare, and the loader is exempt from the limit: not blinding",
		attempt: progLoad(524, harden(2), insns(movR0, exit), unhooked(), log(cleanLog)),
		node:    hardenedHost("net.core.bpf_jit_harden", "2"),
		rule:    "JIT002", how: load.Inferred, stage: load.JIT,
	},
	{
		name:    "524, harden 2, and the instructions were not captured: blinding or the machine's JIT",
		attempt: progLoad(524, harden(2), unhooked(), log(cleanLog)),
		node:    hardenedHost("net.core.bpf_jit_harden", "2"),
		rule:    Unknown, how: load.Inferred, stage: load.JIT,
		others: []string{"BLIND001", "JIT002"},
	},
	{
		name:    "524 and nothing else is known: every cause is named, none is chosen",
		attempt: progLoad(524, capsUnknown(), unhooked()),
		node:    nil,
		rule:    Unknown, how: load.Inferred, stage: load.JIT,
		others: []string{"FEAT007", "BLIND001", "JIT001", "JIT002"},
	},
	{
		name:    "524, harden 0, exempt loader: what is left is the machine's JIT",
		attempt: progLoad(524, harden(0), insns(movR0, exit), unhooked(), log(cleanLog)),
		node:    hardenedHost(),
		rule:    "JIT002", how: load.Inferred, stage: load.JIT,
	},
	{
		name:    "524, unprivileged, harden 0: the memory limit, or the machine's JIT",
		attempt: progLoad(524, harden(0), caps(0), insns(movR0, exit), unhooked(), log(cleanLog)),
		node:    hardenedHost(),
		rule:    "JIT001", how: load.Inferred, stage: load.JIT,
		others: []string{"JIT002"},
	},
	{
		name:    "524, unprivileged, and the memory is known to be nearly all used",
		attempt: progLoad(524, harden(0), caps(0), insns(movR0, exit), unhooked()),
		node:    jitUsed(hardenedHost("net.core.bpf_jit_limit", "528482304"), 528400000),
		rule:    "JIT001", how: load.Inferred, stage: load.JIT,
		evidence: []string{"compiled programs took 528400000 of 528482304 bytes"},
	},
	{
		name: "524, unprivileged: nearly all used by then, though not when the node was looked at",
		attempt: progLoad(524, harden(0), caps(0), insns(movR0, exit), unhooked(),
			set(func(a *load.Attempt) { a.Evidence.Sysctls = map[string]string{load.JITUsed: "528400000"} })),
		node: jitUsed(hardenedHost("net.core.bpf_jit_limit", "528482304"), 4096),
		rule: "JIT001", how: load.Inferred, stage: load.JIT,
		evidence: []string{"compiled programs took 528400000 of 528482304 bytes"},
	},
	{
		name:    "524, a jump that would not fit, but harden 0: not blinding",
		attempt: progLoad(524, harden(0), jump(3, 19300, 38755, 32767), insns(movR0, exit), unhooked()),
		node:    hardenedHost(),
		rule:    "JIT002", how: load.Inferred, stage: load.JIT,
	},
	{
		name:    "524, harden 1, and a loader with CAP_BPF is not blinded",
		attempt: progLoad(524, harden(1), caps(bpfCap), jump(3, 19300, 38755, 32767), insns(movR0, exit), unhooked()),
		node:    hardenedHost("net.core.bpf_jit_harden", "1"),
		rule:    "JIT002", how: load.Inferred, stage: load.JIT,
	},
	{
		name: "524 with blinding seen to succeed: the JIT itself",
		attempt: progLoad(524, harden(2), hooked(load.JIT, 524, load.Request, load.Permission, load.Verifier, load.Blinding),
			spans(load.Span{Function: load.FnJIT, Unjited: true}, span(load.FnSelect, -524), span(load.FnLoad, -524))),
		node: lab("6.1.0-49-cloud-amd64", "net.core.bpf_jit_harden", "2"),
		rule: "JIT002", how: load.Observed, stage: load.JIT,
		evidence: []string{"returned the program un-jited"},
	},
	{
		name: "a blinding that failed without harm and a log that was too small",
		attempt: progLoad(28, harden(2), log("0: R1=ctx"), hooked(load.Verifier, 28, load.Request, load.Permission),
			benign(spanArg(load.FnPatch, -34, 40), span(load.FnBlind, -34), span(load.FnJITSubprogs, -524)), spans(span(load.FnCheck, -28), span(load.FnLoad, -28))),
		node: lab("6.12.12", "net.core.bpf_jit_harden", "2"),
		rule: "REQ004", how: load.Observed, stage: load.Verifier,
	},
	{
		name:    "524, the log names a kernel function that this JIT cannot call",
		attempt: progLoad(524, harden(2), unhooked(), insns(kfunc, exit), log(reject("JIT does not support calling kernel function"))),
		node:    hardenedHost("net.core.bpf_jit_harden", "2"),
		rule:    "FEAT007", how: load.Observed, stage: load.Verifier,
	},
	{
		name:    "524, the log of 7.1 and newer names the patch",
		attempt: progLoad(524, harden(2), unhooked(), log(reject("insn 10385 cannot be patched due to 16-bit range"))),
		node:    lab("7.2.13", "net.core.bpf_jit_harden", "2"),
		rule:    "BLIND001", how: load.Observed, stage: load.Blinding,
	},
	{
		name: "524 of 7.2 for per-CPU data: the patch is named behind the statistics",
		attempt: progLoad(524, harden(2), unhooked(), insns(movR0, exit), log("verification time 3243986 usec\nstack depth 0 max 0\ninsns processed 32010\n"+
			"processed 32010 insns (limit 1000000) max_states_per_insn 0 total_states 1 peak_states 1 mark_read 0\ninsn 24517 cannot be patched due to 16-bit range\n")),
		node: lab("7.2.13", "net.core.bpf_jit_harden", "2"),
		rule: "BLIND001", how: load.Observed, stage: load.Blinding,
	},
	{
		name:    "ENOMEM from the verifier's own rewriting: the same words, and not blinding",
		attempt: progLoad(12, with(early(12), said("insn 7 cannot be patched due to 16-bit range"), benign(), spans(spanArg(load.FnPatch, -34, 7)))...),
		node:    lab("6.12.12", "net.core.bpf_jit_harden", "2"),
		rule:    "VER104", how: load.Observed, stage: load.Verifier,
	},
	{
		name: "EINVAL because the interpreter cannot do callbacks: the cause is blinding",
		attempt: progLoad(22, harden(2), insns(selfCall, exit, movR0, exit), log(reject("callbacks are not allowed in non-JITed programs")),
			hooked(load.Blinding, 34, load.Request, load.Permission, load.Verifier),
			spans(spanArg(load.FnPatch, -34, 40), span(load.FnBlind, -34), load.Span{Function: load.FnJIT, Unjited: true}, span(load.FnJITSubprogs, -524), span(load.FnCheck, -22), span(load.FnLoad, -22))),
		node: lab("6.12.12", "net.core.bpf_jit_harden", "2"),
		rule: "BLIND002", how: load.Observed, stage: load.Blinding,
	},
	{
		name:    "EINVAL because the interpreter cannot do callbacks, no hooks: derived from the program",
		attempt: progLoad(22, harden(2), insns(selfCall, exit, movR0, exit), jump(3, 19300, 38755, 32767), unhooked(), log(reject("callbacks are not allowed in non-JITed programs"))),
		node:    lab("6.12.12", "net.core.bpf_jit_harden", "2"),
		rule:    "BLIND002", how: load.Inferred, stage: load.Blinding,
	},
	{
		name:    "EINVAL of 7.2 for per-CPU data, which the interpreter cannot reach: derived from the program",
		attempt: progLoad(22, harden(2), insns(movR0, exit), jump(3, 19300, 38755, 32767), unhooked(), log(reject("program requires BPF JIT compiler but it is not available"))),
		node:    lab("7.2.13", "net.core.bpf_jit_harden", "2"),
		rule:    "BLIND001", how: load.Inferred, stage: load.Blinding,
	},
	{
		name: "the same with the log that 7.2 writes, which names the patch first: blinding, of a program with functions",
		attempt: progLoad(22, harden(2), insns(selfCall, exit, movR0, exit), jump(5, 32010, 33033, 32767), unhooked(),
			log("insn 24519 cannot be patched due to 16-bit range\nprogram requires BPF JIT compiler but it is not available\nverification time 2655306 usec\n"+
				"stack depth 0+0 max 0\ninsns processed 32013\nprocessed 32013 insns (limit 1000000) max_states_per_insn 0 total_states 1 peak_states 1 mark_read 0\n")),
		node: lab("7.2.13", "net.core.bpf_jit_harden", "2"),
		rule: "BLIND002", how: load.Inferred, stage: load.Blinding,
	},
	{
		name:    "EINVAL of 7.2 for per-CPU data, and harden 0: the JIT is switched off",
		attempt: progLoad(22, unhooked(), log(reject("program requires BPF JIT compiler but it is not available"))),
		node:    lab("7.2.13", "net.core.bpf_jit_enable", "0"),
		rule:    "JIT003", how: load.Inferred, stage: load.JIT,
	},
	{
		name:    "EINVAL because the interpreter cannot do callbacks, and the JIT is off",
		attempt: progLoad(22, unhooked(), log(reject("callbacks are not allowed in non-JITed programs"))),
		node:    lab("6.12.12", "net.core.bpf_jit_enable", "0"),
		rule:    "JIT003", how: load.Inferred, stage: load.JIT,
	},
	{
		name:    "seccomp filter on 32-bit ARM: the limit and the JIT are as likely",
		attempt: attempt(load.Seccomp, 524, caps(0), unhooked()),
		node:    machine(hardenedHost(), "armv7l"),
		rule:    "JIT001", how: load.Inferred, stage: load.JIT,
		others: []string{"JIT002"},
	},

	// Loaded, and interpreted.
	{
		name:    "interpreted because the JIT is off",
		attempt: unjitedLoad(unhooked()),
		node:    lab("6.12.12", "net.core.bpf_jit_enable", "0"),
		rule:    "JIT003", how: load.Inferred, stage: load.JIT,
		evidence: []string{"net.core.bpf_jit_enable was 0"},
	},
	{
		name:    "interpreted, blinded by harden 2, no hooks, and the model says why",
		attempt: unjitedLoad(harden(2), insns(movR0, exit), jump(3, 19300, 38755, 32767), unhooked()),
		node:    lab("6.12.12", "net.core.bpf_jit_harden", "2"),
		rule:    "BLIND003", how: load.Inferred, stage: load.Blinding,
	},
	{
		name:    "interpreted, and nothing is known",
		attempt: unjitedLoad(capsUnknown()),
		node:    nil,
		rule:    "JIT004", how: load.Inferred, stage: load.JIT,
		others: []string{"BLIND003", "JIT001", "JIT002"},
	},

	{
		name: "interpreted, and the kernel has cleared its request for blinding",
		attempt: unjitedLoad(harden(2), insns(selfCall, exit, movR0, exit), jump(3, 19300, 38755, 32767), unhooked(),
			set(func(a *load.Attempt) { no := false; a.Evidence.BlindingAsked = &no })),
		node: lab("7.2.13", "net.core.bpf_jit_harden", "2"),
		rule: "BLIND003", how: load.Inferred, stage: load.Blinding,
	},

	// EPERM.
	{
		name:    "EPERM and nothing else is known",
		attempt: progLoad(1, progType("xdp"), capsUnknown(), unhooked()),
		node:    nil,
		rule:    Unknown, how: load.Inferred, stage: load.Permission,
		others: []string{"PERM001", "PERM002", "PERM005", "PERM007"},
	},
	{
		name:    "EPERM, all capabilities, 6.18, BPF LSM: not memlock and not a capability",
		attempt: progLoad(1, progType("xdp"), unhooked(), memlock(64<<10)),
		node:    lsms(hardenedHost("kernel.unprivileged_bpf_disabled", "2"), "capability", "bpf"),
		rule:    "PERM005", how: load.Inferred, stage: load.Permission,
	},
	{
		name:    "EPERM, no capability, 5.10, tiny memlock: the capability is asked first",
		attempt: progLoad(1, progType("kprobe"), caps(0), unhooked(), memlock(64<<10)),
		node:    lab("5.10.0-30-cloud-amd64"),
		rule:    "PERM001", how: load.Inferred, stage: load.Permission,
	},
	{
		name:    "EPERM, CAP_BPF and CAP_PERFMON for a kprobe on 5.4: it wants CAP_SYS_ADMIN",
		attempt: progLoad(1, progType("kprobe"), caps(bpfCap|perfmonCap), unhooked(), memlock(unlimited)),
		node:    lab("5.4.0-200-generic"),
		rule:    "PERM001", how: load.Inferred, stage: load.Permission,
		evidence: []string{"needs CAP_SYS_ADMIN"},
	},
	{
		name: "EPERM by a security module, seen",
		attempt: progLoad(1, progType("xdp"), hooked(load.Permission, 1, load.Request), benign(spanArg(load.FnCapable, -1, abi.CapBPF)),
			spans(span(load.FnLSMLoad, -1), span(load.FnLoad, -1))),
		node: lab("6.12.12"),
		rule: "PERM005", how: load.Observed, stage: load.Permission,
		evidence: []string{"security_bpf_prog_load returned -1 (EPERM)"},
	},
	{
		name:    "EACCES before the verifier, on SELinux",
		attempt: progLoad(13, hooked(load.Permission, 13, load.Request)),
		node:    lsms(lab("6.12.12"), "capability", "selinux"),
		rule:    "PERM005", how: load.Inferred, stage: load.Permission,
	},
	{
		name:    "EACCES without a log and without hooks: the verifier, and SELinux beside it",
		attempt: progLoad(13, unhooked()),
		node:    lsms(hardenedHost(), "capability", "selinux"),
		rule:    "VER099", how: load.Inferred, stage: load.Verifier,
		others: []string{"PERM005"},
	},
	{
		name:    "EPERM on the way, and then the verifier: a refused capability alone proves nothing",
		attempt: progLoad(13, with(rejected(13), caps(0), benign(spanArg(load.FnCapable, -1, abi.CapPerfmon)), said("R0 !read_ok"))...),
		node:    lab("6.12.12"),
		rule:    "VER002", how: load.Observed, stage: load.Verifier,
	},
	{
		name:    "a call without a beginning while events were lost",
		attempt: attempt(load.OtherCommand, 1, set(func(a *load.Attempt) { a.Evidence.EnterSeen, a.Evidence.SeccompMode, a.Incomplete = false, 2, true })),
		node:    hardenedHost(),
		rule:    "PERM006", how: load.Inferred, stage: load.Request,
	},
	{
		name:    "a pointer that leaks, from an unprivileged loader",
		attempt: progLoad(13, unhooked(), caps(0), log(reject("R0 leaks addr as return value"))),
		node:    hardenedHost(),
		rule:    "PERM009", how: load.Observed, stage: load.Verifier,
	},
	{
		name:    "functions of its own, unprivileged, EPERM with a log",
		attempt: progLoad(1, unhooked(), caps(0), log("loading/calling other bpf or kernel functions are allowed for CAP_BPF and CAP_SYS_ADMIN\nprocessed 0 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0\n")),
		node:    hardenedHost(),
		rule:    "PERM009", how: load.Observed, stage: load.Verifier,
	},
	{
		name:    "libbpf's token probe",
		attempt: attempt(load.TokenCreate, 95, unhooked()),
		node:    hardenedHost(),
		rule:    "PERM010", how: load.Inferred, stage: load.Permission,
	},

	// Helpers.
	{
		name:    "bpf_probe_read_kernel refused to a kprobe, and lockdown is not known: nothing else takes it away",
		attempt: progLoad(22, progType("kprobe"), unhooked(), log(reject("unknown func bpf_probe_read_kernel#113"))),
		node:    locked(hardenedHost(), ""),
		rule:    "PERM003", how: load.Inferred, stage: load.Permission,
		evidence: []string{"every kernel allows this helper to programs of type kprobe, unless lockdown is on"},
	},
	{
		name:    "bpf_probe_read_kernel refused to a type that may not have it, and lockdown is not known",
		attempt: progLoad(22, progType("sk_lookup"), unhooked(), log(reject("unknown func bpf_probe_read_kernel#113"))),
		node:    locked(hardenedHost(), ""),
		rule:    "FEAT002", how: load.Observed, stage: load.Verifier,
		others: []string{"PERM003"},
	},
	{
		name:    "bpf_probe_read refused to a kprobe of s390, which cannot tell kernel and user addresses apart",
		attempt: progLoad(22, progType("kprobe"), unhooked(), log(reject("unknown func bpf_probe_read#4"))),
		node:    machine(locked(hardenedHost(), ""), "s390x"),
		rule:    "FEAT002", how: load.Observed, stage: load.Verifier,
		others: []string{"PERM003"},
	},
	{
		name:    "bpf_probe_read_kernel refused, no lockdown, no CAP_PERFMON",
		attempt: progLoad(22, unhooked(), caps(bpfCap), log(reject("unknown func bpf_probe_read_kernel#113"))),
		node:    hardenedHost(),
		rule:    "FEAT002", how: load.Observed, stage: load.Verifier,
		evidence: []string{"The loader lacks CAP_PERFMON"},
	},
	{
		name:    "another helper refused under lockdown",
		attempt: progLoad(22, unhooked(), log(reject("unknown func bpf_xdp_adjust_head#44"))),
		node:    locked(hardenedHost(), "confidentiality"),
		rule:    "FEAT002", how: load.Observed, stage: load.Verifier,
	},
	{
		name:    "helper newer than the kernel, no log, the verifier seen stopping at the call",
		attempt: progLoad(22, with(rejected(22), insns(call(211), exit), failedInsn(0))...),
		node:    lab("5.10.0-30-cloud-amd64"),
		rule:    "FEAT001", how: load.Observed, stage: load.Verifier,
		evidence: []string{"bpf_cgrp_storage_delete"},
	},
	{
		name:    "CO-RE poison, no log, the verifier seen stopping at the call",
		attempt: progLoad(22, with(rejected(22), insns(call(coreRelocationPoison), exit), failedInsn(0), line(0, "probe.c", 42, "x = BPF_CORE_READ(task, state);"))...),
		node:    lab("6.12.12"),
		rule:    "BTF001", how: load.Observed, stage: load.BTF,
		evidence: []string{`at probe.c:42 "x = BPF_CORE_READ(task, state);"`},
	},
	{
		name:    "kfunc refused, no log, seen before do_check",
		attempt: progLoad(22, with(early(22), insns(kfunc, exit))...),
		node:    lab("6.12.12"),
		rule:    "FEAT006", how: load.Inferred, stage: load.Verifier,
	},

	// Requests.
	{
		name:    "5000 instructions, unprivileged",
		attempt: progLoad(7, insnCount(5000), caps(0), unhooked()),
		node:    hardenedHost(),
		rule:    "VER103", how: load.Inferred, stage: load.Request,
	},
	{
		name:    "E2BIG and nothing else: too complex, or a field that is not known",
		attempt: progLoad(7, unhooked(), attr(160, 1)),
		node:    hardenedHost(),
		rule:    Unknown, how: load.Inferred, stage: "",
		others: []string{"REQ003", "VER099", "VER101"},
	},
	{
		name:    "E2BIG seen before the verifier: the attributes",
		attempt: progLoad(7, hooked(load.Request, 7), attr(180, 1)),
		node:    lab("6.12.12"),
		rule:    "REQ003", how: load.Observed, stage: load.Request,
		evidence: []string{"the last byte that is not zero is 180"},
	},
	{
		name:    "E2BIG seen in do_check without a word: too complex",
		attempt: progLoad(7, with(rejected(7), insnCount(300))...),
		node:    lab("6.12.12"),
		rule:    "VER101", how: load.Observed, stage: load.Verifier,
		evidence: []string{"the program itself has 300"},
	},
	{
		name:    "log buffer too small, no hooks",
		attempt: progLoad(28, unhooked(), log("0: R1=ctx() R10=fp0")),
		node:    hardenedHost(),
		rule:    "REQ004", how: load.Inferred, stage: load.Verifier,
	},
	{
		name: "log buffer too small for the log of a rejection",
		attempt: progLoad(28, log("0: R1=ctx() R10=fp0"), hooked(load.Verifier, 13, load.Request, load.Permission),
			spans(span(load.FnDoCheck, -13), span(load.FnCheck, -28), span(load.FnLoad, -28))),
		node: lab("6.1.0-49-cloud-amd64"),
		rule: "REQ004", how: load.Observed, stage: load.Verifier,
		evidence: []string{"The verdict was a rejection: do_check_common returned -13 (EACCES)"},
	},
	{
		name:    "attributes that cannot be read",
		attempt: progLoad(14, hooked(load.Request, 14), set(func(a *load.Attempt) { a.Evidence.Attr = nil })),
		node:    lab("6.12.12"),
		rule:    "REQ005", how: load.Observed, stage: load.Request,
	},
	{
		name:    "EINVAL seen before the verifier",
		attempt: progLoad(22, hooked(load.Request, 22), attr(attrProgFlags, 1<<30)),
		node:    lab("6.12.12"),
		rule:    "REQ007", how: load.Observed, stage: load.Request,
		evidence: []string{"prog_flags were 0x40000000"},
	},
	{
		name:    "EINVAL for a program type that this kernel does not have",
		attempt: progLoad(22, hooked(load.Request, 22), progType("netfilter"), attr(attrProgType, 32)),
		node:    lab("6.1.0-49-cloud-amd64"),
		rule:    "FEAT004", how: load.Observed, stage: load.Request,
		others: []string{"REQ007"},
	},
	{
		name:    "EINVAL and nothing else",
		attempt: progLoad(22, unhooked()),
		node:    hardenedHost(),
		rule:    Unknown, how: load.Inferred, stage: "",
		others: []string{"REQ007", "VER099"},
	},
	{
		name:    "EINVAL and nothing else, for a type that may not be built in",
		attempt: progLoad(22, unhooked(), progType("lirc_mode2"), attr(attrProgType, 24)),
		node:    hardenedHost(),
		rule:    Unknown, how: load.Inferred, stage: "",
		others: []string{"REQ007", "FEAT004", "VER099"},
	},
	{
		name: "a log level without a buffer",
		attempt: progLoad(22, unhooked(), attr(attrLogLevel, 1), set(func(a *load.Attempt) {
			a.Evidence.LogLevel = 1
		})),
		node: lab("5.10.0-30-cloud-amd64"),
		rule: "REQ008", how: load.Inferred, stage: load.Request,
		others: []string{"REQ007"},
	},
	{
		name:    "EINVAL after a clean verification, with a prog array",
		attempt: progLoad(22, unhooked(), log(cleanLog), progArray("jumps")),
		node:    hardenedHost(),
		rule:    "TAIL001", how: load.Inferred, stage: load.JIT,
		evidence: []string{`the prog array "jumps" (id 9)`},
	},
	{
		name:    "the descriptor is refused after everything else",
		attempt: progLoad(13, hooked(load.Install, 13, load.Request, load.Permission, load.Verifier, load.JIT), spans(span(load.FnNewFD, -13), span(load.FnLoad, -13))),
		node:    lab("6.12.12"),
		rule:    "INST002", how: load.Observed, stage: load.Install,
	},
	{
		name:    "no memory",
		attempt: progLoad(12, hooked(load.Resources, 12, load.Request, load.Permission)),
		node:    lab("6.12.12"),
		rule:    "RES001", how: load.Inferred, stage: load.Resources,
	},

	{
		name: "a complaint counts for more than statistics behind it",
		attempt: progLoad(7, log(reject("The sequence of 8193 jumps is too complex.")), set(func(a *load.Attempt) {
			a.Stages = []load.StageResult{{Stage: load.Verifier, Result: load.OK}}
		})),
		node: lab("7.2.13"),
		rule: "VER102", how: load.Observed, stage: load.Verifier,
	},

	// Instructions newer than the kernel.
	{
		name:    "unknown opcode at an ordinary instruction",
		attempt: progLoad(22, with(rejected(22), insns(insn.Instruction{Code: 0xff}, gotol, exit), failedInsn(0), said("unknown opcode ff"))...),
		node:    lab("6.1.0-49-cloud-amd64"),
		rule:    "REQ006", how: load.Observed, stage: load.Verifier,
	},

	{
		name:    "a call of a kernel function on a kernel from before there were any",
		attempt: progLoad(22, with(rejected(22), insns(kfunc, exit), failedInsn(0), said("BPF_CALL uses reserved fields"))...),
		node:    lab("5.10.0-30-cloud-amd64"),
		rule:    "FEAT006", how: load.Observed, stage: load.Verifier,
	},
	{
		name: "the address of a function on 5.10, in a program that has older new instructions too",
		attempt: progLoad(22, with(early(22), said("unrecognized bpf_ld_imm64 insn"),
			insns(insn.Instruction{Code: insn.ClassJMP32 | insn.OpJEQ}, insn.Instruction{Code: insn.OpcodeLoadImm64, Src: insn.PseudoFunc, Imm: 2}, insn.Instruction{}, exit))...),
		node: lab("5.10.0-30-cloud-amd64"),
		rule: "FEAT008", how: load.Observed, stage: load.Verifier,
		evidence: []string{"the address of a function (a callback, 5.13) at instruction 1"},
	},
	{
		name:    "a damaged 64-bit load is not a new instruction",
		attempt: progLoad(22, with(early(22), said("invalid bpf_ld_imm64 insn"), insns(gotol, insn.Instruction{Code: insn.OpcodeLoadImm64}, exit))...),
		node:    lab("6.1.0-49-cloud-amd64"),
		rule:    "REQ006", how: load.Observed, stage: load.Verifier,
	},
	{
		name:    "a BTF descriptor that is not open",
		attempt: progLoad(9, with(early(9), insns(movR0, exit), attr(72, 99), attr(88, 1))...),
		node:    lab("6.1.0-49-cloud-amd64"),
		rule:    "BTF004", how: load.Observed, stage: load.BTF,
	},
	{
		name:    "a descriptor that is not open: of BTF, or of a map",
		attempt: progLoad(9, unhooked(), insns(mapFD(7), insn.Instruction{}, exit), attr(72, 99), attr(88, 1)),
		node:    hardenedHost(),
		rule:    "REQ002", how: load.Inferred, stage: load.Verifier,
		others: []string{"REQ007", "BTF004"},
	},

	// Rejects without a word and without hooks: what the instructions say.
	{
		name:    "EACCES: the result of a lookup is followed at once",
		attempt: progLoad(13, unhooked(), insns(mapFD(5), insn.Instruction{}, call(1), movR0to(3), loadVia(3, 0), exit)),
		node:    hardenedHost(),
		rule:    "VER001", how: load.Inferred, stage: load.Verifier,
		others:   []string{"VER003", "VER007", "VER099"},
		evidence: []string{"derived from the submitted instructions: instruction 4"},
	},
	{
		name:    "EACCES: the result of a lookup is compared first: nothing singles a cause out",
		attempt: progLoad(13, unhooked(), insns(mapFD(5), insn.Instruction{}, call(1), ifR0(1), loadVia(0, 8), exit)),
		node:    hardenedHost(),
		rule:    "VER099", how: load.Inferred, stage: load.Verifier,
		others: []string{"VER001", "VER003", "VER007"},
	},
	{
		name: "EACCES: behind the end of the only map's value",
		attempt: progLoad(13, unhooked(), insns(mapFD(5), insn.Instruction{}, call(1), ifR0(1), loadVia(0, 8), exit),
			set(func(a *load.Attempt) { a.Evidence.Maps = []load.MapRef{{Type: abi.MapTypeArray, ValueSize: 8}} })),
		node: hardenedHost(),
		rule: "VER003", how: load.Inferred, stage: load.Verifier,
		others:   []string{"VER001", "VER007", "VER099"},
		evidence: []string{"bytes 8 to 15 of a map value, and the largest value of its maps has 8"},
	},
	{
		name:    "EACCES: a register that nothing writes",
		attempt: progLoad(13, unhooked(), insns(insn.Instruction{Code: insn.ClassALU64 | insn.OpMOV | insn.SourceX, Dst: 0, Src: 5}, exit)),
		node:    hardenedHost(),
		rule:    "VER002", how: load.Inferred, stage: load.Verifier,
		others:   []string{"VER099"},
		evidence: []string{"reads R5 at instruction 0, and no path to there gives it a value"},
	},
	{
		name:    "EACCES: a number is followed",
		attempt: progLoad(13, unhooked(), insns(movR0, loadVia(0, 0), exit)),
		node:    hardenedHost(),
		rule:    "VER007", how: load.Inferred, stage: load.Verifier,
		others:   []string{"VER099"},
		evidence: []string{"follows R0 as a pointer, which holds the number 0"},
	},
	{
		name:    "EINVAL: a helper of another type",
		attempt: progLoad(22, unhooked(), insns(call(44), exit)),
		node:    hardenedHost(),
		rule:    "FEAT002", how: load.Inferred, stage: load.Verifier,
		others:   []string{"REQ007", "VER099"},
		evidence: []string{"bpf_xdp_adjust_head, which is not for programs of type socket_filter"},
	},
	{
		name:    "EINVAL: an endless loop",
		attempt: progLoad(22, unhooked(), insns(movR0, insn.Instruction{Code: insn.OpcodeJA, Off: -2}, exit)),
		node:    hardenedHost(),
		rule:    "VER012", how: load.Inferred, stage: load.Verifier,
		others: []string{"REQ007", "VER099"},
	},
	{
		name:    "EINVAL: a loop that ends, and a helper",
		attempt: progLoad(22, unhooked(), insns(movR0, call(7), ifR0(-2), exit)),
		node:    hardenedHost(),
		rule:    Unknown, how: load.Inferred, stage: "",
		others: []string{"REQ007", "FEAT002", "VER012", "VER099"},
	},
	{
		name:    "the verifier was seen stopping elsewhere: the lookup is not suspected",
		attempt: progLoad(13, with(rejected(13), failedInsn(5), insns(mapFD(5), insn.Instruction{}, call(1), movR0to(3), loadVia(3, 0), exit))...),
		node:    lab("6.12.12"),
		rule:    "VER099", how: load.Observed, stage: load.Verifier,
	},
	{
		name:    "a type number that no BTF has",
		attempt: progLoad(22, progType("tracing"), hooked(load.Request, 22), attr(108, 134217727)),
		node:    lab("5.10.0-30-cloud-amd64"),
		rule:    "BTF005", how: load.Observed, stage: load.BTF,
		others:   []string{"REQ007"},
		evidence: []string{"attach_btf_id was 134217727"},
	},
	{
		name: "a target that is no function, and no log",
		attempt: progLoad(22, progType("tracing"), hooked(load.BTF, 22, load.Request, load.Permission), attr(108, 7),
			spans(span(load.FnAttach, -22), span(load.FnCheck, -22), span(load.FnLoad, -22)),
			said("processed 0 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0")),
		node: lab("6.12.12"),
		rule: "BTF005", how: load.Observed, stage: load.BTF,
		evidence: []string{"bpf_check_attach_target returned -22 (EINVAL); attach_btf_id was 7"},
	},
	{
		name:    "the same, where something else of bpf_check refuses",
		attempt: progLoad(22, with(early(22), progType("tracing"), attr(108, 7))...),
		node:    lab("6.12.12"),
		rule:    "VER099", how: load.Observed, stage: load.Verifier,
	},
	{
		name: "5.10 does not know the address of a function, and counts the functions wrong",
		attempt: progLoad(22, unhooked(), log("number of funcs in func_info doesn't match number of subprogs\nprocessed 0 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0\n"),
			insns(insn.Instruction{Code: insn.OpcodeLoadImm64, Src: insn.PseudoFunc, Imm: 2}, insn.Instruction{}, exit)),
		node: lab("5.10.0-30-cloud-amd64"),
		rule: "FEAT008", how: load.Observed, stage: load.Verifier,
	},
	{
		name:    "E2BIG, and attributes longer than any kernel knows",
		attempt: progLoad(7, unhooked(), attr(252, 0)),
		node:    hardenedHost(),
		rule:    "REQ003", how: load.Inferred, stage: load.Request,
		others: []string{"VER101"},
	},
	{
		name:    "E2BIG, and no attributes at all",
		attempt: progLoad(7, unhooked(), set(func(a *load.Attempt) { a.Evidence.Attr, a.Program.Insns = nil, 0 })),
		node:    hardenedHost(),
		rule:    "REQ003", how: load.Inferred, stage: load.Request,
		others: []string{"VER101"},
	},

	// Maps, BTF, links, classic filters.
	{
		name:    "ring buffer on 5.4",
		attempt: mapCreate(22, abi.MapTypeRingbuf, 0, 0, 4096, 0),
		node:    lab("5.4.0-200-generic"),
		rule:    "FEAT005", how: load.Inferred, stage: load.Request,
		evidence: []string{"came with 5.8, the kernel is 5.4"},
	},
	{
		name:    "ring buffer of 5000 bytes",
		attempt: mapCreate(22, abi.MapTypeRingbuf, 0, 0, 5000, 0),
		node:    lab("6.12.12"),
		rule:    "MAP001", how: load.Inferred, stage: load.Request,
		evidence: []string{"a power of two and a multiple of the page size, not 5000"},
	},
	{
		name:    "array with keys of 8 bytes",
		attempt: mapCreate(22, abi.MapTypeArray, 8, 8, 1, 0),
		node:    lab("6.12.12"),
		rule:    "MAP001", how: load.Inferred, stage: load.Request,
	},
	{
		name:    "EINVAL for a map that looks right",
		attempt: mapCreate(22, abi.MapTypeHash, 4, 8, 1, 1<<30),
		node:    lab("6.12.12"),
		rule:    Unknown, how: load.Inferred, stage: load.Request,
		others: []string{"FEAT005", "MAP001"},
	},
	{
		name:    "LRU without preallocation: 524 that has nothing to do with the JIT",
		attempt: mapCreate(524, abi.MapTypeLRUHash, 4, 8, 1, abi.MapFlagNoPrealloc),
		node:    lab("6.12.12"),
		rule:    "MAP002", how: load.Inferred, stage: load.Request,
	},
	{
		name:    "key and value BTF on a map type that takes none: 524 again",
		attempt: mapCreate(524, abi.MapTypePerfEventArray, 4, 4, 1, 0, attr(attrMapBTFFD, 5)),
		node:    lab("6.12.12"),
		rule:    "MAP003", how: load.Inferred, stage: load.BTF,
	},
	{
		name:    "a map that does not fit into memory",
		attempt: mapCreate(12, abi.MapTypeHash, 4, 1024, 1<<20, 0),
		node:    lab("6.12.12"),
		rule:    "RES001", how: load.Inferred, stage: load.Resources,
		evidence: []string{"1.0 GiB in all"},
	},
	{
		name:    "map refused to an unprivileged loader",
		attempt: mapCreate(1, abi.MapTypeHash, 4, 8, 1, 0, caps(0)),
		node:    hardenedHost("kernel.unprivileged_bpf_disabled", "2"),
		rule:    "PERM002", how: load.Inferred, stage: load.Permission,
		others: []string{"PERM001"},
	},
	{
		name:    "BTF refused",
		attempt: attempt(load.BTFLoad, 22, unhooked(), log("magic: 0xeb9f\nversion: 1\n[7] ENUM64 Unsupported kind")),
		node:    lab("5.10.0-30-cloud-amd64"),
		rule:    "BTF002", how: load.Observed, stage: load.BTF,
	},
	{
		name:    "a link that fails, and nothing else is known of it",
		attempt: attempt(load.LinkCreate, 524, unhooked()),
		node:    lab("6.12.12"),
		rule:    Unknown, how: load.Inferred, stage: load.Request,
		others: []string{"ATT112", "ATT114"},
	},
	{
		name:    "classic filter that jumps out of itself",
		attempt: attempt(load.SocketFilter, 22, filter(0x15, 5, 0, 1, 0x06, 0, 0, 0)),
		node:    lab("6.12.12"),
		rule:    "CBPF001", how: load.Inferred, stage: load.Verifier,
		evidence: []string{"the jump at 0 leaves the filter"},
	},
	{
		name:    "a filter in order: the length of the option, or what nobody sees",
		attempt: attempt(load.SocketFilter, 22, filter(0x06, 0, 0, 0)),
		node:    lab("6.12.12"),
		rule:    Unknown, how: load.Inferred, others: []string{"CBPF001"},
	},
	{
		name:    "a seccomp filter in order: flags",
		attempt: attempt(load.Seccomp, 22, filter(0x20, 0, 0, 4, 0x15, 0, 1, 0x3e, 0x06, 0, 0, 0, 0x06, 0, 0, 0)),
		node:    lab("6.12.12"),
		rule:    Unknown, how: load.Inferred, others: []string{"CBPF001"},
	},
	{
		name:    "the checker was seen refusing a filter that looks right",
		attempt: attempt(load.SocketFilter, 22, filter(0x06, 0, 0, 0), spans(span(load.FnSockFilter, -22))),
		node:    lab("6.12.12"),
		rule:    "CBPF001", how: load.Observed, stage: load.Verifier,
	},
	{
		name:    "seccomp loads from between the words",
		attempt: attempt(load.Seccomp, 22, filter(0x20, 0, 0, 2, 0x06, 0, 0, 0)),
		node:    lab("6.12.12"),
		rule:    "CBPF001", how: load.Inferred, stage: load.Verifier,
		evidence: []string{"instruction 0 loads at 2, where no word of the call's data is"},
	},
	{
		name:    "seccomp may not load packets",
		attempt: attempt(load.Seccomp, 22, filter(0x30, 0, 0, 2, 0x06, 0, 0, 0)),
		node:    lab("6.12.12"),
		rule:    "CBPF001", how: load.Inferred, stage: load.Verifier,
		evidence: []string{"the opcode 0x30, which seccomp does not allow"},
	},
	{
		name:    "a socket filter may",
		attempt: attempt(load.SocketFilter, 22, filter(0x30, 0, 0, 2, 0x06, 0, 0, 0)),
		node:    lab("6.12.12"),
		rule:    Unknown, how: load.Inferred, others: []string{"CBPF001"},
	},
	{
		name:    "EPERM for a socket filter: a lock, or another that says no",
		attempt: attempt(load.SocketFilter, 1, filter(0x06, 0, 0, 0)),
		node:    lab("6.12.12"),
		rule:    Unknown, how: load.Inferred, others: []string{"CBPF002"}, stage: load.Permission,
	},
	{
		name:    "EPERM from sk_attach_filter itself",
		attempt: attempt(load.SocketFilter, 1, filter(0x06, 0, 0, 0), spans(span(load.FnSockFilter, -1))),
		node:    lab("6.12.12"),
		rule:    "CBPF002", how: load.Observed, stage: load.Permission,
	},
	{
		name:    "seccomp without no_new_privs",
		attempt: attempt(load.Seccomp, 13, caps(0)),
		node:    lab("6.12.12"),
		rule:    "CBPF002", how: load.Inferred, stage: load.Permission,
	},
	{
		name:    "filter that cannot be read",
		attempt: attempt(load.SocketFilter, 14),
		node:    lab("6.12.12"),
		rule:    "CBPF003", how: load.Inferred, stage: load.Request,
	},
	{
		name:    "socket filter over optmem_max",
		attempt: attempt(load.SocketFilter, 12, filter(0x06, 0, 0, 0)),
		node:    lab("6.12.12", "net.core.optmem_max", "20480"),
		rule:    "RES002", how: load.Inferred, stage: load.Resources,
		others: []string{"RES001"},
	},
}

func jitUsed(n *node.Profile, bytes uint64) *node.Profile {
	n.JITUsed = &bytes
	return n
}

func machine(n *node.Profile, m string) *node.Profile {
	n.Machine = m
	return n
}

func lsms(n *node.Profile, names ...string) *node.Profile {
	n.LSMs = names
	return n
}

func line(at int, file string, number int, text string) option {
	return func(a *load.Attempt) {
		a.Evidence.Lines = append(a.Evidence.Lines, load.SourceLine{Insn: at, File: file, Line: number, Text: text})
	}
}

func progArray(name string) option {
	return func(a *load.Attempt) {
		a.Evidence.Maps = append(a.Evidence.Maps, load.MapRef{ID: 9, Name: name, Type: abi.MapTypeProgArray})
	}
}

func mapCreate(errno int, typ, key, value, entries, flags uint32, opts ...option) *load.Attempt {
	return attempt(load.MapCreate, errno, append([]option{unhooked(),
		attr(attrMapType, typ), attr(attrKeySize, key), attr(attrValueSize, value), attr(attrMaxElems, entries), attr(attrMapFlags, flags),
		set(func(a *load.Attempt) {
			a.Map = &load.Map{Name: "m", Type: "some_type", KeySize: key, ValueSize: value, MaxEntries: entries, Flags: flags}
		}),
	}, opts...)...)
}

// filter is a classic filter: code, jt, jf, k for each instruction.
func filter(fields ...uint32) option {
	return func(a *load.Attempt) {
		for i := 0; i+3 < len(fields); i += 4 {
			b := binary.LittleEndian.AppendUint16(nil, uint16(fields[i]))
			b = append(b, byte(fields[i+1]), byte(fields[i+2]))
			a.Evidence.Filter = append(a.Evidence.Filter, binary.LittleEndian.AppendUint32(b, fields[i+3])...)
		}
	}
}

// Every rule stands on its own feet: texts, remedies with a price, a stage, and
// an attempt that it explains.
func TestRulesAreComplete(t *testing.T) {
	seen := map[string]bool{}
	for _, fx := range fixtures() {
		seen[fx.rule] = true
	}
	for _, test := range pastedTexts {
		seen[test.rule] = true
	}
	for _, test := range pastedAttachments {
		seen[test.rule] = true
	}
	for _, fx := range hangFixtures {
		seen[fx.rule] = true
	}
	ids := map[string]bool{}
	for _, r := range All() {
		t.Run(r.ID, func(t *testing.T) {
			qt.Check(t, qt.Matches(r.ID, `[A-Z]{3,5}\d{3}`))
			qt.Check(t, qt.IsFalse(ids[r.ID]), qt.Commentf("the id is used twice"))
			ids[r.ID] = true
			qt.Check(t, qt.Not(qt.Equals(r.Title, "")))
			qt.Check(t, qt.IsFalse(strings.HasSuffix(r.Title, ".")))
			qt.Check(t, qt.IsTrue(len(r.Text) > 80))
			qt.Check(t, qt.Not(qt.Equals(r.Kernels, "")))
			qt.Check(t, qt.Matches(r.Class, `R\d\d?`))
			qt.Check(t, qt.IsTrue(slices.Contains(load.Stages[:], r.Stage)))
			qt.Check(t, qt.Not(qt.HasLen(r.Remedies, 0)))
			for _, m := range r.Remedies {
				qt.Check(t, qt.Not(qt.Equals(m.ID, "")))
				qt.Check(t, qt.Not(qt.Equals(m.Title, "")))
				qt.Check(t, qt.Not(qt.Equals(m.Price, "")), qt.Commentf("%s", m.ID))
				for _, never := range []string{"harden=0", "harden = 0", "harden 0", "bpf_disabled=0", "bpf_disabled = 0", "unconfined"} {
					qt.Check(t, qt.IsFalse(strings.Contains(m.Command+m.Title, never)), qt.Commentf("%s", m.ID))
				}
			}
			qt.Check(t, qt.IsTrue(seen[r.ID]), qt.Commentf("no fixture"))
			_, ok := ByID(" " + strings.ToLower(r.ID) + " ")
			qt.Check(t, qt.IsTrue(ok))
		})
	}
}

// The checker of classic BPF has no log to ask for.
func TestNoLogOfClassicFilters(t *testing.T) {
	for kind, want := range map[load.Kind]bool{load.SocketFilter: false, load.ProgLoad: true} {
		a := attempt(kind, 22, filter(0x06, 0, 0, 0))
		Conclude(a, lab("6.12.12"))
		got := slices.ContainsFunc(a.Diagnosis.Remedies, func(r load.Remedy) bool { return r.ID == askForLog.ID })
		qt.Check(t, qt.Equals(got, want), qt.Commentf("%s", kind))
	}
}

// What comes from the traced side does not reach a terminal as it is.
func TestExplainHidesControlCharacters(t *testing.T) {
	evil := "\x1b]0;owned\x07\u202e"
	a := progLoad(13, rejected(13)...)
	a.Evidence.Log = reject("R0 invalid mem access 'map_value_or_null' " + evil)
	a.Evidence.Lines = []load.SourceLine{{File: evil, Line: 1, Text: evil}}
	a.Program.Type = evil
	a.Jump = &load.Jump{Insn: evil, FromSource: evil, ToSource: evil}
	a.Evidence.Maps = []load.MapRef{{Name: evil, Type: abi.MapTypeProgArray}}
	for _, errno := range []int{1, 7, 9, 12, 13, 22, 28, 524} {
		a.Errno = errno
		d := Explain(a, nil)
		text := d.Title + d.Cause + strings.Join(d.Evidence, "")
		for _, o := range d.Alternatives {
			text += o.Why
		}
		qt.Check(t, qt.IsFalse(strings.ContainsAny(text, evil[:1]+"\x07\u202e")), qt.Commentf("%d: %q", errno, text))
	}
}

// The smallest attempts do not upset any rule.
func TestExplainEmpty(t *testing.T) {
	for _, kind := range []load.Kind{load.ProgLoad, load.MapCreate, load.BTFLoad, load.Seccomp, load.SocketFilter, load.LinkCreate, load.OtherCommand, ""} {
		for _, outcome := range []load.Outcome{load.Failed, load.LoadedNotJITed, load.Loaded} {
			for errno := 0; errno < 600; errno++ {
				a := &load.Attempt{Kind: kind, Outcome: outcome, Errno: errno}
				Conclude(a, nil)
				qt.Assert(t, qt.Equals(a.Diagnosis == nil, outcome == load.Loaded))
			}
		}
	}
}
