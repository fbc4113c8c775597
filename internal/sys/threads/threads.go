// SPDX-License-Identifier: Apache-2.0

// Package threads keeps the number of a daemon's threads small. A goroutine that waits in the
// kernel holds a thread, and Go ends the whole process when the kernel refuses it one more: a limit
// of a container or a service (pids.max, TasksMax, RLIMIT_NPROC) is no error that can be handled.
package threads

import (
	"errors"
	"io"
	"os"
	"runtime"
	"sync"
)

const (
	// atOnce is how many goroutines wait in the kernel for what takes its time: attaching and
	// detaching do, for grace periods. The time is the same for many at once, so that one thread
	// alone would be too few.
	atOnce = 8
	// processors are enough for a daemon. Go starts a thread for each when it collects garbage.
	processors = 4
)

// LimitProcessors uses no more than a few of a node's many processors, unless GOMAXPROCS says how
// many. It returns what takes that back.
func LimitProcessors() func() {
	if os.Getenv("GOMAXPROCS") != "" || runtime.GOMAXPROCS(0) <= processors {
		return func() {}
	}
	before := runtime.GOMAXPROCS(processors)
	return func() { runtime.GOMAXPROCS(before) }
}

// Each calls do with each number below n, for several at a time.
func Each(n int, do func(i int)) {
	next := make(chan int)
	var all sync.WaitGroup
	for range min(n, atOnce) {
		all.Go(func() {
			for i := range next {
				do(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	all.Wait()
}

// Close closes several at a time.
func Close[C io.Closer](list []C) error {
	errs := make([]error, len(list))
	Each(len(list), func(i int) { errs[i] = list[i].Close() })
	return errors.Join(errs...)
}
