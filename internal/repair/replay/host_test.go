// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"os"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/repair/guardian"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

func needRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
}

// Far jumps that the hardened kernel of the lab refused are refused here too where this one has no
// interpreter, and load with islands.
func TestHostBlinding(t *testing.T) {
	needRoot(t)
	if os.Getenv("BPFWHY_HOST_SYSCTL") != "1" {
		t.Skip("raises net.core.bpf_jit_harden; needs BPFWHY_HOST_SYSCTL=1")
	}
	raised, err := guardian.RaiseHarden(t.Context(), 2)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() {
		report, err := raised.Restore()
		qt.Check(t, qt.IsNil(err))
		t.Log(report)
	})
	always, known := node.Host().JITAlwaysOn()
	for name, rule := range map[string]string{"blinding": "BLIND001", "blinding-calls": "BLIND002"} {
		t.Run(name, func(t *testing.T) {
			failed, interpreted := replayed(t, traceOf("hardened", name)), replayed(t, traceOf("6.12", name))
			if !known || !always {
				failed, interpreted = interpreted, failed
				rule = "BLIND003"
			}
			proved(t, failed, rule)
			// The kernel of the other trace does something else with what it cannot compile: the
			// repair helps all the same, and it is not called reproduced.
			qt.Check(t, qt.Equals(interpreted.Replay.Verdict, load.ReplayNotReproduced))
			qt.Check(t, qt.Equals(interpreted.Diagnosis.HowKnown, load.Observed))
			qt.Check(t, qt.StringContains(interpreted.Replay.Why, "with a jump island it is compiled"))
		})
	}
}

// proved checks what a far jump's replay must have shown.
func proved(t *testing.T, a *load.Attempt, rule string) {
	t.Helper()
	r := a.Replay
	qt.Assert(t, qt.Equals(r.Verdict, load.ReplayReproduced), qt.Commentf("%s", r.Why))
	qt.Check(t, qt.Equals(r.Original.Outcome, a.Outcome))
	qt.Check(t, qt.Equals(r.Original.Errno, a.Errno))
	qt.Check(t, qt.Equals(r.Original.JITedBytes, 0))
	qt.Check(t, qt.Equals(r.Original.Insns, a.Program.Insns))
	qt.Check(t, qt.Equals(r.Repaired.Outcome, load.Loaded))
	qt.Check(t, qt.IsTrue(r.Repaired.JITedBytes > 32000))
	qt.Check(t, qt.Equals(r.Repaired.Islands, 1)) // one jump, 33,355 slots after blinding: one stop on the way
	qt.Check(t, qt.IsTrue(r.Repaired.Insns > a.Program.Insns))
	qt.Check(t, qt.Equals(a.Diagnosis.Rule, rule))
	qt.Check(t, qt.Equals(a.Diagnosis.HowKnown, load.Reproduced))
	evidence := strings.Join(a.Diagnosis.Evidence, "\n")
	qt.Check(t, qt.StringContains(evidence, "with one jump island it loads and is compiled"))
	qt.Check(t, qt.StringContains(evidence, "needs an offset of 33355")) // what was seen is still told
}

// As this machine is: without blinding the far jump loads, and the reason is named.
func TestHostAsItIs(t *testing.T) {
	needRoot(t)
	here := node.Host()
	if h, ok := here.Sysctl("net.core.bpf_jit_harden"); !ok || h != 0 {
		t.Skip("blinds")
	}
	a := replayed(t, traceOf("hardened", "blinding"))
	qt.Check(t, qt.Equals(a.Replay.Verdict, load.ReplayNotReproduced))
	qt.Check(t, qt.StringContains(a.Replay.Why, "here it loads and is compiled: net.core.bpf_jit_harden is 0 and was 2"))
	qt.Check(t, qt.Equals(a.Diagnosis.Rule, "BLIND001"))
	qt.Check(t, qt.Equals(a.Diagnosis.HowKnown, load.Observed))
	qt.Check(t, qt.IsNil(a.Replay.Repaired))
}

// The loader's capabilities and not ours: what an unprivileged loader could not load, root does not
// load for it.
func TestHostCapabilities(t *testing.T) {
	needRoot(t)
	a := replayed(t, traceOf("6.12", "no-capability"))
	qt.Check(t, qt.Equals(a.Replay.Verdict, load.ReplayReproduced))
	qt.Check(t, qt.Equals(a.Replay.Original.Errno, int(unix.EPERM)))
	qt.Check(t, qt.Equals(a.Diagnosis.Rule, "PERM001"))
	qt.Check(t, qt.Equals(a.Diagnosis.HowKnown, load.Reproduced))

	// The same program with the capabilities: it is these that make the difference.
	a, n := finding(t, traceOf("6.12", "no-capability"))
	a.Evidence.Caps = 1<<unix.CAP_BPF | 1<<unix.CAP_PERFMON | 1<<unix.CAP_SYS_ADMIN
	_, err := Prove(t.Context(), a, Options{Recorded: n, Here: node.Host()})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(a.Replay.Original.Errno, 0))
	qt.Check(t, qt.Equals(a.Replay.Verdict, load.ReplayNotReproduced))

	// In another user namespace they did not count.
	a, n = finding(t, traceOf("6.12", "no-capability"))
	a.Evidence.Caps, a.Evidence.UserNSLevel = ^uint64(0), 1
	a.Process.UID, a.Process.GID = 65534, 65534
	_, err = Prove(t.Context(), a, Options{Recorded: n, Here: node.Host()})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(a.Replay.Verdict, load.ReplayReproduced), qt.Commentf("%s", a.Replay.Why))

	// What we do not have ourselves cannot be had.
	a, n = finding(t, traceOf("6.12", "uninit-register"))
	a.Evidence.Caps = 1 << 63
	_, err = Prove(t.Context(), a, Options{Recorded: n, Here: node.Host()})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(a.Replay.Verdict, load.ReplayNotReproduced)) // EPERM: no capability that bpf(2) knows
}

// Where a trace has the verdict and not the words, the second load brings them.
func TestHostWords(t *testing.T) {
	needRoot(t)
	silence := func(a *load.Attempt) {
		a.Evidence.Log, a.Evidence.Messages, a.VerifierLog = "", nil, load.VerifierLog{Origin: load.LogNone}
	}
	for _, test := range []struct {
		name  string
		spoil func(*load.Attempt)
		want  load.ReplayVerdict
		how   load.HowKnown
		why   string
	}{
		{"the failing instruction was seen", silence, load.ReplayReproduced, load.Reproduced, ""},
		{"at another instruction", func(a *load.Attempt) { silence(a); a.Evidence.FailedInsn = 5 }, load.ReplayNotReproduced, "",
			"it fails with the same errno here, but at instruction 6 and not at 5"},
		{"nothing to compare with", func(a *load.Attempt) { silence(a); a.Evidence.FailedInsn = -1 }, load.ReplayNotReproduced, load.Inferred,
			"it fails with the same errno here, but neither the verifier's words nor the place were recorded: it cannot be told whether for the same reason"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, n := finding(t, traceOf("6.12", "null-map-value"))
			test.spoil(a)
			conclude(a, n)
			_, err := Prove(t.Context(), a, Options{Recorded: n, Here: node.Host()})
			qt.Assert(t, qt.IsNil(err))
			conclude(a, n)
			qt.Check(t, qt.Equals(a.Replay.Verdict, test.want))
			qt.Check(t, qt.Equals(a.Replay.Why, test.why))
			if test.how == "" { // its words are about something else
				qt.Check(t, qt.Equals(a.VerifierLog.Origin, load.LogNone))
				qt.Check(t, qt.Not(qt.Equals(a.Diagnosis.HowKnown, load.Reproduced)))
				return
			}
			qt.Check(t, qt.Equals(a.VerifierLog.Origin, load.LogReplay))
			qt.Check(t, qt.StringContains(strings.Join(a.VerifierLog.Lines, "\n"), "R0 invalid mem access 'map_value_or_null'"))
			qt.Check(t, qt.Equals(a.Diagnosis.Rule, "VER001"))
			qt.Check(t, qt.Equals(a.Diagnosis.HowKnown, test.how))
		})
	}
	// Words that contradict: another complaint than the recorded one.
	a, n := finding(t, traceOf("6.12", "null-map-value"))
	a.Evidence.Log = "0: (bf) r0 = r2\nR2 !read_ok\n"
	_, err := Prove(t.Context(), a, Options{Recorded: n, Here: node.Host()})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(a.Replay.Verdict, load.ReplayNotReproduced))
	qt.Check(t, qt.Equals(a.Replay.Why, `it fails with the same errno here, but the verifier says "R0 invalid mem access 'map_value_or_null'"`))
}

// A verdict without the map list is discarded, and nothing is loaded for it.
func TestHostNoMaps(t *testing.T) {
	needRoot(t)
	a, n := finding(t, traceOf("6.12", "null-map-value"))
	a.Evidence.Maps = nil
	r, err := Prove(t.Context(), a, Options{Recorded: n, Here: node.Host()})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(r.Verdict, load.ReplayDiscarded))
	qt.Check(t, qt.IsNil(r.Original))
	conclude(a, n)
	qt.Check(t, qt.Equals(a.Diagnosis.HowKnown, load.Observed))
	qt.Check(t, qt.StringContains(strings.Join(a.Diagnosis.Evidence, "\n"),
		"loading it again proves nothing: the program refers to maps, and the trace does not say which"))
}

// A child that takes too long is stopped.
func TestHostTimeout(t *testing.T) {
	needRoot(t)
	a, n := finding(t, traceOf("6.12", "too-complex"))
	r, err := Prove(t.Context(), a, Options{Recorded: n, Here: node.Host(), Timeout: 1})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(r.Verdict, load.ReplayDiscarded))
	qt.Check(t, qt.StringContains(r.Why, "did not finish within 1ns"))
}

// Every type of map that this kernel has can be stood in for: a program that only names it is
// accepted by the verifier.
func TestHostStandIns(t *testing.T) {
	needRoot(t)
	here := node.Host()
	if here.Does(node.Arenas) != node.Yes {
		t.Skip("arenas, the last type, came in 6.9")
	}
	made := new(Maps)
	create := func(fd int, fields map[int]uint32) {
		a := &load.Attempt{Kind: load.MapCreate, Outcome: load.Loaded}
		a.Evidence.Attr, a.Evidence.Calls = attrOf(fields), []load.Call{{Ret: fd}}
		made.Add(a)
	}
	create(20, map[int]uint32{0: 2, 4: 4, 8: 8, 12: 5})
	create(12, map[int]uint32{0: 12, 4: 4, 8: 4, 12: 3, mapAttrInner: 20})
	create(13, map[int]uint32{0: 13, 4: 4, 8: 4, 12: 3, mapAttrInner: 20})
	const noPrealloc, mmapable = 1, 1 << 10
	maps := map[int32]load.MapRef{}
	add := func(typ, key, value, entries, flags uint32) {
		maps[int32(typ)] = load.MapRef{Name: "m", Type: typ, KeySize: key, ValueSize: value, MaxEntries: entries, Flags: flags}
	}
	for _, typ := range []uint32{1, 2, 5, 6, 9, 10} {
		add(typ, 4, 24, 1<<24, 0)
	}
	for _, typ := range []uint32{3, 4, 8, 12, 13, 14, 15, 17, 18, 25} {
		add(typ, 4, 4, 3, 0)
	}
	add(7, 4, 80, 10_000, 0)
	add(11, 8, 8, 1<<20, noPrealloc)
	add(22, 0, 8, 1<<20, 0)
	add(23, 0, 8, 1<<20, 0)
	add(24, 4, 13, 0, noPrealloc)
	add(27, 0, 0, 1<<24, 0)
	add(28, 4, 8, 0, noPrealloc)
	add(29, 4, 8, 0, noPrealloc)
	add(30, 0, 8, 1<<20, 0)
	add(31, 0, 0, 1<<24, 0)
	add(32, 4, 8, 0, noPrealloc)
	add(33, 0, 0, 100, mmapable)
	for typ, m := range maps {
		a := attempt(program(mapLoad(insn.PseudoMapFD, typ)), map[int]uint32{attrType: 1}, m)
		_, err := Prove(t.Context(), a, Options{Recorded: there, Here: here, Maps: made})
		qt.Assert(t, qt.IsNil(err))
		if qt.Check(t, qt.IsNotNil(a.Replay.Original), qt.Commentf("type %d: %s", typ, a.Replay.Why)) {
			qt.Check(t, qt.Equals(a.Replay.Original.Outcome, load.Loaded), qt.Commentf("type %d: %s", typ, a.Replay.Why))
		}
	}
}
