// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/repair/guardian"
	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/go-quicktest/qt"
)

const (
	wantEnv  = "BPFWHY_BENCH"       // 1: measure, and write the documents
	quickEnv = "BPFWHY_BENCH_QUICK" // 1: hardly repeat anything, and print the documents instead
)

func TestMain(m *testing.M) {
	guardian.Main()
	os.Exit(m.Run())
}

// costKernels are those on which costs are measured: the first with fentry for tracing, and a
// current one.
var costKernels = []string{"5.10", "6.12"}

// programs are where a machine has what is measured.
type programs struct{ bpfwhy, loader, failing, bpftrace, script string }

var inGuest = programs{"/b/bpfwhy", "/b/loader", "/b/failing", "/usr/bin/bpftrace", "testdata/original.bt"}

// build compiles the programs, static so that they run in any guest.
func build(t *testing.T) programs {
	dir := t.TempDir()
	one := func(pkg string) string {
		out := filepath.Join(dir, filepath.Base(pkg))
		goBuild(t, "-trimpath", "-o", out, "github.com/bpfwhy/bpfwhy/"+pkg)
		return out
	}
	bpftrace, err := exec.LookPath("bpftrace")
	qt.Assert(t, qt.IsNil(err), qt.Commentf("scripts/install-deps.sh installs it"))
	return programs{one("cmd/bpfwhy"), one("internal/test/bench/loader"), one("internal/demo/failing/cmd/failing"), bpftrace, inGuest.script}
}

func goBuild(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command("go", append([]string{"build"}, args...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	msg, err := cmd.CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", msg))
}

// guestFiles puts the host's programs where inGuest says.
func guestFiles(t *testing.T, p programs) map[string]string {
	files, err := vm.Binary(p.bpftrace)
	qt.Assert(t, qt.IsNil(err))
	delete(files, p.bpftrace)
	// bpftrace asks a shell where clang is, and crashes when there is none.
	shell, err := vm.Binary("/bin/sh")
	qt.Assert(t, qt.IsNil(err))
	maps.Copy(files, shell)
	// And on 5.10 for the headers of the machine that it was built on.
	for _, headers := range []string{"/usr/include/linux", "/usr/include/asm-generic", "/usr/include/x86_64-linux-gnu/asm"} {
		files[headers] = headers
	}
	maps.Copy(files, map[string]string{
		inGuest.bpfwhy: p.bpfwhy, inGuest.loader: p.loader, inGuest.failing: p.failing, inGuest.bpftrace: p.bpftrace,
	})
	return files
}

// TestBench measures in the lab's machines, then on the host, and writes the documents when all of
// it worked.
func TestBench(t *testing.T) {
	if os.Getenv(wantEnv) != "1" {
		t.Skip("takes ten minutes; set " + wantEnv + "=1")
	}
	host := build(t)
	quick := os.Getenv(quickEnv) == "1"

	var lock sync.Mutex
	costs := map[string]measured{}
	comparisons := map[string]comparison{}
	t.Run("lab", func(t *testing.T) {
		m := vm.Machine{
			Files:             guestFiles(t, host),
			Env:               []string{wantEnv + "=1", quickEnv + "=" + os.Getenv(quickEnv)},
			Timeout:           20 * time.Minute,
			CountInstructions: true,
		}
		vmtest.Run(t, "^TestGuest", m, func(t *testing.T, kernel string, r *vm.Result) {
			lock.Lock()
			defer lock.Unlock()
			if b, ok := r.Files[costsFile]; ok {
				costs[kernel] = decode[measured](t, b)
				t.Logf("seconds until a first load is shown: %v", costs[kernel].Start)
			}
			if b, ok := r.Files[comparisonFile]; ok {
				c := decode[comparison](t, b)
				c.attempts = explainTrace(t, host.bpfwhy, r.Files[traceFile])
				comparisons[kernel] = c
			}
		})
	})
	var onHost hostFigures
	t.Run("host", func(t *testing.T) { onHost = measureHost(t, host, quick) })
	if t.Failed() {
		return
	}
	whole := !quick && len(comparisons) == len(vm.Kernels()) && len(costs) == len(costKernels) && len(onHost.first) > 0
	publish(t, whole, "benchmarks.md", benchmarksDoc(costs, onHost))
	publish(t, whole, "side-by-side.md", sideBySideDoc(t, comparisons))
}

// publish writes a document to where it belongs, or elsewhere when it is not whole.
func publish(t *testing.T, whole bool, name, text string) {
	path := filepath.Join("..", "..", "..", "docs", name)
	if !whole {
		path = filepath.Join(os.TempDir(), "bpfwhy-"+name)
	}
	qt.Assert(t, qt.IsNil(os.WriteFile(path, []byte(text), 0o644)))
	t.Logf("written: %s", path)
}

func decode[T any](t *testing.T, b []byte) T {
	var v T
	qt.Assert(t, qt.IsNil(json.Unmarshal(b, &v)), qt.Commentf("%s", b))
	return v
}

func wanted(t *testing.T) (kernel string) {
	kernel = vmtest.Guest(t)
	if os.Getenv(wantEnv) != "1" {
		t.Skip("a measurement")
	}
	return kernel
}
