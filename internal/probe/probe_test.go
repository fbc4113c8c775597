// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/vm"
	"github.com/bpfwhy/bpfwhy/internal/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

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

func TestKernels(t *testing.T) {
	vmtest.Run(t, "^TestGuest", vm.Machine{})
}

// TestGuestFeatures compares a few answers with what the kernels' releases have.
func TestGuestFeatures(t *testing.T) {
	kernel := vmtest.Guest(t)
	p := node.Host()
	add(t.Context(), p, []string{"xdp", "sched_cls", "kprobe"}) // all of them take an emulated machine a quarter of a minute
	qt.Assert(t, qt.IsNotNil(p.Features), qt.Commentf("%v", p.Unknown))
	release, ok := p.Kernel()
	qt.Assert(t, qt.IsTrue(ok))
	f := p.Features

	since := func(what string, got bool, major, minor int) {
		t.Helper()
		qt.Check(t, qt.Equals(got, !release.Before(major, minor)), qt.Commentf("%s: %v", what, p.Unknown))
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
	for what, why := range p.Unknown {
		if strings.HasPrefix(what, "helper ") && !strings.Contains(why, "not tried") {
			t.Logf("%s: %s", what, why)
		}
	}
}
