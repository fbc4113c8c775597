// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/repair/hardenwindow"
	"github.com/bpfwhy/bpfwhy/internal/sys/freeing"
	"github.com/bpfwhy/bpfwhy/rewrite"
)

const enotsupp = unix.Errno(524)

// What was open for nothing is told: the windows of loads that failed in them, and not those that
// did not open.
func TestVain(t *testing.T) {
	p := &Proxy{}
	p.noWindow(unix.Errno(524), &hardenwindow.Report{Windows: 2, Open: 3 * time.Millisecond, WholeCall: true})
	p.noWindow(hardenwindow.ErrNoWindow, &hardenwindow.Report{})
	p.noWindow(errVain, nil)
	p.noWindow(unix.EPERM, &hardenwindow.Report{Windows: 1, Open: time.Millisecond})
	qt.Check(t, qt.Equals(p.unrepaired, Unrepaired{Window: 4, WindowErr: unix.Errno(524), Vain: Vain{Windows: 3, Open: 4 * time.Millisecond, WholeCalls: 1}}))
	qt.Check(t, qt.Equals(p.unrepaired.String(),
		"4 because no window helped (errno 524; windows that did not help: 3, open for 4ms in all, for the whole call of 1)"))
	qt.Check(t, qt.Equals(Unrepaired{Window: 1, WindowErr: errVain}.String(), "1 because no window helped ("+errVain.Error()+")"))
}

// Only what the kernel said with the window open says that no window helps; and that is not
// believed for ever.
func TestRefusedOpen(t *testing.T) {
	opened := &hardenwindow.Report{Windows: 1}
	for _, tt := range []struct {
		err  error
		r    *hardenwindow.Report
		want bool
	}{
		{enotsupp, opened, true},
		{unix.EPERM, opened, true},
		{hardenwindow.ErrNotCompiled, opened, true},
		{enotsupp, &hardenwindow.Report{}, false},
		{enotsupp, &hardenwindow.Report{Windows: 1, Overdue: true}, false},
		{unix.EAGAIN, opened, false},
		{fmt.Errorf("restore: %w", unix.EROFS), opened, false},
		{errors.New("no process"), opened, false},
	} {
		qt.Check(t, qt.Equals(refusedOpen(tt.err, tt.r), tt.want), qt.Commentf("%v", tt.err))
	}
	synctest.Test(t, func(t *testing.T) {
		var c cache
		key := [32]byte{1}
		c.put(key, nil)
		qt.Check(t, qt.IsFalse(c.vain(key)))
		c.inVain(key)
		c.inVain([32]byte{2}) // forgotten meanwhile
		qt.Check(t, qt.IsTrue(c.vain(key)))
		time.Sleep(vainFor)
		qt.Check(t, qt.IsFalse(c.vain(key)))
	})
}

// Where the kernel frees no programs, and where not even that can be found out, loads are left to
// it.
func TestStuck(t *testing.T) {
	for name, free := range map[string]func() error{
		"says so": func() error { return freeing.ErrStuck },
		"hangs":   func() error { time.Sleep(time.Hour); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &Proxy{free: free, flights: map[[32]byte]chan struct{}{}}
				s := &snapshot{insns: small}
				for _, known := range []*rewrite.Result{nil, {Program: small, New: []int{0, 1, 2}}} {
					if known != nil {
						p.cache.put(s.key(), known)
					}
					start := time.Now()
					o := p.load(s, &handles{})
					qt.Check(t, qt.Equals(o.fd, -1))
					qt.Check(t, qt.IsTrue(time.Since(start) <= longStandstill))
				}
				qt.Check(t, qt.Equals(p.unrepaired, Unrepaired{Stuck: 2}))
				time.Sleep(2 * time.Hour)
			})
		})
	}
}
