// SPDX-License-Identifier: Apache-2.0

package rights_test

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/go-quicktest/qt"
)

// What the guests have to read: an object that blinding breaks, and recordings of two nodes.
const (
	breaks = "/broken.o"
	nodes  = "/nodes/"
)

// TestGuestFiles: what only reads files does all of it as anybody, without a capability. What a
// command says is what it is for.
func TestGuestFiles(t *testing.T) {
	vmtest.Guest(t)
	dir := theirs(t)
	fixed, self := filepath.Join(dir, "fixed.o"), filepath.Join(dir, "copy")
	// The profiles of two nodes that differ in one setting.
	profile := func(name, value string) string {
		o := finish(t, as(nobody, nil, "bpfwhy", "node", "--no-probe", "--json"))
		qt.Assert(t, qt.Equals(o.status, 0), qt.Commentf("%s", o.stderr))
		setting := regexp.MustCompile(`"(kernel.unprivileged_bpf_disabled)":"."`)
		qt.Assert(t, qt.IsTrue(setting.MatchString(o.stdout)), qt.Commentf("%s", o.stdout))
		file := filepath.Join(dir, name)
		qt.Assert(t, qt.IsNil(os.WriteFile(file, []byte(setting.ReplaceAllString(o.stdout, `"$1":"`+value+`"`)), 0o644)))
		return file
	}
	a, b := profile("a.json", "0"), profile("b.json", "1")
	for _, tt := range []struct {
		args   string
		status int
		says   string
	}{
		{"explain 524", 0, "ENOTSUPP"},
		{"explain " + nodes + "hardened-2.bpfwhy", 0, "BLIND002"},
		{"check --kernel 6.12 " + breaks, 1, "FAILS"},
		{"fix " + breaks + " -o " + fixed, 0, "now loads"},
		{"check --kernel 6.12 " + fixed, 0, "loads"},
		{"node diff " + a + " " + b, 0, "unprivileged_bpf_disabled"},
		{"fleet " + nodes, 0, "2 nodes"},
		{"fleet " + nodes + " why BLIND002", 0, "net.core.bpf_jit_harden"},
		{"demo --list", 0, "null-map-value"},
		{"completion bash", 0, "bash completion"},
		{"version", 0, "bpfwhy"},
		{"copy " + self, 0, ""},
	} {
		o := finish(t, as(nobody, nil, append([]string{"bpfwhy"}, strings.Fields(tt.args)...)...))
		qt.Check(t, qt.Equals(o.status, tt.status), qt.Commentf("%s: %s%s", tt.args, o.stdout, o.stderr))
		qt.Check(t, qt.StringContains(o.stdout+o.stderr, tt.says), qt.Commentf("%s", tt.args))
	}
	want, err := os.ReadFile("/proc/self/exe")
	qt.Assert(t, qt.IsNil(err))
	got, err := os.ReadFile(self)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(bytes.Equal(got, want)))
	// As a plugin of kubectl it asks a cluster, and says so where there is none.
	o := finish(t, as(nobody, nil, "kubectl-bpfwhy"))
	qt.Check(t, qt.Equals(o.status, 2))
	qt.Check(t, qt.StringContains(o.stderr, "there is no kubeconfig"))
}

// theirs is a folder of nobody's, which they can reach.
func theirs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	qt.Assert(t, qt.IsNil(os.Chown(dir, nobody, nobody)))
	for p := dir; p != "/"; p = filepath.Dir(p) {
		qt.Assert(t, qt.IsNil(os.Chmod(p, 0o777)))
	}
	return dir
}
