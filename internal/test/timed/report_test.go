// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

const events = `
{"Action":"build-output","ImportPath":"m/broken","Output":"broken.go:1: no such thing\n"}
{"Action":"start","Package":"m/quiet"}
{"Action":"output","Package":"m/quiet","Output":"?   \tm/quiet\t[no test files]\n"}
{"Action":"skip","Package":"m/quiet"}
{"Action":"run","Package":"m/guest","Test":"TestKernels"}
{"Action":"run","Package":"m/guest","Test":"TestKernels/5.10"}
{"Action":"attr","Package":"m/guest","Test":"TestKernels/5.10","Key":"machine","Value":"2m0s 1m10s"}
{"Action":"output","Package":"m/guest","Test":"TestKernels/5.10","Output":"all is well\n"}
{"Action":"attr","Package":"m/guest","Test":"TestKernels/5.10/TestA","Key":"took","Value":"12.30s"}
{"Action":"attr","Package":"m/guest","Test":"TestKernels/5.10/TestB","Key":"took","Value":"0.30s"}
{"Action":"attr","Package":"m/guest","Test":"TestKernels/5.10/TestC","Key":"took","Value":"75.00s"}
{"Action":"pass","Package":"m/guest","Test":"TestKernels/5.10","Elapsed":150}
{"Action":"attr","Package":"m/guest","Test":"TestKernels/7","Key":"machine","Value":"1m0s 20s"}
{"Action":"pass","Package":"m/guest","Test":"TestKernels","Elapsed":150}
{"Action":"pass","Package":"m/guest","Elapsed":180}
{"Action":"output","Package":"m/kept","Output":"ok  \tm/kept\t(cached)\n"}
{"Action":"pass","Package":"m/kept","Elapsed":3}
{"Action":"run","Package":"m/bad","Test":"TestGood"}
{"Action":"run","Package":"m/bad","Test":"TestBad"}
{"Action":"run","Package":"m/bad","Test":"TestHangs"}
{"Action":"output","Package":"m/bad","Test":"TestGood","Output":"nobody reads this\n"}
{"Action":"output","Package":"m/bad","Test":"TestHangs","Output":"half of it\n"}
{"Action":"output","Package":"m/bad","Test":"TestBad","Output":"this is wrong\n"}
{"Action":"pass","Package":"m/bad","Test":"TestGood"}
{"Action":"fail","Package":"m/bad","Test":"TestBad"}
{"Action":"output","Package":"m/bad","Output":"panic: test timed out\n"}
{"Action":"fail","Package":"m/bad","Elapsed":12}
`

func TestReport(t *testing.T) {
	var out strings.Builder
	r := newReport("m/", &out)
	qt.Assert(t, qt.IsNil(r.read(strings.NewReader(events))))
	qt.Check(t, qt.Equals(out.String(), `broken.go:1: no such thing
ok    guest  3m0s
ok    kept  (cached)
this is wrong
half of it
panic: test timed out
FAIL  bad
`))
	out.Reset()
	qt.Assert(t, qt.IsNil(r.again()))
	qt.Check(t, qt.Equals(out.String(), "\nthis is wrong\nhalf of it\npanic: test timed out\nFAIL  bad\n"))
	out.Reset()
	r.slowest()
	qt.Check(t, qt.Equals(out.String(), "\nslowest tests in machines, by their clocks\n75 s  guest  TestKernels/5.10/TestC\n12 s  guest  TestKernels/5.10/TestA\n"))
	out.Reset()
	allowed := budget{others: 10 * time.Second, "guest": 80 * time.Second}
	r.table(allowed, 4*time.Minute)
	var rows []string
	for line := range strings.Lines(out.String()) {
		rows = append(rows, strings.Join(strings.Fields(line), " "))
	}
	qt.Check(t, qt.DeepEquals(rows, []string{
		"", "minutes machines minutes of machines of a processor budget, s cost, s",
		"3.0 2 3.0 1.5 80 90 guest",
		"0.2 0 0.0 0.0 10 12 bad",
		"0.1 0 0.0 0.0 10 3 kept (cached)",
		"4.0 2 3.0 1.5 all",
	}))
	qt.Check(t, qt.ErrorMatches(r.exceeded(allowed), `(?s)over budget .*:
  guest took 90 s, 10 s more than its budget of 80 s
  bad took 12 s, 2 s more than its budget of 10 s`))
	qt.Check(t, qt.IsNil(r.exceeded(budget{others: 90 * time.Second})))
}

func TestBudget(t *testing.T) {
	b, err := parseBudget("# why\n\nguest\t70\nothers\t10\n")
	qt.Assert(t, qt.IsNil(err))
	packages := []string{"m/a", "m/guest", "m/b"}
	b.dearestFirst("m/", packages)
	qt.Check(t, qt.DeepEquals(packages, []string{"m/guest", "m/a", "m/b"}))
	for text, want := range map[string]string{
		"a\t1\na\t2\nothers\t1\n": `budget.tsv:2: "a\\t2" .*`,
		"others\t1\na 2\n":        `budget.tsv:2: .*`,
		"others\t-1\n":            `budget.tsv:1: .*`,
		"a\t1\n":                  "budget.tsv: no line for others",
	} {
		_, err := parseBudget(text)
		qt.Check(t, qt.ErrorMatches(err, want), qt.Commentf("%q", text))
	}
}

// Each line of the committed budget is a package's.
func TestCommittedBudget(t *testing.T) {
	b, err := parseBudget(budgetFile)
	qt.Assert(t, qt.IsNil(err))
	module, packages, err := list("github.com/bpfwhy/bpfwhy/...")
	qt.Assert(t, qt.IsNil(err))
	known := map[string]bool{others: true}
	for _, p := range packages {
		known[strings.TrimPrefix(p, module)] = true
	}
	for name := range b {
		qt.Check(t, qt.IsTrue(known[name]), qt.Commentf(name))
	}
}
