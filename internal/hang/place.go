// SPDX-License-Identifier: Apache-2.0

// Package hang looks at threads that are inside a load and do not come back: where the kernel says they wait, and whether a load of our
// own would come back. It never says an address.
package hang

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Place is where a thread waits inside the kernel.
type Place struct {
	// Functions, the innermost first. One alone when From is "wchan", none when it is "syscall" or "".
	Functions []string
	// From is the file of /proc that says so: stack (CAP_SYS_ADMIN), wchan, syscall; empty: none does.
	From string
	// Call is the system call, when only that is known: "bpf command 5".
	Call string
}

// Most functions of a stack.
const maxFunctions = 32

// patience bounds the reading of one place: a thread in the middle of an exec makes those wait who look at it.
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
	if f := functions(read(dir + "stack")); len(f) > 0 {
		return Place{Functions: f, From: "stack"}
	}
	if f := functions(read(dir + "wchan")); len(f) > 0 {
		return Place{Functions: f[:1], From: "wchan"}
	}
	if c, ok := parseCall(read(dir + "syscall")); ok {
		return Place{From: "syscall", Call: c.String()}
	}
	return Place{}
}

// frame is a line of a stack without its address: "[<0>] mutex_lock+0x2a/0x30", "[<0>] nf_hook [nf_tables]".
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

// Numbers of x86-64.
const (
	nrSetsockopt = 54
	nrPrctl      = 157
	nrSeccomp    = 317
	nrBPF        = 321
)

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

// commands of bpf(2) that may take long because they load or attach.
var commands = map[uint64]string{
	0: "BPF_MAP_CREATE", 5: "BPF_PROG_LOAD", 8: "BPF_PROG_ATTACH", 17: "BPF_RAW_TRACEPOINT_OPEN", 18: "BPF_BTF_LOAD", 28: "BPF_LINK_CREATE",
}

// loads reports whether a call loads, creates or attaches.
func (c call) loads() bool {
	const setSeccomp, filterMode, setModeFilter, solSocket, attachFilter, attachReuseport = 22, 2, 1, 1, 26, 51
	switch c.nr {
	case nrBPF:
		_, ok := commands[uint64(uint32(c.args[0]))]
		return ok
	case nrPrctl:
		return uint32(c.args[0]) == setSeccomp && c.args[1] == filterMode
	case nrSeccomp:
		return uint32(c.args[0]) == setModeFilter
	case nrSetsockopt:
		return uint32(c.args[1]) == solSocket && (uint32(c.args[2]) == attachFilter || uint32(c.args[2]) == attachReuseport)
	}
	return false
}

func (c call) String() string {
	switch c.nr {
	case nrBPF:
		if name, ok := commands[uint64(uint32(c.args[0]))]; ok {
			return name
		}
		return fmt.Sprintf("bpf command %d", uint32(c.args[0]))
	case nrPrctl, nrSeccomp:
		return "a seccomp filter"
	case nrSetsockopt:
		return "SO_ATTACH_FILTER"
	}
	return fmt.Sprintf("system call %d", c.nr)
}

func read(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 16<<10))
	if err != nil {
		return ""
	}
	return string(b)
}
