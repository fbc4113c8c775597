// SPDX-License-Identifier: Apache-2.0

package hang

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/sys/proc"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/internal/watch/hang/hangtest"
)

func TestKilled(t *testing.T) {
	status := func(uid, caps, pending string) string {
		return "Name:\texe\nUid:\t" + uid + "\t0\t0\t0\nSigPnd:\t" + pending + "\nShdPnd:\t0000000000000000\nCapEff:\t" + caps + "\n"
	}
	own := status("0", "000000c000200000", "0000000000000000")
	for other, want := range map[string]bool{
		status("0", "000000c000200000", "0000000000000100"):    true,
		status("0", "000001ffffffffff", "0000000000004100"):    true,
		status("0", "000001ffffffffff", "0000000000000000"):    false, // it can be ended, or is the first load of who starts just now
		status("0", "0000000000200000", "0000000000000100"):    false,
		status("1000", "000001ffffffffff", "0000000000000100"): false,
		"": false,
	} {
		qt.Check(t, qt.Equals(killed(other, own), want), qt.Commentf("%s", other))
	}
}

// firstLoads are the processes of first loads that are there.
func firstLoads() (pids []int) {
	all, _ := proc.Numbers("/proc")
	for _, pid := range all {
		if proc.Read("/proc/"+strconv.Itoa(pid)+"/cmdline") == Argv0+"\x00" {
			pids = append(pids, pid)
		}
	}
	return pids
}

// TestGuestLeft: a first load that hangs and cannot be killed is told by the next start too, which
// makes no other. Here it is a frozen process that cannot be killed, where it would be one that
// waits for a lock.
func TestGuestLeft(t *testing.T) {
	vmtest.Guest(t)
	freezer := t.TempDir()
	qt.Assert(t, qt.IsNil(unix.Mount("freezer", freezer, "cgroup", 0, "freezer")))
	defer unix.Unmount(freezer, unix.MNT_DETACH)
	frozen := filepath.Join(freezer, "frozen")
	qt.Assert(t, qt.IsNil(os.Mkdir(frozen, 0o755)))
	write := func(file, text string) {
		t.Helper()
		qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(frozen, file), []byte(text), 0)))
	}

	confined := hangtest.Confine("first")
	confined.Stderr = os.Stderr
	start := time.Now()
	go func() {
		for ; time.Since(start) < 20*time.Second; time.Sleep(10 * time.Millisecond) {
			for _, pid := range firstLoads() {
				if _, inside := look("/proc/"+strconv.Itoa(pid)+"/", pid, pid); inside {
					os.WriteFile(filepath.Join(frozen, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
					os.WriteFile(filepath.Join(frozen, "freezer.state"), []byte("FROZEN"), 0)
					return
				}
			}
		}
	}()
	said, err := confined.Output()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.StringContains(string(said), "a load of four instructions has not come back after "))
	left := firstLoads()
	qt.Assert(t, qt.HasLen(left, 1))

	for range 2 {
		err = First(t.Context(), time.Second)
		var hangs *Error
		qt.Assert(t, qt.IsTrue(errors.As(err, &hangs)), qt.Commentf("%v", err))
		qt.Check(t, qt.Equals(hangs.Left, left[0]))
		qt.Check(t, qt.IsTrue(hangs.After >= 2*time.Second && hangs.After < time.Minute), qt.Commentf("%v", hangs.After))
		qt.Check(t, qt.DeepEquals(firstLoads(), left))
	}
	t.Logf("%v", err)
	write("freezer.state", "THAWED")
	for ; len(firstLoads()) > 0; time.Sleep(10 * time.Millisecond) {
		qt.Assert(t, qt.IsTrue(time.Since(start) < 2*time.Minute))
	}
	qt.Check(t, qt.IsNil(First(t.Context(), Deadline)))
}
