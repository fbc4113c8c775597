// SPDX-License-Identifier: Apache-2.0

package rights_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/bpfwhy/bpfwhy/internal/hostinfo/rights"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

const harden = "net.core.bpf_jit_harden"

// outcome is what a run left.
type outcome struct {
	status         int
	stdout, stderr string
}

// finish runs a command to its end.
func finish(t *testing.T, cmd *exec.Cmd) outcome {
	t.Helper()
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return outcome{cmd.ProcessState.ExitCode(), o.String(), e.String()}
}

// watched is what 'bpfwhy watch' says and records while a load without a log fails.
type watched struct {
	said   string // before it is interrupted
	status string // /proc/PID/status, once it watches
	header trace.Header
	load   load.Attempt
}

// seen watches one load.
func seen(t *testing.T, watch *exec.Cmd, recording string) (w watched) {
	t.Helper()
	var out bytes.Buffer
	watch.Stdout = &out
	stderr, err := watch.StderrPipe()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(watch.Start()))
	lines := bufio.NewReader(stderr)
	for !strings.Contains(w.said, "watching") {
		l, err := lines.ReadString('\n')
		w.said += l
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", w.said))
	}
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", watch.Process.Pid))
	w.status = string(status)
	l, err := self("load", "null-map-value-nolog").CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", l))
	qt.Assert(t, qt.IsNil(watch.Process.Signal(syscall.SIGINT)))
	rest, err := io.ReadAll(lines)
	qt.Assert(t, qt.IsNil(err))
	w.said += string(rest)
	qt.Assert(t, qt.IsNil(watch.Wait()), qt.Commentf("%s", w.said))

	found := false
	for line := range strings.Lines(out.String()) {
		var a load.Attempt
		qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(line), &a)))
		if a.Program != nil && strings.HasPrefix(a.Program.Name, "null_map") {
			w.load, found = a, true
		}
	}
	qt.Assert(t, qt.IsTrue(found), qt.Commentf("%s%s", w.said, &out))
	if recording == "" {
		return w
	}
	f, err := os.Open(recording)
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	r, err := trace.NewReader(f)
	qt.Assert(t, qt.IsNil(err))
	w.header = r.Header()
	return w
}

// sampled skips a test on all kernels but one, unless the long tests are wanted: what it is about
// differs little between kernels.
func sampled(t *testing.T) {
	t.Helper()
	if vmtest.Guest(t) != sample && !vmtest.Long() {
		t.Skip("kernel " + sample + " alone; all with BPFWHY_LONG=1")
	}
}

// long skips a test that takes half a minute of an emulated machine.
func long(t *testing.T) {
	t.Helper()
	if vmtest.Guest(t); !vmtest.Long() {
		t.Skip("with BPFWHY_LONG=1")
	}
}

const sample = "hardened"

// less is a list without one.
func less(caps []int, c int) []int {
	return slices.DeleteFunc(slices.Clone(caps), func(x int) bool { return x == c })
}

// must checks that without each capability that a command must have it ends with status 2 and the
// line that names it.
func must(t *testing.T, c rights.Command, args ...string) {
	t.Helper()
	for _, r := range c.Must {
		o := finish(t, with(less(c.Least(false), r.Cap), args...))
		qt.Check(t, qt.Equals(o.status, 2), qt.Commentf("without %s: %s", r.Name(), o.stderr))
		qt.Check(t, qt.StringContains(o.stderr, fmt.Sprintf("needs %s (missing: %s)", c.Needs(), r.Name())))
		qt.Check(t, qt.Equals(strings.Count(o.stderr, "\n"), 1), qt.Commentf("%s", o.stderr))
	}
}

func without(c int, in rights.Command) string {
	for _, r := range in.More {
		if r.Cap == c {
			return fmt.Sprintf("bpfwhy: without %s: %s\n", r.Name(), r.For)
		}
	}
	return "no such right"
}

// TestGuestWatch: with what it must have it watches; with one less it does not, and says which;
// with all that it can use it says nothing, and with each of these less it says so and shows less.
// A load without a log tells by the verifier's words, which are observed or not; the recording
// tells which settings were read.
func TestGuestWatch(t *testing.T) {
	kernel := vmtest.Guest(t)
	recording := filepath.Join(t.TempDir(), "trace")
	args := []string{"bpfwhy", "watch", "--json", "--failed", "--record", recording}
	must(t, rights.Watch, "bpfwhy", "watch")

	all := rights.Watch.Least(true)
	qt.Check(t, qt.DeepEquals(node.Capabilities(bits(all)), node.Capabilities(bits([]int{unix.CAP_SYS_ADMIN, unix.CAP_SYSLOG, unix.CAP_SYS_PTRACE}))))
	const inferred, observed = load.Inferred, load.Observed
	tests := []struct {
		name string
		caps []int
		net  bool // in another network namespace
		lack []int
		how  load.HowKnown
		hard string // "": not known
	}{
		{"least", rights.Watch.Least(false), false, []int{unix.CAP_SYS_ADMIN, unix.CAP_SYSLOG, unix.CAP_SYS_PTRACE}, inferred, ""},
		{"all", all, true, nil, observed, "2"},
		{"no CAP_SYS_ADMIN", []int{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_SYSLOG, unix.CAP_SYS_PTRACE}, false, []int{unix.CAP_SYS_ADMIN}, "", ""},
		{"no CAP_SYSLOG", less(all, unix.CAP_SYSLOG), false, []int{unix.CAP_SYSLOG}, inferred, "2"},
		{"no CAP_SYS_PTRACE", less(all, unix.CAP_SYS_PTRACE), true, []int{unix.CAP_SYS_PTRACE}, observed, ""},
	}
	for i, tt := range tests {
		if i > 1 && kernel != sample && !vmtest.Long() {
			break
		}
		t.Run(tt.name, func(t *testing.T) {
			watch := with(tt.caps, args...)
			if tt.net {
				watch.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
			}
			w := seen(t, watch, recording)
			for _, r := range rights.Watch.More {
				qt.Check(t, qt.Equals(strings.Contains(w.said, without(r.Cap, rights.Watch)), slices.Contains(tt.lack, r.Cap)), qt.Commentf("%s", w.said))
			}
			qt.Check(t, qt.Equals(w.load.Diagnosis.Rule, "VER001"))
			if kernel == "hardened" && tt.how == inferred {
				tt.how = "" // one function alone is called "verbose" there: no address has to tell which
			}
			if tt.how != "" {
				qt.Check(t, qt.Equals(w.load.Diagnosis.HowKnown, tt.how), qt.Commentf("%s%+v", w.said, w.load.Diagnosis))
			}
			if tt.name == "least" { // before 5.19 bpf(2) asks for CAP_BPF at each use of a map
				qt.Check(t, qt.StringContains(w.status, fmt.Sprintf("CapEff:\t%016x\n", uint64(1)<<unix.CAP_BPF)))
			}
			v, known := w.header.Node.Sysctls[harden]
			qt.Check(t, qt.Equals(v, tt.hard))
			if !known {
				qt.Check(t, qt.StringContains(w.header.Node.Unknown[harden], "CAP_SYS_"))
			}
		})
	}
}

func bits(caps []int) (mask uint64) {
	for _, c := range caps {
		mask |= 1 << c
	}
	return mask
}

// TestGuestOtherUser: another user than root needs more, to read what is root's.
func TestGuestOtherUser(t *testing.T) {
	sampled(t)
	dir := theirs(t)
	all := append(rights.Watch.Least(true), unix.CAP_DAC_READ_SEARCH, unix.CAP_NET_ADMIN)
	recording := filepath.Join(dir, "trace")
	w := seen(t, as(nobody, all, "bpfwhy", "watch", "--json", "--failed", "--record", recording), recording)
	qt.Check(t, qt.Equals(w.header.Node.Sysctls[harden], "2"))
	qt.Check(t, qt.IsFalse(strings.Contains(w.said, "without")), qt.Commentf("%s", w.said))
	o := finish(t, as(nobody, less(all, unix.CAP_NET_ADMIN), "bpfwhy", "node", "--no-probe", "--json"))
	qt.Check(t, qt.StringContains(o.stdout, "needs uid 0 or CAP_NET_ADMIN"))
	o = finish(t, as(nobody, less(all, unix.CAP_DAC_READ_SEARCH), "bpfwhy", "node", "--no-probe"))
	qt.Check(t, qt.StringContains(strings.Join(strings.Fields(o.stdout), " "), "without CAP_DAC_READ_SEARCH, and not root: "))
}

// TestGuestRun: a command is watched, or not started.
func TestGuestRun(t *testing.T) {
	sampled(t)
	dir := t.TempDir()
	exe, err := os.Executable()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.Symlink(exe, filepath.Join(dir, "load"))))
	t.Setenv("PATH", dir)
	must(t, rights.Run, "bpfwhy", "run", "--", "load", "null-map-value")
	o := finish(t, with(rights.Run.Least(false), "bpfwhy", "run", "--", "load", "null-map-value"))
	qt.Check(t, qt.Equals(o.status, 0))
	qt.Check(t, qt.StringContains(o.stderr, "VER001"))
	qt.Check(t, qt.StringContains(o.stderr, without(unix.CAP_SYS_ADMIN, rights.Run)))

	qt.Assert(t, qt.IsNil(os.MkdirAll("/etc", 0o755)))
	qt.Assert(t, qt.IsNil(os.WriteFile("/etc/group", nil, 0o644)))
	qt.Assert(t, qt.IsNil(os.WriteFile("/etc/passwd", []byte("nobody:x:65534:65534::/:/bin/false\n"), 0o644)))
	for p := dir; p != "/"; p = filepath.Dir(p) {
		qt.Assert(t, qt.IsNil(os.Chmod(p, 0o755)))
	}
	// With all that it can use it says nothing; with what it must have it says of each what that is
	// for.
	command := []string{"bpfwhy", "run", "--user", "nobody", "--", "load", "null-map-value"}
	for _, all := range []bool{true, false} {
		o := finish(t, with(rights.RunUser.Least(all), command...))
		qt.Check(t, qt.Equals(o.status, 1), qt.Commentf("%s", o.stderr)) // load's: nobody may load nothing
		qt.Check(t, qt.StringContains(o.stderr, "PERM"))
		for _, r := range rights.RunUser.More {
			qt.Check(t, qt.Equals(strings.Contains(o.stderr, without(r.Cap, rights.RunUser)), !all), qt.Commentf("%s", o.stderr))
		}
	}
	args := []string{"bpfwhy", "run", "--user", "nobody", "--", "/proc/self/exe", "version"}
	for _, c := range []int{unix.CAP_SETUID, unix.CAP_SETGID} {
		o := finish(t, with(less(rights.RunUser.Least(false), c), args...))
		qt.Check(t, qt.Equals(o.status, 2), qt.Commentf("%s", o.stderr))
		qt.Check(t, qt.StringContains(o.stderr, fmt.Sprintf("needs %s (missing: %s)", rights.RunUser.Needs(), node.Capability(c))))
	}
}

// TestGuestAudit: a blinded program is listed; who holds it and its code take a capability each.
func TestGuestAudit(t *testing.T) {
	vmtest.Guest(t)
	must(t, rights.Audit, "bpfwhy", "audit")
	p1, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SocketFilter, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R0, 0x1234567), asm.Return(),
	}})
	qt.Assert(t, qt.IsNil(err))
	defer p1.Close()
	type program struct {
		Owners  []struct{ Comm string } `json:"owners"`
		Unread  string                  `json:"unread"`
		Blinded *bool                   `json:"blinded"`
	}
	look := func(caps []int) (p program, unseen string) {
		t.Helper()
		o := finish(t, with(caps, "bpfwhy", "audit", "--json"))
		var r struct {
			Programs []program `json:"programs"`
			Unseen   []string  `json:"unseen"`
		}
		qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(o.stdout), &r)), qt.Commentf("%s", o.stderr))
		qt.Assert(t, qt.HasLen(r.Programs, 1))
		return r.Programs[0], strings.Join(r.Unseen, "\n")
	}
	all := rights.Audit.Least(true)
	p, unseen := look(all)
	qt.Check(t, qt.HasLen(p.Owners, 1))
	qt.Check(t, qt.Equals(p.Unread, ""))
	qt.Check(t, qt.IsFalse(strings.Contains(unseen, "CAP_")), qt.Commentf("%s", unseen))
	p, _ = look(less(all, unix.CAP_SYSLOG))
	qt.Check(t, qt.StringContains(p.Unread, "CAP_SYSLOG"))
	p, unseen = look(less(all, unix.CAP_SYS_PTRACE))
	qt.Check(t, qt.HasLen(p.Owners, 0))
	qt.Check(t, qt.StringContains(unseen, "CAP_SYS_PTRACE"))
}

// TestGuestProve: what is recorded is loaded again as its loader, or not for want of what that had.
func TestGuestProve(t *testing.T) {
	sampled(t)
	recording := filepath.Join(t.TempDir(), "trace")
	seen(t, self("bpfwhy", "watch", "--json", "--failed", "--record", recording), recording)
	args := []string{"bpfwhy", "explain", "--failed", "--prove", recording}
	must(t, rights.Prove, args...)
	all := rights.Prove.Least(true)
	o := finish(t, with(all, args...))
	qt.Check(t, qt.StringContains(o.stderr+o.stdout, "1 reproduced"))
	for _, c := range []int{unix.CAP_NET_ADMIN, unix.CAP_PERFMON, unix.CAP_SYS_ADMIN} {
		o := finish(t, with(less(all, c), args...))
		qt.Check(t, qt.StringContains(o.stderr+o.stdout, "1 discarded"))
		qt.Check(t, qt.StringContains(o.stderr+o.stdout, node.Capability(c)))
	}
}

// TestGuestElsewhere: behind `unshare -n` the commands know the hardening of the machine.
func TestGuestElsewhere(t *testing.T) {
	sampled(t)
	dir := t.TempDir()
	exe, err := os.Executable()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.Symlink(exe, filepath.Join(dir, "load"))))
	t.Setenv("PATH", dir)
	elsewhere := func(args ...string) outcome {
		cmd := self("bpfwhy", args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
		return finish(t, cmd)
	}
	o := elsewhere("node", "--no-probe")
	for _, want := range []string{"bpf_jit_harden = 2", "bpf_jit_enable = 1", "bpf_jit_limit = ", "bpf_jit_kallsyms = "} {
		qt.Check(t, qt.StringContains(o.stdout, "net.core."+want))
	}
	o = elsewhere("audit")
	qt.Check(t, qt.StringContains(o.stdout, "net.core.bpf_jit_harden is 2 now"))
	o = elsewhere("run", "--", "load", "far-calls-elf")
	qt.Check(t, qt.StringContains(o.stderr, "net.core.bpf_jit_harden was 2"))
	if !vmtest.Long() {
		return
	}
	o = elsewhere("run", "--repair", "--", "load", "far-calls-elf")
	qt.Check(t, qt.StringContains(o.stdout, "loaded, jited"), qt.Commentf("%s", o.stderr))
}

// TestGuestRepair: root with CAP_SYS_ADMIN alone repairs; without it the command runs as it is, and
// a line says what is missing.
func TestGuestRepair(t *testing.T) {
	sampled(t)
	dir := t.TempDir()
	exe, err := os.Executable()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.Symlink(exe, filepath.Join(dir, "load"))))
	t.Setenv("PATH", dir)
	args := []string{"bpfwhy", "run", "--repair", "--", "load"}
	o := finish(t, with(rights.Repair.Least(false), append(args, "far-calls-elf")...))
	qt.Check(t, qt.StringContains(o.stdout, "loaded, jited"), qt.Commentf("%s", o.stderr))
	qt.Check(t, qt.StringContains(o.stderr, "can stop the process that repairs its loads, which then go to the kernel unrepaired: no ids of its own"))
	o = finish(t, with([]int{unix.CAP_BPF, unix.CAP_PERFMON}, append(args, "ok")...))
	qt.Check(t, qt.StringContains(o.stdout, "loaded, jited"))
	qt.Check(t, qt.Equals(o.status, 0))
	qt.Check(t, qt.StringContains(o.stderr, "load runs without repairs: needs CAP_SYS_ADMIN (missing: CAP_SYS_ADMIN)"))
}

// TestGuestRepairOthers: another user's load is repaired with all of the table's rights, and left
// to the kernel without one of them. Without CAP_SETUID or CAP_SETGID nobody in such a machine
// becomes another user at all.
func TestGuestRepairOthers(t *testing.T) {
	if long(t); vmtest.Guest(t) != sample {
		t.Skip("kernel " + sample + " alone")
	}
	dir := t.TempDir()
	exe, err := os.Executable()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.Symlink(exe, filepath.Join(dir, "other"))))
	t.Setenv("PATH", dir)
	all := append(rights.Repair.Least(true), unix.CAP_BPF, unix.CAP_PERFMON)
	for _, c := range []int{-1, unix.CAP_KILL, unix.CAP_SYS_PTRACE, unix.CAP_DAC_OVERRIDE} {
		o := finish(t, with(less(all, c), "bpfwhy", "run", "--repair", "--", "other", "far-calls-elf"))
		qt.Check(t, qt.Equals(strings.Contains(o.stdout, "loaded, jited"), c < 0), qt.Commentf("without %d: %s%s", c, o.stdout, o.stderr))
	}
}

// TestGuestHTTPProbe: each source is up with what it must have, and says what it lacks with one
// less.
func TestGuestHTTPProbe(t *testing.T) {
	sampled(t)
	for _, tt := range []struct {
		source string
		row    rights.Command
		also   []int // what Debian's kernels ask for
	}{
		{"syscalls", rights.Syscalls, []int{unix.CAP_SYS_ADMIN}}, {"openssl", rights.OpenSSL, []int{unix.CAP_SYS_ADMIN}}, {"packets", rights.Packets, []int{unix.CAP_BPF, unix.CAP_PERFMON}},
	} {
		if tt.source != "openssl" && !vmtest.Long() {
			continue
		}
		args := []string{"httpprobe", "--sources", tt.source}
		for _, r := range tt.row.Must {
			o := finish(t, with(less(tt.row.Least(false), r.Cap), args...))
			qt.Check(t, qt.Equals(o.status, 2), qt.Commentf("%s", o.stderr))
			qt.Check(t, qt.StringContains(o.stderr, tt.row.Needs()+" for "+tt.source))
			qt.Check(t, qt.StringContains(o.stderr, "missing: "), qt.Commentf("%s", o.stderr))
			qt.Check(t, qt.StringContains(o.stderr, r.Name()))
		}
		up := with(append(tt.row.Least(false), tt.also...), args...)
		startProbe(t, up, "watching by "+tt.source).stop(t)
	}
}

// probing is a httpprobe that watches.
type probing struct {
	cmd   *exec.Cmd
	lines *bufio.Reader
	said  string
}

// startProbe starts one and returns when it says something.
func startProbe(t *testing.T, cmd *exec.Cmd, until string) *probing {
	t.Helper()
	stderr, err := cmd.StderrPipe()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(cmd.Start()))
	p := &probing{cmd: cmd, lines: bufio.NewReader(stderr)}
	for !strings.Contains(p.said, until) {
		l, err := p.lines.ReadString('\n')
		p.said += l
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", p.said))
	}
	return p
}

func (p *probing) stop(t *testing.T) {
	t.Helper()
	qt.Assert(t, qt.IsNil(p.cmd.Process.Signal(syscall.SIGTERM)))
	rest, _ := io.ReadAll(p.lines)
	qt.Check(t, qt.IsNil(p.cmd.Wait()), qt.Commentf("%s%s", p.said, rest))
}

// TestGuestDemo: the cases that need no setting are explained as expected with what demo must have;
// that of a blinded program says what it lacks.
func TestGuestDemo(t *testing.T) {
	long(t)
	must(t, rights.Demo, "bpfwhy", "demo", "ok")
	o := finish(t, with(rights.Demo.Least(false), "bpfwhy", "demo", "null-map-value", "wrong-helper", "no-capability", "seccomp", "emfile", "ok", "blinding"))
	qt.Check(t, qt.Equals(o.status, 1), qt.Commentf("%s", o.stderr)) // for the case that was named and not run
	qt.Check(t, qt.StringContains(o.stderr, "6 explained as expected, 0 not, 1 NOT RUN"))
	qt.Check(t, qt.StringContains(o.stdout, "needs CAP_SYS_ADMIN"))
}

// TestGuestNode: what is found by trying, and the settings.
func TestGuestNode(t *testing.T) {
	long(t)
	look := func(caps []int) (p node.Profile) {
		t.Helper()
		o := finish(t, with(caps, "bpfwhy", "node", "--json"))
		qt.Assert(t, qt.Equals(o.status, 0), qt.Commentf("%s", o.stderr))
		qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(o.stdout), &p)))
		return p
	}
	whole, all := look(root), look(rights.Node.Least(true))
	qt.Check(t, qt.DeepEquals(all.Features, whole.Features))
	qt.Check(t, qt.DeepEquals(all.Sysctls, whole.Sysctls))
	p := look(less(rights.Node.Least(true), unix.CAP_NET_ADMIN))
	qt.Check(t, qt.IsFalse(p.Features.Maps["sockmap"]))
	qt.Check(t, qt.IsTrue(all.Features.Maps["sockmap"]))
	p = look([]int{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_NET_ADMIN})
	qt.Check(t, qt.StringContains(p.Unknown[harden], "needs CAP_SYS_ADMIN"))
	qt.Check(t, qt.DeepEquals(p.Features.Maps, all.Features.Maps))
	p = look([]int{unix.CAP_BPF, unix.CAP_NET_ADMIN})
	qt.Check(t, qt.IsFalse(p.Features.Programs["kprobe"]))
	// What the verifier gives up on is not known, and not missing.
	if _, tried := p.Features.Instructions["bounded_loops"]; !tried {
		qt.Check(t, qt.StringContains(p.Unknown["instructions bounded_loops"], "CAP_PERFMON"))
	}
	delete(whole.Features.Instructions, "bounded_loops")
	delete(p.Features.Instructions, "bounded_loops")
	qt.Check(t, qt.DeepEquals(p.Features.Instructions, whole.Features.Instructions))
	p = look([]int{unix.CAP_PERFMON, unix.CAP_NET_ADMIN})
	qt.Check(t, qt.IsTrue(p.Features == nil || !p.Features.Programs["xdp"])) // nil: nobody without it may load anything
	o := finish(t, with(nil, "bpfwhy", "node", "--no-probe"))
	for _, r := range rights.Node.More {
		qt.Check(t, qt.StringContains(strings.Join(strings.Fields(o.stdout), " "), "without "+r.Name()+": "))
	}
}

// TestGuestDoctor runs as anybody and says for each command what it lacks.
func TestGuestDoctor(t *testing.T) {
	sampled(t)
	o := finish(t, as(65534, nil, "bpfwhy", "doctor"))
	qt.Check(t, qt.Equals(o.status, 1))
	said := strings.Join(strings.Fields(o.stdout), " ")
	for _, c := range rights.Commands() {
		for _, r := range c.Must {
			qt.Check(t, qt.StringContains(said, c.Name+": needs "+c.Needs()+"; MISSING"))
			qt.Check(t, qt.StringContains(said, r.Name()))
		}
	}
}

// TestGuestOwnProbes: what httpprobe and a loader with gotol try out is no finding of a bpfwhy that
// watches. On the oldest kernel, which knows none of it.
func TestGuestOwnProbes(t *testing.T) {
	if vmtest.Guest(t) != "5.10" {
		t.Skip("a kernel without uprobe_multi and gotol")
	}
	dir := t.TempDir()
	exe, err := os.Executable()
	qt.Assert(t, qt.IsNil(err))
	for _, name := range []string{"httpprobe", "gotol"} {
		qt.Assert(t, qt.IsNil(os.Symlink(exe, filepath.Join(dir, name))))
	}
	t.Setenv("PATH", dir)
	for _, tt := range []struct {
		args []string
		find []string // programs that are no probes
	}{{[]string{"httpprobe"}, nil}, {[]string{"gotol"}, []string{brokenName}}} {
		out := filepath.Join(dir, "out")
		cmd := self("bpfwhy", append([]string{"run", "--json", "--all", "--output", out, "--"}, tt.args...)...)
		stderr, err := cmd.StderrPipe()
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(cmd.Start()))
		said := ""
		for s := bufio.NewScanner(stderr); s.Scan(); {
			said += s.Text() + "\n"
			if strings.Contains(s.Text(), "watching by ") {
				qt.Check(t, qt.IsNil(cmd.Process.Signal(syscall.SIGTERM))) // which is passed on
			}
		}
		qt.Check(t, qt.IsNil(cmd.Wait()), qt.Commentf("%s", said))
		b, err := os.ReadFile(out)
		qt.Assert(t, qt.IsNil(err))
		var findings, probes []string
		for line := range bytes.Lines(b) {
			var a load.Attempt
			if qt.Check(t, qt.IsNil(json.Unmarshal(line, &a))); a.Outcome == "" {
				continue
			}
			name := ""
			if a.Program != nil {
				name = a.Program.Name
			}
			switch {
			case a.FeatureProbe != "":
				probes = append(probes, a.FeatureProbe)
			case a.Outcome != load.Loaded && !slices.Contains(tt.find, name):
				findings = append(findings, fmt.Sprintf("%s %q: %s, errno %d", a.Kind, name, a.Outcome, a.Errno))
			}
		}
		t.Logf("%s: %d probes known: %q", tt.args, len(probes), slices.Compact(slices.Sorted(slices.Values(probes))))
		qt.Check(t, qt.HasLen(findings, 0), qt.Commentf("%s", said))
		qt.Check(t, qt.IsTrue(slices.ContainsFunc(probes, func(p string) bool { return strings.HasPrefix(p, "bpfwhy: ") })))
	}
}

// TestGuestRestore: what a killed bpfwhy left is put back with the one capability, and without it
// the line says so.
func TestGuestRestore(t *testing.T) {
	sampled(t)
	const state, setting = "/run/bpfwhy/harden.json", "/proc/sys/net/core/bpf_jit_harden"
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	qt.Assert(t, qt.IsNil(err))
	before, err := os.ReadFile(setting)
	qt.Assert(t, qt.IsNil(err))
	defer os.WriteFile(setting, before, 0)
	qt.Assert(t, qt.IsNil(os.WriteFile(setting, []byte("1"), 0)))
	qt.Assert(t, qt.IsNil(os.MkdirAll(filepath.Dir(state), 0o700)))
	qt.Assert(t, qt.IsNil(os.WriteFile(state, fmt.Appendf(nil, `{"old":2,"set":1,"boot_id":%q}`, strings.TrimSpace(string(boot))), 0o600)))
	value := func() string {
		b, err := os.ReadFile(setting)
		qt.Assert(t, qt.IsNil(err))
		return strings.TrimSpace(string(b))
	}
	must(t, rights.Restore, "bpfwhy", "harden", "restore")
	qt.Check(t, qt.Equals(value(), "1"))
	o := finish(t, with(rights.Restore.Least(false), "bpfwhy", "harden", "restore"))
	qt.Check(t, qt.Equals(o.status, 0), qt.Commentf("%s", o.stderr))
	qt.Check(t, qt.Equals(value(), "2"))
}
