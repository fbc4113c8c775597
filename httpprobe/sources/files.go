// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"cmp"
	"errors"
	"io/fs"
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// FileReason is why a file, or a process with its files, is not probed.
type FileReason string

const (
	Denied      FileReason = "denied"      // the kernel wants another capability
	Descriptors FileReason = "descriptors" // no file descriptor is left
	Memory      FileReason = "memory"      // nor memory
	Limit       FileReason = "limit"       // as many are probed as may be at once
	Unreachable FileReason = "unreachable" // it has no name any more, or none that leads to it: needs CAP_CHECKPOINT_RESTORE
	Hangs       FileReason = "hangs"       // its file system does not answer
	Changing    FileReason = "changing"    // it is being written
	Keeper      FileReason = "keeper"      // the process that keeps CAP_SYS_ADMIN for it is gone
	Refused     FileReason = "refused"     // anything else, as the kernel says
)

// FileReasons are all of them.
var FileReasons = []FileReason{Denied, Descriptors, Memory, Limit, Unreachable, Hangs, Changing, Keeper, Refused}

// Unprobed is a file that should be probed and is not. It is tried again.
type Unprobed struct {
	Path   string // as a process knows it, which can be anything
	PID    int    // of that process; 0: of none
	Reason FileReason
	Tries  int
	Err    error
}

// Files say what has become of the files that a source has to probe.
type Files struct {
	Probed   int                   // now
	Unprobed []Unprobed            // now, by reason and path; of each kind, files and what keeps from finding them, 1024 at most
	Failures map[FileReason]uint64 // since the start, each time that one could not be probed
	Unlisted uint64                // of these, since the start: those of files that there was no room to remember
	// Unaware is why the kernel does not say when a process maps a file: what a process loads late
	// is found seconds later then. nil: it does.
	Unaware error
}

var (
	errLimit   = errors.New("as many files are probed as may be at once")
	errChanges = errors.New("the file changes")
	errHangs   = errors.New("its file system does not answer")
)

func reasonOf(err error) FileReason {
	switch {
	case errors.Is(err, errKeeper):
		return Keeper
	case errors.Is(err, errLimit):
		return Limit
	case errors.Is(err, errChanges):
		return Changing
	case errors.Is(err, errHangs):
		return Hangs
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return Denied
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return Descriptors
	case errors.Is(err, unix.ENOMEM), errors.Is(err, unix.ENOSPC):
		return Memory
	case errors.Is(err, fs.ErrNotExist):
		return Unreachable
	}
	return Refused
}

// accounts are the finder's.
func (f *finder) accounts() *Files {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := &Files{Failures: maps.Clone(f.failures), Unlisted: f.unlisted, Unaware: f.unaware}
	for _, s := range f.files {
		if s.probes != nil {
			a.Probed++
		} else {
			a.Unprobed = append(a.Unprobed, s.Unprobed)
		}
	}
	for _, s := range f.unopened {
		a.Unprobed = append(a.Unprobed, s.Unprobed)
	}
	slices.SortFunc(a.Unprobed, func(x, y Unprobed) int {
		return cmp.Or(cmp.Compare(x.Reason, y.Reason), cmp.Compare(x.Path, y.Path), cmp.Compare(x.PID, y.PID))
	})
	return a
}
