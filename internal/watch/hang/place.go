// SPDX-License-Identifier: Apache-2.0

// Package hang looks at threads that are inside a load and do not come back: where the kernel says
// they wait, and whether a load of our own would come back. It never says an address.
package hang

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/sys/proc"
)

// Place is where a thread waits inside the kernel.
type Place struct {
	// Functions, the innermost first. One alone when From is "wchan", none when it is "syscall" or
	// "".
	Functions []string
	// From is the file of /proc that says so: stack (CAP_SYS_ADMIN), wchan, syscall; empty: none
	// does.
	From string
	// Call is the system call, when only that is known: "bpf command 5".
	Call string
}

// Most functions of a stack.
const maxFunctions = 32

// patience bounds the reading of one place: a thread in the middle of an exec makes those wait who
// look at it.
const patience = 2 * time.Second

// Of says where a thread waits, by its number in our own pid namespace.
func Of(tid int) Place {
	found := make(chan Place, 1)
	go func() { found <- place(fmt.Sprintf("/proc/%d/", tid)) }()
	select {
	case p := <-found:
		return p
	case <-time.After(patience):
		return Place{}
	}
}

func place(dir string) Place {
	if f := functions(proc.Read(dir + "stack")); len(f) > 0 {
		return Place{Functions: f, From: "stack"}
	}
	if f := functions(proc.Read(dir + "wchan")); len(f) > 0 {
		return Place{Functions: f[:1], From: "wchan"}
	}
	if c, ok := parseCall(proc.Read(dir + "syscall")); ok {
		return Place{From: "syscall", Call: c.String()}
	}
	return Place{}
}

// frame is a line of a stack without its address: "[<0>] mutex_lock+0x2a/0x30", "[<0>] nf_hook
// [nf_tables]".
var frame = regexp.MustCompile(`^(?:\[<[0-9a-fx]*>\] )?([A-Za-z_][A-Za-z0-9_.]*)`)

func functions(text string) (list []string) {
	for line := range strings.Lines(text) {
		m := frame.FindStringSubmatch(strings.TrimSpace(line))
		if m != nil && len(list) < maxFunctions {
			list = append(list, m[1])
		}
	}
	return list
}

// call is a system call that a thread is in.
type call struct {
	nr   uint64
	args [3]uint64
	rest string // what else would change if it moved
}

// native are the numbers of x86-64.
var native, _ = abi.SyscallsOf("x86_64")

// in reports that it is the system call of a number.
func (c call) in(nr int) bool { return nr >= 0 && c.nr == uint64(nr) }

// parseCall reads /proc/TID/syscall. A thread that runs is in none that it says.
func parseCall(line string) (c call, ok bool) {
	f := strings.Fields(line)
	if len(f) < 9 {
		return c, false
	}
	nr, err := strconv.ParseUint(f[0], 10, 32)
	if err != nil {
		return c, false
	}
	c.nr, c.rest = nr, line
	for i := range c.args {
		if c.args[i], err = strconv.ParseUint(f[1+i], 0, 64); err != nil {
			return c, false
		}
	}
	return c, true
}

// command is a command of bpf(2) that may take long because it loads or attaches; "" for another.
func (c call) command() string {
	switch n := uint32(c.args[0]); n {
	case abi.CmdMapCreate, abi.CmdProgLoad, abi.CmdProgAttach, abi.CmdRawTracepointOpen, abi.CmdBTFLoad, abi.CmdLinkCreate:
		return abi.CommandName(n)
	}
	return ""
}

// loads reports whether a call loads, creates or attaches.
func (c call) loads() bool {
	const setSeccomp, filterMode, setModeFilter, solSocket, attachFilter, attachReuseport = 22, 2, 1, 1, 26, 51
	switch {
	case c.in(native.BPF):
		return c.command() != ""
	case c.in(native.Prctl):
		return uint32(c.args[0]) == setSeccomp && c.args[1] == filterMode
	case c.in(native.Seccomp):
		return uint32(c.args[0]) == setModeFilter
	case c.in(native.Setsockopt):
		return uint32(c.args[1]) == solSocket && (uint32(c.args[2]) == attachFilter || uint32(c.args[2]) == attachReuseport)
	}
	return false
}

func (c call) String() string {
	switch {
	case c.in(native.BPF):
		if name := c.command(); name != "" {
			return name
		}
		return fmt.Sprintf("bpf command %d", uint32(c.args[0]))
	case c.in(native.Prctl), c.in(native.Seccomp):
		return "a seccomp filter"
	case c.in(native.Setsockopt):
		return "SO_ATTACH_FILTER"
	}
	return fmt.Sprintf("system call %d", c.nr)
}
