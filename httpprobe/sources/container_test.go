// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/httpprobe/event"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
)

// inContainer starts this test binary as the first process of a pid namespace of its own, with a
// /proc of its own. What it runs waits for the end of its standard input.
func inContainer(t *testing.T, args ...string) (cmd *exec.Cmd, release func() string) {
	t.Helper()
	cmd = exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = "contained"
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Unshareflags: unix.CLONE_NEWNS}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	in, err := cmd.StdinPipe()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(cmd.Start()))
	var once sync.Once
	release = func() string {
		once.Do(func() {
			in.Close()
			if err := cmd.Wait(); err != nil {
				t.Errorf("%v: %s", err, &out)
			}
		})
		return out.String()
	}
	t.Cleanup(func() { release() })
	return cmd, release
}

// contained is what runs in there: a program, or the options' check of a process.
func contained() {
	err := func() error {
		if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
			return fmt.Errorf("mount proc: %w", err)
		}
		if os.Args[1] != "check" {
			if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
				return err
			}
			return unix.Exec(os.Args[1], os.Args[1:], os.Environ())
		}
		below := exec.Command("/proc/self/exe", "/proc/self/exe") // in a container in the container, it does nothing
		below.Args[0] = "contained"
		below.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Unshareflags: unix.CLONE_NEWNS}
		if _, err := below.StdinPipe(); err != nil {
			return err
		}
		if err := below.Start(); err != nil {
			return err
		}
		for _, pid := range []int{os.Getpid(), below.Process.Pid, 1 << 21} {
			spec, err := loadOpenssl()
			if err != nil {
				return err
			}
			fmt.Println(pid == os.Getpid(), Options{PIDs: []int{pid}}.configure(spec))
		}
		if err := below.Process.Kill(); err != nil {
			return err
		}
		_ = below.Wait()
		return nil
	}()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// testContainer: a process in a container is found by the number that it has outside, in system
// calls and in TLS.
func testContainer(t *testing.T, open func(Options) (*Source, error)) {
	curl, err := exec.LookPath("curl")
	qt.Assert(t, qt.IsNil(err))
	url := serveTLS(t, &tapes{ends: map[end]*taped{}})
	cmd, release := inContainer(t, curl, "--http1.1", "-sSk", url+"/700")
	pid := cmd.Process.Pid
	s, err := open(Options{PIDs: []int{pid}})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	defer s.Close()
	c := collect(t, s)
	qt.Check(t, qt.HasLen(release(), 700))
	time.Sleep(2 * lookInterval)
	c.stop()
	data := 0
	for _, e := range c.events {
		if e.Kind == event.Data { // the end of a connection may be nobody's
			qt.Check(t, qt.Equals(int(e.TGID), pid))
			data++
		}
	}
	qt.Check(t, qt.IsTrue(data >= 2), qt.Commentf("%d", data)) // a request and a response
}

func TestGuestContainerSyscalls(t *testing.T) {
	vmtest.Sampled(t)
	guest(t)
	testContainer(t, Syscalls)
}

func TestGuestContainerOpenSSL(t *testing.T) {
	vmtest.Sampled(t)
	guest(t)
	testContainer(t, OpenSSL)
}

func TestHostContainerOpenSSL(t *testing.T) {
	onHost(t)
	if s, err := OpenSSL(Options{}); opened(t, s, err) {
		testContainer(t, OpenSSL)
	}
}

// A probe in a container says that it cannot pick a process of another one.
func TestContainerInside(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	_, release := inContainer(t, "check")
	qt.Check(t, qt.Matches(release(), `true <nil>
false process \d+: in a pid namespace below ours: only a probe outside of all containers can pick it
false <nil>
`))
}
