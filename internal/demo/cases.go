// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"fmt"
	"slices"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/demo/failing"
	"github.com/bpfwhy/bpfwhy/load"
)

// Case is one load that fails on purpose, and what bpfwhy must say about it.
type Case struct {
	Name  string // "null-map-value"
	Title string
	Load  failing.Load
	// Expect are the fates that the load has, one or other by kernel. Each was written down from
	// what the kernel does.
	Expect []Expect
	// Jump is the jump to be named, nil when blinding plays no part.
	Jump *Jump
	// ShownBy is the one hook that shows the load at all, "" when many do.
	ShownBy load.Function
}

// Harden is the least net.core.bpf_jit_harden at which the load fails.
func (c *Case) Harden() int { return c.Load.Needs.Harden }

// VM says that the case takes a machine that was prepared for it, which a host never is.
func (c *Case) VM() bool { return c.Load.Needs.VM }

// Expect is one fate of a load, and the right answer to it.
type Expect struct {
	Outcome load.Outcome `json:"outcome"`
	Errno   int          `json:"errno"` // positive, 0 when loaded
	Stage   load.Stage   `json:"failed_stage,omitempty"`
	Rule    string       `json:"rule,omitempty"` // "" when there is nothing to explain
	Kernels string       `json:"kernels,omitempty"`
}

func (e Expect) String() string {
	switch e.Outcome {
	case load.Loaded:
		return "loads"
	case load.LoadedNotJITed:
		return fmt.Sprintf("loads un-jited, at %s, %s", e.Stage, e.Rule)
	}
	return fmt.Sprintf("fails with %s at %s, %s", failing.ErrnoName(e.Errno), e.Stage, e.Rule)
}

// Jump is a jump that breaks: 8-byte slots of the submitted program, and the line of source that it
// comes from.
type Jump struct {
	From, To int
	Source   string
}

// Cases are all cases, in the order in which they are worth showing.
func Cases() []Case {
	failed := func(errno int, stage load.Stage, rule, kernels string) Expect {
		return Expect{Outcome: load.Failed, Errno: errno, Stage: stage, Rule: rule, Kernels: kernels}
	}
	const interpreter = "kernels that keep the interpreter run the program there"
	interpreted := func(stage load.Stage, rule, kernels string) Expect {
		return Expect{Outcome: load.LoadedNotJITed, Stage: stage, Rule: rule, Kernels: kernels}
	}
	all := failing.All()
	find := func(name string) failing.Load {
		return all[slices.IndexFunc(all, func(p failing.Load) bool { return p.Name == name })]
	}
	// fails is a case of the load of the same name, which fails alike on all kernels.
	fails := func(name, title string, errno int, stage load.Stage, rule string) Case {
		return Case{Name: name, Title: title, Load: find(name), Expect: []Expect{failed(errno, stage, rule, "all")}}
	}
	shownBy := func(hook load.Function, c Case) Case { c.ShownBy = hook; return c }
	return []Case{
		{Name: "blinding", Title: "constant blinding, in a program of one function", Load: find("far-jump-elf"),
			Expect: []Expect{
				failed(abi.ENOTSUPP, load.Blinding, "BLIND001", "JIT_ALWAYS_ON has no interpreter; 6.1.y behaves so for one function"),
				interpreted(load.Blinding, "BLIND003", interpreter),
			},
			Jump: &Jump{From: 2, To: 32282, Source: "far_jump.c:10"}},
		{Name: "blinding-calls", Title: "constant blinding, in a program with bpf-to-bpf calls", Load: find("far-calls-elf"),
			Expect: []Expect{
				failed(abi.ENOTSUPP, load.Blinding, "BLIND002", "JIT_ALWAYS_ON has no interpreter"),
				interpreted(load.Blinding, "BLIND003", interpreter+" when the JIT gives up inside the verifier's call"),
			},
			// The main function's 8 slots come first.
			Jump: &Jump{From: 10, To: 32290, Source: "far_calls.c:9"}},

		fails("null-map-value", "a map value used without a null check", abi.EACCES, load.Verifier, "VER001"),
		fails("uninit-register", "a register that was never written", abi.EACCES, load.Verifier, "VER002"),
		fails("out-of-bounds", "a read behind the end of a map value", abi.EACCES, load.Verifier, "VER003"),
		fails("too-complex", "a program that the verifier gives up on", abi.E2BIG, load.Verifier, "VER101"),
		fails("wrong-helper", "a helper that programs of this type may not call", abi.EINVAL, load.Verifier, "FEAT002"),
		fails("bad-map-fd", "a map file descriptor that is not open", abi.EBADF, load.Verifier, "REQ002"),
		fails("missing-kfunc", "a kernel function (kfunc) that does not exist", abi.EINVAL, load.Verifier, "FEAT006"),
		fails("no-capability", "a loader without capabilities", abi.EPERM, load.Permission, "PERM001"),
		fails("log-too-small", "a log buffer too small for the log of a good program", abi.ENOSPC, load.Verifier, "REQ004"),
		fails("emfile", "no file descriptor left", abi.EMFILE, load.Install, "INST001"),
		shownBy(load.FnDenied, fails("seccomp", "a seccomp policy that forbids bpf(2)", abi.EPERM, load.Request, "PERM006")),
		{Name: "ok", Title: "a load that works", Load: find("ok"),
			Expect: []Expect{{Outcome: load.Loaded, Kernels: "all"}}},

		{Name: "jit-limit", Title: "the memory for compiled programs is used up", Load: find("jit-limit"),
			Expect: []Expect{
				failed(abi.ENOTSUPP, load.JIT, "JIT001", "6.1.y, and JIT_ALWAYS_ON"),
				interpreted(load.JIT, "JIT001", interpreter),
			}},
		fails("lockdown", "a helper that lockdown takes away", abi.EINVAL, load.Permission, "PERM003"),
		{Name: "memlock", Title: "RLIMIT_MEMLOCK of one page", Load: find("memlock"),
			Expect: []Expect{
				failed(abi.EPERM, load.Resources, "PERM007", "before 5.11"),
				{Outcome: load.Loaded, Kernels: "from 5.11 on, which do not look at the limit"},
			}},
	}
}

// Find returns the cases of these names, all of them when there are no names.
func Find(names []string) ([]Case, error) {
	all := Cases()
	if len(names) == 0 {
		return all, nil
	}
	for _, n := range names {
		if !slices.ContainsFunc(all, func(c Case) bool { return c.Name == n }) {
			return nil, fmt.Errorf("no case %q; 'bpfwhy demo --list' names them", n)
		}
	}
	return slices.DeleteFunc(all, func(c Case) bool { return !slices.Contains(names, c.Name) }), nil
}
