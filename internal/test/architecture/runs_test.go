// SPDX-License-Identifier: Apache-2.0

package architecture

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// Programs are loaded to look at them, and never run: an interpreted one could crash the machine
// (internal/objects/jitonly). Only tests run what they load. They first ask whether they may: in a
// machine of the lab, or what is compiled.
func TestNothingRunsPrograms(t *testing.T) {
	asked := 0
	for _, name := range files(t) {
		text, err := os.ReadFile(filepath.Join(root, name))
		qt.Assert(t, qt.IsNil(err))
		switch filepath.Ext(name) {
		case ".go":
			set := token.NewFileSet()
			f, err := parser.ParseFile(set, name, text, 0)
			qt.Assert(t, qt.IsNil(err))
			for _, r := range runs(f) {
				switch {
				case !strings.HasSuffix(name, "_test.go"):
					if !strings.HasPrefix(name, "internal/abi/") { // which has its number
						t.Errorf("%s: %s: only tests run programs", set.Position(r.at), r.what)
					}
				case r.asked:
					asked++
				default:
					t.Errorf("%s: %s: ask vmtest.MayRun or vmtest.Guest first, in the same function", set.Position(r.at), r.what)
				}
			}
		case ".c", ".h", ".py":
			if at := foreignRun.FindIndex(text); at != nil && !(isTestdata(name) && foreignAsks.Match(text[:at[0]])) {
				t.Errorf("%s: %s: look whether it is compiled first", name, text[at[0]:at[1]])
			}
		}
	}
	qt.Check(t, qt.IsTrue(asked >= 8), qt.Commentf("%d found: is this test blind?", asked))
}

// Each form is found, and what only looks like one is not.
func TestRunsAreFound(t *testing.T) {
	const test, asked = "func f() { %s }", "func f() { vmtest.MayRun(x); %s }"
	for code, want := range map[string]int{
		`prog.Test(in)`: 1,
		`coll.Programs["x"].Test(make([]byte, 64))`: 1,
		`prog.Run(&ebpf.RunOptions{Data: in})`:      2,
		`prog.Run(opts)`:                            1,
		`prog.Run(nil)`:                             1,
		`prog.Benchmark(in, 10, nil)`:               1,
		`f := prog.Run`:                             1,
		`call(prog.Test)`:                           1,
		`bpf(unix.BPF_PROG_TEST_RUN, a, n)`:         1,
		`bpf(sys.BPF_PROG_RUN, a, n)`:               1,
		`sys.ProgRun(&a)`:                           1,
		`bpf(abi.CmdProgTestRun, a)`:                1,
		`go func() { prog.Test(in) }()`:             1,
		`cmd.Run()`:                                 0,
		`t.Run("x", func(t *testing.T) {})`:         0,
		`synctest.Test(t, func(t *testing.T) {})`:   0,
		`testing.Benchmark(func(b *testing.B) {})`:  0,
		`vm.Run(ctx, m)`:                            0,
		`row := rights.Run`:                         0,
		`x := "BPF_PROG_TEST_RUN"`:                  0,
		`runOptions{}.verdict()`:                    0,
	} {
		for _, form := range []string{test, asked} {
			f, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x\n"+`import ("github.com/cilium/ebpf"; "x/rights"; "testing"; "testing/synctest")`+"\n"+strings.ReplaceAll(form, "%s", code), 0)
			qt.Assert(t, qt.IsNil(err))
			found := runs(f)
			qt.Check(t, qt.HasLen(found, want), qt.Commentf("%s", code))
			for _, r := range found {
				qt.Check(t, qt.Equals(r.asked, form == asked), qt.Commentf("%s", code))
			}
		}
	}
	for code, want := range map[string]bool{
		"func f() { prog.Test(in); vmtest.MayRun(x) }":                      false, // too late
		"func g() { vmtest.Guest(t) }\nfunc f() { prog.Test(in) }":          false, // elsewhere
		"func f() { func() { vmtest.Guest(t) }(); prog.Test(in) }":          true,
		"func f() { kernel := vmtest.Guest(t); _ = kernel; prog.Test(in) }": true,
		"func f() { if vmtest.MayRun(x) { return }; prog.Test(in) }":        true,
		"var _ = prog.Run(nil)":                                             false,
	} {
		f, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x\n"+code, 0)
		qt.Assert(t, qt.IsNil(err))
		found := runs(f)
		qt.Assert(t, qt.HasLen(found, 1), qt.Commentf("%s", code))
		qt.Check(t, qt.Equals(found[0].asked, want), qt.Commentf("%s", code))
	}
}

var (
	runCommand  = regexp.MustCompile(`(?i)^\w*prog_?(test_?)?run(_?opts)?$`)
	foreignRun  = regexp.MustCompile(`(?i)\bbpf_prog_(test_)?run(_opts)?\(|\(\s*(BPF_PROG_)?TEST_RUN\b|\(\s*BPF_PROG_RUN\b`)
	foreignAsks = regexp.MustCompile(`if \(?(!|not )\S*jited`)
)

// run is where a file runs a program. asked: the same function has asked before whether it may.
type run struct {
	at    token.Pos
	what  string
	asked bool
}

// runs finds the methods of cilium/ebpf's programs that run one, by what they take, and the command
// of bpf(2). Types are not looked at: what merely looks the same is found too.
func runs(f *ast.File) (found []run) {
	packages := map[string]bool{}
	cilium := false
	for _, i := range f.Imports {
		name, _ := strconv.Unquote(i.Path.Value)
		cilium = cilium || strings.HasPrefix(name, "github.com/cilium/ebpf")
		packages[path.Base(name)] = true
	}
	for _, d := range f.Decls {
		var asks []token.Pos
		arguments := map[*ast.SelectorExpr]int{} // of calls
		ast.Inspect(d, func(n ast.Node) bool {
			if c, ok := n.(*ast.CallExpr); ok {
				if s, ok := c.Fun.(*ast.SelectorExpr); ok {
					arguments[s] = len(c.Args)
				}
			}
			switch n := n.(type) {
			case *ast.SelectorExpr:
				of, _ := n.X.(*ast.Ident)
				if of != nil && of.Name == "vmtest" && slices.Contains([]string{"MayRun", "Guest", "Sampled", "Once"}, n.Sel.Name) {
					asks = append(asks, n.Pos())
				}
				count, called := arguments[n]
				takes, method := map[string]int{"Test": 1, "Run": 1, "Benchmark": 3}[n.Sel.Name]
				ofPackage := of != nil && packages[of.Name]
				if method && !ofPackage && (called && count == takes || !called && cilium) || n.Sel.Name == "RunOptions" {
					found = append(found, run{at: n.Pos(), what: n.Sel.Name})
				}
			case *ast.Ident:
				if runCommand.MatchString(n.Name) {
					found = append(found, run{at: n.Pos(), what: n.Name})
				}
			}
			return true
		})
		for i := range found {
			if found[i].at >= d.Pos() && found[i].at < d.End() {
				found[i].asked = slices.ContainsFunc(asks, func(at token.Pos) bool { return at < found[i].at })
			}
		}
	}
	return found
}
