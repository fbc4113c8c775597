// SPDX-License-Identifier: Apache-2.0

package verifierlog

import (
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
