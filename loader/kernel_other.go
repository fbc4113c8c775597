// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package loader

import (
	"errors"
	"syscall"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/objects/jitonly"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/cilium/ebpf"
)

const (
	errPermission = syscall.EPERM
	errMemory     = syscall.ENOMEM
)

// There is nothing to be blinded.
func mayBeBlinded() bool              { return false }
func capabilities() (uint64, bool)    { return 0, false }
func setting(string) int              { return -1 }
func profile() *node.Profile          { return nil }
func thisKernel() blinding.Kernel     { return blinding.Kernel{} }
func uncompiled(p *ebpf.Program) bool { return false }
func jitOnlyKernel() jitonly.Kernel   { return jitonly.Kernel{} }

func mapTypeOf(int) (uint32, bool)                  { return 0, false }
func dump(*ebpf.Program) ([]insn.Instruction, bool) { return nil, false }

// Guard must be the first call of main in programs that set
// [Loader.HardenWindow].
func Guard() {}

func around(func() (map[string]*ebpf.Program, error)) (*Window, error) {
	return nil, errors.ErrUnsupported
}
