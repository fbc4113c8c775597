// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"bytes"
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

	// Of the goroutine that scans.
	tasks map[int]*task
	roots map[string]*root
	swept time.Time
	// politely says that executables are searched with breaks, by somebody else: processes make files faster than they are searched.
	politely bool

	mu       sync.Mutex
	files    map[fileID]*sslFile // that were looked at; nil: without TLS functions
	unopened map[string]*sslFile // that could not be looked at, by what is known of them
	nodes    map[string]fileID   // of files that processes map
	probed   int                 // of files
	failures map[FileReason]uint64
	hanging  map[string]bool // places whose files are still being waited for
	early    []int           // processes that have mapped something new
	closed   bool
	wake     chan struct{} // for early
	stop     chan struct{}
	searches chan search
}

// search is a file that is to be searched for TLS functions when there is time. Most executables are large, and have none.
type search struct {
	file         *os.File
	device, path string
	pid          int
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
}

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
	maxLooked       = 1 << 16 // files that are remembered
	maxNames        = 1 << 14 // of one folder
	maxFiles        = 512     // files that are probed at once: each costs up to 16 descriptors
	maxUnprobed     = 1024    // files that wait for it, of either kind
	maxHanging      = 64      // threads
)

// hangTime is how long one file is waited for. Files of others can be anywhere: behind a FUSE server that does not answer, on a server that is gone.
var hangTime = 10 * time.Second

func newFinder(probe func(*os.File, map[string]uint64) ([]io.Closer, error)) *finder {
	f := &finder{
		probe: probe, tasks: map[int]*task{}, roots: map[string]*root{}, files: map[fileID]*sslFile{}, nodes: map[string]fileID{}, unopened: map[string]*sslFile{},
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
				return f.file(s.file, s.path, s.pid)
			}, s.path, s.pid)
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
		if s != nil && s.probes != nil {
			list = append(list, s.probes...)
		}
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
		if s == nil || !s.seen.Before(oldest) {
			continue
		}
		if s.probes != nil {
			list = append(list, s.probes...)
			f.probed--
		}
		delete(f.files, id)
	}
	maps.DeleteFunc(f.nodes, func(_ string, id fileID) bool { _, ok := f.files[id]; return !ok })
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
	again(f.libraries(proc, pid))
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
		again(f.within(m.device, func() time.Time { return f.mapping(proc, pid, m) }, m.path, pid))
	}
	t.looked, t.next = time.Now(), next
}

// mapping looks at one file that a process maps.
func (f *finder) mapping(proc string, pid int, m mapping) time.Time {
	file, err := openMapped(proc, m)
	if err != nil {
		if f.known(m.node) || !mayBeTLS(m.path) || !stillMapped(proc, m) {
			err = nil
		}
		return f.opened(m.node, m.path, pid, err)
	}
	id, wait, at := f.state(file)
	f.mu.Lock()
	f.nodes[m.node] = id
	f.mu.Unlock()
	f.opened(m.node, m.path, pid, nil)
	switch {
	case wait:
	case f.politely && !mayBeTLS(m.path):
		select {
		case f.searches <- search{file, m.device, m.path, pid}:
			return time.Time{}
		default:
			at = time.Now().Add(scanInterval) // there is no room now
		}
	default:
		at = f.file(file, m.path, pid)
	}
	file.Close()
	return at
}

// known reports whether a file that a process maps, and that has no name any more, was looked at when it had one.
func (f *finder) known(node string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	id, ok := f.nodes[node]
	if s := f.files[id]; ok && s != nil {
		s.seen = time.Now()
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
		s = &sslFile{}
		if len(f.unopened) < maxUnprobed {
			f.unopened[key] = s
		}
	}
	return f.fail(s, path, pid, err)
}

// fail counts a failure. The lock is held.
func (f *finder) fail(s *sslFile, path string, pid int, err error) time.Time {
	now := time.Now()
	s.seen, s.next = now, now.Add(pause(s.Tries))
	s.Unprobed = Unprobed{Path: path, PID: pid, Reason: reasonOf(err), Tries: s.Tries + 1, Err: err}
	f.failures[s.Reason]++
	return s.next
}

// folders are where libraries usually are.
var folders = []string{
	"/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu", "/usr/lib64", "/lib64", "/usr/lib", "/lib", "/usr/local/lib", "/usr/local/lib64",
}

// libraries looks at those that a process, and others that see the same files, may load: what is probed before it is loaded is seen from the start,
// though the process that loads it be short.
func (f *finder) libraries(proc string, pid int) time.Time {
	ns, err := os.Readlink(proc + "/ns/mnt")
	if err != nil {
		return time.Time{} // gone, or its maps say the same
	}
	dir, _ := os.Readlink(proc + "/root")
	ns += " " + dir
	r := f.roots[ns]
	if r == nil {
		if len(f.roots) >= maxLooked {
			return time.Time{}
		}
		r = &root{}
		f.roots[ns] = r
	}
	now := time.Now()
	if now.Before(r.next) {
		return time.Time{}
	}
	r.looked, r.next = now, now.Add(pause(len(looks)))
	at := f.within(ns, func() (next time.Time) {
		again := func(at time.Time) {
			if !at.IsZero() && (next.IsZero() || at.Before(next)) {
				next = at
			}
		}
		for _, folder := range folders {
			dir, err := openIn(proc, folder, unix.S_IFDIR)
			again(f.opened(ns+folder, folder, pid, lacks(err)))
			if err != nil {
				continue
			}
			names, _ := dir.Readdirnames(maxNames)
			dir.Close()
			for _, name := range names {
				if !mayBeTLS(name) || !strings.Contains(name, ".so") {
					continue
				}
				path := folder + "/" + name
				file, err := openIn(proc, path, unix.S_IFREG)
				again(f.opened(ns+path, path, pid, lacks(err)))
				if err == nil {
					again(f.file(file, path, pid))
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
func (f *finder) state(file *os.File) (id fileID, wait bool, next time.Time) {
	id, err := identify(file)
	if err != nil {
		return id, true, time.Time{}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s, known := f.files[id]
	now := time.Now()
	switch {
	case known && s == nil:
		return id, true, time.Time{}
	case known:
		s.seen = now
		if s.probes != nil {
			return id, true, time.Time{}
		}
		return id, now.Before(s.next), s.next
	case len(f.files) >= maxLooked:
		maps.DeleteFunc(f.files, func(_ fileID, s *sslFile) bool { return s == nil })
	}
	return id, false, time.Time{}
}

// file probes a file that has TLS functions, if it is not probed. It returns when to try again, at no time if not.
func (f *finder) file(file *os.File, path string, pid int) time.Time {
	id, wait, next := f.state(file)
	if wait {
		return next
	}
	found, err := tlsFunctions(file)
	if errno := unix.Errno(0); err != nil && !errors.As(err, &errno) {
		found, err = nil, nil // not what a linker would take; a file that is being written is another one afterwards
	}
	if err == nil && found == nil {
		f.mu.Lock()
		if s, known := f.files[id]; !known || s.probes == nil {
			f.files[id] = nil
		}
		f.mu.Unlock()
		return time.Time{}
	}
	if err == nil {
		if again, e := identify(file); e != nil || again != id {
			err = errChanges
		}
	}
	return f.attach(id, file, path, pid, found, err)
}

// attach has a file probed, unless there is an error already.
func (f *finder) attach(id fileID, file *os.File, path string, pid int, functions map[string]uint64, err error) time.Time {
	f.mu.Lock()
	if err == nil && f.probed >= maxFiles {
		err = errLimit
	}
	try := err == nil
	if try {
		f.probed++ // others may try at the same time
	}
	f.mu.Unlock()
	var probes []io.Closer
	if try {
		probes, err = f.probe(file, functions)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.files[id]
	if s == nil {
		s = &sslFile{}
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
		s.Unprobed, s.probes, s.seen = Unprobed{Path: path, PID: pid}, probes, time.Now()
		f.files[id] = s
		return time.Time{}
	}
	if len(f.files) < maxLooked {
		f.files[id] = s
	}
	return f.fail(s, path, pid, err)
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
