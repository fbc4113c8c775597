// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/privilege"
	"github.com/bpfwhy/bpfwhy/node"
)

// lackError is a source that was not tried, because capabilities are missing without which it cannot be.
type lackError struct {
	have uint64
	lack []string
}

func (e *lackError) Error() string { return "lacks " + strings.Join(e.lack, ", ") }

// mayOpen is nil or a *lackError. Before it are kernels that want other capabilities, and user namespaces, whose capabilities are none here: of
// these the kernel's refusal tells.
func mayOpen(name string) error {
	have, err := privilege.Effective()
	if err != nil {
		return nil
	}
	var must []int
	switch {
	case name == "packets":
		must = []int{unix.CAP_NET_RAW} // a kernel may load socket filters for everybody
	case have&(1<<unix.CAP_SYS_ADMIN) == 0: // which includes these
		must = []int{unix.CAP_BPF, unix.CAP_PERFMON}
	}
	if name == "openssl" { // or the libraries of others are not found, without a word
		must = append(must, unix.CAP_SYS_PTRACE)
	}
	e := &lackError{have: have}
	for _, c := range must {
		if have&(1<<c) == 0 {
			e.lack = append(e.lack, node.Capability(c))
		}
	}
	if e.lack == nil {
		return nil
	}
	return e
}

// all is for when nothing can be watched: what everything needs.
func (e *lackError) all() error {
	var missing []string
	for _, c := range []int{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH, unix.CAP_NET_RAW} {
		if e.have&(1<<c) == 0 {
			missing = append(missing, node.Capability(c))
		}
	}
	return fmt.Errorf("needs root, or CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, and CAP_NET_RAW for packets (missing: %s)",
		strings.Join(missing, ", "))
}
