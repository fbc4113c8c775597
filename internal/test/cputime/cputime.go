// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package cputime measures work in tests: how long a processor was busy with it, whatever else the
// machine does.
package cputime

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Of returns the time that the calling thread spent in f. The goroutines that f starts, and the
// garbage collector, are not in it.
func Of(f func()) time.Duration {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := now()
	f()
	return now() - before
}

func now() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		panic(err) // the kernel has had it since 2.6
	}
	return time.Duration(ts.Nano())
}
