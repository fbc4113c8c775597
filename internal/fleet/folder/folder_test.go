// SPDX-License-Identifier: Apache-2.0

package folder

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/fleet"
)

func nodeNames(f *fleet.Fleet) (names []string) {
	for _, n := range f.Nodes {
		names = append(names, n.Name)
	}
	return names
}

func copyTo(t *testing.T, recording, file string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata/nodes", recording))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.MkdirAll(filepath.Dir(file), 0o755)))
	qt.Assert(t, qt.IsNil(os.WriteFile(file, b, 0o644)))
}

// The files of one node are taken together, however they are laid out.
func TestLayouts(t *testing.T) {
	flat, nested := t.TempDir(), t.TempDir()
	copyTo(t, "5.10-2.bpfwhy", filepath.Join(flat, "a.trace"))
	copyTo(t, "5.10-2.bpfwhy", filepath.Join(flat, "a.bpfwhy"))
	copyTo(t, "7-0.bpfwhy", filepath.Join(flat, "b.bpfwhy.gz"))
	copyTo(t, "5.10-2.bpfwhy", filepath.Join(nested, "a", "one"))
	copyTo(t, "5.10-2.bpfwhy", filepath.Join(nested, "a", "deep", "two.trace"))
	copyTo(t, "7-0.bpfwhy", filepath.Join(nested, "b.trace"))
	copyTo(t, "7-0.bpfwhy", filepath.Join(nested, ".hidden"))
	for _, dir := range []string{flat, nested} {
		f, skipped, err := Read([]string{dir})
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.HasLen(skipped, 0))
		qt.Assert(t, qt.DeepEquals(nodeNames(f), []string{"a", "b"}))
		qt.Assert(t, qt.HasLen(f.Nodes[0].Failures, 1))
		qt.Check(t, qt.Equals(f.Nodes[0].Failures[0].Count, 2))
		qt.Check(t, qt.Equals(f.Nodes[0].Profile.Sysctls["net.core.bpf_jit_harden"], "2")) // at the attempt
	}
}

// One class for two boots of one machine: the fixtures of 5.10 differ in one setting, and in
// nothing else that a class holds.
func TestClassesOfBoots(t *testing.T) {
	f, _, err := Read([]string{"testdata/nodes/5.10-0.bpfwhy", "testdata/nodes/5.10-2.bpfwhy"})
	qt.Assert(t, qt.IsNil(err))
	list, unknown := fleet.Separate("", f.Nodes[:1], f.Nodes[1:])
	qt.Check(t, qt.HasLen(unknown, 0))
	qt.Assert(t, qt.HasLen(list, 1))
	qt.Check(t, qt.Equals(list[0].Name, "net.core.bpf_jit_harden"))
	a := fleet.ClassOf(f.Nodes[0].Profile)
	a.Sysctls["net.core.bpf_jit_harden"] = "2"
	qt.Check(t, qt.Equals(a.ID(), f.Nodes[1].Class))
}

// A file that is named twice counts once.
func TestTwice(t *testing.T) {
	f, _, err := Read([]string{"testdata/nodes", "testdata/nodes/", "./testdata/nodes"})
	qt.Assert(t, qt.IsNil(err))
	for _, n := range f.Nodes {
		for _, failure := range n.Failures {
			qt.Check(t, qt.Equals(failure.Count, 1))
		}
	}
}

// What is no file of ours is not waited for.
func TestStrangeFiles(t *testing.T) {
	dir := t.TempDir()
	copyTo(t, "7-0.bpfwhy", filepath.Join(dir, "a.bpfwhy"))
	qt.Assert(t, qt.IsNil(os.Symlink("/dev/zero", filepath.Join(dir, "zero"))))
	qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(dir, "empty"), nil, 0o644)))
	qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(dir, "text"), []byte("hello"), 0o644)))
	f, skipped, err := Read([]string{dir})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(nodeNames(f), []string{"a"}))
	qt.Check(t, qt.HasLen(skipped, 2))
	_, _, err = Read([]string{filepath.Join(dir, "text")})
	qt.Check(t, qt.ErrorMatches(err, ".*text: .*"))
}
