// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/sys/freeing"
	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/internal/watch/assemble"
	"github.com/bpfwhy/bpfwhy/internal/watch/capture"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// probeArgv0 is the name under which this test binary probes.
const probeArgv0 = "probe-features"

func TestMain(m *testing.M) {
	if os.Args[0] == probeArgv0 {
		_, _ = os.Stdin.Read(make([]byte, 1))
		p := node.Host()
		// all of them take an emulated machine a quarter of a minute
		add(context.Background(), p, []string{"xdp", "sched_cls", "kprobe"}, new(freeing.Bound).Closed)
		if err := json.NewEncoder(os.Stdout).Encode(p); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// watched probes in a process of its own, under the eyes of ours: none of its loads is a finding.
func watched(t *testing.T) *node.Profile {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{probeArgv0}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	qt.Assert(t, qt.IsNil(err))
	var out bytes.Buffer
	cmd.Stdout = &out
	qt.Assert(t, qt.IsNil(cmd.Start()))
	c, err := capture.Open(t.Context(), capture.Options{PIDs: []int{cmd.Process.Pid}})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(in.Close()))
	ended := make(chan error, 1)
	go func() {
		ended <- cmd.Wait()
		c.Close()
	}()
	asm := assemble.New(c.Header())
	known := map[string]int{}
	for {
		r, err := c.Next()
		if err == io.EOF {
			break
		}
		qt.Assert(t, qt.IsNil(err))
		if r.Loss != nil && r.Loss.Mechanism == trace.LostLoads {
			t.Errorf("lost: %+v", *r.Loss)
		}
		for at := range asm.Add(r) {
			known[at.FeatureProbe]++
			if at.Finding() {
				t.Errorf("a finding: %s %+v errno %d, map %+v", at.Kind, at.Program, at.Errno, at.Map)
			}
		}
	}
	qt.Assert(t, qt.IsNil(<-ended))
	t.Logf("%v", known)
	// Each type has some hundred helpers, more on newer kernels.
	qt.Check(t, qt.IsTrue(known["bpfwhy: helper"] > 200), qt.Commentf("%v", known))
	p := new(node.Profile)
	qt.Assert(t, qt.IsNil(json.Unmarshal(out.Bytes(), p)))
	return p
}

// TestJudge: what kernels say of a call without arguments. The lines are theirs: 5.10, 6.1, 6.18.
func TestJudge(t *testing.T) {
	const head = "0: R1=ctx(off=0,imm=0) R10=fp0\n0: (85) call "
	for _, tt := range []struct {
		name  string
		errno unix.Errno
		log   string
		want  answer
		why   string
	}{
		{"no such number", unix.EINVAL, head + "unknown#211\ninvalid func unknown#211\nprocessed 1 insns\n", no, ""},
		{"not for this type", unix.EINVAL, head + "bpf_xdp_adjust_head#44\nunknown func bpf_xdp_adjust_head#44\n", no, ""},
		{"not for this type, 6.10", unix.EINVAL, head + "x\nprogram of this type cannot use helper bpf_xdp_adjust_head#44\n", no, ""},
		{"an argument is missing", unix.EACCES, head + "bpf_map_lookup_elem#1\nR1 type=ctx expected=map_ptr\n", yes, ""},
		{"sleepable only", unix.EINVAL, head + "bpf_copy_from_user#148\nhelper call might sleep in a non-sleepable prog\n", yes, ""},
		{"only where it is attached to a list", unix.EINVAL, head + "bpf_d_path#147\nhelper call is not allowed in probe\n", no, ""},
		{"refused behind the table", 95, head + "bpf_get_func_ip#173\nfunc bpf_get_func_ip#173 not supported for program type 7\n", no, ""},
		{"another word", unix.EINVAL, head + "x\nthe moon is not full\nprocessed 1 insns (limit 1000000)\n", unclear, "invalid argument: the moon is not full"},
		{"no word at all", unix.EPERM, "", unclear, "operation not permitted"},
	} {
		got, why := judge(tt.errno, tt.log)
		qt.Check(t, qt.Equals(got, tt.want), qt.Commentf("%s", tt.name))
		qt.Check(t, qt.Equals(why, tt.why), qt.Commentf("%s", tt.name))
	}
}

// TestHost: what cannot be otherwise on a machine where the simplest program loads.
func TestHost(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	p := node.Host()
	Add(t.Context(), p)
	if p.Features == nil {
		t.Skipf("%s", p.Unknown["features"])
	}
	qt.Check(t, qt.IsTrue(p.Features.Programs["socket_filter"]))
	qt.Check(t, qt.IsTrue(p.Features.Maps["hash"]))
	qt.Check(t, qt.IsTrue(slices.Contains(p.Features.Helpers["socket_filter"], "bpf_map_lookup_elem")))
	qt.Check(t, qt.IsFalse(slices.Contains(p.Features.Helpers["socket_filter"], "bpf_xdp_adjust_head")))
}

// TestStops: a context that has ended stops the thousands of loads.
func TestStops(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p := &node.Profile{}
	Add(ctx, p)
	if p.Features == nil {
		t.Skipf("%s", p.Unknown["features"])
	}
	qt.Check(t, qt.HasLen(p.Features.Helpers, 0))
	qt.Check(t, qt.Equals(p.Unknown["helpers"], "context canceled"))
}

// TestStuck: when the kernel no longer frees what is closed, nothing more is loaded.
func TestStuck(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	p, tried := &node.Profile{}, 0
	add(t.Context(), p, nil, func() error {
		if tried++; tried == 300 {
			return freeing.ErrStuck
		}
		return nil
	})
	if p.Features == nil {
		t.Skipf("%s", p.Unknown["features"])
	}
	qt.Check(t, qt.Equals(tried, 300)) // every program is counted, and none is tried after
	qt.Check(t, qt.Equals(p.Unknown["helpers"], freeing.ErrStuck.Error()))
}

func TestKernels(t *testing.T) {
	vmtest.RunIn(t, vmtest.Distinct(), "^TestGuest", vm.Machine{})
}

// TestGuestFeatures compares a few answers with what the kernels' releases have.
func TestGuestFeatures(t *testing.T) {
	kernel := vmtest.Guest(t)
	p := watched(t)
	qt.Assert(t, qt.IsNotNil(p.Features), qt.Commentf("%v", p.Unknown))
	f := p.Features

	since := func(what string, got bool, major, minor int) {
		t.Helper()
		qt.Check(t, qt.Equals(got, p.Reached(major, minor) == node.Yes), qt.Commentf("%s: %v", what, p.Unknown))
	}
	since("syscall", f.Programs["syscall"], 5, 14)
	since("netfilter", f.Programs["netfilter"], 6, 4)
	since("bloom_filter", f.Maps["bloom_filter"], 5, 16)
	since("arena", f.Maps["arena"], 6, 9)
	since("v4", f.Instructions["v4"], 6, 6)
	since("v3", f.Instructions["v3"], 5, 1)
	// Debian's 6.1 has it from a backport; the hardened kernel is built from the same source.
	since("gotol", f.Instructions["gotol"], 6, 1)
	since("large_programs", f.Instructions["large_programs"], 5, 2)
	for _, h := range []string{"bpf_loop", "bpf_ktime_get_tai_ns", "bpf_dynptr_data", "bpf_map_lookup_elem"} {
		known, ok := insn.HelperByName(h)
		qt.Assert(t, qt.IsTrue(ok))
		since(h, slices.Contains(f.Helpers["xdp"], h), known.Since.Major, known.Since.Minor)
	}
	qt.Check(t, qt.IsTrue(slices.Contains(f.Helpers["xdp"], "bpf_xdp_adjust_head")))
	qt.Check(t, qt.IsFalse(slices.Contains(f.Helpers["sched_cls"], "bpf_xdp_adjust_head")))
	qt.Check(t, qt.IsTrue(slices.Contains(f.Helpers["kprobe"], "bpf_probe_read_kernel")))
	// Sleepable helpers are there from 5.10, for types that have sleepable programs or not.
	qt.Check(t, qt.IsFalse(slices.Contains(f.Helpers["xdp"], "bpf_probe_write_user")))
	qt.Check(t, qt.StringContains(p.Unknown["helper bpf_probe_write_user"], "not tried"))
	if why, said := p.Unknown["blinding"]; said {
		t.Errorf("blinding: %s", why)
	} else {
		qt.Check(t, qt.Equals(p.Blinding.WholeProgram, kernel == "7"), qt.Commentf("%s", p.Blinding.From))
	}
	// That this is true loader's TestGuestJITOnly shows, by loading what would crash the machine.
	if qt.Check(t, qt.IsNotNil(p.Interpreter), qt.Commentf("%s", p.Unknown["interpreter"])) {
		qt.Check(t, qt.Equals(p.Interpreter.Refuses, kernel == "7"), qt.Commentf("%s", p.Interpreter.From))
	}
	for what, why := range p.Unknown {
		if strings.HasPrefix(what, "helper ") && !strings.Contains(why, "not tried") {
			t.Logf("%s: %s", what, why)
		}
	}
}
