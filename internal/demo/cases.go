// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"fmt"
	"slices"

	"github.com/bpfwhy/bpfwhy/internal/patient"
	"github.com/bpfwhy/bpfwhy/load"
)

// Case is one load that fails on purpose, and what bpfwhy must say about it.
type Case struct {
	Name    string // "null-map-value"
	Title   string
	Patient patient.Patient
	// Expect are the fates that the load has, one or other by kernel. Each was written down from what the kernel does.
	Expect []Expect
	// Jump is the jump to be named, nil when blinding plays no part.
	Jump *Jump
	// ShownBy is the one hook that shows the load at all, "" when many do.
	ShownBy load.Function
}

// Harden is the least net.core.bpf_jit_harden at which the load fails.
func (c *Case) Harden() int { return c.Patient.Needs.Harden }

// VM says that the case takes a machine that was prepared for it, which a host never is.
func (c *Case) VM() bool { return c.Patient.Needs.VM }

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
	return fmt.Sprintf("fails with %s at %s, %s", patient.ErrnoName(e.Errno), e.Stage, e.Rule)
}

// Jump is a jump that breaks: 8-byte slots of the submitted program, and the line of source that it comes from.
type Jump struct {
	From, To int
	Source   string
}

const (
	eperm, ebadf, eacces, einval, emfile, enospc, enotsupp, e2big = 1, 9, 13, 22, 24, 28, 524, 7
)

// Cases are all cases, in the order in which they are worth showing.
func Cases() []Case {
	failed := func(errno int, stage load.Stage, rule string) []Expect {
		return []Expect{{Outcome: load.Failed, Errno: errno, Stage: stage, Rule: rule, Kernels: "all"}}
	}
	const interpreter = "kernels that keep the interpreter run the program there"
	interpreted := func(stage load.Stage, rule, kernels string) Expect {
		return Expect{Outcome: load.LoadedNotJITed, Stage: stage, Rule: rule, Kernels: kernels}
	}
	all := patient.All()
	find := func(name string) patient.Patient {
		return all[slices.IndexFunc(all, func(p patient.Patient) bool { return p.Name == name })]
	}
	at := func(e Expect, kernels string) Expect { e.Kernels = kernels; return e }
	return []Case{
		{Name: "blinding", Title: "constant blinding, in a program of one function", Patient: find("far-jump-elf"),
			Expect: []Expect{
				at(failed(enotsupp, load.Blinding, "BLIND001")[0], "JIT_ALWAYS_ON has no interpreter; 6.1.y behaves so for one function"),
				interpreted(load.Blinding, "BLIND003", interpreter),
			},
			Jump: &Jump{From: 2, To: 32282, Source: "far_jump.c:10"}},
		{Name: "blinding-calls", Title: "constant blinding, in a program with bpf-to-bpf calls", Patient: find("far-calls-elf"),
			Expect: []Expect{
				at(failed(enotsupp, load.Blinding, "BLIND002")[0], "JIT_ALWAYS_ON has no interpreter"),
				interpreted(load.Blinding, "BLIND003", interpreter+" when the JIT gives up inside the verifier's call"),
			},
			// The main function's 8 slots come first.
			Jump: &Jump{From: 10, To: 32290, Source: "far_calls.c:9"}},

		{Name: "null-map-value", Title: "a map value used without a null check", Patient: find("null-map-value"),
			Expect: failed(eacces, load.Verifier, "VER001")},
		{Name: "uninit-register", Title: "a register that was never written", Patient: find("uninit-register"),
			Expect: failed(eacces, load.Verifier, "VER002")},
		{Name: "out-of-bounds", Title: "a read behind the end of a map value", Patient: find("out-of-bounds"),
			Expect: failed(eacces, load.Verifier, "VER003")},
		{Name: "too-complex", Title: "a program that the verifier gives up on", Patient: find("too-complex"),
			Expect: failed(e2big, load.Verifier, "VER101")},
		{Name: "wrong-helper", Title: "a helper that programs of this type may not call", Patient: find("wrong-helper"),
			Expect: failed(einval, load.Verifier, "FEAT002")},
		{Name: "bad-map-fd", Title: "a map file descriptor that is not open", Patient: find("bad-map-fd"),
			Expect: failed(ebadf, load.Verifier, "REQ002")},
		{Name: "missing-kfunc", Title: "a kernel function (kfunc) that does not exist", Patient: find("missing-kfunc"),
			Expect: failed(einval, load.Verifier, "FEAT006")},
		{Name: "no-capability", Title: "a loader without capabilities", Patient: find("no-capability"),
			Expect: failed(eperm, load.Permission, "PERM001")},
		{Name: "log-too-small", Title: "a log buffer that is too small for the log of a good program", Patient: find("log-too-small"),
			Expect: failed(enospc, load.Verifier, "REQ004")},
		{Name: "emfile", Title: "no file descriptor left", Patient: find("emfile"),
			Expect: failed(emfile, load.Install, "INST001")},
		{Name: "seccomp", Title: "a seccomp policy that forbids bpf(2)", Patient: find("seccomp"), ShownBy: load.FnDenied,
			Expect: failed(eperm, load.Request, "PERM006")},
		{Name: "ok", Title: "a load that works", Patient: find("ok"),
			Expect: []Expect{{Outcome: load.Loaded, Kernels: "all"}}},

		{Name: "jit-limit", Title: "the memory for compiled programs is used up", Patient: find("jit-limit"),
			Expect: []Expect{
				at(failed(enotsupp, load.JIT, "JIT001")[0], "6.1.y, and JIT_ALWAYS_ON"),
				interpreted(load.JIT, "JIT001", interpreter),
			}},
		{Name: "lockdown", Title: "a helper that lockdown takes away", Patient: find("lockdown"),
			Expect: failed(einval, load.Permission, "PERM003")},
		{Name: "memlock", Title: "RLIMIT_MEMLOCK of one page", Patient: find("memlock"),
			Expect: []Expect{
				at(failed(eperm, load.Resources, "PERM007")[0], "before 5.11"),
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
