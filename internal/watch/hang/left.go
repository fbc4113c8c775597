// SPDX-License-Identifier: Apache-2.0

package hang

import (
	"context"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/sys/proc"
)

// firstLeft returns an *Error for a first load that an earlier start has left behind and that hangs
// still.
func firstLeft(ctx context.Context) error {
	found := make(chan []Thread, 1)
	go func() { found <- killedFirstLoads() }()
	var left []Thread
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(patience): // one that cannot be looked at is none
	case left = <-found:
	}
	if len(left) == 0 {
		return nil
	}
	// It may be on its way out.
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(unmoved):
	}
	still := Still(left)
	if len(still) == 0 {
		return nil
	}
	return &Error{Place: Of(still[0].TID), After: age(still[0].PID), Left: still[0].PID}
}

// killedFirstLoads are the processes of first loads that are in their load and cannot be ended. Who
// can be ended is not looked at further: to read the arguments of a process may take as long as
// what that one waits for.
func killedFirstLoads() (list []Thread) {
	own := proc.Read("/proc/self/status")
	pids, _ := proc.Numbers("/proc")
	for _, pid := range pids {
		dir := "/proc/" + strconv.Itoa(pid) + "/"
		if !killed(proc.Read(dir+"status"), own) {
			continue
		}
		if t, ok := look(dir+"task/"+strconv.Itoa(pid)+"/", pid, pid); ok && proc.Read(dir+"cmdline") == Argv0+"\x00" {
			list = append(list, t)
		}
	}
	return list
}

// killed reports whether a process, by its status, is one that cannot be ended (a SIGKILL waits)
// and could have been started by us: it has our user and at least our capabilities. One with less
// could be anybody's, under that name.
func killed(status, own string) bool {
	pending, _ := strconv.ParseUint(proc.Field(status, "SigPnd"), 16, 64)
	has, err := strconv.ParseUint(proc.Field(status, "CapEff"), 16, 64)
	needs, err2 := strconv.ParseUint(proc.Field(own, "CapEff"), 16, 64)
	return pending&(1<<(unix.SIGKILL-1)) != 0 && err == nil && err2 == nil && has&needs == needs && proc.Field(status, "Uid") == proc.Field(own, "Uid")
}

// age is for how long a process has been there, to the second.
func age(pid int) time.Duration {
	stat, ok := proc.ReadStat("/proc/" + strconv.Itoa(pid) + "/")
	var now unix.Timespec
	if !ok || unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) != nil {
		return 0
	}
	return (time.Duration(now.Nano()) - time.Duration(stat.Start)*proc.Tick).Round(time.Second)
}
