// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/trace"
)

// describeProcess adds to a call what /proc tells of its process, for backends that cannot read the kernel. A process that
// is gone by now, or has become another one, leaves the call as it is. Not its rights and limits: those are of now, and a loader that
// drops its capabilities, or lowers a limit around a probe, had others as it made the call.
func describeProcess(call *trace.Call) {
	if call.Creds != nil {
		return // the kernel was read
	}
	dir := procOf(call)
	if !isCaller(call, dir) {
		return
	}
	told := *call
	told.Exe, _ = os.Readlink(dir + "exe")
	if b := readSome(dir + "cgroup"); b != "" {
		told.Cgroup2, told.Cgroup1 = cgroupNames(b, call.Cgroup2)
	}
	if isCaller(call, dir) { // still
		*call = told
	}
}

// initialPIDNamespace is the inode of the first pid namespace (PROC_PID_INIT_INO).
const initialPIDNamespace = 0xEFFFFFFC

var inInitialPIDNamespace = sync.OnceValue(func() bool {
	_, ino, err := pidNamespace()
	return err == nil && ino == initialPIDNamespace
})

// seesThreads reports whether /proc has the threads by the numbers that the kernel has for them.
func seesThreads() bool {
	self, err := os.Readlink("/proc/self")
	return err == nil && self == strconv.Itoa(os.Getpid()) && inInitialPIDNamespace()
}

// procOf is the folder of a call's process in our own /proc. Where ours is not the first pid namespace, only the processes of our own are known.
func procOf(call *trace.Call) string {
	if inInitialPIDNamespace() {
		return fmt.Sprintf("/proc/%d/", call.TGID)
	}
	return fmt.Sprintf("/proc/%d/", call.NSPID)
}

// isCaller reports whether a folder of /proc is that of the process that made a call: not one that has its number by now, nor the
// program that it has become.
func isCaller(call *trace.Call, dir string) bool {
	const ticks = 100 // USER_HZ of x86-64
	stat := readSome(dir + "stat")
	f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(f) < 20 {
		return false
	}
	started, err := strconv.ParseUint(f[19], 10, 64) // in ticks since the machine started, suspended or not
	if err != nil || started*(1e9/ticks) > call.ID.Start+suspended() {
		return false
	}
	comm := readSome(fmt.Sprintf("%stask/%d/comm", dir, call.ID.TID))
	if comm == "" { // the thread has ended, or has another number in our namespace
		comm = readSome(dir + "comm")
	}
	return strings.TrimSuffix(comm, "\n") == call.Comm
}

// suspended is how long the machine has slept, in ns, which the clock of the calls does not count.
func suspended() uint64 {
	awake := monotonic() // first: the other is never behind it
	var boot unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot); err != nil {
		return 0
	}
	return uint64(boot.Nano()) - awake
}

func readSome(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 16<<10))
	if err != nil {
		return ""
	}
	return string(b)
}

// cgroupNames reads /proc/PID/cgroup: the v2 group, and that of the v1 memory controller. The last two elements of a path are the name, as
// in the kernel's own report.
func cgroupNames(text string, v2 *trace.Cgroup) (two, one *trace.Cgroup) {
	two = v2
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 || f[2] == "/" {
			continue
		}
		path := strings.Split(strings.Trim(f[2], "/"), "/")
		name := strings.Join(path[max(0, len(path)-2):], "/")
		switch {
		case f[0] == "0" && two != nil:
			two = &trace.Cgroup{ID: two.ID, Name: name}
		case f[1] == "memory" || strings.HasPrefix(f[1], "memory,") || strings.HasSuffix(f[1], ",memory"):
			one = &trace.Cgroup{Name: name}
		}
	}
	return two, one
}
