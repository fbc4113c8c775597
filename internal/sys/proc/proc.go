// SPDX-License-Identifier: Apache-2.0

// Package proc reads what /proc tells of processes and threads. Their names and groups are hostile
// strings.
package proc

import (
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bpfwhy/bpfwhy/load"
)

// Stat is a part of /proc/PID/stat, or of a thread's.
type Stat struct {
	State        byte // R, S, D, T, t, Z, X, …
	Parent       int
	User, System uint64 // ticks of processor time
	Start        uint64 // ticks since the machine started, suspended or not
}

// Tick is USER_HZ, which is 100 on all machines that we know.
const Tick = 10 * time.Millisecond

// ParseStat reads a line of stat. The name of the process stands in brackets and may hold brackets,
// spaces and newlines: what follows the last bracket counts.
func ParseStat(text string) (s Stat, ok bool) {
	f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(f) < 20 || len(f[0]) != 1 {
		return Stat{}, false
	}
	var errs [4]error
	s.State = f[0][0]
	s.Parent, errs[0] = strconv.Atoi(f[1])
	s.User, errs[1] = strconv.ParseUint(f[11], 10, 64)
	s.System, errs[2] = strconv.ParseUint(f[12], 10, 64)
	s.Start, errs[3] = strconv.ParseUint(f[19], 10, 64)
	for _, err := range errs {
		if err != nil {
			return Stat{}, false
		}
	}
	return s, true
}

// ReadStat reads the stat of a folder of /proc, which ends with a slash.
func ReadStat(dir string) (Stat, bool) { return ParseStat(Read(dir + "stat")) }

// Field is the rest of a line of /proc/PID/status: "CapEff".
func Field(status, name string) string {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// Cgroups reads /proc/PID/cgroup: the group of version 2 is "0::/path", that of version 1's memory
// controller "4:memory:/path".
func Cgroups(text string) []load.Cgroup {
	var out []load.Cgroup
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		switch {
		case len(f) != 3:
		case f[0] == "0" && f[1] == "":
			out = append(out, load.Cgroup{Version: 2, Name: f[2]})
		case slices.Contains(strings.Split(f[1], ","), "memory"):
			out = append(out, load.Cgroup{Version: 1, Name: f[2]})
		}
	}
	return out
}

// Numbers lists the processes of /proc, the threads of a task folder, or the descriptors of an fd
// folder.
func Numbers(dir string) (list []int, err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil {
			list = append(list, n)
		}
	}
	return list, err
}

// most is how much is read of a file.
const most = 64 << 10

// Read returns the beginning of a file, "" where it cannot be read.
func Read(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return ""
	}
	return string(b)
}
