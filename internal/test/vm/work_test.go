// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

func TestWorkFolder(t *testing.T) {
	parent := t.TempDir()
	t.Setenv("TMPDIR", parent)
	folder := func(name string, age time.Duration) string {
		dir := filepath.Join(parent, name)
		qt.Assert(t, qt.IsNil(os.MkdirAll(filepath.Join(dir, "initrd"), 0o755)))
		qt.Assert(t, qt.IsNil(os.Chtimes(dir, time.Time{}, time.Now().Add(-age))))
		return dir
	}
	left, young, other := folder(workPrefix+"1", time.Hour), folder(workPrefix+"2", 0), folder("other", time.Hour)
	held := folder(workPrefix+"3", time.Hour)
	lock, err := lockFolder(held)
	qt.Assert(t, qt.IsNil(err))
	defer lock.Close()

	dir, release, err := workFolder()
	qt.Assert(t, qt.IsNil(err))
	there := func(dir string) bool { _, err := os.Stat(dir); return err == nil }
	qt.Check(t, qt.IsFalse(there(left)))
	for _, dir := range []string{young, other, held, dir} {
		qt.Check(t, qt.IsTrue(there(dir)), qt.Commentf("%s", dir))
	}
	sweep(parent, time.Now().Add(time.Hour))
	qt.Check(t, qt.IsTrue(there(dir))) // it is locked
	release()
	qt.Check(t, qt.IsFalse(there(dir)))
}
