// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/wire"
	"github.com/bpfwhy/bpfwhy/internal/watch/hook"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// outcome is what became of a backend on a machine.
type outcome struct {
	Backend string
	Hooks   []trace.Hook
	Error   string
}

const (
	outcomesFile = "backends.json"
	tableFile    = "../../../docs/backends.md"
)

// handOut gives the outcomes to the host.
func handOut(t *testing.T, list []outcome) {
	t.Helper()
	b, err := json.Marshal(list)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(wire.OutDir, outcomesFile), b, 0o644)))
}

// table collects the outcomes of all machines and makes docs/backends.md of them.
type table struct {
	mu       sync.Mutex
	outcomes map[string]outcome // by lockdown, kernel and backend
	machines int
}

func newTable() *table { return &table{outcomes: map[string]outcome{}} }

func (tb *table) add(t *testing.T, kernel, lockdown string, b []byte) {
	var list []outcome
	qt.Assert(t, qt.IsNil(json.Unmarshal(b, &list)), qt.Commentf("%s", b))
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.machines++
	for _, o := range list {
		tb.outcomes[lockdown+" "+kernel+" "+o.Backend] = o
	}
}

// check compares the table with the committed one, or writes it when BPFWHY_UPDATE=1.
func (tb *table) check(t *testing.T) {
	t.Helper()
	if tb.machines < 3*len(vm.Kernels()) {
		t.Logf("%d machines: the table is made of all of them", tb.machines)
		return
	}
	got := tb.render()
	if os.Getenv("BPFWHY_UPDATE") == "1" {
		qt.Assert(t, qt.IsNil(os.WriteFile(tableFile, []byte(got), 0o644)))
		return
	}
	want, err := os.ReadFile(tableFile)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(got, string(want)), qt.Commentf("BPFWHY_UPDATE=1 writes %s", tableFile))
}

func (tb *table) render() string {
	var kernels []string
	for _, k := range vm.Kernels() {
		kernels = append(kernels, k.ID)
	}
	var b strings.Builder
	b.WriteString(`# What can be watched where

Made by the test that attaches everything on every kernel of the lab:

    BPFWHY_LAB=1 BPFWHY_LONG=1 BPFWHY_UPDATE=1 go test -run TestKernels ./internal/watch/capture

` + "`bpfwhy doctor`" + ` says the same of the machine that it runs on.

## Backends

Without a lockdown each of the four can be forced; left to itself the tool takes fentry, and kprobes for what fentry cannot reach.
The number is that of the watched functions, the system calls among them.

`)
	row := func(cells ...string) { b.WriteString("| " + strings.Join(cells, " | ") + " |\n") }
	header := func(first string) {
		row(append([]string{first}, kernels...)...)
		row(slices.Repeat([]string{"---"}, 1+len(kernels))...)
	}
	header("backend")
	for _, lockdown := range []string{"", "confidentiality"} {
		for _, name := range backends {
			cells := []string{string(name)}
			if lockdown != "" {
				cells[0] += ", lockdown=" + lockdown
			}
			for _, k := range kernels {
				cells = append(cells, tb.outcomes[lockdown+" "+k+" "+string(name)].summary())
			}
			row(cells...)
		}
	}
	b.WriteString("\nUnder lockdown=integrity everything is as without.\n\n## Functions\n\n" +
		"How each is reached when nothing is forced, with the kernel's own name for it where it differs. A dash: not watched.\n\n")
	header("function")
	var functions []load.Function
	for _, h := range hook.All() {
		functions = append(functions, h.Function)
	}
	functions = append(functions, load.FnPerfEvent, load.FnProbeDef) // by system calls alone
	for _, f := range functions {
		cells := []string{"`" + string(f) + "`"}
		for _, k := range kernels {
			cells = append(cells, tb.outcomes[" "+k+" fentry"].how(f))
		}
		row(cells...)
	}
	return b.String()
}

func (o outcome) summary() string {
	if o.Error != "" {
		return "refused"
	}
	n := 0
	for _, h := range o.Hooks {
		if h.Via != "" {
			n++
		}
	}
	if n == 0 {
		return "?"
	}
	return fmt.Sprint(n)
}

func (o outcome) how(f load.Function) string {
	var ways []string
	for _, h := range o.Hooks {
		if h.Function != f || h.Via == "" {
			continue
		}
		way := h.Via
		if h.Symbol != string(f) {
			way += " `" + h.Symbol + "`"
		}
		ways = append(ways, way)
	}
	if len(ways) == 0 {
		return "–"
	}
	slices.Sort(ways)
	return strings.Join(ways, ", ")
}
