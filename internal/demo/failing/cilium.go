// SPDX-License-Identifier: Apache-2.0

package failing

import (
	"bytes"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/bpfwhy/bpfwhy/internal/abi"
)

// The objects are built by testdata/Makefile; a test checks that they are what their sources give.
var (
	//go:embed testdata/far_jump.o
	farJumpObject []byte
	//go:embed testdata/far_calls.o
	farCallsObject []byte
)

// cilium makes a load of a program in an object file that cilium/ebpf loads, with its BTF and
// source lines.
func cilium(name, about string, object []byte, program string) Load {
	return Load{Name: name, About: about, Program: progName(program), run: func(string) (Result, error) {
		spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
		if err != nil {
			return Result{}, fmt.Errorf("read object: %w", err)
		}
		p := spec.Programs[program]
		if p == nil {
			return Result{}, fmt.Errorf("no program %q in the object", program)
		}
		return loadCilium(p), nil
	}}
}

func loadCilium(spec *ebpf.ProgramSpec) Result {
	prog, err := ebpf.NewProgram(spec)
	if err != nil {
		var ve *ebpf.VerifierError
		log := ""
		if errors.As(err, &ve) {
			log = fmt.Sprintf("%+v", ve)
		}
		return newResult(spec.Name, -1, err, log)
	}
	return newResult(spec.Name, prog.FD(), nil, "")
}

// ciliumMap is rawMap with cilium/ebpf as the loader.
func ciliumMap(name, about string, insns func(fd int) []ins) Load {
	return Load{Name: name, About: about, Program: progName(name), run: func(prog string) (Result, error) {
		fd, err := newMap("values", abi.MapTypeHash, 4, 8, 1)
		if err != nil {
			return Result{}, err
		}
		spec, err := ciliumSpec(prog, ebpf.SocketFilter, insns(fd))
		if err != nil {
			return Result{}, err
		}
		return loadCilium(spec), nil
	}}
}

func ciliumSpec(name string, typ ebpf.ProgramType, insns []ins) (*ebpf.ProgramSpec, error) {
	out, err := asm.AppendInstructions(nil, bytes.NewReader(encode(insns)), binary.LittleEndian, "linux")
	if err != nil {
		return nil, fmt.Errorf("convert instructions: %w", err)
	}
	return &ebpf.ProgramSpec{Name: name, Type: typ, License: "GPL", Instructions: out}, nil
}
