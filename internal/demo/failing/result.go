// SPDX-License-Identifier: Apache-2.0

package failing

import (
	"cmp"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/abi"
)

// Result is how one load ended, told by the loader and not by a tracer.
type Result struct {
	Load  string `json:"load"`            // name of the program ("" if it has none)
	Errno int    `json:"errno"`           // positive, 0 when it worked
	Name  string `json:"name,omitempty"`  // of the errno
	ID    uint32 `json:"id,omitempty"`    // of the program, when it could be asked for
	JITed *bool  `json:"jited,omitempty"` // nil: not known
	Log   string `json:"log,omitempty"`

	// FD is the program, open until the process ends.
	FD int `json:"-"`
}

// ErrnoName names an errno the way the kernel's sources do.
func ErrnoName(errno int) string {
	if errno == 0 {
		return ""
	}
	return cmp.Or(abi.ErrnoName(errno), fmt.Sprint(errno))
}

func newResult(name string, fd int, err error, log string) Result {
	r := Result{Load: name, FD: fd, Log: log}
	if err != nil {
		r.FD = -1
		var errno unix.Errno
		if errors.As(err, &errno) {
			r.Errno = int(errno)
		} else {
			r.Errno, r.Log = -1, err.Error()
		}
		r.Name = ErrnoName(r.Errno)
		return r
	}
	r.ask()
	return r
}

// ask asks the kernel about the loaded program. Without CAP_BPF it does not say whether it was
// compiled.
func (r *Result) ask() {
	if r.Errno != 0 || r.FD < 0 {
		return
	}
	if info, err := infoByFD(r.FD); err == nil && info.XlatedProgLen > 0 {
		jited := info.JitedProgLen > 0
		r.ID, r.JITed = info.ID, &jited
	}
}

func (r Result) String() string {
	name := r.Load
	if name == "" {
		name = "(no name)"
	}
	switch {
	case r.Errno != 0:
		return fmt.Sprintf("%s: errno %d (%s)", name, r.Errno, r.Name)
	case r.JITed == nil:
		return fmt.Sprintf("%s: loaded", name)
	case *r.JITed:
		return fmt.Sprintf("%s: loaded, jited, id %d", name, r.ID)
	}
	return fmt.Sprintf("%s: loaded, NOT jited, id %d", name, r.ID)
}
