// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

func TestMappings(t *testing.T) {
	name := filepath.Join(t.TempDir(), "maps")
	qt.Assert(t, qt.IsNil(os.WriteFile(name, []byte(`55d0c0000000-55d0c0001000 r--p 00000000 08:01 10                         /usr/bin/curl
55d0c0001000-55d0c0002000 r-xp 00001000 08:01 10                         /usr/bin/curl
55d0c0002000-55d0c0003000 r-xp 00002000 08:01 10                         /usr/bin/curl
7f0000000000-7f0000001000 r-xp 00000000 08:01 11                         /opt/my libs/libssl.so.3 (deleted)
7f0000002000-7f0000003000 rwxp 00000000 00:00 0                          [heap]
7f0000004000-7f0000005000 r-xp 00000000 00:00 0
7f0000006000-7f0000007000 r-xp 00000000 00:05 12                         anon_inode:x
nonsense
`), 0o600)))
	list, err := mappings(name)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(flat(list), []string{
		"55d0c0001000-55d0c0002000 08:01 08:01 10 /usr/bin/curl", "7f0000000000-7f0000001000 08:01 08:01 11 /opt/my libs/libssl.so.3 (deleted)",
	}))
}

func flat(list []mapping) (s []string) {
	for _, m := range list {
		s = append(s, m.addresses+" "+m.device+" "+m.node+" "+m.path)
	}
	return s
}

func TestMayBeTLS(t *testing.T) {
	for path, want := range map[string]bool{
		"/usr/lib/libssl.so.3":               true,
		"/usr/lib/libssl.so.3 (deleted)":     true,
		"/x/psycopg2/libssl-3e69114b.so.1.1": true,
		"/usr/lib/libnode.so.108":            true,
		"/usr/lib/libc.so.6":                 false,
		"/ssl/libc.so.6":                     false,
	} {
		qt.Check(t, qt.Equals(mayBeTLS(path), want), qt.Commentf(path))
	}
}

// What a process has under a name is looked for in its own root, and only regular files are opened.
func TestOpenIn(t *testing.T) {
	dir := t.TempDir()
	qt.Assert(t, qt.IsNil(os.MkdirAll(filepath.Join(dir, "root/lib"), 0o755)))
	qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(dir, "root/lib/libssl.so.3"), []byte("inside"), 0o600)))
	qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(dir, "secret"), []byte("outside"), 0o600)))
	for link, target := range map[string]string{"good": "/lib/libssl.so.3", "up": "../../secret", "far": filepath.Join(dir, "secret"), "magic": "/proc/self/exe"} {
		qt.Assert(t, qt.IsNil(os.Symlink(target, filepath.Join(dir, "root", link))))
	}
	qt.Assert(t, qt.IsNil(syscall.Mkfifo(filepath.Join(dir, "root/fifo"), 0o600)))
	for name, want := range map[string]string{"/lib/libssl.so.3": "inside", "/good": "inside", "/up": "", "/far": "", "/magic": "", "/fifo": "", "/lib": ""} {
		file, err := openIn(dir, name, syscall.S_IFREG)
		if want == "" {
			qt.Check(t, qt.IsNotNil(err), qt.Commentf(name))
			continue
		}
		qt.Assert(t, qt.IsNil(err), qt.Commentf(name))
		b := make([]byte, 16)
		n, _ := file.Read(b)
		qt.Check(t, qt.Equals(string(b[:n]), want))
		file.Close()
	}
}

// attached counts what is attached to whom, and fails as it is told.
type attached struct {
	mu             sync.Mutex // of closed: several are at once
	probed, closed []map[string]uint64
	err            error
}

func (a *attached) attach(_ *os.File, functions map[string]uint64) ([]io.Closer, error) {
	if a.err != nil {
		return nil, a.err
	}
	a.probed = append(a.probed, functions)
	return []io.Closer{closeFunc(func() error {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.closed = append(a.closed, functions)
		return nil
	})}, nil
}

type closeFunc func() error

func (f closeFunc) Close() error { return f() }

// A file is probed once, and again when it has changed. What is no TLS library is left alone.
func TestFinderFile(t *testing.T) {
	var a attached
	f := newFinder(a.attach)
	name := filepath.Join(t.TempDir(), "libssl.so")
	look := func() {
		file, err := os.Open(name)
		qt.Assert(t, qt.IsNil(err))
		defer file.Close()
		qt.Check(t, qt.IsTrue(f.file(file, sight{path: name, pid: 1}).IsZero()))
	}
	qt.Assert(t, qt.IsNil(os.WriteFile(name, tinyELF(), 0o600)))
	look()
	look()
	qt.Check(t, qt.DeepEquals(a.probed, []map[string]uint64{{"SSL_write": 0x1010}}))
	qt.Assert(t, qt.IsNil(os.WriteFile(name, append(tinyELF(), 0), 0o600)))
	look()
	qt.Check(t, qt.HasLen(a.probed, 2))
	qt.Assert(t, qt.IsNil(os.WriteFile(name, []byte("a script that is called libssl.so\n"), 0o600)))
	look()
	qt.Check(t, qt.HasLen(a.probed, 2))
	qt.Check(t, qt.Equals(f.accounts().Probed, 2))
	qt.Check(t, qt.HasLen(f.accounts().Unprobed, 0))
	qt.Check(t, qt.IsNil(f.close()))
	qt.Check(t, qt.HasLen(a.closed, 2))
}

// A file that cannot be probed is not done: it is told of by reason, tried again after longer and
// longer pauses, and done when it is probed.
func TestFinderRetries(t *testing.T) {
	for err, want := range map[error]FileReason{
		fmt.Errorf("probe SSL_read: open perf event: %w", unix.EACCES): Denied,
		keeperError{unix.EACCES, "probe SSL_read: permission denied"}:  Denied,
		unix.EMFILE: Descriptors, unix.ENOMEM: Memory, errKeeper: Keeper, unix.EINVAL: Refused, errors.New("no"): Refused,
	} {
		synctest.Test(t, func(t *testing.T) {
			a := attached{err: err}
			f := newFinder(a.attach)
			name := filepath.Join(t.TempDir(), "libssl.so")
			qt.Assert(t, qt.IsNil(os.WriteFile(name, tinyELF(), 0o600)))
			look := func() time.Duration {
				file, err := os.Open(name)
				qt.Assert(t, qt.IsNil(err))
				defer file.Close()
				if at := f.file(file, sight{path: name, pid: 7}); !at.IsZero() {
					return time.Until(at)
				}
				return 0
			}
			for i, pause := range []time.Duration{1, 4, 15, 60, 60} {
				qt.Check(t, qt.Equals(look(), pause*time.Second))
				qt.Check(t, qt.Equals(look(), pause*time.Second)) // not tried before its time
				got := f.accounts()
				qt.Check(t, qt.Equals(got.Probed, 0))
				qt.Check(t, qt.Equals(got.Failures[want], uint64(i+1)))
				qt.Assert(t, qt.HasLen(got.Unprobed, 1))
				qt.Check(t, qt.Equals(got.Unprobed[0], Unprobed{Path: name, PID: 7, Reason: want, Tries: i + 1, Err: err}))
				time.Sleep(pause * time.Second)
			}
			a.err = nil
			qt.Check(t, qt.Equals(look(), 0))
			got := f.accounts()
			qt.Check(t, qt.Equals(got.Probed, 1))
			qt.Check(t, qt.HasLen(got.Unprobed, 0))
			qt.Check(t, qt.Equals(got.Failures[want], 5)) // that is not forgotten
		})
	}
}

// Where there is room for no more files, those that are too many are told of, and probed when
// others are gone.
func TestFinderLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a attached
		f := newFinder(a.attach)
		dir := t.TempDir()
		look := func(n int) {
			name := filepath.Join(dir, fmt.Sprintf("libssl.so.%d", n))
			qt.Assert(t, qt.IsNil(os.WriteFile(name, append(tinyELF(), make([]byte, n)...), 0o600)))
			file, err := os.Open(name)
			qt.Assert(t, qt.IsNil(err))
			defer file.Close()
			f.file(file, sight{path: name, pid: 7})
		}
		for n := range maxFiles {
			look(n)
		}
		look(maxFiles)
		got := f.accounts()
		qt.Check(t, qt.Equals(got.Probed, maxFiles))
		qt.Assert(t, qt.HasLen(got.Unprobed, 1))
		qt.Check(t, qt.Equals(got.Unprobed[0].Reason, Limit))
		time.Sleep(2 * time.Minute)
		f.tasks[7] = &task{looked: time.Now()} // whoever had them has others now
		f.sweep()
		qt.Check(t, qt.Equals(f.accounts().Probed, 0))
		qt.Check(t, qt.HasLen(a.closed, maxFiles))
		look(maxFiles)
		qt.Check(t, qt.Equals(f.accounts().Probed, 1))
	})
}

// looker looks at files that it makes for it.
type looker struct {
	*finder
	dir string
}

func (l looker) look(t *testing.T, n int, at sight) time.Time {
	t.Helper()
	at.path = filepath.Join(l.dir, fmt.Sprintf("%s-libssl.so.%d", at.holder, n))
	if _, err := os.Stat(at.path); err != nil {
		qt.Assert(t, qt.IsNil(os.WriteFile(at.path, append(tinyELF(), make([]byte, n)...), 0o600)))
	}
	file, err := os.Open(at.path)
	qt.Assert(t, qt.IsNil(err))
	defer file.Close()
	return l.file(file, at)
}

// probedOf counts what is probed by holder.
func (l looker) probedOf() map[string]int {
	n := map[string]int{}
	for _, s := range l.files {
		if s.probes != nil {
			n[s.holder]++
		}
	}
	return n
}

// Whoever has as many files as may be probed at once keeps nobody else out: he makes room until
// both have the same, first with files that nobody maps, and does not take it back. What nobody
// maps keeps nothing out that is mapped.
func TestFinderShares(t *testing.T) {
	const most = 32
	for _, tt := range []struct {
		name                  string
		firstMaps, secondMaps bool
		one, rest             int // of the second's files, when he has shown one, and when both have shown all, again and again
	}{
		{"idle, mapped", false, true, 1, most / 2},
		{"idle, idle", false, false, 1, most / 2},
		{"mapped, mapped", true, true, 1, most / 2},
		{"mapped, idle", true, false, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var a attached
				l := looker{newFinder(a.attach), t.TempDir()}
				l.most = most
				all := func(holder string, mapped bool) {
					for n := range most {
						l.look(t, n, sight{pid: 7, holder: holder, mapped: mapped})
					}
				}
				all("first", tt.firstMaps)
				qt.Check(t, qt.DeepEquals(l.probedOf(), map[string]int{"first": most}))
				l.look(t, 0, sight{pid: 8, holder: "second", mapped: tt.secondMaps})
				qt.Check(t, qt.Equals(l.probedOf()["second"], tt.one))
				for range 3 {
					all("second", tt.secondMaps)
					time.Sleep(time.Minute)
					all("first", tt.firstMaps)
				}
				qt.Check(t, qt.Equals(l.probedOf()["second"], tt.rest))
				qt.Check(t, qt.Equals(l.probedOf()["first"], most-tt.rest))
				got := l.accounts()
				qt.Check(t, qt.Equals(got.Probed, most))
				qt.Check(t, qt.HasLen(got.Unprobed, most))
				for _, u := range got.Unprobed {
					qt.Check(t, qt.Equals(u.Reason, Limit))
				}
				before := len(a.closed)
				time.Sleep(time.Minute)
				all("first", tt.firstMaps)
				all("second", tt.secondMaps)
				qt.Check(t, qt.Equals(len(a.closed), before)) // they have come to rest
				qt.Check(t, qt.Equals(len(a.probed)-len(a.closed), most))
			})
		})
	}
}

// A file that waits because there is no room, and is mapped now, does not wait for its time: others
// have to make room.
func TestFinderMappedAfterwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a attached
		l := looker{newFinder(a.attach), t.TempDir()}
		for n := range maxFiles + 1 {
			l.look(t, n, sight{pid: 7, holder: "one"})
		}
		qt.Check(t, qt.HasLen(l.accounts().Unprobed, 1))
		qt.Check(t, qt.IsTrue(l.look(t, maxFiles, sight{pid: 7, holder: "one", mapped: true}).IsZero()))
		for _, u := range l.accounts().Unprobed {
			qt.Check(t, qt.Not(qt.Equals(filepath.Base(u.Path), fmt.Sprintf("one-libssl.so.%d", maxFiles))))
		}
		qt.Check(t, qt.HasLen(l.accounts().Unprobed, 1)) // another one
	})
}

// Of files that cannot be probed some are remembered, with the start of their paths; the rest is
// counted, and looked at after as long as any.
func TestFinderRemembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := attached{err: unix.EMFILE}
		f := newFinder(a.attach)
		l := looker{f, t.TempDir()}
		const more = 50
		long := strings.Repeat("x", 4000)
		for n := range maxUnprobed + more {
			next := l.look(t, n, sight{pid: 7})
			f.opened(fmt.Sprint(n), long, 7, unix.EACCES)
			if n >= maxUnprobed {
				qt.Check(t, qt.Equals(time.Until(next), time.Minute))
			}
		}
		got := f.accounts()
		qt.Check(t, qt.HasLen(got.Unprobed, 2*maxUnprobed))
		qt.Check(t, qt.Equals(got.Unlisted, 2*more))
		qt.Check(t, qt.Equals(got.Failures[Descriptors], maxUnprobed+more))
		qt.Check(t, qt.Equals(got.Failures[Denied], maxUnprobed+more))
		for _, u := range got.Unprobed {
			qt.Check(t, qt.IsTrue(len(u.Path) <= maxPath))
		}
		// Room that is there again is used.
		a.err = nil
		time.Sleep(time.Minute)
		qt.Check(t, qt.IsTrue(l.look(t, maxUnprobed+more-1, sight{pid: 7}).IsZero()))
		qt.Check(t, qt.Equals(f.accounts().Probed, 1))
	})
}

// What is still used is not left: by a process that was not looked at since, or by one that was
// seen with it.
func TestFinderSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a attached
		f := newFinder(a.attach)
		name := filepath.Join(t.TempDir(), "libssl.so")
		qt.Assert(t, qt.IsNil(os.WriteFile(name, tinyELF(), 0o600)))
		look := func() {
			file, err := os.Open(name)
			qt.Assert(t, qt.IsNil(err))
			defer file.Close()
			f.file(file, sight{path: name, pid: 7})
		}
		look()
		f.tasks[7] = &task{looked: time.Now()}
		time.Sleep(10 * time.Minute) // in which nothing was looked at
		f.sweep()
		qt.Check(t, qt.HasLen(a.closed, 0))
		look()
		f.tasks[7].looked = time.Now()
		time.Sleep(30 * time.Second)
		f.sweep()
		qt.Check(t, qt.HasLen(a.closed, 0))
		time.Sleep(2 * time.Minute)
		f.tasks[7].looked = time.Now() // without it
		f.sweep()
		qt.Check(t, qt.HasLen(a.closed, 1))
	})
}

// A file whose file system does not answer holds up nobody but others of that file system, and
// these not for ever.
func TestFinderHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFinder(nil)
		answers := make(chan struct{})
		start := time.Now()
		at := f.within("00:45", func() time.Time { <-answers; return time.Time{} }, "/mnt/libssl.so", 7)
		qt.Check(t, qt.Equals(time.Since(start), hangTime))
		qt.Check(t, qt.Equals(time.Until(at), time.Second))
		start = time.Now()
		f.within("00:45", func() time.Time { t.Error("was touched"); return time.Time{} }, "/mnt/libssl.so.2", 8)
		done := false
		f.within("08:01", func() time.Time { done = true; return time.Time{} }, "/lib/libssl.so", 9)
		qt.Check(t, qt.Equals(time.Since(start), 0))
		qt.Check(t, qt.IsTrue(done))
		got := f.accounts()
		qt.Check(t, qt.Equals(got.Failures[Hangs], 2))
		qt.Assert(t, qt.HasLen(got.Unprobed, 1))
		qt.Check(t, qt.Equals(got.Unprobed[0], Unprobed{Path: "/mnt/libssl.so.2", PID: 8, Reason: Hangs, Tries: 2, Err: errHangs}))
		close(answers)
		synctest.Wait()
		done = false
		f.within("00:45", func() time.Time { done = true; return time.Time{} }, "/mnt/libssl.so", 7)
		qt.Check(t, qt.IsTrue(done))
		qt.Check(t, qt.HasLen(f.accounts().Unprobed, 0))
	})
}

func TestTrimZeros(t *testing.T) {
	qt.Check(t, qt.Equals(trimZeros("00400000-00401000"), "400000-401000"))
}
