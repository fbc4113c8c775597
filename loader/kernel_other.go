// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package loader

import (
	"syscall"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/cilium/ebpf"
)

const (
	errPermission = syscall.EPERM
	errMemory     = syscall.ENOMEM
)

// There is nothing to be blinded.
func isBlinding(error) bool           { return false }
func mayBeBlinded() bool              { return false }
func capabilities() (uint64, bool)    { return 0, false }
func sysctl(string) int               { return -1 }
func profile() *node.Profile          { return nil }
func thisKernel() blinding.Kernel     { return blinding.Kernel{} }
func uncompiled(p *ebpf.Program) bool { return false }
