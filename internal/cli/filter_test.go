// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

func TestShows(t *testing.T) {
	attempt := func(k load.Kind, o load.Outcome, probe string) *load.Attempt {
		return &load.Attempt{Kind: k, Outcome: o, FeatureProbe: probe}
	}
	tests := []struct {
		name                string
		a                   *load.Attempt
		plain, failed, wide bool // without flags, with --failed, with --all
	}{
		{"load that works", attempt(load.ProgLoad, load.Loaded, ""), true, false, true},
		{"load that fails", attempt(load.ProgLoad, load.Failed, ""), true, true, true},
		{"load in the interpreter", attempt(load.ProgLoad, load.LoadedNotJITed, ""), true, true, true},
		{"probe that works", attempt(load.ProgLoad, load.Loaded, "p"), false, false, true},
		{"probe that fails", attempt(load.ProgLoad, load.Failed, "p"), false, false, true},
		{"map that works", attempt(load.MapCreate, load.Loaded, ""), false, false, true},
		{"map that fails", attempt(load.MapCreate, load.Failed, ""), true, true, true},
		{"map that a loader probes with", attempt(load.MapCreate, load.Failed, "p"), false, false, true},
		{"seccomp filter that works", attempt(load.Seccomp, load.Loaded, ""), false, false, true},
		{"seccomp filter that fails", attempt(load.Seccomp, load.Failed, ""), true, true, true},
		{"seccomp filter in the interpreter", attempt(load.Seccomp, load.LoadedNotJITed, ""), true, true, true},
	}
	for _, tt := range tests {
		qt.Check(t, qt.Equals((&selection{}).shows(tt.a), tt.plain), qt.Commentf("%s", tt.name))
		qt.Check(t, qt.Equals((&selection{failed: true}).shows(tt.a), tt.failed), qt.Commentf("%s, --failed", tt.name))
		qt.Check(t, qt.Equals((&selection{all: true}).shows(tt.a), tt.wide), qt.Commentf("%s, --all", tt.name))
	}
}

func TestCoverage(t *testing.T) {
	by, missing := coverage(trace.Header{Hooks: []trace.Hook{
		{Function: load.FnSyscall, Via: "fentry"}, {Function: load.FnCheck, Via: "fentry"}, {Function: load.FnJIT, Via: "kprobe"},
		{Function: load.FnPatch, Why: "not there"}, {Function: load.FnLSM, Via: ""},
	}})
	qt.Check(t, qt.Equals(by, "fentry and kprobe"))
	qt.Check(t, qt.DeepEquals(missing, []string{"permission", "blinding"}))
	by, missing = coverage(trace.Header{})
	qt.Check(t, qt.Equals(by, "no hook"))
	qt.Check(t, qt.HasLen(missing, 4))
}

// TestOutputIsBounded: what waits for the command's end does not grow without end.
func TestOutputIsBounded(t *testing.T) {
	o, err := openOutput(std{}, "")
	qt.Assert(t, qt.IsNil(err))
	line := strings.Repeat("x", 1<<20)
	for range 64 {
		n, err := o.Write([]byte(line))
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(n, len(line)))
	}
	qt.Assert(t, qt.Equals(o.held.Len(), heldOutput))
	qt.Assert(t, qt.Equals(o.dropped, 56<<20))
}

func TestOutputFile(t *testing.T) {
	dir := t.TempDir()
	old := filepath.Join(dir, "old")
	qt.Assert(t, qt.IsNil(os.WriteFile(old, []byte("what was there before"), 0o644)))
	o, err := openOutput(std{}, old)
	qt.Assert(t, qt.IsNil(err))
	_, err = o.Write([]byte("new"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(o.Close()))
	b, err := os.ReadFile(old)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(b), "new"))
	info, err := os.Stat(old)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(info.Mode().Perm(), 0o600))
	// A link that somebody has put there is not followed.
	link := filepath.Join(dir, "link")
	qt.Assert(t, qt.IsNil(os.Symlink(old, link)))
	_, err = openOutput(std{}, link)
	qt.Check(t, qt.IsNotNil(err))
	// Nor is a pipe waited for, or a file with another name written.
	pipe, hard := filepath.Join(dir, "pipe"), filepath.Join(dir, "hard")
	qt.Assert(t, qt.IsNil(unix.Mkfifo(pipe, 0o666)))
	qt.Assert(t, qt.IsNil(os.Link(old, hard)))
	for _, name := range []string{pipe, hard} {
		_, err = openOutput(std{}, name)
		qt.Check(t, qt.IsNotNil(err), qt.Commentf("%s", name))
	}
	if os.Getuid() == 0 { // nor a file of somebody else
		qt.Assert(t, qt.IsNil(os.Remove(hard)))
		qt.Assert(t, qt.IsNil(os.Chown(old, 65534, 65534)))
		_, err = openOutput(std{}, old)
		qt.Check(t, qt.ErrorMatches(err, "create file: .*/old exists and belongs to another user"))
		b, err = os.ReadFile(old)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(string(b), "new"))
	}
}

// A pod is known by its uid, in the names that either driver of control groups gives.
func TestShowsPod(t *testing.T) {
	const uid = "0a1b2c3d-0000-1111-2222-333344445555"
	s := selection{pod: uid}
	for name, wanted := range map[string]bool{
		"kubepods/burstable/pod" + uid + "/x": true,
		"kubepods-burstable.slice/kubepods-burstable-pod0a1b2c3d_0000_1111_2222_333344445555.slice/cri-containerd-" + strings.Repeat("a", 64) + ".scope": true,
		"kubepods/pod1a1b2c3d-0000-1111-2222-333344445555": false,
		"/": false,
	} {
		a := &load.Attempt{Kind: load.ProgLoad, Outcome: load.Failed, Process: load.Process{Cgroups: []load.Cgroup{{Version: 2, Name: "/"}, {Version: 1, Name: name}}}}
		qt.Check(t, qt.Equals(s.shows(a), wanted), qt.Commentf("%s", name))
	}
	qt.Check(t, qt.IsNil(checkPod("")))
	qt.Check(t, qt.IsNil(checkPod(uid)))
	qt.Check(t, qt.IsNotNil(checkPod("agent-x1")))
}
