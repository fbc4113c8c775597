// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/google/go-cmp/cmp"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

var update = flag.Bool("update", false, "write docs/corpus.md anew")

const tableFile = "../../../docs/corpus.md"

// results gathers how every run was judged.
type results struct {
	mu     sync.Mutex
	judged map[string]Judgement // case, kernel, backend
	failed bool
}

func newResults() *results { return &results{judged: map[string]Judgement{}} }

func key(name, kernel, backend string) string { return name + " " + kernel + " " + backend }

// judge compares the runs of one machine with the fates.
func (rs *results) judge(t *testing.T, kernel, lockdown string, jsonl []byte) {
	t.Helper()
	rs.mu.Lock()
	defer rs.mu.Unlock()
	runs := map[string]Run{}
	lines := bufio.NewScanner(bytes.NewReader(jsonl))
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var r Run
		qt.Assert(t, qt.IsNil(json.Unmarshal(lines.Bytes(), &r)))
		runs[key(r.Case, kernel, r.Backend)] = r
	}
	qt.Assert(t, qt.IsNil(lines.Err()))
	counts := map[Judgement]int{}
	for _, c := range selected(t, lockdown) {
		if c.HostOnly || !sampled(kernel, c) {
			continue
		}
		for _, backend := range backendsUnder(t, lockdown) {
			r, ok := runs[key(c.Name, kernel, backend)]
			if c.skip(kernel, backend) != "" {
				for _, w := range c.Blind(r) {
					if ok {
						t.Errorf("%s, %s: %s", c.Name, backend, w)
						rs.failed = true
					}
				}
				continue
			}
			if !ok {
				t.Errorf("%s, %s: not run", c.Name, backend)
				rs.failed = true
				continue
			}
			j, wrong := c.Judge(kernel, r)
			counts[j]++
			for _, w := range wrong {
				t.Errorf("%s, %s: %s", c.Name, backend, w)
				rs.failed = true
			}
			rs.judged[key(c.Name, kernel, backend)] = j
		}
	}
	t.Logf("%d right, %d among the alternatives, %d wrong", counts[Right], counts[Among], counts[Wrong])
}

// table holds docs/corpus.md against what was judged.
func (rs *results) table(t *testing.T) {
	if t.Failed() || rs.failed {
		return // the table shows nothing that is wrong
	}
	if !vmtest.Long() || narrowed(t, onlyEnv) != nil || narrowed(t, backendsEnv) != nil || len(vmtest.Kernels(t)) != len(vm.Kernels()) {
		t.Log("a part of the corpus: the table is left alone")
		return
	}
	got := rs.render(t)
	lab, host := readTable(t)
	if *update {
		writeTable(t, got, host)
		return
	}
	if diff := cmp.Diff(lab, got); diff != "" {
		t.Errorf("%s differs; run the test with -update and look at what changed:\n%s", tableFile, diff)
	}
}

// The part of the file about one host is not held against anything: it is true of that machine.
const hostHeading = "\n## On a host\n"

func readTable(t *testing.T) (lab, host string) {
	t.Helper()
	b, err := os.ReadFile(tableFile)
	if err != nil && !(*update && os.IsNotExist(err)) {
		t.Fatal(err)
	}
	lab, host, _ = strings.Cut(string(b), hostHeading)
	return lab, host
}

func writeTable(t *testing.T, lab, host string) {
	t.Helper()
	qt.Assert(t, qt.IsNil(os.WriteFile(tableFile, []byte(lab+hostHeading+host), 0o644)))
}

// hostTable writes what was concluded on this machine.
func hostTable(t *testing.T, cases []Case, runs []Run, node *node.Profile) {
	if !*update || narrowed(t, onlyEnv) != nil || t.Failed() {
		return
	}
	var b strings.Builder
	counts := map[Judgement]int{}
	var rows strings.Builder
	for i := range cases {
		c := &cases[i]
		j, _ := c.Judge(Host, runs[i])
		counts[j]++
		told := map[Judgement]string{Right: "right", Among: "the true cause is named among the alternatives"}[j]
		fmt.Fprintf(&rows, "| %s | %s | %s | %s |\n", c.Name, c.Loader, c.fate(Host), told)
	}
	lockdown := node.Lockdown
	if lockdown == "" {
		lockdown = "not readable"
	}
	fmt.Fprintf(&b, "\nWhat needs no machine of its own, on the machine that last ran `go test ./internal/test/corpus -run TestHost -update`: Linux %s, "+
		"lockdown %s, watched by %s. %d loads: %d told right, %d with the true cause among the alternatives.\n\n",
		node.Release, lockdown, runs[0].Backend, len(runs), counts[Right], counts[Among])
	b.WriteString("| case | loader | fate | told |\n|---|---|---|---|\n" + rows.String())
	lab, _ := readTable(t)
	writeTable(t, lab, b.String())
}

const preamble = `# The corpus

Loads by loaders of different make, run on every kernel of the lab and observed with every backend. The fates are written by hand,
from what the kernel does; each loader also says itself which errno it met. ` + "`go test ./internal/test/corpus -run TestLab -update`" + ` (with
BPFWHY_LAB=1 and BPFWHY_LONG=1) writes this file, and the same test without -update, which is part of ` + "`make test-long`" + `, fails when it no
longer holds. ` + "`make test`" + ` runs each case on one of the five kernels, in turn, with every backend.

A cell holds the rule, the errno and the stage that were concluded. They were told with all four backends (fentry, kprobe, classic tracepoints,
tp_btf; under lockdown=confidentiality there is tp_btf alone) unless a letter says otherwise. What comes after the load was also told while
single processes are watched (letter r), as ` + "`bpfwhy run`" + ` does: by fentry, and at the ends of their system calls.

* **≈f**, **≈k**, **≈t**, **≈b**, **≈r**: with fentry, kprobes, tracepoints, tp_btf or so, the conclusion stays open and the true cause is named
  among the alternatives. Tracepoints and tp_btf watch the system call from outside, and the loader asked for no log, or none can exist.
* **−f**, **−k**, **−t**, **−b**, **−r**: not to be seen with that backend, whose list of what it does not watch says so; the notes say why.
* "works" means that the load succeeds there and gives no finding.

`

func (rs *results) render(t *testing.T) string {
	var b strings.Builder
	b.WriteString(preamble)
	var kernels []string
	for _, k := range vm.Kernels() {
		kernels = append(kernels, k.ID)
	}
	cases := slices.DeleteFunc(Cases(), func(c Case) bool { return c.HostOnly })
	failing := 0
	for _, c := range cases {
		if slices.ContainsFunc(kernels, func(k string) bool { return c.on(k).Outcome != load.Loaded }) {
			failing++
		}
	}
	counts := map[Judgement]int{}
	for _, j := range rs.judged {
		counts[j]++
	}
	fmt.Fprintf(&b, "%d cases, %d of them with a failing load; %d observed runs: %d told right, %d with the true cause among the alternatives.\n\n",
		len(cases), failing, len(rs.judged), counts[Right], counts[Among])
	fmt.Fprintf(&b, "| case | loader | %s |\n|---|---|%s\n", strings.Join(kernels, " | "), strings.Repeat("---|", len(kernels)))
	for _, c := range cases {
		name := c.Name
		switch {
		case c.Lockdown != "":
			name += " (lockdown=" + c.Lockdown + ")"
		case c.Sysctls[harden] != "":
			name += " (harden=" + c.Sysctls[harden] + ")"
		}
		fmt.Fprintf(&b, "| %s | %s |", name, c.Loader)
		for _, k := range kernels {
			fmt.Fprintf(&b, " %s |", rs.cell(t, &c, k))
		}
		b.WriteString("\n")
	}
	b.WriteString("\n## Notes\n\n" + notes(cases))
	return b.String()
}

// notes says which cases are left out where in the lab, and why.
func notes(cases []Case) string {
	type note struct{ why, where string }
	var order []note
	of := map[note][]string{}
	for _, c := range cases {
		where := map[string][]string{} // by reason
		for _, k := range slices.Sorted(maps.Keys(c.Except)) {
			if k != Host {
				where[c.Except[k]] = append(where[c.Except[k]], strings.ReplaceAll(strings.TrimPrefix(k, "*/"), "/", " with "))
			}
		}
		for _, why := range slices.Sorted(maps.Keys(where)) {
			n := note{why, strings.Join(where[why], ", ")}
			if of[n] == nil {
				order = append(order, n)
			}
			of[n] = append(of[n], c.Name)
		}
	}
	var b strings.Builder
	for _, n := range order {
		fmt.Fprintf(&b, "* %s; %s: %s.\n", strings.Join(of[n], ", "), n.where, n.why)
	}
	return b.String()
}

func (rs *results) cell(t *testing.T, c *Case, kernel string) string {
	marks := ""
	ran := false
	for _, backend := range backendsUnder(t, c.Lockdown) {
		letter := map[string]string{"fentry": "f", "kprobe": "k", "tracepoint": "t", "tp_btf": "b", Following: "r"}[backend]
		if backend == Following && c.Loader != Attach {
			continue
		}
		switch j, ok := rs.judged[key(c.Name, kernel, backend)]; {
		case !ok:
			marks += " −" + letter
		case j == Among:
			marks += " ≈" + letter
		}
		if _, ok := rs.judged[key(c.Name, kernel, backend)]; ok {
			ran = true
		}
	}
	if !ran {
		return "not run"
	}
	return c.fate(kernel) + marks
}

// fate is what is to be concluded on a kernel, in a few words.
func (c *Case) fate(kernel string) string {
	w := c.on(kernel)
	switch {
	case w.Outcome == load.Loaded && w.Rule != "":
		return w.Rule + ", works"
	case w.Outcome == load.Loaded:
		return "works"
	}
	rule := w.Rule
	if c.Several != nil {
		rule = strings.Join(c.Several, ", ")
	}
	errno := "not jited"
	if w.Errno != 0 {
		errno = abi.ErrnoName(w.Errno)
	}
	return fmt.Sprintf("%s %s, %s", rule, errno, w.Stage)
}
