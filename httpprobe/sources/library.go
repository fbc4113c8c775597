// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"cmp"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/sys/threads"
	"golang.org/x/sys/unix"
)

// Libraries: which are looked at, and where their functions are.

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

// libraries looks at those that a process, and others that see the same files, may load: what is
// probed before it is loaded is seen from the start, though the process that loads it be short.
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
			again(f.opened(name+folder, folder, pid, shortage(err)))
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
				again(f.opened(name+path, path, pid, shortage(err)))
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

// shortage is the error if it says that we lack something, and not that there is nothing.
func shortage(err error) error {
	if r := reasonOf(err); r == Denied || r == Descriptors || r == Memory {
		return err
	}
	return nil
}

// mayBeTLS reports whether a library may have TLS functions, by its name: OpenSSL, LibreSSL and
// BoringSSL by any name that says so, as packages for Python have them (libssl-3e69114b.so.1.1),
// and Node's.
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

// file probes a file that has TLS functions, if it is not probed. It returns when to try again, at
// no time if not.
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
//
//revive:disable-next-line:cyclomatic each way to fail is counted as itself
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

// makeRoom takes a file's probes off for another one, and returns them; nil: it has to wait. Nobody
// keeps others out by files of his own making: room is made by who has more of it, and for a file
// that is mapped by files that nobody maps. Mapped ones make room for mapped ones alone, of holders
// who have two less: the one who makes room has no less than the other then, and does not take it
// back. The lock is held.
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

// before reports whether one file makes room before another: what nobody maps, of who has the most,
// what was not seen for the longest.
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

// tlsFunctions are the functions that are watched with their places in a file, nil when it is not a
// library that sends.
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
