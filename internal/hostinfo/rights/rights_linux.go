// SPDX-License-Identifier: Apache-2.0

// Package rights is the one table of the capabilities that each command needs, and what for.
// Errors, `bpfwhy doctor` and the documents take their words from it; its test runs each command
// with exactly these, and with one less.
//
// It holds for uid 0 in the first user namespace, on Linux 5.10 and later. Another user needs
// CAP_DAC_READ_SEARCH too, and CAP_NET_ADMIN for net.core.bpf_jit_harden: the capability that
// overrides modes of files does not count for settings.
package rights

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/sys/privilege"
	"github.com/bpfwhy/bpfwhy/node"
	"golang.org/x/sys/unix"
)

// A Right is a capability and what it is for.
type Right struct {
	Cap int
	For string // what does not happen without it
}

// Name is the capability's.
func (r Right) Name() string { return node.Capability(r.Cap) }

// A Command is a row of the table.
type Command struct {
	Name string
	Must []Right // it does not start without one of these
	More []Right // it shows less without one of these
	Note string  // what capabilities do not tell
	// Exact says that CAP_SYS_ADMIN does not stand for those that were split off from it.
	Exact bool
	// Like is a row whose More and Note it shares: the documents say them once.
	Like string
}

// has reports whether one of a set of capabilities stands for another: CAP_SYS_ADMIN does for those
// that were split off from it (5.8).
func has(have uint64, c int) bool {
	return abi.HasCap(have, c) || (c == abi.CapBPF || c == abi.CapPerfmon) && abi.HasCap(have, abi.CapSysAdmin)
}

func (c Command) missing(have uint64, list []Right) (out []Right) {
	for _, r := range list {
		if have&(1<<r.Cap) == 0 && (c.Exact || !has(have, r.Cap)) {
			out = append(out, r)
		}
	}
	return out
}

// Have returns the capabilities that count: the effective ones in the first user namespace, none in
// another.
func Have() (uint64, error) {
	have, err := privilege.Effective()
	if err != nil {
		return 0, err
	}
	if b, err := os.ReadFile("/proc/self/uid_map"); err == nil && !slices.Equal(strings.Fields(string(b)), []string{"0", "0", "4294967295"}) {
		return 0, nil
	}
	return have, nil
}

// Missing returns what a command lacks to start.
func (c Command) Missing(have uint64) []Right { return c.missing(have, c.Must) }

// Less returns what a command will not show, a sentence for each capability.
func (c Command) Less(have uint64) (out []string) {
	for _, r := range c.missing(have, c.More) {
		out = append(out, fmt.Sprintf("without %s: %s", r.Name(), r.For))
	}
	if len(c.More) > 0 && os.Geteuid() != 0 && !has(have, unix.CAP_DAC_READ_SEARCH) {
		out = append(out, "without CAP_DAC_READ_SEARCH, and not root: tracefs and the memory of the JIT are not read")
	}
	return out
}

// Explain adds to a refusal of the kernel's which capabilities the command lacks, if it does. The
// kernel is asked first, and the table explains: it never refuses what the kernel would allow.
func (c Command) Explain(refused error) error {
	have, err := Have()
	if refused == nil || err != nil {
		return refused
	}
	m := c.Missing(have)
	if m == nil {
		return refused
	}
	return &MissingError{c, m, refused}
}

// Check is Explain for what the kernel would refuse later, and in pieces.
func (c Command) Check() error {
	if have, err := Have(); err == nil && c.Missing(have) != nil {
		return &MissingError{Command: c, Missing: c.Missing(have)}
	}
	return nil
}

// MissingError says which capabilities a command lacks, and what the kernel said.
type MissingError struct {
	Command Command
	Missing []Right
	Refused error // nil: it was not asked
}

func (e *MissingError) Error() string {
	s := fmt.Sprintf("needs %s (missing: %s)", e.Command.Needs(), list(e.Missing))
	if e.Refused != nil {
		s += ": " + e.Refused.Error()
	}
	return s
}

func (e *MissingError) Unwrap() error { return e.Refused }

// Needs are the capabilities that it must have, in words.
func (c Command) Needs() string {
	if len(c.Must) == 0 {
		return "no capability"
	}
	s := list(c.Must)
	if !c.Exact && split(c.Must) {
		s += ", or CAP_SYS_ADMIN"
		if len(c.Must) > 2 {
			s += " for the first two"
		}
	}
	return s
}

// split reports a list of which CAP_SYS_ADMIN would cover some.
func split(rights []Right) bool {
	return slices.ContainsFunc(rights, func(r Right) bool { return r.Cap == unix.CAP_BPF })
}

// list is "CAP_A", "CAP_A and CAP_B", "CAP_A, CAP_B and CAP_C".
func list(rights []Right) string {
	var names []string
	for _, r := range rights {
		names = append(names, r.Name())
	}
	if n := len(names); n > 1 {
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1]
	}
	return strings.Join(names, "")
}

// Least returns the shortest list with which a command starts, or with which it shows all: what
// another in it stands for is left out.
func (c Command) Least(all bool) (caps []int) {
	want := c.Must
	if all {
		want = slices.Concat(c.Must, c.More)
	}
	var mask uint64
	for _, r := range want {
		mask |= 1 << r.Cap
	}
	for _, r := range want {
		if !slices.Contains(caps, r.Cap) && (c.Exact || !has(mask&^(1<<r.Cap), r.Cap)) {
			caps = append(caps, r.Cap)
		}
	}
	return caps
}

// Markdown is the table as it stands in the documents.
func Markdown() string {
	var b strings.Builder
	b.WriteString("| command | needs | without |\n|---|---|---|\n")
	for _, c := range Commands() {
		var more []string
		for _, r := range c.More {
			if c.Like == "" || !slices.Contains(watching.More, r) {
				more = append(more, r.Name()+": "+r.For)
			}
		}
		if c.Like != "" {
			more = append(more, "As `"+c.Like+"`")
		} else if c.Note != "" {
			more = append(more, c.Note)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", c.Name, c.Needs(), strings.Join(more, ". "))
	}
	return b.String()
}

// Short is the table as it stands in the README: which commands need what. Those that need the same
// share a line.
func Short() string {
	var b strings.Builder
	b.WriteString("| needs | commands |\n|---|---|\n")
	of := map[string][]string{}
	var order []string
	for _, c := range Commands() {
		if of[c.Needs()] == nil {
			order = append(order, c.Needs())
		}
		of[c.Needs()] = append(of[c.Needs()], "`"+c.Name+"`")
	}
	for _, needs := range order {
		fmt.Fprintf(&b, "| %s | %s |\n", needs, strings.Join(of[needs], ", "))
	}
	return b.String()
}
