// SPDX-License-Identifier: Apache-2.0

package starts

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/test/recording"
	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
)

var update = flag.Bool("update", false, "record the traces of testdata anew, in the lab's kernel, and write docs/stories.md")

// kernel has every kind of link that the agent uses.
const kernel = "6.12"

// inGuest is the folder of what is built.
const inGuest = "/starts"

// build makes what is started and is not installed.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
		out, err := cmd.CombinedOutput()
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s %v: %s", name, args, out))
	}
	run("clang", "-O2", "-g", "-target", "bpf", "-I/usr/include/x86_64-linux-gnu", "-c", "testdata/agent.bpf.c", "-o", filepath.Join(dir, "agent.bpf.o"))
	for _, pkg := range []string{"cmd/bpfwhy", "cmd/httpprobe", "internal/test/starts/agent"} {
		run("go", "build", "-trimpath", "-o", filepath.Join(dir, filepath.Base(pkg)), "github.com/bpfwhy/bpfwhy/"+pkg)
	}
	return dir
}

// TestRecord starts all of them in a kernel of the lab. What is told of them is as in the
// recordings.
func TestRecord(t *testing.T) {
	vmtest.Need(t)
	if !*update && !vmtest.Long() {
		t.Skip("in the long tests; the recordings are of it")
	}
	m := vm.Machine{Files: map[string]string{inGuest: build(t)}, MemoryMiB: 2048, Timeout: 8 * time.Minute}
	for _, program := range []string{"/usr/bin/bpftrace", "/usr/sbin/bpftool", "/usr/sbin/tcpconnect", "/bin/sh"} {
		files, err := vm.Binary(program)
		qt.Assert(t, qt.IsNil(err), qt.Commentf("scripts/install-deps.sh installs it"))
		maps.Copy(m.Files, files)
	}
	m.Files["/usr/sbin/opensnoop.bt"] = "/usr/sbin/opensnoop.bt"
	vmtest.RunIn(t, []string{kernel}, "^TestGuest", m, func(t *testing.T, _ string, r *vm.Result) {
		for _, s := range starts {
			data := r.Files[s.name+".trace"]
			t.Run(s.name, func(t *testing.T) { s.check(t, storiesOf(t, data)) })
			if *update {
				qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join("testdata", s.name+".trace"), recording.Squeeze(t, data), 0o644)))
			}
		}
	})
}

func TestGuestStarts(t *testing.T) {
	vmtest.Guest(t)
	if err := syscall.Mount("bpf", "/sys/fs/bpf", "bpf", 0, ""); err != nil && !errors.Is(err, syscall.EBUSY) {
		t.Fatal(err)
	}
	qt.Assert(t, qt.IsNil(os.MkdirAll("/out", 0o755)))
	for _, s := range starts {
		t.Run(s.name, func(t *testing.T) { record(t, s) })
	}
}

// record starts a command under 'bpfwhy run', and ends it when it is ready.
func record(t *testing.T, s start) {
	for _, first := range s.after {
		other := begin(t, first)
		defer other.end()
	}
	trace, output := "/out/"+s.name+".trace", "/tmp/"+s.name+".txt"
	if s.watch {
		watch := begin(t, start{command: []string{inGuest + "/bpfwhy", "watch", "--record", trace}, ready: "watching"})
		defer watch.end()
		begin(t, s).end()
		return
	}
	run := append([]string{inGuest + "/bpfwhy", "run", "--output", output, "--record", trace, "--"}, s.command...)
	running := begin(t, start{command: run, ready: s.ready})
	for until := time.Now().Add(time.Minute); s.ready == "" && !running.over() && !told(output) && time.Now().Before(until); {
		time.Sleep(time.Second)
	}
	running.end()
	text, err := os.ReadFile(output)
	qt.Assert(t, qt.IsNil(err))
	t.Logf("%s\n%s", strings.Join(s.command, " "), text)
	qt.Check(t, qt.Equals(bytes.Count(text, []byte("STORY")), 1))
}

func told(output string) bool {
	text, _ := os.ReadFile(output) // it comes with the first line
	return bytes.Contains(text, []byte("STORY"))
}

type running struct {
	cmd   *exec.Cmd
	stdin io.Closer
	said  *bytes.Buffer
	done  chan struct{}
	t     *testing.T
}

// begin starts a command, and waits until it is ready, or over.
func begin(t *testing.T, s start) *running {
	t.Helper()
	r := &running{cmd: exec.Command(s.command[0], s.command[1:]...), said: new(bytes.Buffer), done: make(chan struct{}), t: t}
	stdin, err := r.cmd.StdinPipe()
	qt.Assert(t, qt.IsNil(err))
	r.stdin = stdin
	out, w, err := os.Pipe()
	qt.Assert(t, qt.IsNil(err))
	r.cmd.Stdout, r.cmd.Stderr = w, w
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	qt.Assert(t, qt.IsNil(r.cmd.Start()))
	w.Close()
	ready := make(chan struct{})
	go func() {
		defer close(r.done)
		told := false
		for b := make([]byte, 4096); ; {
			n, err := out.Read(b)
			r.said.Write(b[:n])
			if !told && s.ready != "" && strings.Contains(r.said.String(), s.ready) {
				told = true
				close(ready)
			}
			if err != nil {
				return
			}
		}
	}()
	if s.ready == "" {
		return r
	}
	select {
	case <-ready:
	case <-r.done:
	case <-time.After(2 * time.Minute):
		t.Errorf("%v is not ready", s.command)
	}
	return r
}

func (r *running) over() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// end ends a command as a user does, with its input and with Ctrl-C.
func (r *running) end() {
	r.stdin.Close()
	time.Sleep(time.Second)
	syscall.Kill(-r.cmd.Process.Pid, syscall.SIGINT)
	select {
	case <-r.done:
	case <-time.After(time.Minute):
		r.t.Errorf("%v does not end", r.cmd.Args)
		syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL)
	}
	err := r.cmd.Wait()
	r.t.Logf("%v: %v\n%s", r.cmd.Args, err, r.said)
}
