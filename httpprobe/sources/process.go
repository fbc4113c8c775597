// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// What is looked at of one process.

// task is a process that was looked at.
type task struct {
	looks  int
	looked time.Time
	next   time.Time
}

// root is what processes of one mount namespace and one root may load.
type root struct{ looked, next time.Time }

// looks are how long after the last look a process is looked at again, and how long after a failure
// a file is tried again.
var looks = []time.Duration{time.Second, 4 * time.Second, 15 * time.Second, time.Minute}

func pause(times int) time.Duration { return looks[min(times, len(looks)-1)] }

// look looks for TLS in the files of one process, and says when it is to be looked at again. A
// process that is gone is passed over.
func (f *finder) look(pid int, t *task) {
	proc := "/proc/" + strconv.Itoa(pid)
	next := time.Now().Add(pause(t.looks))
	if t.looks++; f.unaware != nil {
		t.looks = min(t.looks, unawareLooks-1)
	}
	again := func(at time.Time) {
		if !at.IsZero() && at.Before(next) {
			next = at
		}
	}
	holder, root := rootOf(proc)
	if holder != "" { // else it is gone, or its maps say the same
		again(f.libraries(proc, pid, holder, root))
	}
	exe, _ := os.Readlink(proc + "/exe")
	maps, err := mappings(proc + "/maps")
	if gone(err) {
		err = nil
	}
	again(f.opened(proc, proc+"/maps", pid, err))
	for _, m := range maps {
		if m.path != exe && !mayBeTLS(m.path) {
			continue
		}
		again(f.within(m.device, func() time.Time { return f.mapping(proc, m, sight{m.path, pid, holder, true}) }, m.path, pid))
	}
	t.looked, t.next = time.Now(), next
}

// mapping looks at one file that a process maps.
func (f *finder) mapping(proc string, m mapping, at sight) time.Time {
	file, err := openMapped(proc, m)
	if err != nil {
		if f.known(m.node) || !mayBeTLS(m.path) || !stillMapped(proc, m) {
			err = nil
		}
		return f.opened(m.node, m.path, at.pid, err)
	}
	id, wait, next := f.state(file, at)
	f.mu.Lock()
	if len(f.nodes) >= maxLooked {
		clear(f.nodes)
	}
	f.nodes[m.node] = id
	f.mu.Unlock()
	f.opened(m.node, m.path, at.pid, nil)
	switch {
	case wait:
	case f.politely && !mayBeTLS(m.path):
		select {
		case f.searches <- search{file, m.device, at}:
			return time.Time{}
		default:
			next = time.Now().Add(scanInterval) // there is no room now
		}
	default:
		next = f.file(file, at)
	}
	file.Close()
	return next
}

// known reports whether a file that a process maps, and that has no name any more, was looked at
// when it had one.
func (f *finder) known(node string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	id, ok := f.nodes[node]
	if s := f.files[id]; ok && s != nil {
		s.seen = time.Now()
		s.mapped = s.seen
	}
	return ok
}

// gone reports an error that says that a process is no more.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }

func stillMapped(proc string, m mapping) bool {
	maps, _ := mappings(proc + "/maps")
	return slices.Contains(maps, m)
}

// within does what touches files of a place, which is others', and returns what it returns: when to
// do it again. What hangs is left to itself, and nothing of that place is touched until it is back.
func (f *finder) within(place string, work func() time.Time, path string, pid int) time.Time {
	f.mu.Lock()
	hangs := f.hanging[place] || len(f.hanging) >= maxHanging
	f.mu.Unlock()
	if hangs {
		return f.opened("in "+place, path, pid, errHangs)
	}
	done := make(chan time.Time, 1)
	back := make(chan struct{})
	go func() {
		defer close(back)
		done <- work()
	}()
	limit := time.NewTimer(hangTime)
	defer limit.Stop()
	select {
	case at := <-done:
		f.opened("in "+place, path, pid, nil)
		return at
	case <-f.stop:
		return time.Time{}
	case <-limit.C:
	}
	f.mu.Lock()
	f.hanging[place] = true
	f.mu.Unlock()
	go func() {
		<-back
		f.mu.Lock()
		delete(f.hanging, place)
		f.mu.Unlock()
	}()
	return f.opened("in "+place, path, pid, errHangs)
}

// opened takes note that something could be looked at, or why not. It returns when to try again, at
// no time for nil.
func (f *finder) opened(key, path string, pid int, err error) time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.unopened[key]
	if err == nil {
		delete(f.unopened, key)
		return time.Time{}
	}
	if s == nil {
		if len(f.unopened) >= maxUnprobed {
			return f.failUnlisted(err)
		}
		s = &sslFile{}
		f.unopened[key] = s
	}
	return f.fail(s, path, pid, err)
}

// rootOf names what a process sees: its mount namespace, and that with its root. Both are "" where
// it does not let itself be looked at.
func rootOf(proc string) (holder, root string) {
	holder, err := os.Readlink(proc + "/ns/mnt")
	if err != nil {
		return "", ""
	}
	dir, _ := os.Readlink(proc + "/root")
	if len(dir) > maxPath {
		sum := sha256.Sum256([]byte(dir))
		dir = hex.EncodeToString(sum[:])
	}
	return holder, holder + " " + dir
}

// folders are where libraries usually are.
var folders = []string{
	"/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu", "/usr/lib64", "/lib64", "/usr/lib", "/lib", "/usr/local/lib", "/usr/local/lib64",
}
