// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/trace"
)

// describeProcess adds to a call what /proc tells of its process, for backends that cannot read the kernel. A process that
// is gone by now leaves it as it is. pid is of our own pid namespace.
func describeProcess(call *trace.Call, pid int) {
	dir := fmt.Sprintf("/proc/%d/", pid)
	if call.Creds == nil {
		call.Creds = readCreds(dir)
	}
	if call.Exe == "" {
		call.Exe, _ = os.Readlink(dir + "exe")
	}
	if b := readSome(dir + "cgroup"); call.Cgroup1 == nil && b != "" {
		call.Cgroup2, call.Cgroup1 = cgroupNames(b, call.Cgroup2)
	}
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

// readCreds reads rights and limits, nil when the process is gone.
func readCreds(dir string) *trace.Creds {
	c := &trace.Creds{}
	known := 0
	for line := range strings.Lines(readSome(dir + "status")) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "CapEff":
			n, err := strconv.ParseUint(value, 16, 64)
			if err == nil {
				c.CapEffective = n
				known++
			}
		case "Seccomp":
			n, err := strconv.ParseUint(value, 10, 32)
			if err == nil {
				c.SeccompMode = uint32(n)
				known++
			}
		}
	}
	for line := range strings.Lines(readSome(dir + "limits")) {
		if rest, ok := strings.CutPrefix(line, "Max locked memory"); ok {
			c.Memlock = softLimit(rest)
			known++
		}
		if rest, ok := strings.CutPrefix(line, "Max open files"); ok {
			c.Nofile = softLimit(rest)
			known++
		}
	}
	if known < 4 {
		return nil
	}
	if m := strings.TrimSpace(readSome(dir + "uid_map")); m != "" && !strings.HasSuffix(m, " 4294967295") { // not the initial user namespace
		c.UserNSLevel = 1
	}
	return c
}

// softLimit reads the first column of a line of /proc/PID/limits.
func softLimit(columns string) uint64 {
	f := strings.Fields(columns)
	if len(f) == 0 {
		return 0
	}
	n, err := strconv.ParseUint(f[0], 10, 64)
	if err != nil { // unlimited
		return 1<<64 - 1
	}
	return n
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
