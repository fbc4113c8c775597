// SPDX-License-Identifier: Apache-2.0

package rights_test

import (
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/bpfwhy/bpfwhy/internal/hostinfo/probe"
	"github.com/bpfwhy/bpfwhy/internal/hostinfo/rights"
	"github.com/bpfwhy/bpfwhy/internal/objects/preflight"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// root are the capabilities of the table and more.
var root = []int{0, unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_SYS_PTRACE, unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_SYSLOG, unix.CAP_SYS_RESOURCE, unix.CAP_NET_RAW}

const notKnown = "not tried: net.core.bpf_jit_harden is not known"

// TestGuestBehaviour: doctor --prove tries all that root can try with what it can use, and less
// with what it must have. Without that it tries nothing.
func TestGuestBehaviour(t *testing.T) {
	sampled(t)
	must(t, rights.Behaviour, "bpfwhy", "doctor", "--prove")
	rows := func(caps []int, more ...string) (rows []probe.Row) {
		t.Helper()
		o := finish(t, with(caps, append([]string{"bpfwhy", "doctor", "--prove", "--json"}, more...)...))
		var r struct{ Rows []probe.Row }
		qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(o.stdout), &r)), qt.Commentf("%s", o.stderr))
		qt.Assert(t, qt.HasLen(r.Rows, len(node.Behaviours())))
		return r.Rows
	}
	all := rows(rights.Behaviour.Least(true))
	qt.Check(t, qt.DeepEquals(all, rows(root)))
	// What one less does not see, and why not.
	for _, tt := range []struct {
		caps []int
		lost map[node.Behaviour]string
	}{
		{[]int{unix.CAP_BPF, unix.CAP_PERFMON}, map[node.Behaviour]string{node.ChecksWrap: notKnown}},
		{rights.Behaviour.Least(false), map[node.Behaviour]string{node.ChecksWrap: notKnown, node.BoundedLoops: "a loop of two rounds: refused with 7 (E2BIG)"}},
	} {
		for i, r := range rows(tt.caps) {
			if why, lost := tt.lost[r.Name]; lost {
				qt.Check(t, qt.Equals(r.Seen, "unknown"), qt.Commentf("%s", r.Name))
				qt.Check(t, qt.Equals(r.How, why), qt.Commentf("%s", r.Name))
				qt.Check(t, qt.Not(qt.Equals(all[i].Seen, "unknown")), qt.Commentf("%s", r.Name))
			} else {
				qt.Check(t, qt.Equals(r.Seen, all[i].Seen), qt.Commentf("%s: %s", r.Name, r.How))
			}
		}
	}

	// Where the machine is not hardened, the one capability raises the setting and puts it back.
	const setting = "/proc/sys/net/core/bpf_jit_harden"
	before, err := os.ReadFile(setting)
	qt.Assert(t, qt.IsNil(err))
	defer os.WriteFile(setting, before, 0)
	qt.Assert(t, qt.IsNil(os.WriteFile(setting, []byte("0"), 0)))
	qt.Check(t, qt.DeepEquals(rows(rights.Behaviour.Least(true), "--allow-sysctl"), all))
	o := finish(t, with(rights.Behaviour.Least(false), "bpfwhy", "doctor", "--prove", "--allow-sysctl"))
	qt.Check(t, qt.Equals(o.status, 2))
	qt.Check(t, qt.StringContains(o.stderr, "needs CAP_SYS_ADMIN (missing: CAP_SYS_ADMIN)"))
	after, err := os.ReadFile(setting)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(after), "0\n"))
}

// TestGuestPreflight: with what it can use it knows what root knows; with each of these less it
// says which lines it does not know.
func TestGuestPreflight(t *testing.T) {
	sampled(t)
	look := func(elsewhere bool, caps []int) map[string]preflight.Line {
		t.Helper()
		cmd := with(caps, "bpfwhy", "doctor", "--preflight", "--json", "--needs", "program:kprobe,program:xdp,map:sockmap,fentry,kprobe", breaks)
		if elsewhere {
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
		}
		o := finish(t, cmd)
		var r preflight.Report
		qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(o.stdout), &r)), qt.Commentf("%s", o.stderr))
		qt.Check(t, qt.Equals(o.status, map[bool]int{true: 1}[r.Verdict == preflight.Fail]))
		lines := map[string]preflight.Line{}
		for _, l := range r.Lines {
			need, _, _ := strings.Cut(l.Need, " at ") // with the value, if it is known
			lines[need] = l
		}
		return lines
	}
	all := look(true, rights.Preflight.Least(true))
	qt.Check(t, qt.DeepEquals(all, look(false, root)))
	qt.Check(t, qt.Equals(all["constant blinding"].Verdict, preflight.Fail))
	for _, need := range []string{"loads work", "program:kprobe", "program:xdp", "map:sockmap", "JIT memory"} {
		qt.Check(t, qt.Equals(all[need].Verdict, preflight.Pass), qt.Commentf("%+v", all[need]))
	}
	for _, tt := range []struct {
		without   int
		caps      []int
		elsewhere bool
		unknown   []string
		why       string // of the first
	}{
		{unix.CAP_BPF, []int{unix.CAP_PERFMON, unix.CAP_NET_ADMIN, unix.CAP_SYS_PTRACE}, false, []string{"loads work", "program:kprobe", "program:xdp"}, "no CAP_BPF"},
		{unix.CAP_PERFMON, []int{unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_SYS_PTRACE}, false, []string{"program:kprobe"}, "not permitted"},
		{unix.CAP_NET_ADMIN, []int{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_SYS_PTRACE}, false, []string{"program:xdp", "map:sockmap"}, "not permitted"},
		{unix.CAP_SYS_ADMIN, []int{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_NET_ADMIN, unix.CAP_SYS_PTRACE}, false, []string{"constant blinding", "JIT memory"}, "needs CAP_SYS_ADMIN"},
		{unix.CAP_SYS_PTRACE, []int{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN}, true, []string{"constant blinding", "JIT memory"}, "give CAP_SYS_PTRACE"},
	} {
		lines := look(tt.elsewhere, tt.caps)
		for _, need := range tt.unknown {
			l := lines[need]
			qt.Check(t, qt.Equals(l.Verdict, preflight.Warn), qt.Commentf("without %s: %s: %+v", node.Capability(tt.without), need, l))
			qt.Check(t, qt.IsTrue(l.Unknown), qt.Commentf("without %s: %s: %+v", node.Capability(tt.without), need, l))
		}
		qt.Check(t, qt.StringContains(lines[tt.unknown[0]].Why, tt.why))
		if tt.without == unix.CAP_PERFMON {
			qt.Check(t, qt.Equals(lines["fentry"].Verdict, preflight.Fail))
		}
	}
}
