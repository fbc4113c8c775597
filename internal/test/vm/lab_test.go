// SPDX-License-Identifier: Apache-2.0

package vm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
)

// programs returns what guests need to run the host's programs.
func programs(t *testing.T, names ...string) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, name := range names {
		path, err := exec.LookPath(name)
		qt.Assert(t, qt.IsNil(err))
		needed, err := vm.Binary(path)
		qt.Assert(t, qt.IsNil(err))
		maps.Copy(files, needed)
		files["/bin/"+name] = path
	}
	return files
}

func shell(script string) []string { return []string{"sh", "-c", script} }

func TestEveryKernel(t *testing.T) {
	vmtest.Need(t)
	binary := make([]byte, 256*1000)
	for i := range binary {
		binary[i] = byte(i ^ i>>8)
	}
	blob := filepath.Join(t.TempDir(), "blob")
	qt.Assert(t, qt.IsNil(os.WriteFile(blob, binary, 0o644)))
	files := programs(t, "sh", "uname", "cat", "mkdir")
	files["/data/blob"] = blob

	for _, id := range vmtest.Kernels(t) {
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			image, err := vm.Fetch(t.Context(), id)
			qt.Assert(t, qt.IsNil(err))
			result, err := vmtest.Boot(t.Context(), t, vm.Machine{
				Kernel: id,
				Files:  files,
				Env:    []string{"GREETING=good day"},
				Commands: [][]string{
					{"uname", "-r"},
					shell(`echo "$GREETING"; echo "on $BPFWHY_LAB_KERNEL" >&2; exit 7`),
					shell(`kill -9 $$`),
					{"no-such-program"},
					// The loudest the kernel can be, while bytes pass.
					shell(`for i in 0 1 2 3 4 5 6 7 8 9; do echo "<0>chatter $i" > /dev/kmsg; echo "line $i"; done`),
					shell(`mkdir -p /out/deep; cat /data/blob > /out/deep/blob; : > /out/empty`),
					{"cat", "/data/blob"},
				},
				Timeout: 4 * time.Minute,
			})
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.HasLen(result.Commands, 7))
			got := func(i int) (string, string, int) {
				o := result.Commands[i]
				return string(o.Stdout), string(o.Stderr), o.ExitStatus
			}
			check := func(i int, stdout, stderr string, status int) {
				t.Helper()
				gotOut, gotErr, gotStatus := got(i)
				qt.Check(t, qt.Equals(gotOut, stdout))
				qt.Check(t, qt.Equals(gotErr, stderr))
				qt.Check(t, qt.Equals(gotStatus, status))
			}
			check(0, image.Release+"\n", "", 0)
			check(1, "good day\n", "on "+id+"\n", 7)
			check(2, "", "", 137)
			_, stderr, status := got(3)
			qt.Check(t, qt.StringContains(stderr, "no-such-program"))
			qt.Check(t, qt.Equals(status, 127))
			check(4, "line 0\nline 1\nline 2\nline 3\nline 4\nline 5\nline 6\nline 7\nline 8\nline 9\n", "", 0)
			qt.Check(t, qt.StringContains(string(result.Console), "chatter 9"))
			qt.Check(t, qt.HasLen(result.Files, 2))
			qt.Check(t, qt.IsTrue(bytes.Equal(result.Files["deep/blob"], binary)))
			qt.Check(t, qt.HasLen(result.Files["empty"], 0))
			qt.Check(t, qt.IsTrue(bytes.Equal(result.Commands[6].Stdout, binary)))
		})
	}
}

func TestOptions(t *testing.T) {
	vmtest.Need(t)
	t.Parallel()
	result, err := vmtest.Boot(t.Context(), t, vm.Machine{
		Kernel:      "6.1",
		CPUs:        2,
		MemoryMiB:   700,
		CgroupV1:    true,
		KeepMemlock: true,
		KernelArgs:  []string{"lockdown=confidentiality"},
		Sysctls:     map[string]string{"kernel.threads-max": "4321"},
		Dir:         "/tmp",
		Files:       programs(t, "sh", "cat", "grep", "pwd"),
		Commands: [][]string{
			{"grep", "-c", "^processor", "/proc/cpuinfo"},
			{"grep", "-E", " /sys/fs/cgroup", "/proc/mounts"},
			shell("ulimit -l"),
			{"cat", "/sys/kernel/security/lockdown"},
			{"cat", "/proc/sys/kernel/threads-max"},
			{"pwd"},
			{"grep", "MemTotal", "/proc/meminfo"},
		},
	})
	qt.Assert(t, qt.IsNil(err))
	out := func(i int) string { return string(result.Commands[i].Output) }
	qt.Check(t, qt.Equals(out(0), "2\n"))
	qt.Check(t, qt.StringContains(out(1), "/sys/fs/cgroup/memory cgroup rw"))
	qt.Check(t, qt.StringContains(out(1), "/sys/fs/cgroup/unified cgroup2 rw"))
	qt.Check(t, qt.Not(qt.Equals(out(2), "unlimited\n")))
	qt.Check(t, qt.Equals(out(3), "none integrity [confidentiality]\n"))
	qt.Check(t, qt.Equals(out(4), "4321\n"))
	qt.Check(t, qt.Equals(out(5), "/tmp\n"))
	var kib int
	_, err = fmt.Sscanf(out(6), "MemTotal: %d kB", &kib)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(kib > 500<<10 && kib < 700<<10), qt.Commentf("%d KiB", kib))
}

// Each of these machines goes wrong in its own way, and each must say so.
func TestBrokenMachines(t *testing.T) {
	vmtest.Need(t)
	files := programs(t, "sh", "cat", "sleep")
	tests := []struct {
		name    string
		machine vm.Machine
		reason  string // a regular expression
		console string
		timeout bool
		output  string // what the first command said before
	}{
		{
			name:    "panic",
			machine: vm.Machine{Commands: [][]string{shell("echo before; sleep 2; echo c > /proc/sysrq-trigger")}},
			reason:  "the kernel panicked",
			console: "Kernel panic - not syncing: sysrq triggered crash",
			output:  "before\n",
		},
		{
			name:    "init dies",
			machine: vm.Machine{Commands: [][]string{shell("kill -ABRT 1; while :; do :; done")}},
			reason:  "the kernel panicked",
			console: "Attempted to kill init!",
		},
		{
			name:    "reboot",
			machine: vm.Machine{Commands: [][]string{shell("echo b > /proc/sysrq-trigger")}},
			reason:  "the machine went off before its commands were done",
		},
		{
			name:    "no init",
			machine: vm.Machine{KernelArgs: []string{"rdinit=/none", "root=/dev/none"}},
			reason:  "the kernel panicked",
			console: "Unable to mount root fs",
		},
		{
			name:    "hang",
			machine: vm.Machine{Commands: [][]string{{"cat", "/dev/ttyS2"}, shell("while :; do :; done")}, Timeout: 12 * time.Second},
			reason:  `(?s)killed after its 12s were over; its processor was at\n.*RIP=.*`,
			timeout: true,
		},
		{
			name:    "bad sysctl",
			machine: vm.Machine{Sysctls: map[string]string{"net.core.no_such": "1"}},
			reason:  "its init gave up: set sysctl net.core.no_such: open /proc/sys/net/core/no_such: no such file or directory",
		},
		{
			name:    "no such memory",
			machine: vm.Machine{MemoryMiB: 1 << 40},
			reason:  "qemu-system-x86_64: exit status 1: .*",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.machine.Kernel = "6.1"
			test.machine.Files = files
			result, err := vmtest.Boot(t.Context(), t, test.machine)
			qt.Assert(t, qt.IsNil(result))
			broken, ok := errors.AsType[*vm.MachineError](err)
			qt.Assert(t, qt.IsTrue(ok), qt.Commentf("%v", err))
			qt.Check(t, qt.Matches(broken.Reason, test.reason), qt.Commentf("%s", broken.Console))
			qt.Check(t, qt.Equals(broken.Timeout, test.timeout))
			qt.Check(t, qt.StringContains(err.Error(), test.console))
			if test.output != "" {
				qt.Assert(t, qt.HasLen(broken.Partial.Commands, 1))
				qt.Check(t, qt.Equals(string(broken.Partial.Commands[0].Stdout), test.output))
			}
		})
	}
}

// cancelOn cancels when a text was written to it.
type cancelOn struct {
	cancel context.CancelFunc
	text   string
	mu     sync.Mutex
	seen   bytes.Buffer
}

func (c *cancelOn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen.Write(p)
	if strings.Contains(c.seen.String(), c.text) {
		c.cancel()
	}
	return len(p), nil
}

// Output arrives while the command runs, and cancelling ends the machine.
func TestCancel(t *testing.T) {
	vmtest.Need(t)
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := vmtest.Boot(ctx, t, vm.Machine{
		Kernel:   "6.1",
		Files:    programs(t, "sh"),
		Commands: [][]string{shell("echo started; while :; do :; done")},
		Stdout:   &cancelOn{cancel: cancel, text: "started"},
		Timeout:  3 * time.Minute,
	})
	qt.Check(t, qt.ErrorMatches(err, "(?s)run machine 6.1: stopped after .*: context canceled.*"))
	broken, ok := errors.AsType[*vm.MachineError](err)
	qt.Assert(t, qt.IsTrue(ok))
	qt.Check(t, qt.IsFalse(broken.Timeout))
}

// A killed test leaves no machine behind.
func TestNoOrphan(t *testing.T) {
	if os.Getenv("BPFWHY_LAB_ORPHAN") == "1" {
		vm.Run(t.Context(), vm.Machine{
			Kernel:   "6.1",
			Files:    programs(t, "sh"),
			Commands: [][]string{shell("echo started; while :; do :; done")},
			Stdout:   os.Stdout,
		})
		t.Fatal("the machine ended")
	}
	vmtest.Need(t)
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	child := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestNoOrphan$")
	child.Env = append(os.Environ(), "BPFWHY_LAB_ORPHAN=1")
	started, cancelStarted := context.WithCancel(ctx)
	child.Stdout = &cancelOn{cancel: cancelStarted, text: "started"}
	qt.Assert(t, qt.IsNil(child.Start()))
	<-started.Done()
	qt.Assert(t, qt.IsNil(ctx.Err()))
	qemu := childOf(t, child.Process.Pid, "qemu-system")
	qt.Assert(t, qt.IsNil(child.Process.Kill()))
	child.Wait()
	for range 100 {
		if name, _ := status(qemu); !strings.HasPrefix(name, "qemu-system") {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("QEMU, process %d, outlives the process that started it by 5s", qemu)
}

// childOf returns the process that parent started from a program.
func childOf(t *testing.T, parent int, program string) int {
	t.Helper()
	processes, err := filepath.Glob("/proc/[0-9]*")
	qt.Assert(t, qt.IsNil(err))
	for _, process := range processes {
		pid, err := strconv.Atoi(filepath.Base(process))
		qt.Assert(t, qt.IsNil(err))
		if name, ppid := status(pid); ppid == parent && strings.HasPrefix(name, program) {
			return pid
		}
	}
	t.Fatalf("process %d has no child that runs %s", parent, program)
	return 0
}

// status returns a process's name and parent; a zombie has no name.
func status(pid int) (name string, parent int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return "", 0
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		switch key {
		case "Name":
			name = value
		case "State":
			if strings.HasPrefix(value, "Z") {
				return "", 0
			}
		case "PPid":
			parent, _ = strconv.Atoi(value)
		}
	}
	return name, parent
}
