// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/httpprobe/exchangejson"
	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/wire"
)

// lateFolder is where guests have the client and its library.
const lateFolder = "/late"

// buildLate compiles the client and its library, and returns where they are.
func buildLate(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, args := range [][]string{
		{"-shared", "-fPIC", "-o", dir + "/libssl.so.9", "testdata/ssl.c"},
		{"-o", dir + "/client", "testdata/client.c"},
	} {
		out, err := exec.Command("gcc", append([]string{"-Wall", "-Werror", "-O1"}, args...)...).CombinedOutput()
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
	}
	return dir
}

// lateFiles are what guests need for them, and setpriv.
func lateFiles(t *testing.T) map[string]string {
	t.Helper()
	dir := buildLate(t)
	files, err := vm.Binary(dir + "/client")
	qt.Assert(t, qt.IsNil(err))
	delete(files, dir+"/client")
	for _, name := range []string{"client", "libssl.so.9"} {
		files[lateFolder+"/"+name] = dir + "/" + name
	}
	setpriv, err := exec.LookPath("setpriv")
	qt.Assert(t, qt.IsNil(err))
	needed, err := vm.Binary(setpriv)
	qt.Assert(t, qt.IsNil(err))
	for to, from := range needed {
		files[to] = from
	}
	return files
}

// lateProbe is a probe with certain rights.
type lateProbe struct {
	name   string
	cmd    *exec.Cmd
	stderr bytes.Buffer
	seen   map[string]int // requests by the names of those who made them
	done   sync.WaitGroup
}

// startLate starts the command under another one, and returns when it watches.
func startLate(t *testing.T, name string, under ...string) *lateProbe {
	t.Helper()
	p := &lateProbe{name: name, seen: map[string]int{}}
	args := append(under, os.Args[0], "--sources", "openssl", "--json")
	p.cmd = exec.Command(args[0], args[1:]...)
	p.cmd.Env = append(os.Environ(), "BPFWHY_TEST_HTTPPROBE=1")
	out, err := p.cmd.StdoutPipe()
	qt.Assert(t, qt.IsNil(err))
	words, err := p.cmd.StderrPipe()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(p.cmd.Start()))
	p.done.Go(func() {
		d := json.NewDecoder(out)
		for {
			var e exchangejson.Exchange
			if d.Decode(&e) != nil {
				return
			}
			if e.Comm == "client" && e.Role == "client" && e.Status == 200 {
				name, _, _ := strings.Cut(strings.TrimPrefix(e.Path, "/"), "/")
				p.seen[name]++
			}
		}
	})
	ready := make(chan bool, 1)
	p.done.Go(func() {
		for s := bufio.NewScanner(words); s.Scan(); {
			fmt.Fprintln(&p.stderr, s.Text())
			if strings.Contains(s.Text(), "watching by") {
				ready <- true
			}
		}
		close(ready)
	})
	if !<-ready {
		p.done.Wait()
		_ = p.cmd.Wait()
		t.Fatalf("%s: %v: %s", name, p.cmd.ProcessState, &p.stderr)
	}
	return p
}

func (p *lateProbe) stop(t *testing.T) {
	t.Helper()
	qt.Check(t, qt.IsNil(p.cmd.Process.Signal(syscall.SIGTERM)))
	p.done.Wait()
	qt.Check(t, qt.IsNil(p.cmd.Wait()), qt.Commentf("%s: %s", p.name, &p.stderr))
}

// With CAP_SYS_ADMIN where uprobes want it: before uprobe_multi.
func documentedRights(t *testing.T) string {
	t.Helper()
	caps := "+bpf,+perfmon,+sys_ptrace,+dac_read_search"
	if wantsSysAdmin() {
		caps += ",+sys_admin"
	}
	return caps
}

// wantsSysAdmin knows the lab's kernels.
func wantsSysAdmin() bool {
	var u unix.Utsname
	_ = unix.Uname(&u)
	var major, minor int
	fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	return major < 6 || major == 6 && minor < 6
}

// asRoot and asNobody run a command with exactly these rights.
func asRoot(caps string) []string {
	return []string{"setpriv", "--bounding-set=-all," + caps, "--inh-caps=-all"}
}

func asNobody(caps string) []string {
	return []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all," + caps,
		"--inh-caps=-all," + caps, "--ambient-caps=-all," + caps}
}

// testLate: libraries that come when the probe is up already are counted exactly from their second
// second on, whatever brings them: a new file, a container, a process that was there long before,
// one file in the place of another. So they are with the rights that root has left after the probe
// gave up the others, and with exactly the documented ones.
func testLate(t *testing.T, folder string, wait time.Duration) {
	const requests = 50
	l, err := net.Listen("tcp", "127.0.0.1:0")
	qt.Assert(t, qt.IsNil(err))
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "x") })}
	go s.Serve(l)
	defer s.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())

	var clients sync.WaitGroup
	begin := make(chan struct{})
	client := func(name, library string, load, wait time.Duration, under ...string) {
		clients.Go(func() {
			args := append(under, folder+"/client", library, port, name, fmt.Sprint(requests), fmt.Sprint(load.Milliseconds()), fmt.Sprint(wait.Milliseconds()))
			c := exec.Command(args[0], args[1:]...)
			c.Env = append(os.Environ(), "BPFWHY_TEST_HTTPPROBE=container")
			if under != nil {
				c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID}
			}
			in, err := c.StdinPipe()
			qt.Assert(t, qt.IsNil(err))
			go func() {
				<-begin
				in.Close()
			}()
			out, err := c.CombinedOutput()
			qt.Check(t, qt.IsNil(err), qt.Commentf("%s: %s", name, out))
		})
	}
	put := func(to string) string {
		b, err := os.ReadFile(folder + "/libssl.so.9")
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(os.WriteFile(to+".new", b, 0o755)))
		qt.Assert(t, qt.IsNil(os.Rename(to+".new", to)))
		return to
	}
	dir := t.TempDir()
	old := put(dir + "/libssl.so.1") // there is one to watch
	client("old", old, 0, -time.Millisecond)
	time.Sleep(300 * time.Millisecond)
	caps := documentedRights(t)
	n := 3
	if os.Getenv(wire.KernelEnv) != "" {
		n = 2
	}
	probes := make([]*lateProbe, n)
	var starts sync.WaitGroup
	for i, under := range [][]string{nil, asNobody(caps), asRoot(caps)}[:n] {
		starts.Go(func() {
			probes[i] = startLate(t, []string{"root", "nobody with " + caps, "root with " + caps}[i], under...)
		})
	}
	began := time.Now()
	starts.Wait()
	for _, p := range probes {
		qt.Assert(t, qt.IsNotNil(p))
	}
	if wait > time.Second { // a busy host's emulated seconds are short: the start, a third of one where it is idle, tells how short
		wait = max(wait, 5*time.Since(began))
	}
	// Its process is looked at when it starts, and one, 5 and 20 seconds later: the kernel has to
	// say when it loads something.
	client("late", put(dir+"/libssl.so.2"), max(7*time.Second-wait, 1500*time.Millisecond), wait)
	client("file", put(dir+"/libssl.so.3"), 0, wait)
	client("container", "/libssl.so.4", 0, wait, os.Args[0], folder, dir)
	time.Sleep(1500 * time.Millisecond)
	client("upgrade", put(dir+"/libssl.so.3"), 0, wait)
	close(begin)
	clients.Wait()
	time.Sleep(500 * time.Millisecond)
	for _, p := range probes {
		p.stop(t)
		t.Logf("%s: %v", p.name, p.seen)
		for _, name := range []string{"old", "late", "file", "container", "upgrade"} {
			qt.Check(t, qt.Equals(p.seen[name], requests), qt.Commentf("%s, %s: %s", p.name, name, &p.stderr))
		}
		counted := `250 requests counted, 0 unparsed`
		if os.Getenv(wire.KernelEnv) == "" { // others speak TLS on a host
			counted = `\d+ requests counted, .*`
		}
		qt.Check(t, qt.Matches(p.stderr.String(), `(?s).*openssl: `+counted+`; 0 events lost; .*`), qt.Commentf("%s", p.name))
	}
}

// container runs a client in a root of its own, with files of its own: args are where the client
// is, a folder, and the client's arguments.
func container(args []string) error {
	from, root := args[0], filepath.Join(args[1], "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	if err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("tmpfs", root, "tmpfs", 0, "")); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	files, err := vm.Binary(from + "/client")
	if errors.Is(err, exec.ErrNotFound) { // in guests, which have all that it needs and nothing else
		files, err = map[string]string{}, nil
		for _, dir := range []string{"/lib64", "/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu"} {
			for _, pattern := range []string{"/ld-linux-x86-64.so*", "/libc.so*", "/libdl.so*"} {
				found, _ := filepath.Glob(dir + pattern)
				for _, f := range found {
					files[f] = f
				}
			}
		}
	}
	if err != nil {
		return err
	}
	files["/client"], files["/libssl.so.4"] = from+"/client", from+"/libssl.so.9"
	for to, from := range files {
		b, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(root+to), 0o755), os.WriteFile(root+to, b, 0o755)); err != nil {
			return err
		}
	}
	if err := errors.Join(unix.Chroot(root), unix.Chdir("/")); err != nil {
		return err
	}
	return unix.Exec("/client", append([]string{"client"}, args[3:]...), nil)
}

func TestGuestLate(t *testing.T) {
	vmtest.Guest(t)
	testLate(t, lateFolder, 3*time.Second) // or more
}

// TestLateKernels is of machines whose clock is their processor's work: what else the host does
// takes no time there, and a second is a second.
func TestLateKernels(t *testing.T) {
	vmtest.Need(t)
	if !vmtest.Long() {
		t.Skip("long; a sample of it is TestGuestLate")
	}
	vmtest.RunIn(t, vmtest.Distinct(), "^TestClockedLate$", vm.Machine{
		Sysctls:           lateSysctls,
		Files:             lateFiles(t),
		Env:               []string{"PATH=/usr/bin"},
		CountInstructions: true,
	})
}

func TestClockedLate(t *testing.T) {
	vmtest.Guest(t)
	testLate(t, lateFolder, time.Second)
}

// lateSysctls: perf_event_paranoid is 3 on Debian's kernels, where CAP_PERFMON is good for nothing.
var lateSysctls = map[string]string{"net.core.bpf_jit_harden": "2", "kernel.perf_event_paranoid": "2"}

func TestHostLate(t *testing.T) {
	vmtest.Need(t)
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	testLate(t, buildLate(t), time.Second)
}

// TestGuestLessRights: where the documented rights are not enough on a kernel, the probe says what
// is missing.
func TestGuestLessRights(t *testing.T) {
	vmtest.Guest(t)
	const plain = "+bpf,+perfmon,+sys_ptrace,+dac_read_search"
	const paranoid = "/proc/sys/kernel/perf_event_paranoid"
	before, err := os.ReadFile(paranoid)
	qt.Assert(t, qt.IsNil(err))
	defer os.WriteFile(paranoid, before, 0)
	refused := func(source string) string {
		args := append(asNobody(plain), os.Args[0], "--sources", source)
		c := exec.Command(args[0], args[1:]...)
		c.Env = append(os.Environ(), "BPFWHY_TEST_HTTPPROBE=1")
		out, err := c.CombinedOutput()
		qt.Check(t, qt.IsNotNil(err))
		qt.Check(t, qt.Equals(c.ProcessState.ExitCode(), 2), qt.Commentf("%s", out))
		return string(out)
	}
	if wantsSysAdmin() {
		qt.Check(t, qt.Matches(refused("openssl"), `(?s).*without openssl: .*no uprobe_multi \(6\.6\), and lets only CAP_SYS_ADMIN have uprobes.*`))
	}
	qt.Assert(t, qt.IsNil(os.WriteFile(paranoid, []byte("3"), 0)))
	qt.Check(t, qt.Matches(refused("syscalls"), `(?s).*without syscalls: .*kernel\.perf_event_paranoid is 3, where this kernel lets only CAP_SYS_ADMIN have perf events; at 2 CAP_PERFMON is enough.*`))
	if !wantsSysAdmin() { // links are no perf events
		p := startLate(t, "nobody", asNobody(plain)...)
		p.stop(t)
		qt.Check(t, qt.Matches(p.stderr.String(), `(?s).*openssl finds libraries later, .*kernel\.perf_event_paranoid is 3.*`))
	}
}

// TestHostDescriptors: without descriptors for probes the probe goes on, says so, and is not up
// with what it does not see.
func TestHostDescriptors(t *testing.T) {
	vmtest.Need(t)
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	folder, dir := buildLate(t), t.TempDir()
	p := startLate(t, "few descriptors", "prlimit", "--nofile=48:48")
	b, err := os.ReadFile(folder + "/libssl.so.9")
	qt.Assert(t, qt.IsNil(err))
	var clients sync.WaitGroup
	for i := range 10 {
		library := fmt.Sprintf("%s/libssl.so.%d", dir, i)
		qt.Assert(t, qt.IsNil(os.WriteFile(library, b, 0o755)))
		clients.Go(func() {
			out, err := exec.Command(folder+"/client", library, "1", "x", "0", "0", "3500").CombinedOutput()
			qt.Check(t, qt.IsNil(err), qt.Commentf("%s", out))
		})
	}
	clients.Wait()
	p.stop(t)
	t.Logf("%s", &p.stderr)
	qt.Check(t, qt.Matches(p.stderr.String(), `(?s).*openssl cannot see into \S+ of process \d+, descriptors: .*too many open files.*not probed, descriptors: .*`))
}
