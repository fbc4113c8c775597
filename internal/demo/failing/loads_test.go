// SPDX-License-Identifier: Apache-2.0

package failing

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/go-quicktest/qt"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

// A load that writes a sysctl, a lockdown or a mount would change the machine that runs the
// tests, some of it until the next boot. The lab sets those up from outside, so the package has no
// use for these calls at all.
func TestNothingChangesTheMachine(t *testing.T) {
	forbidden := map[string]bool{
		"os.WriteFile": true, "os.Create": true, "os.OpenFile": true, "unix.Mount": true, "unix.Open": true, "unix.Openat": true,
		"syscall.Open": true, "syscall.Mount": true, "unix.Write": true, "syscall.Write": true, "unix.Reboot": true,
	}
	entries, err := os.ReadDir(".")
	qt.Assert(t, qt.IsNil(err))
	files := 0
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		files++
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, e.Name(), nil, 0)
		qt.Assert(t, qt.IsNil(err))
		ast.Inspect(f, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if pkg, ok := sel.X.(*ast.Ident); ok && forbidden[pkg.Name+"."+sel.Sel.Name] {
					t.Errorf("%s: %s.%s", set.Position(n.Pos()), pkg.Name, sel.Sel.Name)
				}
			}
			return true
		})
	}
	qt.Assert(t, qt.IsTrue(files >= 6))
}

// Loads for a prepared machine say how it is prepared, and no other load asks for anything.
func TestNeeds(t *testing.T) {
	for _, p := range All() {
		prepared := len(p.Needs.Sysctls)+len(p.Needs.KernelArgs) > 0 || p.Name == "memlock"
		qt.Check(t, qt.Equals(p.Needs.VM, prepared), qt.Commentf("%s", p.Name))
	}
}

// A tracer tells the loads apart by the program's name, and the kernel keeps 15 characters of it.
func TestProgramNames(t *testing.T) {
	seen := map[string]string{}
	for _, p := range All() {
		if p.Program == "" {
			continue // classic BPF has no names
		}
		qt.Check(t, qt.IsTrue(len(p.Program) <= 15), qt.Commentf("%s: %q", p.Name, p.Program))
		qt.Check(t, qt.Equals(seen[p.Program], ""), qt.Commentf("%s: %q is another's", p.Name, p.Program))
		seen[p.Program] = p.Name
	}
}

// The embedded objects are what their sources give. Another clang gives other bytes, so only that
// of Debian 12 is asked.
func TestObjects(t *testing.T) {
	version, err := exec.Command("clang", "--version").Output()
	if err != nil || !strings.Contains(string(version), "clang version 14.0.") {
		t.Skipf("needs clang 14, as in Debian 12: %v %.40q", err, version)
	}
	out := t.TempDir()
	b, err := exec.Command("make", "-s", "-C", "testdata", "-B", "OUT="+out).CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", b))
	for name, committed := range map[string][]byte{"far_jump.o": farJumpObject, "far_calls.o": farCallsObject} {
		built, err := os.ReadFile(filepath.Join(out, name))
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.IsTrue(bytes.Equal(built, committed)), qt.Commentf("%s: make -C internal/demo/failing/testdata, and commit", name))
	}
}

// The far jump fits 16 bits as it is written and does not when it is blinded; a margin is left for
// what the verifier adds.
func TestFarGeometry(t *testing.T) {
	for name, object := range map[string][]byte{"far_jump_elf": farJumpObject, "far_calls_elf": farCallsObject} {
		spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
		qt.Assert(t, qt.IsNil(err))
		insns := spec.Programs[name].Instructions
		offset, need := 0, 0
		for i := range insns {
			switch op := insns[i].OpCode; {
			case op.JumpOp() == asm.JEq && offset == 0:
				offset = int(insns[i].Offset)
				need = offset
			case offset != 0 && op.Class().IsALU() && op.Source() == asm.ImmSource && op.ALUOp() == asm.Add:
				need += 2
			}
		}
		qt.Check(t, qt.IsTrue(offset > 30000 && offset < 32500), qt.Commentf("%s: %d", name, offset))
		qt.Check(t, qt.IsTrue(need > 32767+300), qt.Commentf("%s: %d", name, need))
	}
	qt.Check(t, qt.IsTrue(FarOffset < 32767 && FarNeed > 32767))
}
