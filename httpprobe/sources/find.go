// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/threads"
)

// finder finds the files that have TLS functions among those that processes map, and has them probed. A file is done when it is probed; one that
// cannot be is tried again, and counted meanwhile.
type finder struct {
	probe   func(file *os.File, functions map[string]uint64) ([]io.Closer, error)
	unaware error // why nobody calls mapped; nil: somebody does
	most    int   // files that are probed at once

	// Of the goroutine that scans.
	tasks map[int]*task
	roots map[string]*root
	swept time.Time
	// politely says that executables are searched with breaks, by somebody else: processes make files faster than they are searched.
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

// search is a file that is to be searched for TLS functions when there is time. Most executables are large, and have none.
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

// fileID is a file as it was.
type fileID struct {
	dev, ino uint64
	size     int64
	changed  unix.Timespec
}

// sslFile is a file that is probed, or has to be.
type sslFile struct {
	Unprobed
	probes []io.Closer // nil: not yet
	next   time.Time   // when it is tried again
	seen   time.Time   // by a look at a process that maps it or may
	mapped time.Time   // by a look at a process that maps it
	holder string      // with whom it was found
}

// idle reports a file that nobody maps: all processes were looked at since.
func (s *sslFile) idle(now time.Time) bool { return now.Sub(s.mapped) > 2*pause(len(looks)) }

// task is a process that was looked at.
type task struct {
	looks  int
	looked time.Time
	next   time.Time
}

// root is what processes of one mount namespace and one root may load.
type root struct{ looked, next time.Time }

// looks are how long after the last look a process is looked at again, and how long after a failure a file is tried again.
var looks = []time.Duration{time.Second, 4 * time.Second, 15 * time.Second, time.Minute}

func pause(times int) time.Duration { return looks[min(times, len(looks)-1)] }

const (
	scanInterval = time.Second
	// Where nobody says when processes map something, new ones are looked for more often, and old ones looked at.
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

// hangTime is how long one file is waited for. Files of others can be anywhere: behind a FUSE server that does not answer, on a server that is gone.
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

// mapped says that a process, or anybody, has mapped something new. It can be called from any goroutine.
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
	pids, err := processes()
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

// sweep leaves files that no process can be using any more: since they were seen for the last time all processes and all roots were looked at, twice
// at least. A probe keeps the file, and the file system that it is on, from going away.
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

// processes are those of our own pid namespace, from /proc.
func processes() ([]int, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// look looks for TLS in the files of one process, and says when it is to be looked at again. A process that is gone is passed over.
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

// known reports whether a file that a process maps, and that has no name any more, was looked at when it had one.
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

// within does what touches files of a place, which is others', and returns what it returns: when to do it again. What hangs is left to itself, and nothing
// of that place is touched until it is back.
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

// opened takes note that something could be looked at, or why not. It returns when to try again, at no time for nil.
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

// failUnlisted counts a failure of what there is no room to remember. Nobody knows how often it was tried: it waits as long as any. The lock is held.
func (f *finder) failUnlisted(err error) time.Time {
	f.failures[reasonOf(err)]++
	f.unlisted++
	return time.Now().Add(pause(len(looks)))
}

// rootOf names what a process sees: its mount namespace, and that with its root. Both are "" where it does not let itself be looked at.
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

// libraries looks at those that a process, and others that see the same files, may load: what is probed before it is loaded is seen from the start,
// though the process that loads it be short.
func (f *finder) libraries(proc string, pid int, holder, name string) time.Time {
	r := f.roots[name]
	if r == nil {
		if len(f.roots) >= maxRoots {
			return time.Time{}
		}
		r = &root{}
		f.roots[name] = r
	}
	now := time.Now()
	if now.Before(r.next) {
		return time.Time{}
	}
	r.looked, r.next = now, now.Add(pause(len(looks)))
	at := f.within(name, func() (next time.Time) {
		again := func(at time.Time) {
			if !at.IsZero() && (next.IsZero() || at.Before(next)) {
				next = at
			}
		}
		for _, folder := range folders {
			dir, err := openIn(proc, folder, unix.S_IFDIR)
			again(f.opened(name+folder, folder, pid, lacks(err)))
			if err != nil {
				continue
			}
			names, _ := dir.Readdirnames(maxNames)
			dir.Close()
			for _, library := range names {
				if !mayBeTLS(library) || !strings.Contains(library, ".so") {
					continue
				}
				path := folder + "/" + library
				file, err := openIn(proc, path, unix.S_IFREG)
				again(f.opened(name+path, path, pid, lacks(err)))
				if err == nil {
					again(f.file(file, sight{path: path, pid: pid, holder: holder}))
					file.Close()
				}
			}
		}
		return next
	}, folders[0], pid)
	if !at.IsZero() && at.Before(r.next) {
		r.next = at
	}
	return at
}

// lacks is the error if it says that we lack something, and not that there is nothing.
func lacks(err error) error {
	if r := reasonOf(err); r == Denied || r == Descriptors || r == Memory {
		return err
	}
	return nil
}

// mayBeTLS reports whether a library may have TLS functions, by its name: OpenSSL, LibreSSL and BoringSSL by any name that says so, as
// packages for Python have them (libssl-3e69114b.so.1.1), and Node's.
func mayBeTLS(path string) bool {
	name := filepath.Base(strings.TrimSuffix(path, " (deleted)"))
	return strings.Contains(name, "ssl") || strings.HasPrefix(name, "libnode")
}

// state says whether there is nothing to do with a file for now, and if that ends, when.
func (f *finder) state(file *os.File, at sight) (id fileID, wait bool, next time.Time) {
	id, err := identify(file)
	if err != nil {
		return id, true, time.Time{}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, plain := f.plain[id]; plain {
		return id, true, time.Time{}
	}
	s := f.files[id]
	if s == nil {
		return id, false, time.Time{}
	}
	now := time.Now()
	s.seen = now
	if at.mapped {
		if s.Reason == Limit && s.idle(now) {
			s.next = now // others have to make room for it now
		}
		s.mapped = now
	}
	if s.probes != nil {
		return id, true, time.Time{}
	}
	return id, now.Before(s.next), s.next
}

// file probes a file that has TLS functions, if it is not probed. It returns when to try again, at no time if not.
func (f *finder) file(file *os.File, at sight) time.Time {
	id, wait, next := f.state(file, at)
	if wait {
		return next
	}
	found, err := tlsFunctions(file)
	if errno := unix.Errno(0); err != nil && !errors.As(err, &errno) {
		found, err = nil, nil // not what a linker would take; a file that is being written is another one afterwards
	}
	if err == nil && found == nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		if s := f.files[id]; s != nil && s.probes != nil {
			return time.Time{}
		}
		delete(f.files, id)
		if len(f.plain) >= maxLooked {
			clear(f.plain)
		}
		f.plain[id] = struct{}{}
		return time.Time{}
	}
	if err == nil {
		if again, e := identify(file); e != nil || again != id {
			err = errChanges
		}
	}
	return f.attach(id, file, at, found, err)
}

// attach has a file probed, unless there is an error already.
func (f *finder) attach(id fileID, file *os.File, at sight, functions map[string]uint64, err error) time.Time {
	var left []io.Closer
	f.mu.Lock()
	if err == nil && f.probed >= f.most {
		if left = f.makeRoom(at); left == nil {
			err = errLimit
		}
	}
	try := err == nil
	if try {
		f.probed++ // others may try at the same time
	}
	f.mu.Unlock()
	var probes []io.Closer
	if try {
		_ = threads.Close(left) // of descriptors of ours
		probes, err = f.probe(file, functions)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s, known := f.files[id]
	if !known {
		s = &sslFile{holder: at.holder}
		if at.mapped {
			s.mapped = time.Now()
		}
	}
	over := err == nil && (f.closed || s.probes != nil)
	if try && (err != nil || over) {
		f.probed--
	}
	switch {
	case over:
		_ = threads.Close(probes) // of descriptors of ours
		return time.Time{}
	case err == nil:
		s.Unprobed, s.probes, s.seen = Unprobed{Path: brief(at.path), PID: at.pid}, probes, time.Now()
		f.files[id] = s
		return time.Time{}
	case !known && len(f.files)-f.probed >= maxUnprobed:
		return f.failUnlisted(err)
	}
	f.files[id] = s
	return f.fail(s, at.path, at.pid, err)
}

// makeRoom takes a file's probes off for another one, and returns them; nil: it has to wait. Nobody keeps others out by files of his own making: room is
// made by who has more of it, and for a file that is mapped by files that nobody maps. Mapped ones make room for mapped ones alone, of
// holders who have two less: the one who makes room has no less than the other then, and does not take it back. The lock is held.
func (f *finder) makeRoom(at sight) (left []io.Closer) {
	now := time.Now()
	has := map[string]int{}
	for _, s := range f.files {
		if s.probes != nil {
			has[s.holder]++
		}
	}
	own := has[at.holder]
	var last *sslFile
	for _, s := range f.files {
		n, idle := has[s.holder], s.idle(now)
		switch {
		case s.probes == nil:
		case idle && at.mapped && (n > own || s.holder == at.holder), n >= own+2 && (idle || at.mapped):
			if last == nil || before(s, last, has, now) {
				last = s
			}
		}
	}
	if last == nil {
		return nil
	}
	left, last.probes = last.probes, nil
	f.probed--
	f.fail(last, last.Path, last.PID, errLimit)
	return left
}

// before reports whether one file makes room before another: what nobody maps, of who has the most, what was not seen for the longest.
func before(s, t *sslFile, has map[string]int, now time.Time) bool {
	if i := s.idle(now); i != t.idle(now) {
		return i
	}
	return cmp.Or(cmp.Compare(has[t.holder], has[s.holder]), s.seen.Compare(t.seen)) < 0
}

func identify(file *os.File) (fileID, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return fileID{}, err
	}
	return fileID{st.Dev, st.Ino, st.Size, st.Ctim}, nil
}

// tlsFunctions are the functions that are watched with their places in a file, nil when it is not a library that sends.
func tlsFunctions(file *os.File) (map[string]uint64, error) {
	parsed, err := readELF(file)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(sslProbes))
	for _, p := range sslProbes {
		names = append(names, p.function)
	}
	found, err := parsed.functions(names)
	if err != nil {
		return nil, err
	}
	if _, ok := found["SSL_write"]; !ok {
		return nil, nil
	}
	return found, nil
}

// mapping is a file that a process may run code of.
type mapping struct {
	addresses    string // as /proc/PID/map_files has them
	device, node string // "08:01", and with the inode
	path         string
}

// mappings reads /proc/PID/maps: "7f2d5c000000-7f2d5c021000 r-xp 00002000 08:01 1234   /usr/lib/libssl.so.3". One of each file.
func mappings(name string) ([]mapping, error) {
	b, err := readUpTo(name, maxMapsBytes)
	var list []mapping
	seen := map[string]bool{}
	for line := range bytes.Lines(b) {
		f := strings.SplitN(strings.TrimSuffix(string(line), "\n"), " ", 6)
		if len(f) < 6 || !strings.Contains(f[1], "x") || f[4] == "0" {
			continue
		}
		path := strings.TrimLeft(f[5], " ")
		if !strings.HasPrefix(path, "/") || seen[path] {
			continue
		}
		seen[path] = true
		list = append(list, mapping{f[0], f[3], f[3] + " " + f[4], path})
	}
	return list, err
}

// readUpTo reads the first n bytes of a file, or more.
func readUpTo(name string, n int64) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var b bytes.Buffer
	buf := make([]byte, 32<<10)
	for int64(b.Len()) < n {
		k, err := file.Read(buf)
		b.Write(buf[:k])
		if err == io.EOF {
			break
		}
		if err != nil {
			return b.Bytes(), err
		}
	}
	return b.Bytes(), nil
}

// openMapped opens a mapped file: by /proc/PID/map_files, which is the very file, also when another one has its name by now (needs CAP_SYS_ADMIN or
// CAP_CHECKPOINT_RESTORE), else by its name: below the root of its process, or, if that came later, in ours.
func openMapped(proc string, m mapping) (*os.File, error) {
	fd, err := unix.Open(proc+"/map_files/"+trimZeros(m.addresses), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err == nil {
		return reopen(fd, unix.S_IFREG)
	}
	path := m.path
	root, _ := os.Readlink(proc + "/root")
	if rest, ok := strings.CutPrefix(path, root); ok && strings.HasPrefix(rest, "/") {
		path = rest
	}
	file, err := openIn(proc, path, unix.S_IFREG)
	if errors.Is(err, fs.ErrNotExist) && root != "/" && sameMounts(proc) {
		return openIn("/proc/self", m.path, unix.S_IFREG)
	}
	return file, err
}

func sameMounts(proc string) bool {
	own, err := os.Readlink("/proc/self/ns/mnt")
	theirs, _ := os.Readlink(proc + "/ns/mnt")
	return err == nil && own == theirs
}

// openIn opens what a process has under a name. No link leads out of its root.
func openIn(proc, path string, kind uint32) (*os.File, error) {
	root, err := unix.Open(proc+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, path, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, err
	}
	return reopen(fd, kind)
}

// reopen opens for reading what is opened by name only, and closes that, if it is of the right kind: to open a device or a pipe has effects.
func reopen(fd int, kind uint32) (*os.File, error) {
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != kind {
		return nil, fs.ErrInvalid
	}
	return os.OpenFile("/proc/self/fd/"+strconv.Itoa(fd), os.O_RDONLY|unix.O_NONBLOCK, 0)
}

// trimZeros takes the leading zeros off addresses, as map_files has them.
func trimZeros(addresses string) string {
	from, to, _ := strings.Cut(addresses, "-")
	return strings.TrimLeft(from, "0") + "-" + strings.TrimLeft(to, "0")
}
