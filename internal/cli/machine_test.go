// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// TestOtherMachine: every fixture has the same answers on linux/arm64, byte for byte, as text and
// as JSON.
func TestOtherMachine(t *testing.T) {
	if os.Getenv("BPFWHY_LAB") != "1" {
		t.Skip("runs with BPFWHY_LAB=1: an emulated machine takes half a minute")
	}
	const emulator = "qemu-aarch64-static"
	if _, err := exec.LookPath(emulator); err != nil {
		t.Fatalf("%v; scripts/install-deps.sh installs it (qemu-user-static)", err)
	}
	dir := t.TempDir()
	binary, theirs := filepath.Join(dir, "cli.test"), filepath.Join(dir, "answers")
	build := exec.Command("go", "test", "-c", "-o", binary, ".")
	build.Env = append(os.Environ(), "GOARCH=arm64", "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
	run := exec.Command(emulator, binary, "-test.run=^TestWriteAnswers$")
	run.Env = append(os.Environ(), answersVar+"="+theirs)
	out, err = run.CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
	there, err := os.ReadFile(theirs)
	qt.Assert(t, qt.IsNil(err))

	var here bytes.Buffer
	writeAnswers(t, &here)
	if bytes.Equal(here.Bytes(), there) {
		return
	}
	question := ""
	other := strings.Split(string(there), "\n")
	for i, line := range strings.Split(here.String(), "\n") {
		if strings.HasPrefix(line, "== ") {
			question = line
		}
		if i >= len(other) || other[i] != line {
			t.Fatalf("%s\nhere  %q\nthere %q", question, line, at(other, i))
		}
	}
	t.Fatalf("there are %d lines more", len(other)-bytes.Count(here.Bytes(), []byte("\n")))
}

// TestOffline: what needs no kernel is built for other systems, and what needs one says so.
func TestOffline(t *testing.T) {
	if os.Getenv("BPFWHY_LAB") != "1" {
		t.Skip("runs with BPFWHY_LAB=1")
	}
	dir := t.TempDir()
	for _, target := range []string{"darwin/amd64", "darwin/arm64", "linux/arm64"} {
		system, machine, _ := strings.Cut(target, "/")
		build := exec.Command("go", "build", "-o", filepath.Join(dir, machine), "../../cmd/bpfwhy")
		build.Env = append(os.Environ(), "GOOS="+system, "GOARCH="+machine, "CGO_ENABLED=0")
		out, err := build.CombinedOutput()
		qt.Check(t, qt.IsNil(err), qt.Commentf("%s: %s", target, out))
	}
	// The last one is linux/arm64.
	for _, command := range [][]string{{"watch", "--json"}, {"run", "true"}, {"node"}, {"audit"}, {"doctor"}, {"demo"}, {"harden", "restore"}, {"explain", "--prove", "x"}, {"check", "--kernel=host", "."}} {
		run := exec.Command("qemu-aarch64-static", append([]string{filepath.Join(dir, "arm64")}, command...)...)
		out, err := run.CombinedOutput()
		qt.Check(t, qt.IsNotNil(err))
		qt.Check(t, qt.Equals(run.ProcessState.ExitCode(), bad), qt.Commentf("%s", command))
		qt.Check(t, qt.Matches(string(out), `bpfwhy: [^\n]*`+command[0]+`[^\n]* needs Linux on x86-64\n`), qt.Commentf("%s", command))
	}
	version, err := exec.Command("qemu-aarch64-static", filepath.Join(dir, "arm64"), "version").Output()
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.StringContains(string(version), "linux/arm64"))
}
