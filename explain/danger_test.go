// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// A program that is interpreted: what is said before all else, on which kernel.
func TestDanger(t *testing.T) {
	const percpuArray, hash, arena = 6, 1, 33
	lookup := []insn.Instruction{mapFD(5), {}, call(1), exit}
	maps := func(types ...uint32) option {
		return func(a *load.Attempt) {
			for _, t := range types {
				a.Evidence.Maps = append(a.Evidence.Maps, load.MapRef{Type: t, KeySize: 4, ValueSize: 8, MaxEntries: 1})
			}
		}
	}
	blinded := spans(spanArg(load.FnPatch, -34, 10385), span(load.FnBlind, -34), load.Span{Function: load.FnJIT, Unjited: true})
	hardened := func(release string) *node.Profile { return lab(release, "net.core.bpf_jit_harden", "2") }
	off := lab("6.12.117", "net.core.bpf_jit_enable", "0")
	arm := hardened("6.12.117")
	arm.Machine = "aarch64"
	armOff := lab("6.12.117", "net.core.bpf_jit_enable", "0")
	armOff.Machine = "aarch64"
	knows := hardened("6.18.90")
	knows.Interpreter = &node.Interpreter{Refuses: true}
	mayGoto := []insn.Instruction{{Code: insn.OpcodeMayGoto, Off: 1}, {Code: insn.OpcodeJA, Off: -2}, movR0, exit}
	const at = "It may crash the machine when it runs: instruction "

	for _, c := range []struct {
		name string
		a    *load.Attempt
		n    *node.Profile
		rule string
		says string // "": nothing
	}{
		{"a lookup in a per-CPU array", unjitedLoad(harden(2), insns(lookup...), maps(percpuArray), blinded), hardened("6.12.117"), "BLIND003", at + "2 (call bpf_map_lookup_elem#1) looks up in a per-CPU array"},
		{"the same on arm64", unjitedLoad(harden(2), insns(lookup...), maps(percpuArray), blinded), arm, "BLIND003", at + "2 (call bpf_map_lookup_elem#1)"},
		{"a lookup in a hash", unjitedLoad(harden(2), insns(lookup...), maps(hash), blinded), hardened("6.12.117"), "BLIND003", ""},
		{"maps not known", unjitedLoad(harden(2), insns(lookup...), blinded), hardened("6.12.117"), "BLIND003", at + "2 (call bpf_map_lookup_elem#1) may look up"},
		{"the second map", unjitedLoad(harden(2), insns(append([]insn.Instruction{mapFD(7), {}}, lookup...)...), maps(hash, percpuArray), blinded), hardened("6.12.117"), "BLIND003", at + "4 "},
		{"before 6.9", unjitedLoad(harden(2), insns(lookup...), maps(percpuArray), blinded), hardened("6.1.0-49-cloud-amd64"), "BLIND003", ""},
		{"instructions not known", unjitedLoad(harden(2), blinded), hardened("6.12.117"), "BLIND003", "It may crash the machine when it runs: kernels like this one"},
		{"instructions not known, before 6.9", unjitedLoad(harden(2), blinded), hardened("5.10.0-30-cloud-amd64"), "BLIND003", ""},
		{"instructions not known, and the kernel refuses, by its types", unjitedLoad(harden(2), blinded), knows, "BLIND003", ""},
		{"instructions not known, and the kernel refuses, by its release", unjitedLoad(harden(2), blinded), hardened("7.2.13"), "BLIND003", ""},
		{"may_goto, where the kernel refuses the others", unjitedLoad(harden(2), insns(mayGoto...), blinded), hardened("7.2.13"), "BLIND003", at + "0 (may_goto"},
		{"an arena", unjitedLoad(harden(2), insns(mapFD(5), insn.Instruction{}, exit), maps(arena), blinded), hardened("6.12.117"), "BLIND003", at + "0 "},
		{"the JIT's memory", unjitedLoad(insns(call(8), exit), caps(0), spans(span(load.FnModmem, -1))), lab("6.12.117", "net.core.bpf_jit_limit", "1"), "JIT001", at + "0 (call bpf_get_smp_processor_id#8)"},
		{"the JIT gave up", unjitedLoad(insns(call(8), exit), hooked(load.JIT, 0, load.Request, load.Permission, load.Verifier), spans(load.Span{Function: load.FnJIT, Unjited: true})), lab("6.12.117"), "JIT002", at + "0 "},
		{"nothing is compiled", unjitedLoad(insns(call(8), exit)), off, "JIT003", ""},
		{"nothing is compiled, but arm64's JIT is asked all the same", unjitedLoad(insns(call(8), exit)), armOff, "JIT003", at + "0 "},
		{"it failed to load", progLoad(524, harden(2), insns(lookup...), maps(percpuArray), blinded, spans(span(load.FnSelect, -524))), hardened("6.12.117"), "BLIND001", ""},
	} {
		d := Explain(c.a, c.n)
		qt.Check(t, qt.Equals(d.Rule, c.rule), qt.Commentf("%s", c.name))
		if c.says == "" {
			qt.Check(t, qt.Equals(d.Danger, ""), qt.Commentf("%s", c.name))
			continue
		}
		qt.Check(t, qt.IsTrue(strings.HasPrefix(d.Danger, c.says)), qt.Commentf("%s: %q", c.name, d.Danger))
		qt.Check(t, qt.Equals(d.Remedies[0].ID, "do-not-run"), qt.Commentf("%s", c.name))
	}
}

// TestRulesSayDangerFirst: whoever reads that a program runs in the interpreter has read what that
// may do.
func TestRulesSayDangerFirst(t *testing.T) {
	const danger = "An interpreted program may crash the machine"
	interpreted := []string{"BLIND003", "JIT001", "JIT002", "JIT003", "JIT004"}
	for _, r := range All() {
		qt.Check(t, qt.Equals(strings.HasPrefix(r.Text, danger), slices.Contains(interpreted, r.ID)), qt.Commentf("%s: %.60s", r.ID, r.Text))
		if strings.Contains(r.Text, "slower") {
			qt.Check(t, qt.IsTrue(slices.Contains(interpreted, r.ID)), qt.Commentf("%s", r.ID))
		}
	}
}
