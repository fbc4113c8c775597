// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/go-quicktest/qt"
)

// The programs that tell are what they are meant to be, by the model.
func TestProofPrograms(t *testing.T) {
	v, err := blinding.Check(farForward(), blinding.Kernel{})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(v.Failure, blinding.Patch))
	wraps, fits := wrapping()
	v, err = blinding.Check(fits, blinding.Kernel{})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(v.Fits))
	v, err = blinding.Check(wraps, blinding.Kernel{})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(v.Wraps))
	// Where it would go is in the program: the compiler looks there.
	qt.Check(t, qt.IsTrue(v.Jump.From+v.Jump.Need+1<<16 < v.After))
	v, err = blinding.Check(wraps, blinding.Kernel{RangeCheck: true})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(v.Failure, blinding.RangeCheck))
}

// Whatever a sentence of a record says, neither an address nor the host's name gets out.
func TestProofTellsNothing(t *testing.T) {
	const host = "db7.prod.example"
	planted := "at 0xffff888104c2a000, ffffffff81234567, -2130504345 and ffff800081234567 of " + host + " (/srv/DB7.prod.example)"
	p := Proof{Schema: ProofSchema, Bpfwhy: "v1",
		Node: node.Document{Schema: node.Schema, Profile: node.Profile{
			Release: "6.12.117", Version: "#1 SMP Debian 6.12.117-1 (2026-09-30)", Machine: "x86_64", ConfigSource: planted, Container: planted,
			Sysctls: map[string]string{"net.core.bpf_jit_limit": "264241152"}, Blinding: &node.Blinding{From: planted},
			Interpreter: &node.Interpreter{From: planted}, Proven: map[node.Behaviour]node.Proof{node.ChecksWrap: {Seen: planted}},
			Unknown: map[string]string{"lsms": planted}}},
		Hooks: []trace.Hook{{Function: "bpf_check", Why: planted}}, Rows: []Row{{Name: node.ChecksWrap, Table: "no", Seen: "no", How: planted}}}
	b, err := p.Encode(host)
	qt.Assert(t, qt.IsNil(err))
	for _, secret := range []string{"04c2a000", "81234567", "2130504345", host, "DB7"} {
		qt.Check(t, qt.IsFalse(strings.Contains(string(b), secret)), qt.Commentf("%s: %s", secret, b))
	}
	// And it is read as it was meant.
	got, err := node.Decode(bytes.NewReader(b))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(got.Version, p.Node.Version))
	qt.Check(t, qt.Equals(got.Sysctls["net.core.bpf_jit_limit"], "264241152"))
	qt.Check(t, qt.Equals(got.Does(node.ChecksWrap), node.No))
	qt.Check(t, qt.StringContains(got.Container, "of (host)"))
}

// What is seen of this kernel is what its release says, where both are known.
func TestProveHere(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	p := node.Host()
	agree(t, p, Prove(t.Context(), p))
}

func agree(t *testing.T, p *node.Profile, rows []Row) {
	seen := map[node.Behaviour]string{}
	for _, r := range rows {
		t.Logf("%s: table %s, seen %s (%s)", r.Name, r.Table, r.Seen, r.How)
		qt.Check(t, qt.Not(qt.Equals(r.How, "")), qt.Commentf("%s", r.Name))
		if r.Table != "unknown" && r.Seen != "unknown" && r.Name != node.AlwaysFallsBack { // "no" is "not always"
			qt.Check(t, qt.Equals(r.Seen, r.Table), qt.Commentf("%s: %s", r.Name, r.How))
		}
		seen[r.Name] = r.Seen
		if r.Seen != "unknown" {
			qt.Check(t, qt.Equals(p.Does(r.Name).String(), r.Seen), qt.Commentf("%s", r.Name))
		}
	}
	for _, b := range []node.Behaviour{node.MillionInstructions, node.BoundedLoops, node.LoadAcquire, node.LogWithoutBuffer, node.SmallLog} {
		qt.Check(t, qt.Not(qt.Equals(seen[b], "unknown")), qt.Commentf("%s", b))
	}
}

// TestGuestProve: at 2 the kernels show how they blind, and whether they fall back to an
// interpreter; at 1 whom they spare.
func TestGuestProve(t *testing.T) {
	kernel := vmtest.Guest(t)
	const harden = "/proc/sys/net/core/bpf_jit_harden"
	was, err := os.ReadFile(harden)
	qt.Assert(t, qt.IsNil(err))
	defer os.WriteFile(harden, was, 0)
	qt.Assert(t, qt.IsNil(os.WriteFile(harden, []byte("2"), 0)))
	p := node.Host()
	agree(t, p, Prove(t.Context(), p))
	qt.Check(t, qt.Equals(p.Proven[node.ChecksWrap], node.Proof{Does: kernel == "7", Seen: p.Proven[node.ChecksWrap].Seen}))
	falls, tried := p.Proven[node.AlwaysFallsBack]
	qt.Check(t, qt.Equals(tried, kernel != "hardened"))
	qt.Check(t, qt.Equals(falls.Does, kernel != "6.1" && kernel != "hardened"))

	qt.Assert(t, qt.IsNil(os.WriteFile(harden, []byte("1"), 0)))
	p = node.Host()
	agree(t, p, Prove(t.Context(), p))
	spares, tried := p.Proven[node.HardenSparesCapBPF]
	qt.Check(t, qt.IsTrue(tried))
	qt.Check(t, qt.Equals(spares.Does, kernel != "5.10"))
}
