// SPDX-License-Identifier: Apache-2.0

// Package verbatim has cilium/ebpf load programs that read memory as they are written.
//
// cilium/ebpf tries whether the kernel takes bpf_probe_read_kernel. Where it does not, all of
// bpf_probe_read_{user,kernel}{,_str} become bpf_probe_read or bpf_probe_read_str, which is right
// before Linux 5.5. Under lockdown=confidentiality it is wrong: the kernel knows
// bpf_probe_read_user and takes it, and takes neither what it became (bpf_tracing_func_proto).
package verbatim

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// other is another name of register 0. Registers are encoded in four bits, and cilium/ebpf drops
// the others; but a call with it is not a helper's in its eyes, which it would have to look into.
const other asm.Register = 1 << 4

// Calls returns a program that cilium/ebpf encodes as it does the given one, and with the same
// helpers whatever the kernel. The given one is not changed. Should a cilium/ebpf not encode it so,
// the given one is returned.
func Calls(program asm.Instructions) asm.Instructions {
	out := slices.Clone(program)
	for i := range out {
		if !reads(&out[i]) {
			continue
		}
		out[i].Src = other
		if !bytes.Equal(encoded(out[i]), encoded(program[i])) {
			return program
		}
	}
	return out
}

// Instructions is a program of ours for cilium/ebpf.
func Instructions(program []insn.Instruction) (asm.Instructions, error) {
	out, err := asm.AppendInstructions(nil, bytes.NewReader(insn.Encode(program)), binary.LittleEndian, "linux")
	if err != nil {
		return nil, fmt.Errorf("convert instructions: %w", err)
	}
	return out, nil
}

func encoded(in asm.Instruction) []byte {
	var b bytes.Buffer
	if _, err := in.Marshal(&b, binary.LittleEndian); err != nil {
		return nil
	}
	return b.Bytes()
}

func reads(in *asm.Instruction) bool {
	if !in.IsBuiltinCall() {
		return false
	}
	switch asm.BuiltinFunc(in.Constant) {
	case asm.FnProbeReadUser, asm.FnProbeReadUserStr, asm.FnProbeReadKernel, asm.FnProbeReadKernelStr:
		return true
	}
	return false
}

// ReadsUser reports a program that reads memory of processes.
func ReadsUser(program asm.Instructions) bool {
	return slices.ContainsFunc(program, func(in asm.Instruction) bool {
		switch asm.BuiltinFunc(in.Constant) {
		case asm.FnProbeReadUser, asm.FnProbeReadUserStr:
			return in.IsBuiltinCall()
		}
		return false
	})
}

// Try loads and closes a program that calls one of the helpers. The error is EINVAL where the
// kernel does not know it, or acts so under lockdown. The instructions are those of the probes of
// libbpf and cilium/ebpf, so that who watches knows them for one.
func Try(helper asm.BuiltinFunc) error {
	p, err := ebpf.NewProgramWithOptions(&ebpf.ProgramSpec{
		Type: ebpf.Kprobe, License: "GPL",
		Instructions: Calls(asm.Instructions{
			asm.Mov.Reg(asm.R1, asm.R10), asm.Add.Imm(asm.R1, -8), asm.Mov.Imm(asm.R2, 8), asm.Mov.Imm(asm.R3, 0),
			helper.Call(), asm.Return(),
		}),
	}, ebpf.ProgramOptions{LogDisabled: true})
	if err != nil {
		return err
	}
	return p.Close()
}
