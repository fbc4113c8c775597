// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
)

func TestHostFaults(t *testing.T) {
	hardened(t)
	rounds := 20
	if vmtest.Long() {
		rounds = 200
	}
	testFaults(t, rounds)
}

func TestGuestFaults(t *testing.T) {
	vmtest.Guest(t)
	hardened(t)
	rounds := 6
	if vmtest.Long() {
		rounds = 50
	}
	testFaults(t, rounds)
}

// mark is the variable of the environment by which a round's processes are found.
const mark = "BPFWHY_TEST_FAULT"

// testFaults kills one or more of the processes while a loader loads and loads.
func testFaults(t *testing.T, rounds int) {
	rnd := rand.New(rand.NewPCG(uint64(os.Getpid()), 1))
	victims := [][]string{{"supervisor"}, {"guardian"}, {"loader"}, {"supervisor", "guardian"}, {"guardian", "supervisor"}, {"supervisor", "loader"}}
	for i := range rounds {
		victims, what := victims[i%len(victims)], "small"
		if i/len(victims)%2 == 0 && !inGuest() || i == 0 { // big programs take emulated machines many seconds
			what = "far"
		}
		killable := []string{"killable", "any"}[i/2/len(victims)%2]
		ok := t.Run(fmt.Sprintf("%d %s %s %s", i, strings.Join(victims, " and "), what, killable), func(t *testing.T) {
			fault(t, victims, what, killable, time.Duration(rnd.IntN(150))*time.Millisecond)
		})
		if !ok {
			return
		}
	}
}

func fault(t *testing.T, victims []string, what, killable string, delay time.Duration) {
	tag := fmt.Sprintf("%d-%d", os.Getpid(), time.Now().UnixNano())
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{supervisorArgv0, killable, "/proc/self/exe", loaderArgv0, "again", what}
	cmd.Env = append(os.Environ(), mark+"="+tag)
	in, err := cmd.StdinPipe()
	qt.Assert(t, qt.IsNil(err))
	var out lockedBuffer
	r, w, err := os.Pipe()
	qt.Assert(t, qt.IsNil(err))
	cmd.Stdout, cmd.Stderr = w, w
	qt.Assert(t, qt.IsNil(cmd.Start()))
	w.Close()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		defer r.Close()
		b := make([]byte, 4096)
		for {
			n, err := r.Read(b)
			out.write(b[:n])
			if err != nil {
				return
			}
		}
	}()
	defer func() {
		for _, p := range marked(tag) {
			_ = unix.Kill(p.pid, unix.SIGKILL)
		}
		_ = cmd.Wait()
	}()
	eventually(t, "the first load", func() bool { return out.lines() > 0 })
	time.Sleep(delay)
	before := len(marked(tag))
	for _, v := range victims {
		for _, p := range marked(tag) {
			if p.role == v {
				qt.Assert(t, qt.IsNil(unix.Kill(p.pid, unix.SIGKILL)))
			}
		}
	}
	both := slices.Contains(victims, "supervisor") && slices.Contains(victims, "guardian")
	if !slices.Contains(victims, "loader") {
		// Whatever was killed, loads do not hang: there are answers.
		n := out.lines()
		eventually(t, "further loads", func() bool { return out.lines() > n+1 })
	}
	in.Close()
	eventually(t, "the end of all processes", func() bool { return len(marked(tag)) == 0 })
	<-drained
	text := out.String()
	qt.Check(t, qt.Equals(before, 3), qt.Commentf("supervisor, guardian, loader; after:\n%s", tail(text)))
	if !both {
		qt.Check(t, qt.IsFalse(strings.Contains(text, "errno 38")), qt.Commentf("%s", tail(text)))
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		ok := line == "errno 0" || line == "errno 524" || line == "errno 38" || line == "errno 11"
		qt.Check(t, qt.IsTrue(ok), qt.Commentf("%q", line))
	}
}

func tail(s string) string { return s[max(0, len(s)-300):] }

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited a minute for %s", what)
		}
	}
}

type process struct {
	pid  int
	role string
}

// marked are the living processes of a round.
func marked(tag string) []process {
	var out []process
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, f := range files {
		env, err := os.ReadFile(f)
		if err != nil || !slices.Contains(strings.Split(string(env), "\x00"), mark+"="+tag) {
			continue
		}
		cmdline, _ := os.ReadFile(filepath.Join(filepath.Dir(f), "cmdline"))
		name, _, _ := bytes.Cut(cmdline, []byte{0})
		pid, _ := strconv.Atoi(strings.Split(f, "/")[2])
		role := map[string]string{supervisorArgv0: "supervisor", Argv0: "guardian", loaderArgv0: "loader", heldArgv0: "held"}[string(name)]
		if role != "" {
			out = append(out, process{pid, role})
		}
	}
	return out
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) write(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lockedBuffer) lines() int { return strings.Count(l.String(), "\n") }
