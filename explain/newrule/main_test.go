// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/go-quicktest/qt"
)

// What is written for each family compiles beside the package, is asked for its match, and its test
// fails until it is filled in.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	sources, err := filepath.Glob("../*.go")
	qt.Assert(t, qt.IsNil(err))
	overlay := map[string]string{}
	beside := func(name string) string {
		path, err := filepath.Abs(filepath.Join("..", filepath.Base(name)))
		qt.Assert(t, qt.IsNil(err))
		return path
	}
	for _, s := range sources {
		b, err := os.ReadFile(s)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(dir, filepath.Base(s)), b, 0o600)))
	}
	for _, id := range []string{"REQ900", "PERM900", "RES900", "BTF900", "FEAT900", "VER900", "BLIND900", "JIT900", "TAIL900", "INST900", "MAP900", "CBPF900"} {
		files, err := write(dir, id, `A "quoted" title`)
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", id))
		for _, f := range files {
			overlay[beside(f)] = f
		}
	}
	b, err := json.Marshal(map[string]any{"Replace": overlay})
	qt.Assert(t, qt.IsNil(err))
	file := filepath.Join(dir, "overlay.json")
	qt.Assert(t, qt.IsNil(os.WriteFile(file, b, 0o600)))
	out, err := exec.Command("go", "test", "-overlay", file, "-run", "^TestExplain$/TODO", "..").CombinedOutput()
	qt.Assert(t, qt.IsNotNil(err), qt.Commentf("%s", out))
	qt.Check(t, qt.StringContains(string(out), `"BTF900"`))
	qt.Check(t, qt.StringContains(string(out), `"VER900"`))
	qt.Check(t, qt.StringContains(string(out), "TODO"))

	_, err = write(dir, "BTF001", "again")
	qt.Check(t, qt.ErrorMatches(err, ".*ids are never used again"))
	_, err = write(dir, "NEW001", "of no family")
	qt.Check(t, qt.ErrorMatches(err, "no family NEW.*"))
	_, err = write(dir, "nonsense", "")
	qt.Check(t, qt.ErrorMatches(err, "nonsense is no id.*"))
}
