// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"errors"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of how many threads of ours are with the memory of others at a time. They may be there for
// ever, and cannot be called back. A user has all of his when their pages do not come, and what he
// loads besides is left to the kernel; others have theirs.
const (
	maxReaders     = 256
	maxUserReaders = 16
)

// errTimeout is something that did not come in time. The load was left to the kernel.
var errTimeout = errors.New("it did not come in time")

// within runs what may take as long as the thread that waits likes: reading its memory may need
// pages that never come. When it takes more than a moment, or others of the same user are at it for
// so long, the load is left to the kernel, and errTimeout is the result, whenever f returns.
func (p *Proxy) within(n *notification, f func() error) error {
	limit := moment
	if p.options.without.deadline {
		limit = time.Hour
	}
	if !p.readers.enter(n.user, 1, limit) {
		p.timedOut(n)
		return errTimeout
	}
	defer p.readers.leave(n.user, 1) // not before f has returned
	var mu sync.Mutex
	returned, timedOut := false, false
	timer := time.AfterFunc(limit, func() {
		mu.Lock()
		defer mu.Unlock()
		if returned {
			return
		}
		timedOut = true
		p.timedOut(n)
	})
	err := f()
	timer.Stop()
	mu.Lock()
	defer mu.Unlock()
	returned = true
	if timedOut {
		return errTimeout
	}
	return err
}

func (p *Proxy) timedOut(n *notification) {
	p.passThrough(n)
	p.count(func(l *Unrepaired) { l.Timeout++ })
}

// owner is the effective user id of a thread, and its user namespace. Both are found out without
// the thread's help, and quickly.
func owner(tid int) (user int, ns nsID, err error) {
	dir := "/proc/" + strconv.Itoa(tid)
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return 0, ns, err
	}
	user = int(st.Uid)
	if err := unix.Stat(dir+"/ns/user", &st); err != nil {
		return 0, ns, err
	}
	return user, nsID{uint64(st.Dev), st.Ino}, nil
}
