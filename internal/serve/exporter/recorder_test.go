// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package exporter

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/fleet/nodereport"
	"github.com/bpfwhy/bpfwhy/internal/serve/statefolder"
)

// A recording that could not be written is counted, and wanted again: the disk may have room by
// then.
func TestRecorderTriesAgain(t *testing.T) {
	dir := t.TempDir()
	folder, err := statefolder.Open(dir, func(*nodereport.Status) {})
	qt.Assert(t, qt.IsNil(err))
	recordings := filepath.Join(dir, statefolder.Failures)
	qt.Assert(t, qt.IsNil(os.Remove(recordings))) // nothing can be written
	r := newRecorder(folder)
	qt.Assert(t, qt.IsTrue(r.wants("abc")))
	r.put("abc", []byte("first"))
	until := func(so func() bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); !so(); time.Sleep(time.Millisecond) {
			qt.Assert(t, qt.IsTrue(time.Now().Before(end)))
		}
	}
	until(func() bool { return r.lost.Load() == 1 })
	qt.Assert(t, qt.IsNil(os.Mkdir(recordings, 0o700)))
	until(func() bool { return r.wants("abc") })
	r.put("abc", []byte("second"))
	qt.Check(t, qt.IsFalse(r.wants("abc")))
	r.close()
	b, err := os.ReadFile(filepath.Join(recordings, "abc.bpfwhy"))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(b), "second"))
	qt.Check(t, qt.Equals(r.lost.Load(), 1))
}
