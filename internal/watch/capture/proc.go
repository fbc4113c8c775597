// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/sys/proc"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
)

// describeProcess adds to a call what /proc tells of its process, for backends that cannot read the
// kernel. A process that is gone by now, or has become another one, leaves the call as it is. Not
// its rights and limits: those are of now, and a loader that drops its capabilities, or lowers a
// limit around a probe, had others as it made the call.
func describeProcess(call *trace.Call) {
	if call.Creds != nil || call.Exe != "" {
		return // the kernel was read
	}
	dir := procOf(call)
	if !isCaller(call, dir) {
		return
	}
	told := *call
	told.Exe, _ = os.Readlink(dir + "exe")
	if b := proc.Read(dir + "cgroup"); b != "" {
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

// procOf is the folder of a call's process in our own /proc. Where ours is not the first pid
// namespace, only the processes of our own are known.
func procOf(call *trace.Call) string {
	if inInitialPIDNamespace() {
		return fmt.Sprintf("/proc/%d/", call.TGID)
	}
	return fmt.Sprintf("/proc/%d/", call.NSPID)
}

// isCaller reports whether a folder of /proc is that of the process that made a call: not one that
// has its number by now, nor the program that it has become.
func isCaller(call *trace.Call, dir string) bool {
	stat, ok := proc.ReadStat(dir)
	if !ok || stat.Start*uint64(proc.Tick) > call.ID.Start+suspended() {
		return false
	}
	comm := proc.Read(fmt.Sprintf("%stask/%d/comm", dir, call.ID.TID))
	if comm == "" { // the thread has ended, or has another number in our namespace
		comm = proc.Read(dir + "comm")
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

// cgroupNames reads /proc/PID/cgroup: the v2 group, and that of the v1 memory controller. The last
// two elements of a path are the name, as in the kernel's own report.
func cgroupNames(text string, v2 *trace.Cgroup) (two, one *trace.Cgroup) {
	two = v2
	for _, g := range proc.Cgroups(text) {
		if g.Name == "/" {
			continue
		}
		path := strings.Split(strings.Trim(g.Name, "/"), "/")
		name := strings.Join(path[max(0, len(path)-2):], "/")
		switch {
		case g.Version == 1:
			one = &trace.Cgroup{Name: name}
		case two != nil:
			two = &trace.Cgroup{ID: two.ID, Name: name}
		}
	}
	return two, one
}
