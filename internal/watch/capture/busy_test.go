// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"testing"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// On a busy machine, where somebody else begins and ends to watch meanwhile, each attempt to attach
// is told, or its loss is.
func TestGuestBusyAttachments(t *testing.T) {
	vmtest.Once(t)
	processes, each := 4, 50
	if vmtest.Long() {
		each = 200
	}
	for _, b := range []backend{fentry, tpBTF} {
		t.Run(string(b), func(t *testing.T) {
			w := watch(t, place{Options: Options{Backend: string(b)}})
			var pids []uint32
			var all []*exec.Cmd
			for range processes {
				cmd := exec.Command("/proc/self/exe")
				cmd.Args = []string{busyArgv0, strconv.Itoa(each)}
				qt.Assert(t, qt.IsNil(cmd.Start()))
				pids, all = append(pids, uint32(cmd.Process.Pid)), append(all, cmd)
			}
			watch(t, place{Options: Options{Backend: "kprobe"}}).stop()
			for _, cmd := range all {
				qt.Check(t, qt.IsNil(cmd.Wait()))
			}
			s := w.stop()
			told := len(s.calls(func(c *trace.Call) bool {
				return c.Kind == load.RawTPOpen && c.Ret < 0 && slices.Contains(pids, c.TGID)
			}))
			t.Logf("%d of %d told, %d events lost", told, processes*each, s.lost())
			qt.Check(t, qt.IsTrue(told <= processes*each && uint64(told)+s.lost() >= uint64(processes*each)))
		})
	}
}

// busyMain makes attempts to attach, all of which fail.
func busyMain(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	var pin runtime.Pinner
	defer pin.Unpin()
	name := []byte("no_such_tracepoint\x00")
	pin.Pin(&name[0])
	for range n {
		ret := call(abi.CmdRawTracepointOpen, &abi.RawTracepointOpen{Name: addr(name), ProgFD: 1 << 20})
		if ret != -int(unix.EBADF) {
			return fmt.Errorf("open a raw tracepoint: %d", ret)
		}
	}
	return nil
}
