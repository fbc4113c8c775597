// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"sync"
	"syscall"

	"github.com/bpfwhy/bpfwhy/internal/sys/selfprobe"
	"github.com/bpfwhy/bpfwhy/internal/sys/verbatim"
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// memory is what a Loader has learnt of this node.
type memory struct {
	mu     sync.Mutex
	broken map[content]int // the limit with which the kernel took them
	gotol  *bool
	closed *bool // the kernel's memory is, and that of processes is not
}

func (m *memory) limit(c content) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.broken[c]
}

func (m *memory) learn(c content, limit int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken == nil {
		m.broken = make(map[content]int)
	}
	m.broken[c] = limit
}

// hasGotol reports whether the kernel takes gotol, found out by loading one.
func (m *memory) hasGotol() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gotol == nil {
		// As bpfwhy itself asks: who watches knows it, and tells of no failure.
		own, err := verbatim.Instructions(selfprobe.Gotol())
		if err != nil {
			return false
		}
		p, err := ebpf.NewProgramWithOptions(&ebpf.ProgramSpec{
			Name: selfprobe.Name, Type: ebpf.SocketFilter, License: "Dual BSD/GPL", Instructions: own,
		}, ebpf.ProgramOptions{LogDisabled: true})
		if err == nil {
			p.Close()
		} else if saysNothing(err) {
			return false
		}
		ok := err == nil
		m.gotol = &ok
	}
	return *m.gotol
}

// saysNothing reports an error that says nothing of what the kernel knows.
func saysNothing(err error) bool {
	return errors.Is(err, errPermission) || errors.Is(err, errMemory)
}

// isClosed reports whether the kernel lets programs read memory of processes and
// not its own, found out by loading two: lockdown=confidentiality.
func (m *memory) isClosed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed == nil {
		kernel, user := verbatim.Try(asm.FnProbeReadKernel), verbatim.Try(asm.FnProbeReadUser)
		if saysNothing(kernel) || saysNothing(user) {
			return false
		}
		ok := errors.Is(kernel, syscall.EINVAL) && user == nil
		m.closed = &ok
	}
	return *m.closed
}

// knowsClosed is isClosed without asking the kernel.
func (m *memory) knowsClosed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.closed != nil && *m.closed
}
