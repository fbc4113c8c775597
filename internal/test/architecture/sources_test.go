// SPDX-License-Identifier: Apache-2.0

package architecture

import (
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// root is the top folder of the module.
const root = "../../.."

// files are the names below root of all files of the module.
func files(t *testing.T) (names []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == ".git":
			return filepath.SkipDir
		case !d.IsDir():
			names = append(names, filepath.ToSlash(strings.TrimPrefix(path, filepath.FromSlash(root+"/"))))
		}
		return nil
	})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsTrue(len(names) > 300))
	return names
}

// sources are those in Go, without the tests.
func sources(t *testing.T) []string {
	t.Helper()
	names := slices.DeleteFunc(files(t), func(name string) bool {
		return filepath.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go")
	})
	qt.Assert(t, qt.IsTrue(len(names) > 200))
	return names
}

// isTestdata reports a file that only tests read.
func isTestdata(name string) bool { return slices.Contains(strings.Split(name, "/"), "testdata") }
