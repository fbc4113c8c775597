// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/sys/proc"
	"github.com/bpfwhy/bpfwhy/internal/sys/threads"
)

// finder finds the files that have TLS functions among those that processes map, and has them
// probed. A file is done when it is probed; one that cannot be is tried again, and counted
// meanwhile.
type finder struct {
	probe   func(file *os.File, functions map[string]uint64) ([]io.Closer, error)
	unaware error // why nobody calls mapped; nil: somebody does
	most    int   // files that are probed at once

	// Of the goroutine that scans.
	tasks map[int]*task
	roots map[string]*root
	swept time.Time
	// politely says that executables are searched with breaks, by somebody else: processes make
	// files faster than they are searched.
	politely bool

	mu       sync.Mutex
	files    map[fileID]*sslFile // that are probed, or have to be
	plain    map[fileID]struct{} // that have no TLS functions
	unopened map[string]*sslFile // that could not be looked at, by what is known of them
	nodes    map[string]fileID   // of files that processes map
	probed   int                 // of files
	failures map[FileReason]uint64
	unlisted uint64          // failures of what there was no room to remember
	hanging  map[string]bool // places whose files are still being waited for
	early    []int           // processes that have mapped something new
	closed   bool
	wake     chan struct{} // for early
	stop     chan struct{}
	searches chan search
}

// search is a file that is to be searched for TLS functions when there is time. Most executables
// are large, and have none.
type search struct {
	file   *os.File
	device string
	at     sight
}

// sight is where a file was seen.
type sight struct {
	path   string // as a process knows it
	pid    int
	holder string // the process's mount namespace, which is what a container has of its own
	mapped bool   // by the process; else it may load it
}

const (
	scanInterval = time.Second
	// Where nobody says when processes map something, new ones are looked for more often, and old
	// ones looked at.
	unawareInterval = 300 * time.Millisecond
	unawareLooks    = 2
	maxMapsBytes    = 4 << 20
	maxLooked       = 1 << 16 // files that are remembered as having no TLS functions
	maxRoots        = 1 << 12
	maxNames        = 1 << 14 // of one folder
	maxFiles        = 512     // files that are probed at once: each costs up to 16 descriptors
	maxUnprobed     = 1024    // files that wait for it and are remembered, of either kind
	maxPath         = 512     // bytes of a path that are remembered
	maxHanging      = 64      // threads
)

// hangTime is how long one file is waited for. Files of others can be anywhere: behind a FUSE
// server that does not answer, on a server that is gone.
var hangTime = 10 * time.Second

func newFinder(probe func(*os.File, map[string]uint64) ([]io.Closer, error)) *finder {
	f := &finder{
		probe: probe, most: maxFiles, tasks: map[int]*task{}, roots: map[string]*root{}, files: map[fileID]*sslFile{}, plain: map[fileID]struct{}{}, nodes: map[string]fileID{}, unopened: map[string]*sslFile{},
		failures: map[FileReason]uint64{}, hanging: map[string]bool{}, wake: make(chan struct{}, 1), stop: make(chan struct{}),
		searches: make(chan search, 64),
	}
	for _, r := range FileReasons {
		f.failures[r] = 0
	}
	return f
}

// mapped says that a process, or anybody, has mapped something new. It can be called from any
// goroutine.
func (f *finder) mapped(pid int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.early) >= 4096 {
		f.early = append(f.early[:0], anybody)
	}
	if !slices.Contains(f.early, pid) {
		f.early = append(f.early, pid)
	}
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// run looks until close.
func (f *finder) run() {
	f.politely = true
	go f.search()
	interval := scanInterval
	if f.unaware != nil {
		interval = unawareInterval
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-f.stop:
			return
		case <-f.wake:
			f.lookEarly()
		case <-ticker.C:
			f.scan()
		}
	}
}

// lookEarly looks at processes that have mapped something new.
func (f *finder) lookEarly() {
	f.mu.Lock()
	early := f.early
	f.early = nil
	f.mu.Unlock()
	for _, pid := range early {
		if pid == anybody {
			for _, t := range f.tasks {
				t.next = time.Time{} // the next scan looks at all
			}
			continue
		}
		t := &task{}
		f.tasks[pid] = t
		f.look(pid, t)
	}
}

// search searches files, with breaks, until close.
func (f *finder) search() {
	for {
		select {
		case <-f.stop:
			return
		case s := <-f.searches:
			start := time.Now()
			f.within(s.device, func() time.Time {
				defer s.file.Close()
				return f.file(s.file, s.at)
			}, s.at.path, s.at.pid)
			time.Sleep(min(4*time.Since(start), time.Second))
		}
	}
}

// close takes the probes off. run ends, and what still hangs is left to itself.
func (f *finder) close() error {
	f.mu.Lock()
	f.closed = true
	close(f.stop)
	var list []io.Closer
	for _, s := range f.files {
		list = append(list, s.probes...)
	}
	f.mu.Unlock()
	return threads.Close(list)
}

// scan looks at the processes whose time has come. Only one goroutine may.
func (f *finder) scan() {
	pids, err := proc.Numbers("/proc")
	f.opened("/proc", "/proc", 0, err)
	if err != nil {
		return
	}
	now := time.Now()
	alive := make(map[int]bool, len(pids))
	for _, pid := range pids {
		alive[pid] = true
		t := f.tasks[pid]
		if t == nil {
			t = &task{}
			f.tasks[pid] = t
		} else if now.Before(t.next) {
			continue
		}
		f.look(pid, t)
		f.lookEarly() // they do not wait for the rest
	}
	for pid := range f.tasks {
		if !alive[pid] {
			delete(f.tasks, pid)
		}
	}
	if now.Sub(f.swept) >= sweepInterval {
		f.swept = now
		f.sweep()
	}
}

const sweepInterval = 30 * time.Second

// sweep leaves files that no process can be using any more: since they were seen for the last time
// all processes and all roots were looked at, twice at least. A probe keeps the file, and the file
// system that it is on, from going away.
func (f *finder) sweep() {
	oldest := time.Now()
	for _, t := range f.tasks {
		if t.looked.Before(oldest) {
			oldest = t.looked
		}
	}
	oldest = oldest.Add(-pause(len(looks)))
	for name, r := range f.roots {
		if r.looked.Before(oldest) {
			delete(f.roots, name) // nobody has it any more
		}
	}
	f.mu.Lock()
	var list []io.Closer
	for id, s := range f.files {
		if !s.seen.Before(oldest) {
			continue
		}
		if s.probes != nil {
			list = append(list, s.probes...)
			f.probed--
		}
		delete(f.files, id)
	}
	maps.DeleteFunc(f.nodes, func(_ string, id fileID) bool {
		_, plain := f.plain[id]
		return f.files[id] == nil && !plain
	})
	for key, s := range f.unopened {
		if s.seen.Before(oldest) {
			delete(f.unopened, key)
		}
	}
	f.mu.Unlock()
	_ = threads.Close(list) // of descriptors of ours
}

// fail counts a failure. The lock is held.
func (f *finder) fail(s *sslFile, path string, pid int, err error) time.Time {
	now := time.Now()
	s.seen, s.next = now, now.Add(pause(s.Tries))
	s.Unprobed = Unprobed{Path: brief(path), PID: pid, Reason: reasonOf(err), Tries: s.Tries + 1, Err: err}
	f.failures[s.Reason]++
	return s.next
}

// brief is what is remembered of a path, which is others' choice.
func brief(path string) string { return strings.Clone(path[:min(len(path), maxPath)]) }

// failUnlisted counts a failure of what there is no room to remember. Nobody knows how often it was
// tried: it waits as long as any. The lock is held.
func (f *finder) failUnlisted(err error) time.Time {
	f.failures[reasonOf(err)]++
	f.unlisted++
	return time.Now().Add(pause(len(looks)))
}
