// SPDX-License-Identifier: Apache-2.0

package statefolder

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/fleet"
	"github.com/bpfwhy/bpfwhy/internal/fleet/folder"
	"github.com/bpfwhy/bpfwhy/internal/fleet/nodereport"
	"github.com/bpfwhy/bpfwhy/internal/serve/sink"
	"github.com/bpfwhy/bpfwhy/node"
)

func openAt(t *testing.T, path string) (*Folder, *[]nodereport.Status) {
	t.Helper()
	var written []nodereport.Status
	f, err := Open(path, func(s *nodereport.Status) { written = append(written, *s) })
	qt.Assert(t, qt.IsNil(err))
	return f, &written
}

func state(count int) sink.Item {
	p := &node.Profile{Release: "6.12.0", Sysctls: map[string]string{"net.core.bpf_jit_harden": "2"}}
	class := nodereport.NewClass(fleet.ClassOf(p))
	f := nodereport.Failure{Failure: fleet.Failure{ID: "abc", Rule: "VER002", Count: count}}
	f.PodUID = "u"
	return sink.Item{State: &sink.State{Class: class, Report: nodereport.NewReport("worker-1", nodereport.Status{
		Class: class.Metadata.Name, Watching: &nodereport.Watching{}, Failing: 1, Failures: []nodereport.Failure{f}, Calls: uint64(count),
	})}}
}

// What is written is what is read again, by the next service and by 'bpfwhy fleet', wherever the
// folder was copied to.
func TestRoundTrip(t *testing.T) {
	gathered := t.TempDir()
	f, written := openAt(t, filepath.Join(gathered, "any", "var", "lib"))
	qt.Assert(t, qt.IsNil(f.Put(t.Context(), state(3))))
	qt.Check(t, qt.Equals((*written)[0].Accounted(), 3))
	was, err := f.Read()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(was.Status.Failures[0].Count, 3))
	all, skipped, err := folder.Read([]string{gathered})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(skipped, 0))
	qt.Assert(t, qt.HasLen(all.Nodes, 1))
	n := all.Nodes[0]
	qt.Check(t, qt.Equals(n.Name, "worker-1"))
	qt.Check(t, qt.IsTrue(n.Watched))
	qt.Check(t, qt.Equals(n.Profile.Sysctls["net.core.bpf_jit_harden"], "2"))
	qt.Assert(t, qt.HasLen(n.Failures, 1))
	qt.Check(t, qt.Equals(n.Failures[0].Count, 3))
	info, err := os.Stat(filepath.Join(gathered, "any", "var", "lib", NodeFile))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(info.Mode().Perm(), 0o600))
}

// A state that cannot be read is an error and not the end.
func TestBroken(t *testing.T) {
	dir := t.TempDir()
	f, _ := openAt(t, dir)
	none, err := f.Read()
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.IsNil(none))
	qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(dir, NodeFile), []byte("{"), 0o600)))
	_, err = f.Read()
	qt.Check(t, qt.IsNotNil(err))
	qt.Assert(t, qt.IsNil(f.Put(t.Context(), state(1))))
	_, err = f.Read()
	qt.Check(t, qt.IsNil(err))
}

func entries(t *testing.T, dir string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	qt.Assert(t, qt.IsNil(err))
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// The ring keeps the last recordings, and never more than it may.
func TestRing(t *testing.T) {
	dir := t.TempDir()
	f, _ := openAt(t, dir)
	f.most = 10_000
	for i := range 20 {
		id := fmt.Sprintf("%02x", i)
		qt.Check(t, qt.IsFalse(f.Has(id)))
		qt.Assert(t, qt.IsNil(f.Record(id, func(w io.Writer) error { _, err := w.Write(make([]byte, 3000)); return err })))
		qt.Check(t, qt.IsTrue(f.Has(id)))
		at := time.Now().Add(time.Duration(i-100) * time.Second)
		qt.Assert(t, qt.IsNil(os.Chtimes(f.recording(id), at, at)))
		qt.Check(t, qt.IsTrue(len(entries(t, filepath.Join(dir, Failures))) <= 3))
	}
	qt.Check(t, qt.DeepEquals(entries(t, filepath.Join(dir, Failures)), []string{"11.bpfwhy", "12.bpfwhy", "13.bpfwhy"}))
	// One that is larger than the ring stays alone.
	qt.Assert(t, qt.IsNil(f.Record("ff", func(w io.Writer) error { _, err := w.Write(make([]byte, 30_000)); return err })))
	qt.Check(t, qt.DeepEquals(entries(t, filepath.Join(dir, Failures)), []string{"ff.bpfwhy"}))
}

// A disk that is full leaves nothing half written, and what was there stays.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	f, _ := openAt(t, dir)
	full := errors.New("no space left on device")
	qt.Assert(t, qt.IsNil(f.Record("aa", func(w io.Writer) error { _, err := w.Write([]byte("good")); return err })))
	err := f.Record("aa", func(w io.Writer) error { _, err := w.Write([]byte("ba")); return errors.Join(err, full) })
	qt.Check(t, qt.ErrorIs(err, full))
	b, err := os.ReadFile(f.recording("aa"))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(b), "good"))
	qt.Check(t, qt.DeepEquals(entries(t, filepath.Join(dir, Failures)), []string{"aa.bpfwhy"}))
}

// An id is never a path.
func TestHostileID(t *testing.T) {
	f, _ := openAt(t, t.TempDir())
	for _, id := range []string{"", "../x", "a/b", "A", "a\n"} {
		qt.Check(t, qt.IsNotNil(f.Record(id, func(io.Writer) error { return nil })), qt.Commentf("%q", id))
	}
}

// What a killed process left is removed by the next.
func TestLeftovers(t *testing.T) {
	dir := t.TempDir()
	openAt(t, dir)
	for _, name := range []string{".node.json.new", Failures + "/.aa.bpfwhy.new"} {
		qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600)))
	}
	openAt(t, dir)
	qt.Check(t, qt.HasLen(entries(t, filepath.Join(dir, Failures)), 0))
	qt.Check(t, qt.DeepEquals(entries(t, dir), []string{Failures}))
}
