// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// finder finds the files that have TLS functions among those that processes map.
type finder struct {
	probe func(file *os.File, functions map[string]uint64) error

	mu    sync.Mutex
	files map[fileID]bool // that were looked at
	// namespaces are those of files whose usual libraries were looked at.
	namespaces map[string]bool
	tasks      map[int]*task
	early      []int         // processes that changed their program
	wake       chan struct{} // for those
	// politely says that files are read with breaks: processes make files faster than they are searched.
	politely bool
}

// fileID is a file as it was.
type fileID struct {
	dev, ino uint64
	size     int64
	changed  unix.Timespec
}

// task is a process that was looked at.
type task struct {
	looks int
	next  time.Time
}

// looks are how long after the last look a process is looked at again: libraries are often loaded late.
var looks = []time.Duration{time.Second, 4 * time.Second, 15 * time.Second, time.Minute}

const (
	scanInterval = time.Second
	maxMapsBytes = 4 << 20
	maxLooked    = 1 << 16 // files that are remembered
	maxNames     = 1 << 14 // of one folder
)

func newFinder(probe func(*os.File, map[string]uint64) error) *finder {
	return &finder{probe: probe, files: map[fileID]bool{}, namespaces: map[string]bool{}, tasks: map[int]*task{}, wake: make(chan struct{}, 1)}
}

// executed says that a process runs another program. It can be called from any goroutine.
func (f *finder) executed(pid int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.early) < 4096 { // others are found by the next scans
		f.early = append(f.early, pid)
	}
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *finder) run(ctx context.Context) {
	f.politely = true
	ticker := time.NewTicker(scanInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.wake:
			// The linker is still at work: give it a moment.
			select {
			case <-ctx.Done():
				return
			case <-time.After(20 * time.Millisecond):
			}
			f.mu.Lock()
			early := f.early
			f.early = nil
			f.mu.Unlock()
			for _, pid := range early {
				f.tasks[pid] = &task{next: time.Now().Add(looks[0])}
				f.look(pid)
			}
		case <-ticker.C:
			f.scan()
		}
	}
}

// scan looks at the processes whose time has come. Only one goroutine may.
func (f *finder) scan() {
	pids, err := processes()
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
		f.look(pid)
		t.next = now.Add(looks[min(t.looks, len(looks)-1)])
		t.looks++
	}
	for pid := range f.tasks {
		if !alive[pid] {
			delete(f.tasks, pid)
		}
	}
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

// look looks for TLS in the files of one process. What cannot be looked at, because the process is gone or another's, is passed over.
func (f *finder) look(pid int) {
	proc := "/proc/" + strconv.Itoa(pid)
	f.libraries(proc)
	exe, _ := os.Readlink(proc + "/exe")
	for _, m := range mappings(proc + "/maps") {
		if m.path != exe && !mayBeTLS(m.path) {
			continue
		}
		file, err := openMapped(proc, m)
		if err != nil {
			continue
		}
		_ = f.file(file) // of whom the next look may have more
		file.Close()
	}
}

// folders are where libraries usually are.
var folders = []string{
	"/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu", "/usr/lib64", "/lib64", "/usr/lib", "/lib", "/usr/local/lib", "/usr/local/lib64",
}

// libraries looks at those that a process, and others that see the same files, may load: what is probed before it is loaded is seen from the start,
// though the process that loads it be short.
func (f *finder) libraries(proc string) {
	ns, err := os.Readlink(proc + "/ns/mnt")
	if err != nil || f.namespaces[ns] {
		return
	}
	if len(f.namespaces) >= maxTracked {
		clear(f.namespaces)
	}
	f.namespaces[ns] = true
	for _, folder := range folders {
		dir, err := openIn(proc, folder, unix.S_IFDIR)
		if err != nil {
			continue
		}
		names, _ := dir.Readdirnames(maxNames)
		dir.Close()
		for _, name := range names {
			if !mayBeTLS(name) || !strings.Contains(name, ".so") {
				continue
			}
			if file, err := openIn(proc, folder+"/"+name, unix.S_IFREG); err == nil {
				_ = f.file(file)
				file.Close()
			}
		}
	}
}

// mayBeTLS reports whether a library may have TLS functions, by its name: OpenSSL, LibreSSL and BoringSSL by any name that says so, as
// packages for Python have them (libssl-3e69114b.so.1.1), and Node's.
func mayBeTLS(path string) bool {
	name := filepath.Base(strings.TrimSuffix(path, " (deleted)"))
	return strings.Contains(name, "ssl") || strings.HasPrefix(name, "libnode")
}

// file probes a file that has TLS functions, once.
func (f *finder) file(file *os.File) error {
	id, err := identify(file)
	if err != nil {
		return err
	}
	if f.files[id] {
		return nil
	}
	if len(f.files) >= maxLooked {
		clear(f.files) // probing a file twice is harmless
	}
	f.files[id] = true
	start := time.Now()
	found, err := tlsFunctions(file)
	if f.politely {
		time.Sleep(4 * time.Since(start))
	}
	if err != nil || found == nil {
		return err
	}
	if again, err := identify(file); err != nil || again != id {
		delete(f.files, id)
		return errors.New("the file changes")
	}
	return f.probe(file, found)
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
	addresses string // as /proc/PID/map_files has them
	path      string
}

// mappings reads /proc/PID/maps: "7f2d5c000000-7f2d5c021000 r-xp 00002000 08:01 1234   /usr/lib/libssl.so.3". One of each file.
func mappings(name string) []mapping {
	b := readUpTo(name, maxMapsBytes)
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
		list = append(list, mapping{f[0], path})
	}
	return list
}

func readUpTo(name string, n int64) []byte {
	file, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer file.Close()
	var b bytes.Buffer
	buf := make([]byte, 32<<10)
	for int64(b.Len()) < n {
		k, err := file.Read(buf)
		b.Write(buf[:k])
		if err != nil {
			break
		}
	}
	return b.Bytes()
}

// openMapped opens a mapped file: by /proc/PID/map_files, which is the very file, also when another one has its name by now (needs CAP_SYS_ADMIN or
// CAP_CHECKPOINT_RESTORE), else by its name.
func openMapped(proc string, m mapping) (*os.File, error) {
	fd, err := unix.Open(proc+"/map_files/"+trimZeros(m.addresses), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return openIn(proc, m.path, unix.S_IFREG)
	}
	return reopen(fd, unix.S_IFREG)
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
