// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"os"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/load"
)

// TestKernels proves on a kernel what was recorded on it. That of the lab without an interpreter
// stands for the others, which TestGuestProve of package cli records anew and proves.
func TestKernels(t *testing.T) {
	kernels := []string{"hardened"}
	if vmtest.Long() {
		kernels = []string{"5.10", "6.1", "6.12", "7", "hardened"}
	}
	vmtest.RunIn(t, kernels, "^TestGuest", vm.Machine{Files: map[string]string{"/demo/testdata/traces": "../../demo/testdata/traces"}})
}

func TestGuestTraces(t *testing.T) {
	kernel := vmtest.Guest(t)
	qt.Assert(t, qt.IsNil(os.WriteFile("/proc/sys/net/core/bpf_jit_harden", []byte("2"), 0o644)))
	blinding := map[string]string{"5.10": "BLIND003", "6.1": "BLIND001", "6.12": "BLIND003", "7": "BLIND003", "hardened": "BLIND001"}
	withCalls := map[string]string{"5.10": "BLIND003", "6.1": "BLIND003", "6.12": "BLIND003", "7": "BLIND003", "hardened": "BLIND002"}
	t.Run("blinding", func(t *testing.T) { proved(t, replayed(t, traceOf(kernel, "blinding")), blinding[kernel]) })
	t.Run("blinding-calls", func(t *testing.T) { proved(t, replayed(t, traceOf(kernel, "blinding-calls")), withCalls[kernel]) })

	// RLIMIT_MEMLOCK decides before 5.11.
	if kernel == "5.10" {
		a := replayed(t, traceOf(kernel, "memlock"))
		qt.Check(t, qt.Equals(a.Replay.Verdict, load.ReplayReproduced))
		qt.Check(t, qt.Equals(a.Diagnosis.Rule, "PERM007"))
	}
	for name, want := range map[string]struct {
		verdict load.ReplayVerdict
		why     string
	}{
		"null-map-value":  {load.ReplayReproduced, ""},
		"out-of-bounds":   {load.ReplayReproduced, ""},
		"uninit-register": {load.ReplayReproduced, ""},
		"wrong-helper":    {load.ReplayReproduced, ""},
		"missing-kfunc":   {load.ReplayReproduced, ""},
		"no-capability":   {load.ReplayReproduced, ""},
		// What was around the program is not in the program.
		"emfile":        {load.ReplayNotReproduced, "here it loads and is compiled: no descriptor is wanting"},
		"log-too-small": {load.ReplayNotReproduced, "here it loads and is compiled: it asked for no log, and the loader's had only "},
		// An unprivileged loader, on a machine that was set up for it.
		"jit-limit": {load.ReplayNotReproduced, "here it fails with EPERM (1): kernel.unprivileged_bpf_disabled is 2 and was 0"},
		// Under lockdown nothing of the loader can be read.
		"lockdown":   {load.ReplayRefused, "the loader's capabilities were not recorded, and ours must not stand in for them"},
		"bad-map-fd": {load.ReplayDiscarded, "the program refers to maps, and the trace does not say which"},
	} {
		t.Run(name, func(t *testing.T) {
			a := replayed(t, traceOf(kernel, name))
			qt.Check(t, qt.Equals(a.Replay.Verdict, want.verdict))
			qt.Check(t, qt.IsTrue(strings.HasPrefix(a.Replay.Why, want.why)), qt.Commentf("%s", a.Replay.Why))
			qt.Check(t, qt.Equals(a.Diagnosis.HowKnown == load.Reproduced, want.verdict == load.ReplayReproduced))
		})
	}
}
