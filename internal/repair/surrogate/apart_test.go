// SPDX-License-Identifier: Apache-2.0

package surrogate

import (
	"errors"
	"syscall"
	"testing"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// What a process cannot have it does without, and that is said.
func TestApart(t *testing.T) {
	for _, tt := range []struct {
		ids, namespace bool // that it can have
		exposed        string
	}{
		{true, true, ""},
		{true, false, "no pid namespace of its own: operation not permitted"},
		{false, true, "no ids of its own: operation not permitted"},
		{false, false, "neither ids nor a pid namespace of its own: operation not permitted"},
	} {
		var last syscall.SysProcAttr
		exposed, err := Apart(func(a *syscall.SysProcAttr) error {
			if last = *a; a.Credential != nil && !tt.ids || a.Cloneflags != 0 && !tt.namespace {
				return unix.EPERM
			}
			return nil
		})
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.IsTrue(last.Setsid))
		qt.Check(t, qt.Equals(last.Credential != nil, tt.ids))
		qt.Check(t, qt.Equals(last.Cloneflags == unix.CLONE_NEWPID, tt.namespace))
		if tt.exposed == "" {
			qt.Check(t, qt.IsNil(exposed))
		} else {
			qt.Check(t, qt.ErrorMatches(exposed, tt.exposed))
		}
	}
	_, err := Apart(func(*syscall.SysProcAttr) error { return errors.New("nothing works") })
	qt.Check(t, qt.ErrorMatches(err, "nothing works"))
}
