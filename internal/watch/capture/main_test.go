// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/demo/failing"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/wire"
	"github.com/bpfwhy/bpfwhy/internal/watch/hang/hangtest"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// The names under which this test binary runs as something else.
const (
	watcherArgv0 = "capture-watcher"
	nestArgv0    = "capture-nest"
	floodArgv0   = "capture-flood"
	execArgv0    = "capture-exec"
	busyArgv0    = "capture-busy"
	hogArgv0     = "capture-hog"
)

func TestMain(m *testing.M) {
	failing.Main()
	hangtest.Main()
	for name, main := range map[string]func([]string) error{
		watcherArgv0: watcherMain, nestArgv0: nestMain, floodArgv0: floodMain, execArgv0: execMain, busyArgv0: busyMain, hogArgv0: hogMain, movedArgv0: movedMain,
	} {
		if os.Args[0] != name {
			continue
		}
		if err := main(os.Args[1:]); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// inLab fails a test that would change the machine anywhere else.
func inLab(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(wire.SpecPath); err != nil || os.Getppid() != 1 {
		t.Fatal("changes the machine: only in one of the lab")
	}
}

// place is where a watcher runs, and how it watches. Loads of the watcher's own process are never
// seen, so it is a process of its own, and the test makes the loads.
type place struct {
	Options   Options
	NoBTF     bool // /sys/kernel/btf is hidden from it
	NoTracefs bool // tracefs is not mounted where it looks
	UID       int  // 0: root
}

// message is what a watcher says: the header or why there is none, answers, records.
type message struct {
	Header *trace.Header `json:"header,omitempty"`
	Error  string        `json:"error,omitempty"`
	Mounts string        `json:"mounts,omitempty"` // what Open changed in the mount table
	Took   time.Duration `json:"took,omitempty"`   // Open
	Record *trace.Record `json:"record,omitempty"`
	// Entries of the map that was asked for, or how many loads worked.
	Entries *int           `json:"entries,omitempty"`
	Worked  []ProgramCount `json:"worked,omitempty"`
}

func watcherMain(args []string) error {
	var p place
	if err := json.Unmarshal([]byte(args[0]), &p); err != nil {
		return err
	}
	var mu sync.Mutex
	out := bufio.NewWriter(os.Stdout)
	encode := json.NewEncoder(out)
	say := func(m message) {
		mu.Lock()
		defer mu.Unlock()
		_ = encode.Encode(m)
		_ = out.Flush()
	}
	if p.NoBTF {
		if err := unix.Mount("none", "/sys/kernel/btf", "tmpfs", 0, ""); err != nil {
			return fmt.Errorf("hide BTF: %w", err)
		}
	}
	if p.NoTracefs {
		for _, dir := range []string{"/sys/kernel/debug/tracing", "/sys/kernel/tracing", "/sys/kernel/debug"} {
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	}
	if p.UID != 0 {
		if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(p.UID), syscall.Setuid(p.UID)); err != nil {
			return err
		}
	}
	before, _ := os.ReadFile("/proc/self/mountinfo")
	start := time.Now()
	c, err := Open(context.Background(), p.Options)
	if err != nil {
		say(message{Error: err.Error()})
		return nil
	}
	m := message{Took: time.Since(start)}
	if after, _ := os.ReadFile("/proc/self/mountinfo"); !bytes.Equal(before, after) {
		m.Mounts = string(after)
	}
	h := c.Header()
	m.Header = &h
	say(m)
	go func() {
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			var pid int
			switch line := in.Text(); {
			case c.coll.maps[line] != nil:
				n := 0
				var key uint32
				var value []byte
				for it := c.coll.maps[line].Iterate(); it.Next(&key, &value); {
					n++
				}
				say(message{Entries: &n})
			case line == "what worked":
				worked, err := c.Worked()
				if err != nil {
					say(message{Error: err.Error()})
				}
				n := int(worked.Total)
				say(message{Entries: &n, Worked: worked.Programs})
			default:
				if _, err := fmt.Sscanf(line, "follow %d", &pid); err != nil {
					say(message{Error: line})
				} else if err := c.Follow(pid); err != nil {
					say(message{Error: err.Error()})
				}
				say(message{Entries: new(int)})
			}
		}
		_ = c.Close()
	}()
	for {
		r, err := c.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			say(message{Error: err.Error()})
			return nil
		}
		say(message{Record: &r})
	}
}

// watcher is a running watcher process and what it has seen.
type watcher struct {
	t      *testing.T
	cmd    *exec.Cmd
	in     io.WriteCloser
	stderr bytes.Buffer
	header trace.Header
	first  message

	mu      sync.Mutex
	more    *sync.Cond
	records []trace.Record
	errs    []string
	answer  *int
	worked  []ProgramCount
	done    bool
}

// tryWatch starts a watcher, which may say why it cannot watch.
func tryWatch(t *testing.T, p place) (*watcher, error) {
	t.Helper()
	arg, err := json.Marshal(p)
	qt.Assert(t, qt.IsNil(err))
	w := &watcher{t: t, cmd: exec.Command("/proc/self/exe")}
	w.more = sync.NewCond(&w.mu)
	w.cmd.Args = []string{watcherArgv0, string(arg)}
	w.cmd.Stderr = &w.stderr
	if p.NoBTF || p.NoTracefs {
		w.cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS} // Go makes the mounts private
	}
	w.in, err = w.cmd.StdinPipe()
	qt.Assert(t, qt.IsNil(err))
	out, err := w.cmd.StdoutPipe()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(w.cmd.Start()))
	t.Cleanup(func() { w.cmd.Process.Kill(); w.cmd.Wait() })
	dec := json.NewDecoder(bufio.NewReader(out))
	if err := dec.Decode(&w.first); err != nil {
		w.cmd.Wait()
		t.Fatalf("watcher: %v: %s", err, w.stderr.String())
	}
	if w.first.Error != "" {
		w.cmd.Wait()
		return nil, errors.New(w.first.Error)
	}
	w.header = *w.first.Header
	go func() {
		for {
			var m message
			err := dec.Decode(&m)
			w.mu.Lock()
			switch {
			case err != nil:
				if err != io.EOF {
					w.errs = append(w.errs, err.Error())
				}
				w.done = true
			case m.Record != nil:
				w.records = append(w.records, *m.Record)
			case m.Error != "":
				w.errs = append(w.errs, m.Error)
			case m.Entries != nil:
				w.answer, w.worked = m.Entries, m.Worked
			}
			done := w.done
			w.more.Broadcast()
			w.mu.Unlock()
			if done {
				return
			}
		}
	}()
	return w, nil
}

func watch(t *testing.T, p place) *watcher {
	t.Helper()
	start := time.Now()
	w, err := tryWatch(t, p)
	qt.Assert(t, qt.IsNil(err))
	t.Logf("watching by %s after %v (Open: %v)", w.header.Backend, time.Since(start).Round(time.Millisecond), w.first.Took.Round(time.Millisecond))
	return w
}

// ask sends a line and waits for the answer to it.
func (w *watcher) ask(line string) int {
	w.t.Helper()
	w.mu.Lock()
	w.answer = nil
	w.mu.Unlock()
	_, err := fmt.Fprintln(w.in, line)
	qt.Assert(w.t, qt.IsNil(err))
	w.wait(func() bool { return w.answer != nil })
	w.mu.Lock()
	defer w.mu.Unlock()
	return *w.answer
}

// wait waits until something is true of what was seen.
func (w *watcher) wait(ok func() bool) {
	w.t.Helper()
	late := time.AfterFunc(time.Minute, func() { w.mu.Lock(); w.done = true; w.more.Broadcast(); w.mu.Unlock() })
	defer late.Stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	for !ok() {
		if w.done {
			w.t.Fatalf("the watcher ended, or a minute passed, before it came: %s%s\n%s", w.errs, w.stderr.String(), describe(w.records))
		}
		w.more.Wait()
	}
}

// stop ends the watcher in the regular way and returns all that it saw.
func (w *watcher) stop() seen {
	w.t.Helper()
	w.in.Close()
	w.wait(func() bool { return w.done })
	qt.Assert(w.t, qt.IsNil(w.cmd.Wait()), qt.Commentf("%s", w.stderr.String()))
	qt.Check(w.t, qt.HasLen(w.errs, 0))
	return seen(w.records)
}

// hook is how a function is watched.
func hookOf(h trace.Header, f load.Function) trace.Hook {
	for _, k := range h.Hooks {
		if k.Function == f && k.Via != "" {
			return k
		}
	}
	for _, k := range h.Hooks {
		if k.Function == f {
			return k
		}
	}
	return trace.Hook{}
}

type seen []trace.Record

func (s seen) calls(match func(*trace.Call) bool) []*trace.Call {
	var list []*trace.Call
	for _, r := range s {
		if r.Call != nil && match(r.Call) {
			list = append(list, r.Call)
		}
	}
	return list
}

// loads are the loads of a program, by the name in the attr.
func (s seen) loads(name string) []*trace.Call {
	return s.calls(func(c *trace.Call) bool { return c.Kind == load.ProgLoad && progNameOf(c) == name })
}

// one is the only load of a program.
func (s seen) one(t *testing.T, name string) *trace.Call {
	t.Helper()
	list := s.loads(name)
	if len(list) != 1 {
		t.Fatalf("%d loads of %s, want one:\n%s", len(list), name, describe(s))
	}
	return list[0]
}

func (s seen) lost() (n uint64) {
	for _, r := range s {
		if r.Loss != nil {
			n += r.Loss.Count
		}
	}
	return n
}

// bytes joins the pieces of a range from its start to the first hole.
func (s seen) bytes(id trace.CallID, what trace.What) (b []byte, total uint64) {
	for _, c := range s.chunks(id, what) {
		if c.Offset == uint64(len(b)) {
			b = append(b, c.Data...)
		}
		total = c.Total
	}
	return b, total
}

func (s seen) chunks(id trace.CallID, what trace.What) []*trace.Chunk {
	var list []*trace.Chunk
	for _, r := range s {
		if r.Chunk != nil && r.Chunk.ID == id && r.Chunk.What == what {
			list = append(list, r.Chunk)
		}
	}
	return list
}

// says are the verifier's messages, as far as their formats say them.
func (s seen) messages(id trace.CallID) string {
	var b strings.Builder
	for _, r := range s {
		if r.Message != nil && r.Message.ID == id {
			fmt.Fprintf(&b, "%s %q\n", r.Message.Format, r.Message.Strings)
		}
	}
	return b.String()
}

func progNameOf(c *trace.Call) string {
	const at = 48
	if len(c.Attr) < at+16 {
		return ""
	}
	return text(c.Attr[at : at+16])
}

func stageOf(c *trace.Call, f load.Function) *trace.Stage {
	i := slices.IndexFunc(c.Stages, func(s trace.Stage) bool { return s.Function == f })
	if i < 0 {
		return nil
	}
	return &c.Stages[i]
}

func describe(records []trace.Record) string {
	var b strings.Builder
	for _, r := range records {
		switch {
		case r.Call != nil:
			fmt.Fprintf(&b, "call %s %q cmd %d ret %d tgid %d comm %q flags %+v\n", r.Call.Kind, progNameOf(r.Call), int32(r.Call.Cmd), r.Call.Ret, r.Call.TGID, r.Call.Comm, r.Call.Flags)
		case r.Loss != nil:
			fmt.Fprintf(&b, "loss %+v\n", *r.Loss)
		case r.Chunk != nil:
			fmt.Fprintf(&b, "chunk %s %d+%d of %d errno %d\n", r.Chunk.What, r.Chunk.Offset, len(r.Chunk.Data), r.Chunk.Total, r.Chunk.Errno)
		case r.End != nil:
			fmt.Fprintf(&b, "end %+v\n", *r.End)
		}
	}
	return b.String()
}

// run makes a failing load in a child.
func run(t *testing.T, name string) (pid int, res failing.Result) {
	t.Helper()
	p, err := failing.Find(name)
	qt.Assert(t, qt.IsNil(err))
	proc, err := failing.Start(t.Context(), p)
	qt.Assert(t, qt.IsNil(err))
	pid = proc.PID()
	res, err = proc.Go()
	qt.Assert(t, qt.IsNil(err))
	return pid, res
}

// nestMain is a process that, line by line, makes failing loads in processes below it, in a pid
// namespace of their own or by way of a thread where the line says so, or makes threads that end at
// once.
func nestMain([]string) error {
	in := bufio.NewScanner(os.Stdin)
	var waiting []*nested
	for in.Scan() {
		verb, name, _ := strings.Cut(in.Text(), " ")
		switch verb {
		case "threads":
			n, err := strconv.Atoi(name)
			if err != nil {
				return err
			}
			for range n {
				onThread(func() {})
			}
		case "start", "start-ns", "start-thread":
			n, err := startNested(name, verb)
			if err != nil {
				return err
			}
			waiting = append(waiting, n)
		case "go":
			for _, n := range waiting {
				if err := n.finish(); err != nil {
					return err
				}
			}
			waiting = nil
		}
		fmt.Println(verb)
	}
	return in.Err()
}

type nested struct {
	cmd *exec.Cmd
	in  io.WriteCloser
}

func startNested(name, verb string) (*nested, error) {
	n := &nested{cmd: exec.Command("/proc/self/exe")}
	n.cmd.Args = []string{failing.Argv0, name}
	n.cmd.Stderr = os.Stderr
	switch verb {
	case "start-ns":
		n.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	case "start-thread":
		n.cmd.Args[0] = execArgv0
	}
	var err error
	if n.in, err = n.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	return n, n.cmd.Start()
}

func (n *nested) finish() error {
	fmt.Fprintln(n.in)
	n.in.Close()
	return n.cmd.Wait()
}

// onThread runs f on a thread other than the first, which ends with it.
func onThread(f func()) {
	done := make(chan bool)
	for {
		go func() {
			runtime.LockOSThread()
			if unix.Gettid() == os.Getpid() {
				defer runtime.UnlockOSThread()
				done <- false
				return
			}
			f()
			done <- true
		}()
		if <-done {
			return
		}
	}
}

// execMain becomes a failing load, from a thread that is not the first.
func execMain(args []string) error {
	var err error
	onThread(func() { err = syscall.Exec("/proc/self/exe", []string{failing.Argv0, args[0]}, os.Environ()) })
	return err
}

// nest is a running nestMain.
type nest struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startNest(t *testing.T) *nest {
	t.Helper()
	n := &nest{t: t, cmd: exec.Command("/proc/self/exe")}
	n.cmd.Args = []string{nestArgv0}
	n.cmd.Stderr = os.Stderr
	var err error
	n.in, err = n.cmd.StdinPipe()
	qt.Assert(t, qt.IsNil(err))
	out, err := n.cmd.StdoutPipe()
	qt.Assert(t, qt.IsNil(err))
	n.out = bufio.NewReader(out)
	qt.Assert(t, qt.IsNil(n.cmd.Start()))
	t.Cleanup(func() { n.in.Close(); n.cmd.Wait() })
	return n
}

func (n *nest) pid() int { return n.cmd.Process.Pid }

func (n *nest) do(lines ...string) {
	n.t.Helper()
	for _, line := range lines {
		_, err := fmt.Fprintln(n.in, line)
		qt.Assert(n.t, qt.IsNil(err))
		_, err = n.out.ReadString('\n')
		qt.Assert(n.t, qt.IsNil(err))
	}
}
