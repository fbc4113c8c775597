// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// errLate is something that did not come in time. The load was left to the kernel.
var errLate = errors.New("it did not come in time")

// within runs what may take as long as the thread that waits likes: reading its memory may need pages that never come. When it takes more than a
// moment the load is left to the kernel, and errLate is the result, whenever f returns.
func (p *Proxy) within(n *notification, f func() error) error {
	if p.stuck.crowded(n.tid) {
		p.leave(n)
		p.count(func(l *Left) { l.Late++ })
		return errLate
	}
	limit := moment
	if p.options.without.deadline {
		limit = time.Hour
	}
	var mu sync.Mutex
	returned, late, user := false, false, 0
	timer := time.AfterFunc(limit, func() {
		mu.Lock()
		defer mu.Unlock()
		if returned {
			return
		}
		late, user = true, p.stuck.add(n.tid)
		p.leave(n)
		if n.room != nil {
			n.room()
		}
		p.count(func(l *Left) { l.Late++ })
	})
	err := f()
	timer.Stop()
	mu.Lock()
	defer mu.Unlock()
	returned = true
	if late {
		p.stuck.remove(user)
		return errLate
	}
	return err
}

// stuck are the threads of ours that wait for others' memory although nobody waits for them. They cannot be called back; so
// there are not many of them, and not many because of one user.
type stuck struct {
	mu    sync.Mutex
	users map[int]int
	all   int
}

const (
	maxStuck     = 64
	maxUserStuck = 16
)

// crowded reports whether one more might be too many.
func (s *stuck) crowded(tid int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all > 0 && (s.all >= maxStuck || s.users[userOf(tid)] >= maxUserStuck)
}

func (s *stuck) add(tid int) (user int) {
	user = userOf(tid)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users == nil {
		s.users = map[int]int{}
	}
	s.users[user]++
	s.all++
	return user
}

func (s *stuck) remove(user int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.users[user]--; s.users[user] == 0 {
		delete(s.users, user)
	}
}

// userOf is the real user id of a thread, -1 when it is gone.
func userOf(tid int) int {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/status")
	if err != nil {
		return -1
	}
	for line := range strings.Lines(string(b)) {
		if ids, ok := strings.CutPrefix(line, "Uid:"); ok {
			if n, err := numbers(ids); err == nil && len(n) > 0 {
				return n[0]
			}
		}
	}
	return -1
}
