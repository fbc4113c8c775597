// SPDX-License-Identifier: Apache-2.0

package privilege

import (
	"errors"
	"fmt"
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
)

func TestMain(m *testing.M) {
	if os.Getenv("BPFWHY_TEST_DROP") != "" {
		dropped()
		return
	}
	os.Exit(m.Run())
}

// dropped keeps several threads alive while it drops, and prints what each of them has left.
func dropped() {
	var ready, done sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		ready.Add(1)
		done.Add(1)
		go func() {
			defer done.Done()
			ready.Done()
			for {
				select {
				case <-stop:
					return
				default:
					syscall.Nanosleep(&syscall.Timespec{Nsec: int64(time.Millisecond)}, nil)
				}
			}
		}()
	}
	ready.Wait()
	if err := Drop(unix.CAP_SYS_PTRACE, unix.CAP_SYS_ADMIN); err != nil {
		if errors.Is(err, ErrCgo) {
			fmt.Println("cgo")
			return
		}
		fmt.Println(err)
		os.Exit(1)
	}
	tasks, _ := filepath.Glob("/proc/self/task/*/status")
	for _, f := range tasks {
		b, _ := os.ReadFile(f)
		for l := range strings.Lines(string(b)) {
			if strings.HasPrefix(l, "Cap") {
				fmt.Print(l)
			}
		}
	}
	close(stop)
	done.Wait()
}

func TestDrop(t *testing.T) {
	have, err := Effective()
	qt.Assert(t, qt.IsNil(err))
	if have&(1<<unix.CAP_SYS_ADMIN) == 0 || have&(1<<unix.CAP_SYS_PTRACE) == 0 || have&(1<<unix.CAP_SETPCAP) == 0 {
		t.Skip("needs CAP_SYS_ADMIN, CAP_SYS_PTRACE and CAP_SETPCAP to have something to keep")
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "BPFWHY_TEST_DROP=1")
	out, err := cmd.CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
	if string(out) == "cgo\n" {
		t.Skip("this test binary uses cgo")
	}
	// Bits 19 and 21.
	const kept = "0000000000280000"
	threads := 0
	for l := range strings.Lines(string(out)) {
		set, bits, _ := strings.Cut(strings.TrimSpace(l), ":\t")
		switch set {
		case "CapPrm", "CapEff", "CapBnd":
			qt.Check(t, qt.Equals(bits, kept), qt.Commentf("%s", set))
			threads++
		}
	}
	qt.Assert(t, qt.IsTrue(threads >= 3*4))
}
