// SPDX-License-Identifier: Apache-2.0

package patient

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

// A patient that writes a sysctl, a lockdown or a mount would change the machine that runs the tests, some of it until the next
// boot. The lab sets those up from outside, so the package has no use for these calls at all.
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

// Patients for a prepared machine say how it is prepared, and no other patient asks for anything.
func TestNeeds(t *testing.T) {
	for _, p := range All() {
		prepared := len(p.Needs.Sysctls)+len(p.Needs.KernelArgs) > 0 || p.Name == "memlock"
		qt.Check(t, qt.Equals(p.Needs.VM, prepared), qt.Commentf("%s", p.Name))
	}
}
