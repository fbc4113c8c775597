// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/go-quicktest/qt"
)

// build makes the loaders and objects of testdata. It needs clang, a C compiler and the static
// libbpf, libelf and zlib (scripts/install-deps.sh).
func build(t *testing.T) Tools {
	t.Helper()
	dir := t.TempDir()
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = "testdata"
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
		out, err := cmd.CombinedOutput()
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s %v: %s", name, args, out))
	}
	for _, object := range []string{"programs", "gpl", "maps"} {
		// -mcpu=v2: 5.10 refuses what newer compilers make by default.
		run("clang", "-O2", "-g", "-target", "bpf", "-mcpu=v2", "-I/usr/include/x86_64-linux-gnu", "-c", object+".bpf.c",
			"-o", filepath.Join(dir, object+".o"))
	}
	run("cc", "-O1", "-Wall", "-Werror", "-static", "-o", filepath.Join(dir, "raw"), "raw.c")
	run("cc", "-O1", "-Wall", "-Werror", "-static", "-o", filepath.Join(dir, "libbpf"), "libbpf.c", "-lbpf", "-lelf", "-lz")
	run("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "failing"), "github.com/bpfwhy/bpfwhy/internal/demo/failing/cmd/failing")
	for file, from := range map[string]string{
		"load.py": "testdata/load.py", "far_jump.o": "../../demo/failing/testdata/far_jump.o", "far_calls.o": "../../demo/failing/testdata/far_calls.o",
	} {
		b, err := os.ReadFile(from)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(dir, file), b, 0o644)))
	}
	// A loader that gives up root still has to read its object.
	for d := dir; d != "/tmp" && d != "/"; d = filepath.Dir(d) {
		qt.Assert(t, qt.IsNil(os.Chmod(d, 0o755)))
	}
	tools := Tools{Dir: dir}
	for name, at := range map[string]*string{"python3": &tools.Python, "bpftrace": &tools.Bpftrace, "bpftool": &tools.Bpftool} {
		*at = find(t, name)
	}
	return tools
}

// find prefers the distribution's own: a shim in front of Python cannot be carried into a guest.
func find(t *testing.T, name string) string {
	t.Helper()
	for _, dir := range []string{"/usr/bin", "/usr/sbin"} {
		if p, err := filepath.EvalSymlinks(filepath.Join(dir, name)); err == nil {
			return p
		}
	}
	t.Fatalf("%s is not installed", name)
	return ""
}
