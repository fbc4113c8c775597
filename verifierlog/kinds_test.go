// SPDX-License-Identifier: Apache-2.0

package verifierlog

import (
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// Every wording recognises its own sample, and no earlier one takes it away.
func TestSamples(t *testing.T) {
	for _, w := range Wordings() {
		qt.Check(t, qt.Equals(Classify(w.Sample).Kind, w.Kind), qt.Commentf("%s", w.Sample))
	}
}

func TestClassify(t *testing.T) {
	for _, tt := range []struct {
		message string
		kind    Kind
		args    args
	}{
		// Wordings as the kernels' sources have them, that the fixtures lack.
		{"The sequence of 8193 jumps is too complex.", TooManyJumps, args{"jumps": "8193"}},
		{"back-edge from insn 4 to 1", BackEdge, args{"from": "4", "to": "1"}},
		{"unknown func bpf_probe_read_kernel#113", HelperUnavailable, args{"name": "bpf_probe_read_kernel", "id": "113"}},
		{"helper call is not allowed in probe", HelperUnavailable, nil},
		{"calling kernel function bpf_task_acquire is not allowed", KfuncUnavailable, args{"name": "bpf_task_acquire"}},
		{"kernel function btf_id 77 is not a function", KfuncUnknown, args{"btf_id": "77"}},
		{"kernel btf_id 77 is not a function", KfuncUnknown, args{"btf_id": "77"}},
		{"invalid func unknown#2001000001", Poison, args{"poison": "2001000001"}},
		{"unknown opcode 06", BadOpcode, args{"opcode": "06"}},
		{"BPF_ALU uses reserved fields", ReservedField, args{"op": "BPF_ALU"}},
		{"insn 10385 cannot be patched due to 16-bit range", PatchRange, args{"insn": "10385"}},
		{"R1 invalid mem access 'mem_or_null'", NullPointer, args{"reg": "R1"}},
		{"R1 invalid mem access 'trusted_ptr_or_null_'", NullPointer, args{"reg": "R1"}},
		{"R1 invalid mem access 'rcu_ptr_or_null_'", NullPointer, args{"reg": "R1"}},
		{"R1 invalid mem access 'inv'", InvalidPointer, args{"reg": "R1"}},
		{"invalid indirect read from stack off -8+0 size 8", StackUninit, args{"off": "-8+0", "size": "8"}},
		{"invalid read from stack off -8+4 size 8", StackUninit, args{"off": "-8+4", "size": "8"}},
		{"invalid read from stack R2 off -8+4 size 8", StackUninit, args{"reg": "R2"}},
		{"invalid read from stack R10 off=-512 size=8", StackUninit, nil},
		{"invalid read from stack R10 off=-520 size=8", StackBounds, nil},
		{"invalid indirect access to stack R2 off=-4 size=8", StackBounds, nil},
		{"invalid read from stack R10 off=0 size=8", StackBounds, nil},
		{"At program exit the register R0 has unknown scalar value should have been in [0, 1]", ReturnValue, args{"have": "unknown scalar value", "want": "[0, 1]"}},
		{"At program exit the register R0 has value (0x5; 0x0) should have been in (0x0; 0x1)", ReturnValue, args{"want": "(0x0; 0x1)"}},
		{"function calls are not allowed while holding a lock", Lock, nil},
		{"math between pkt pointer and register with unbounded min value is not allowed", PacketBounds, nil},
		{"R0 max value is outside of the array range", MemoryBounds, args{"end": "max"}},
		// As loaders print them.
		{"load program: permission denied: 0: (95) exit: R0 !read_ok (2 line(s) omitted)", UninitRegister, args{"reg": "R0"}},
		{"field Filter: program filter: load program: invalid argument: invalid func unknown#195896080 (7 line(s) omitted)", Poison, nil},
		// Not the verifier's.
		{"", Unknown, nil},
		{"Operation not permitted", Unknown, nil},
		{"processed 12 insns", Unknown, nil},
		{"permission denied", Unknown, nil},
		{"no such file or directory", Unknown, nil},
	} {
		m := Classify(tt.message)
		qt.Check(t, qt.Equals(m.Kind, tt.kind), qt.Commentf("%s", tt.message))
		for k, v := range tt.args {
			qt.Check(t, qt.Equals(m.Args[k], v), qt.Commentf("%s of %s", k, tt.message))
		}
	}
}

// What a log has beside its complaint, and what people write about programs, is no sentence of the
// verifier's.
func TestNoSentence(t *testing.T) {
	for _, line := range []string{
		"R0=scalar()",
		"0: R1=ctx() R10=fp0",
		"from 5 to 7: R0=map_value_or_null(id=1,ks=4,vs=8) R10=fp0",
		"7: (61) r0 = *(u32 *)(r0 +0)          ; R0_w=scalar(smin=0,smax=umax=0xffffffff,var_off=(0x0; 0xffffffff))",
		"12: (85) call bpf_map_lookup_elem#1",
		"mark_precise: frame0: last_idx 8 first_idx 0 subseq_idx -1",
		"mark_precise: frame0: regs=r2 stack= before 7: (bf) r3 = r10",
		"func#1 @22", "Validating f() func#1...", "Func#1 ('f') is safe for any args that match its prototype",
		"propagating r6", "caller:", "callee:", "; if (unlikely(x == 64))", "processed 12 insns (limit 1000000)",
		"verification time 2113 usec", "stack depth 0+8",
		"[3] STRUCT foo size=8 vlen=1", "\tx type_id=2 bits_offset=0",

		"the program was rejected because a function is not allowed",
		"this map type is not supported on our kernel",
		"we must not write to read-only memory, so the helper refuses",
		"division by zero is checked at run time, and div by zero was the old message",
		"Invalid argument", "invalid size", "Invalid type", "Invalid name", "no data", "Loop detected in the configuration",
		"failed to load: no valid license", "func_info is missing in old objects", "attach_prog_fd is set by the loader",
		"struct_ops programs do not need this", "LSM hooks are disabled by default", "callbacks are explained below",
		"the lock is held by another process", "cannot be used inside a container", "time=2024 msg=\"size must be 8\"",
		"helper: expected 3 args", "R2 is a robot", "type=scalar", "expected=fp", "has no effect", "out of bounds",
		"[4242] user: Invalid name", "[4242] INFO the size != 0", "our tracing programs cannot use this feature", "the arm JIT does not support everything",
		"BUG: unable to handle page fault for address: ffffffffc0000000", "unknown option", "unsupported version 3", "function foo is deprecated, use bar", "invalid map definition",
	} {
		qt.Check(t, qt.Equals(Classify(line).Kind, Unknown), qt.Commentf("%s", line))
	}
	for _, kernel := range kernels {
		for _, line := range strings.Split(read(t, kernel+".txtar"), "\n") {
			if !isComplaint(line) {
				qt.Check(t, qt.Equals(Classify(line).Kind, Unknown), qt.Commentf("%s: %s", kernel, line))
			}
		}
	}
}

// No sentence looks like a line that a log has beside its complaint, and no note names what the
// message does not.
func TestNotes(t *testing.T) {
	for _, w := range Wordings() {
		m := Classify(w.Sample)
		qt.Check(t, qt.IsFalse(strings.ContainsAny(m.Note.Means+m.Note.Do, "{}")), qt.Commentf("%s: %s %s", w.Sample, m.Note.Means, m.Note.Do))
		qt.Check(t, qt.Equals(w.Note.Means == "", w.Note.Do == ""), qt.Commentf("%s: half a note", w.Sample))
		for _, s := range []string{w.Note.Means, w.Note.Do} {
			qt.Check(t, qt.IsTrue(s == "" || strings.HasSuffix(s, ".")), qt.Commentf("%q", s))
		}
		if w.Kind != BTFData && w.Kind != Poison {
			qt.Check(t, qt.IsTrue(isComplaint(w.Sample)), qt.Commentf("%s", w.Sample))
		}
	}
}
