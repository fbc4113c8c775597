// SPDX-License-Identifier: Apache-2.0

// Package hook is the table of the kernel functions that are watched inside a load: all that is
// known of one stands in its row. The programs are made from the same rows in
// ../capture/bpf/functions.h, in the same order.
package hook

import "github.com/bpfwhy/bpfwhy/load"

// A Hook is one watched function.
type Hook struct {
	Function load.Function
	// Number is the function's place in enum hook of the programs, where it has one (Numbered).
	Number uint32
	// Stage is where a load has failed when this function did; "" where that takes more than its
	// return.
	Stage load.Stage
	// Shows are the stages that the hook lets see, when they are not Stage alone.
	Shows []load.Stage
	// Depth orders functions that contain each other, for times that are equal.
	Depth int
	// Evidence says that the function fails all the time without harm: a loader is asked for one
	// capability and then for another. It is the cause only where nothing else is.
	Evidence bool
	Shape    Shape
	Arg      Arg
	// Args are those of a function that attaches by itself.
	Args []Arg
	// Points are the places where the function is reached, when they are more than the one of its
	// own name.
	Points []Point
}

// Shape says what of a function is watched, and so which programs its hook has.
type Shape int

const (
	Span    Shape = iota // its start and its end
	Check                // its failures alone: fexit sees arguments and result, kprobes need both ends
	Message              // its start alone, by kprobe: the function is variadic
	Denial               // its end alone; by kretprobe only where few processes are watched, and briefly
)

// Arg is the argument that the programs look at, none where it is zero. Its position comes from the
// kernel's BTF. That of a Check is recorded, so it must be a number and not an address.
type Arg struct {
	First bool
	Name  string
	// Struct is what the argument points to, through so many Pointers.
	Struct   string
	Pointers int
}

// A Point is a place in the kernel where a function is reached.
type Point struct {
	Program string   // the programs are fentry_PROGRAM, fexit_PROGRAM, kprobe_PROGRAM, kretprobe_PROGRAM
	Symbols []string // the kernel's names for it, the preferred one first: the first that exists is used
}

// unknownDepth is that of a function which contains no other.
const unknownDepth = 8

var (
	device  = Arg{Struct: "net_device", Pointers: 1}
	request = Arg{Struct: "nlmsghdr", Pointers: 1}
	extack  = Arg{Struct: "netlink_ext_ack", Pointers: 1}
)

// The system call itself comes first: attached last, detached first, so that no attempt is seen by
// halves.
var table = number([]Hook{
	{Function: load.FnSyscall, Shows: []load.Stage{load.Request}, Depth: 0, Points: []Point{
		{"sys_bpf", []string{"__sys_bpf"}},
		{"x64_sys_bpf", []string{"__x64_sys_bpf"}},   // 5.10
		{"ia32_sys_bpf", []string{"__ia32_sys_bpf"}}, // and loaders of 32 bits there
	}},
	{Function: load.FnLoad, Shows: []load.Stage{load.Request, load.Install}, Depth: 1},
	{Function: load.FnCheck, Stage: load.Verifier, Depth: 2, Arg: Arg{Struct: "bpf_prog", Pointers: 2}},
	{Function: load.FnDoCheck, Stage: load.Verifier, Depth: 3, Arg: Arg{Struct: "bpf_verifier_env", Pointers: 1}},
	{Function: load.FnJITSubprogs, Stage: load.JIT, Depth: 4, Points: point("jit_subprogs", "bpf_jit_subprogs", "jit_subprogs")},
	{Function: load.FnSelect, Stage: load.JIT, Depth: 3, Points: point("bpf_prog_select_runtime", "__bpf_prog_select_runtime", "bpf_prog_select_runtime")},
	{Function: load.FnJIT, Stage: load.JIT, Depth: 5},
	{Function: load.FnBlind, Stage: load.Blinding, Depth: 6, Arg: Arg{Struct: "bpf_prog", Pointers: 1}},
	{Function: load.FnAttach, Stage: load.BTF, Depth: 3, Shape: Check},
	{Function: load.FnPatch, Stage: load.Blinding, Depth: 7, Shape: Check, Arg: Arg{Name: "off"}},
	{Function: load.FnModmem, Stage: load.JIT, Evidence: true, Depth: unknownDepth, Shape: Check, Arg: Arg{First: true}},
	{Function: load.FnCapable, Stage: load.Permission, Evidence: true, Depth: unknownDepth, Shape: Check, Arg: Arg{Name: "cap"}},
	{Function: load.FnLockdown, Stage: load.Permission, Evidence: true, Depth: unknownDepth, Shape: Check, Arg: Arg{Name: "what"}},
	{Function: load.FnLSM, Stage: load.Permission, Evidence: true, Depth: unknownDepth, Shape: Check, Arg: Arg{Name: "cmd"}},
	{Function: load.FnLSMLoad, Stage: load.Permission, Evidence: true, Depth: unknownDepth, Shape: Check},
	{Function: load.FnNewFD, Stage: load.Install, Depth: 2},
	{Function: load.FnSeccomp, Depth: 0, Arg: Arg{Struct: "sock_fprog", Pointers: 1}},
	{Function: load.FnSockFilter, Depth: 0, Arg: Arg{Struct: "sock_fprog", Pointers: 1}},
	{Function: load.FnXDPAttach, Depth: 2, Stage: load.Request, Arg: extack},
	// These begin calls of their own, so they come last.
	{Function: load.FnXDPChange, Depth: 1, Stage: load.Request, Args: []Arg{device, extack, {Name: "fd"}, {Name: "flags"}}},
	{Function: load.FnSockAttach, Depth: 1, Stage: load.Request, Args: []Arg{{Name: "ufd"}}},
	{Function: load.FnReuseport, Depth: 1, Stage: load.Request, Args: []Arg{{Name: "ufd"}}},
	{Function: load.FnTCFilter, Depth: 1, Stage: load.Request, Args: []Arg{request, extack}},
	{Function: load.FnTCQdisc, Depth: 1, Stage: load.Request, Args: []Arg{request, extack}},
	{Function: load.FnSetLink, Depth: 1, Stage: load.Request, Args: []Arg{request, extack}},
	// What follows has no number.
	{Function: load.FnVerbose, Depth: unknownDepth, Shape: Message, Points: []Point{
		{"verbose", []string{"verbose"}}, {"bpf_verifier_log_write", []string{"bpf_verifier_log_write"}},
	}},
	{Function: load.FnDenied, Depth: unknownDepth, Shape: Denial, Points: point("secure_computing", "__secure_computing")},
})

func point(program string, symbols ...string) []Point { return []Point{{program, symbols}} }

func number(rows []Hook) []Hook {
	for i := range rows {
		h := &rows[i]
		h.Number = uint32(i)
		if h.Points == nil {
			h.Points = point(string(h.Function), string(h.Function))
		}
		if h.Shows == nil && h.Stage != "" {
			h.Shows = []load.Stage{h.Stage}
		}
	}
	return rows
}

// All are the watched functions. They are not to be changed.
func All() []Hook { return table }

// Numbered returns the hook of a number in enum hook, nil when there is none.
func Numbered(n uint32) *Hook {
	if int64(n) >= int64(len(table)) || table[n].Shape == Message || table[n].Shape == Denial {
		return nil
	}
	return &table[n]
}

var byFunction = func() map[load.Function]*Hook {
	m := make(map[load.Function]*Hook)
	for i := range table {
		m[table[i].Function] = &table[i]
	}
	return m
}()

var unknown = &Hook{Depth: unknownDepth}

// Of returns the hook of a function. That of one which is not watched says nothing.
func Of(f load.Function) *Hook {
	if h := byFunction[f]; h != nil {
		return h
	}
	return unknown
}
