// SPDX-License-Identifier: Apache-2.0

// Command newrule writes what a new rule consists of: the rule with its match, a fixture and a near
// miss. What is to be filled in is marked with TODO, and the tests of the package fail until it is.
//
//	go run ./explain/newrule BTF006 "The function may not be traced"
package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, `usage: go run ./explain/newrule ID TITLE, in the top folder`)
		os.Exit(2)
	}
	files, err := write("explain", os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, "newrule:", err)
		os.Exit(1)
	}
	fmt.Printf("written: %s. Then: a row in docs/stages.md, go generate ./explain, go test ./explain\n", strings.Join(files, ", "))
}

var ids = regexp.MustCompile(`^([A-Z]+)(\d{3})$`)

// write adds the rule behind the last of its family, and returns the files that it changed.
func write(dir, id, title string) ([]string, error) {
	m := ids.FindStringSubmatch(id)
	if m == nil {
		return nil, fmt.Errorf("%s is no id: want a family and three digits, such as BTF006", id)
	}
	path, after, err := family(dir, strings.ToLower(m[1]), m[2][:1])
	if err != nil {
		return nil, err
	}
	source, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	name := strings.ToLower(id)
	last := regexp.MustCompile(`\b` + after + `\(\)`)
	if regexp.MustCompile(`\bfunc ` + name + `\(`).Match(source) {
		return nil, fmt.Errorf("%s is there: ids are never used again", id)
	}
	at := last.FindAllIndex(source, -1)
	text := string(source[:at[0][1]]) + ", " + name + "()" + string(source[at[0][1]:]) + fill(ruleText, id, title)
	all := filepath.Join(dir, "explain_test.go")
	tests, err := os.ReadFile(all)
	if err != nil {
		return nil, err
	}
	const list = "slices.Concat(kernelRows, verdictFixtures(), nearMisses"
	tested := strings.Replace(string(tests), list, list+", "+name+"Fixtures()", 1)
	fixtures := filepath.Join(dir, name+"_test.go")
	for file, content := range map[string]string{path: text, all: tested, fixtures: fill(testText, id, title)} {
		formatted, err := format.Source([]byte(content))
		if err != nil {
			return nil, fmt.Errorf("format %s: %w", file, err)
		}
		if err := os.WriteFile(file, formatted, 0o644); err != nil {
			return nil, err
		}
	}
	return []string{path, fixtures, all}, nil
}

// family finds the list of a family: a function that returns its rules in their order. last is the
// name of the last one. A large family has a list for each hundred.
func family(dir, prefix, hundred string) (path, last string, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return "", "", err
	}
	of := regexp.MustCompile(`^` + prefix + `\d{3}$`)
	within := false
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			return "", "", err
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || !strings.HasSuffix(fn.Name.Name, "Rules") {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok {
					if name, ok := call.Fun.(*ast.Ident); ok && of.MatchString(name.Name) {
						same := strings.HasPrefix(name.Name, prefix+hundred)
						if same || !within {
							path, last, within = file, name.Name, same
						}
					}
				}
				return true
			})
		}
	}
	if last == "" {
		return "", "", errors.New("no family " + strings.ToUpper(prefix) + ": a new one is a list in explain/rules.go, and a heading in explain/docs_test.go")
	}
	return path, last, nil
}

func fill(text, id, title string) string {
	return strings.NewReplacer("XXX000", id, "xxx000", strings.ToLower(id), `"TITLE"`, strconv.Quote(title), "^", "`").Replace(text)
}

const ruleText = `
func xxx000() Rule {
	return Rule{
		ID:    "XXX000",
		Title: "TITLE",
		Class: "R6", // TODO: the class of field reports that it belongs to (docs/rules.md)
		Stage: load.Verifier, // TODO: where the load dies
		Text: ^TODO: what happens in the kernel, and why.^,
		Kernels: "All.", // TODO
		Remedies: []load.Remedy{
			{
				ID:    "TODO",
				Title: "TODO: what to do, the best first",
				Price: "TODO: what it costs.",
			},
		},
		Match: matchXXX000,
	}
}

// matchXXX000 looks at what is in the evidence, never at what other rules conclude.
func matchXXX000(f *Facts) *Match {
	return nil // TODO
}
`

const testText = `// SPDX-License-Identifier: Apache-2.0

package explain

import "github.com/bpfwhy/bpfwhy/load"

func xxx000Fixtures() []fixture {
	return []fixture{
		{
			name:    "TODO: the attempt as kernels make it, the diagnosis written by hand",
			attempt: progLoad(22, unhooked(), log(reject("TODO: the kernel's words"))),
			node:    lab("6.12.12"),
			rule:    "XXX000", how: load.Observed, stage: load.Verifier,
			evidence: []string{"TODO"},
		},
		{
			name:    "TODO: a near miss, the same errno from another cause",
			attempt: progLoad(22, unhooked(), log(reject("TODO: other words"))),
			node:    lab("6.12.12"),
			rule:    "VER099", how: load.Observed, stage: load.Verifier,
		},
	}
}
`
