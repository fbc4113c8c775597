// SPDX-License-Identifier: Apache-2.0

package architecture

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// What a kernel does by its release is known in one place: the table of package node. Elsewhere
// nothing compares versions.
func TestVersionsAreComparedInOnePlace(t *testing.T) {
	for _, name := range sources(t) {
		// Package node has the table. A version of package insn is when a helper came, and HTTP has
		// versions of its own.
		if strings.HasPrefix(name, "node/") || name == "insn/helpers.go" || strings.HasPrefix(name, "httpprobe/http1/") {
			continue
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, filepath.Join(root, name), nil, 0)
		qt.Assert(t, qt.IsNil(err))
		for _, n := range versionComparisons(f) {
			t.Errorf("%s compares versions of kernels: ask node.Profile.Does, and add a row to node/behaviours.go", set.Position(n.Pos()))
		}
	}
}

// Each form is found: a comparison, a call, and a release that is written down for either. What
// only looks like one, and a table of releases, are not.
func TestVersionComparisonsAreFound(t *testing.T) {
	for code, want := range map[string]int{
		`_ = v.Major > 5 || x`:                    1,
		`_ = 6 <= k.Minor`:                        1,
		`_ = major > 7 && minor >= 1`:             2,
		`switch v.Minor { case 1: }`:              1,
		`_ = v.Before(5, 11)`:                     1,
		`_ = f.since(7, 1)`:                       1,
		`_ = olderThan(release, 5, 11)`:           1,
		`_ = blinding.ForVersion(6, 12)`:          1,
		`_ = p.Reached(6, 6) == node.Yes`:         1,
		`_ = youngest == insn.Version{6, 6}`:      1,
		`_ = f.before(release(5, 6))`:             1,
		`_ = v.Before(insn.Version{5, 6})`:        1,
		`_ = j.link("tcx", insn.Version{6, 6})`:   1,
		`_ = j.came(insn.Version{Minor: 13})`:     1,
		`_ = worst(j.link(insn.Version{5, 18}))`:  1,
		`_ = latest(t.since, release(5, 7))`:      1,
		`v := insn.Version{5, 13}`:                1,
		`var v = insn.Version{5, 13}`:             1,
		`_ = strings.HasPrefix(n.Release, "5.1")`: 1,
		`_ = strings.Contains(release, ".el")`:    1,
		`_ = release == "6.1"`:                    1,

		`_ = patch != nil`:                        0,
		`_ = j.link("tcx", node.TCX)`:             0,
		`_ = latest(t.since, t.link)`:             0,
		`_ = latest(insn.Version{})`:              0,
		`_ = f(row{since: insn.Version{5, 6}})`:   0,
		`_ = table{since: release(5, 6)}`:         0,
		`_ = p.Does(node.ChecksWrap) == node.Yes`: 0,
		`_ = unix.Major(st.Dev) > 3`:              0,
		`_ = at.Before(end)`:                      0,
		`_ = f.before(row.since)`:                 0,
		`_ = bytes.Cut(b, 5)`:                     0,
		`_ = release == ""`:                       0,
		`_ = since([]int{5, 6})`:                  0,
		`_ = strings.HasPrefix(name, "5.1")`:      0,
	} {
		f, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x\nfunc f() { "+code+" }", 0)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.HasLen(versionComparisons(f), want), qt.Commentf("%s", code))
	}
}

var (
	versionPart   = regexp.MustCompile(`^[Mm](ajor|inor)$`)
	versionCall   = regexp.MustCompile(`(?i)^(is)?(before|since|after|at_?least|older(than)?|newer(than)?|reached|for_?version|until|from)$`)
	versionText   = regexp.MustCompile(`^[3-9]\.[0-9]|^\.el`)
	versionOfHost = regexp.MustCompile(`(?i)^(release|kernel_?release|osrelease)$`)
)

// versionComparisons finds the expressions of a file that compare a kernel's version.
func versionComparisons(f *ast.File) []ast.Node {
	var found []ast.Node
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BinaryExpr:
			if comparison(n.Op) && (isPart(n.X) || isPart(n.Y) || isVersion(n.X) || isVersion(n.Y) || isRelease(n.X) && isText(n.Y) || isText(n.X) && isRelease(n.Y)) {
				found = append(found, n)
			}
		case *ast.SwitchStmt:
			if n.Tag != nil && isPart(n.Tag) {
				found = append(found, n)
			}
		case *ast.CallExpr:
			if comparingCall(n) {
				found = append(found, n)
			}
		case *ast.AssignStmt:
			if slices.ContainsFunc(n.Rhs, isRow) {
				found = append(found, n)
			}
		case *ast.ValueSpec:
			if slices.ContainsFunc(n.Values, isRow) {
				found = append(found, n)
			}
		}
		return true
	})
	return found
}

func comparison(op token.Token) bool {
	switch op {
	case token.EQL, token.NEQ, token.LSS, token.LEQ, token.GTR, token.GEQ:
		return true
	}
	return false
}

// nameOf is the last part of a name, v.Major's Major.
func nameOf(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

func isPart(e ast.Expr) bool    { return versionPart.MatchString(nameOf(e)) }
func isRelease(e ast.Expr) bool { return versionOfHost.MatchString(nameOf(e)) }

// isVersion finds a version that is written down: insn.Version{6, 6}.
func isVersion(e ast.Expr) bool {
	lit, ok := e.(*ast.CompositeLit)
	return ok && len(lit.Elts) > 0 && strings.HasSuffix(nameOf(lit.Type), "Version")
}

func isText(e ast.Expr) bool {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return false
	}
	s, err := strconv.Unquote(lit.Value)
	return err == nil && versionText.MatchString(s)
}

func isNumber(e ast.Expr) bool {
	lit, ok := e.(*ast.BasicLit)
	return ok && lit.Kind == token.INT
}

// isWritten finds a call that makes a version of numbers: release(5, 6).
func isWritten(e ast.Expr) bool {
	c, ok := e.(*ast.CallExpr)
	return ok && len(c.Args) == 2 && isNumber(c.Args[0]) && isNumber(c.Args[1])
}

// isRow finds a release that is written down as a value of its own, as one row of a table would be:
// insn.Version{6, 6}, or release(6, 6).
func isRow(e ast.Expr) bool {
	if c, ok := e.(*ast.CallExpr); ok {
		return nameOf(c.Fun) == "release" && isWritten(c)
	}
	if !isVersion(e) {
		return false
	}
	return slices.ContainsFunc(e.(*ast.CompositeLit).Elts, func(e ast.Expr) bool {
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			e = kv.Value
		}
		return isNumber(e)
	})
}

// comparingCall finds link(insn.Version{5, 11}), before(5, 11), before(release(5, 11)), and
// strings.HasPrefix(release, "5.").
func comparingCall(c *ast.CallExpr) bool {
	n := len(c.Args)
	if slices.ContainsFunc(c.Args, isRow) {
		return true
	}
	if n == 1 && versionCall.MatchString(nameOf(c.Fun)) && (isVersion(c.Args[0]) || isWritten(c.Args[0])) {
		return true
	}
	if n < 2 {
		return false
	}
	if versionCall.MatchString(nameOf(c.Fun)) && isNumber(c.Args[n-1]) && isNumber(c.Args[n-2]) {
		return true
	}
	return isRelease(c.Args[0]) && isText(c.Args[1])
}
