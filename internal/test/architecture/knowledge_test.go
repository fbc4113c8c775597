// SPDX-License-Identifier: Apache-2.0

package architecture

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/abi"
)

// knowledge is what stands in one place of the module. To add a piece of it is to add a row here,
// and a file with what it must find to testdata/planted.
type knowledge struct {
	name string
	home []string // the packages that have it
	// find calls report for each place of a file that has it too.
	find func(f *ast.File, report func(ast.Node))
}

var places = []knowledge{
	{"attr offset", []string{"internal/abi"}, findOffsets},
	{"errno 524", []string{"internal/abi"}, find524},
	{"capability bit", []string{"internal/abi"}, findCapabilities},
}

// violation is a piece of knowledge outside its home.
type violation struct {
	name string
	at   token.Position
}

// violations looks through sources, each of which is in the folder of its package. Tests may write
// numbers down: what they say of the kernel must not depend on what they test.
func violations(t *testing.T, names []string) (found []violation) {
	t.Helper()
	set := token.NewFileSet()
	for _, name := range names {
		parsed, err := parser.ParseFile(set, filepath.Join(root, name), nil, parser.SkipObjectResolution)
		qt.Assert(t, qt.IsNil(err))
		for _, k := range places {
			if slices.Contains(k.home, path.Dir(name)) {
				continue
			}
			k.find(parsed, func(n ast.Node) { found = append(found, violation{k.name, set.Position(n.Pos())}) })
		}
	}
	return found
}

// TestOnePlace looks for knowledge that stands outside its home.
func TestOnePlace(t *testing.T) {
	for _, v := range violations(t, slices.DeleteFunc(sources(t), isTestdata)) {
		t.Errorf("%s: %s", v.at, v.name)
	}
}

// TestOnePlaceFinds checks that each row finds what is planted for it: the lines that end with "//
// want NAME", and no other.
func TestOnePlaceFinds(t *testing.T) {
	names := slices.DeleteFunc(sources(t), func(name string) bool { return path.Dir(name) != "internal/test/architecture/testdata/planted" })
	mark := regexp.MustCompile(`// want (.+)$`)
	var want []string
	planted := map[string]bool{}
	for _, name := range names {
		file := filepath.Join(root, name)
		b, err := os.ReadFile(file)
		qt.Assert(t, qt.IsNil(err))
		for i, line := range strings.Split(string(b), "\n") {
			if m := mark.FindStringSubmatch(line); m != nil {
				want = append(want, fmt.Sprintf("%s:%d %s", file, i+1, m[1]))
				planted[m[1]] = true
			}
		}
	}
	var got []string
	for _, v := range violations(t, names) {
		got = append(got, fmt.Sprintf("%s:%d %s", v.at.Filename, v.at.Line, v.name))
	}
	slices.Sort(want)
	slices.Sort(got)
	qt.Check(t, qt.DeepEquals(slices.Compact(got), want))
	for _, k := range places {
		qt.Check(t, qt.IsTrue(planted[k.name]), qt.Commentf("nothing is planted for %q", k.name))
	}
}

// number is the value of a constant expression of literals, such as 39 or 1<<21.
func number(e ast.Expr) (int64, bool) {
	switch e := e.(type) {
	case *ast.ParenExpr:
		return number(e.X)
	case *ast.BasicLit:
		n, err := strconv.ParseInt(e.Value, 0, 64)
		return n, e.Kind == token.INT && err == nil
	case *ast.UnaryExpr:
		n, ok := number(e.X)
		return -n, ok && e.Op == token.SUB
	case *ast.BinaryExpr:
		x, okX := number(e.X)
		y, okY := number(e.Y)
		if !okX || !okY {
			return 0, false
		}
		switch {
		case e.Op == token.SHL && y >= 0 && y < 63:
			return x << y, true
		case e.Op == token.ADD:
			return x + y, true
		}
	}
	return 0, false
}

// constants calls do for each name that a file declares with a number, in its functions too.
func constants(f *ast.File, do func(name string, value ast.Expr, n int64)) {
	ast.Inspect(f, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok {
			for i, v := range spec.Values {
				if value, ok := number(v); ok && i < len(spec.Names) {
					do(spec.Names[i].Name, v, value)
				}
			}
		}
		return true
	})
}

// find524 finds the number of ENOTSUPP.
func find524(f *ast.File, report func(ast.Node)) {
	ast.Inspect(f, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok {
			if v, ok := number(lit); ok && v == abi.ENOTSUPP {
				report(n)
			}
		}
		return true
	})
}

// capability is the name of a capability's number in a package.
var capability = regexp.MustCompile(`^(CAP_[A-Z_]+|Cap[A-Z]\w*)$`)

// findCapabilities finds constants that are called as a capability is and have its number or bit,
// bits that are hardly anything else (1<<39, 1<<unix.CAP_BPF), and tables of names by number.
func findCapabilities(f *ast.File, report func(ast.Node)) {
	bits := map[string]int64{}
	for c := range int64(64) {
		if name := abi.CapName(int(c)); name != fmt.Sprintf("CAP_%d", c) {
			bits[plain(strings.TrimPrefix(name, "CAP_"))] = c
		}
	}
	constants(f, func(name string, value ast.Expr, n int64) {
		if c, ok := bits[strings.TrimPrefix(plain(name), "cap")]; ok && (n == c || n == 1<<c) {
			report(value)
		}
	})
	// Powers of two of these sizes are hardly anything else.
	telling := []int64{abi.CapSysPtrace, abi.CapSysAdmin, abi.CapPerfmon, abi.CapBPF, abi.CapCheckpointRestore}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BinaryExpr:
			if _, name, _ := strings.Cut(text(n.Y), "."); n.Op == token.SHL && capability.MatchString(name) {
				report(n)
			}
			if bit, ok := number(n.Y); ok && slices.Contains(telling, bit) {
				one, isNumber := number(n.X)
				if n.Op == token.SHL && isNumber && one == 1 || n.Op == token.SHR && strings.Contains(plain(text(n.X)), "cap") {
					report(n)
				}
			}
		case *ast.KeyValueExpr:
			_, isNumber := number(n.Key)
			if name, ok := n.Value.(*ast.BasicLit); ok && isNumber && strings.HasPrefix(name.Value, `"CAP_`) {
				report(n)
			}
		}
		return true
	})
}

var (
	// accessor is a function that reads or writes a field of a given size.
	accessor = regexp.MustCompile(`(?i)^(put|get|set|read|attr)*u?(int)?(16|32|64)$|^field$|word$`)
	// ofAttr begins the name of a constant for an offset.
	ofAttr = regexp.MustCompile(`^(attr|off|offset|prog|map|btf|link|info)([A-Z].*)$`)
)

// findOffsets finds reads and writes at numbers, in what is called an attr, and constants that are
// called as a field of union bpf_attr is and have its offset.
func findOffsets(f *ast.File, report func(ast.Node)) {
	named := map[string]bool{} // constants of this file: an offset by another name
	constants(f, func(name string, value ast.Expr, n int64) {
		named[name] = true
		if m := ofAttr.FindStringSubmatch(name); m != nil && isField(plain(m[2]), n) {
			report(value)
		}
	})
	var constant func(e ast.Expr) bool
	constant = func(e ast.Expr) bool {
		switch e := e.(type) {
		case *ast.Ident:
			return named[e.Name]
		case *ast.BinaryExpr:
			return constant(e.X) && constant(e.Y)
		}
		_, ok := number(e)
		return ok
	}
	attr := func(e ast.Expr) bool { return strings.HasSuffix(plain(text(e)), "attr") }
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			name := text(n.Fun)
			if !accessor.MatchString(name[strings.LastIndexByte(name, '.')+1:]) {
				break
			}
			_, function := n.Fun.(*ast.Ident) // with the attr as its first argument; else a method of one
			if strings.Contains(plain(name), "attr") && len(n.Args) > 0 && constant(n.Args[0]) || function && len(n.Args) > 1 && attr(n.Args[0]) && constant(n.Args[1]) {
				report(n)
			}
		case *ast.SliceExpr:
			if n.Low != nil && attr(n.X) && constant(n.Low) {
				report(n)
			}
		case *ast.IndexExpr:
			if attr(n.X) && constant(n.Index) {
				report(n)
			}
		}
		return true
	})
}

// text is an expression of names: c.rec.Attr.
func text(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return text(e.X) + "." + e.Sel.Name
	case *ast.CallExpr:
		return text(e.Fun)
	case *ast.SliceExpr:
		return text(e.X)
	case *ast.ParenExpr:
		return text(e.X)
	}
	return ""
}

// plain is a name without its spelling: SYS_ADMIN and SysAdmin become sysadmin.
func plain(name string) string { return strings.ToLower(strings.ReplaceAll(name, "_", "")) }

// isField reports that a field of union bpf_attr whose name ends so has that offset.
func isField(name string, offset int64) bool {
	for _, attr := range []any{
		abi.MapCreate{}, abi.MapElem{}, abi.MapBatch{}, abi.ProgLoad{}, abi.ObjPin{}, abi.ProgAttach{}, abi.ID{}, abi.ObjInfo{}, abi.RawTracepointOpen{},
		abi.BTFLoad{}, abi.TaskFDQuery{}, abi.LinkCreateKprobeMulti{}, abi.LinkCreateUprobeMulti{}, abi.TokenCreate{},
	} {
		for _, f := range reflect.VisibleFields(reflect.TypeOf(attr)) {
			if !f.Anonymous && f.Name != "_" && int64(f.Offset) == offset && strings.HasSuffix(plain(f.Name), name) {
				return true
			}
		}
	}
	return false
}
