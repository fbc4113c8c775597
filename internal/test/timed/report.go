// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/test/vm"
)

// report is what is known of the packages so far.
type report struct {
	module   string
	out      io.Writer
	packages map[string]*pkg
	failures []string // what the packages that failed printed
	guest    []guestTest
}

// guestTest is a test in a machine.
type guestTest struct {
	pkg, name string
	took      time.Duration
}

type pkg struct {
	name     string // below the module
	elapsed  time.Duration
	machines int           // that were booted for it
	open     time.Duration // that they ran, together
	cpu      time.Duration // processor time that they took
	cached   bool

	tests   []string            // in the order they began
	outputs map[string][]string // of tests that have not passed; "" is the package's own
}

func newReport(module string, out io.Writer) *report {
	return &report{module: module, out: out, packages: map[string]*pkg{}}
}

func (r *report) add(e event) error {
	if e.Action == "build-output" {
		_, err := io.WriteString(r.out, e.Output)
		return err
	}
	if e.Package == "" {
		return nil
	}
	name := strings.TrimPrefix(e.Package, r.module)
	p := r.packages[name]
	if p == nil {
		p = &pkg{name: name, outputs: map[string][]string{}}
		r.packages[name] = p
	}
	switch e.Action {
	case "run":
		p.tests = append(p.tests, e.Test)
	case "output":
		if e.Test == "" && strings.HasSuffix(e.Output, "(cached)\n") {
			p.cached = true
		}
		p.outputs[e.Test] = append(p.outputs[e.Test], e.Output)
	case "attr":
		return r.attribute(p, e)
	case "pass", "skip", "fail":
		if e.Test != "" {
			if e.Action != "fail" {
				delete(p.outputs, e.Test)
			}
			return nil
		}
		p.elapsed = time.Duration(e.Elapsed * float64(time.Second))
		return r.ended(p, e.Action)
	}
	return nil
}

// attribute reads what a test says of a machine, or of a test in one.
func (r *report) attribute(p *pkg, e event) error {
	switch e.Key {
	case vm.CostAttr:
		c, err := vm.ParseCost(e.Value)
		if err != nil {
			return err
		}
		p.machines++
		p.open += c.Duration
		p.cpu += c.CPU
	case vm.TookAttr:
		took, err := time.ParseDuration(e.Value)
		if err != nil {
			return fmt.Errorf("read how long %s took: %w", e.Test, err)
		}
		r.guest = append(r.guest, guestTest{p.name, e.Test, took})
	}
	return nil
}

// ended tells of a package, and all that is kept of one that failed: the output of tests that
// failed or did not end.
func (r *report) ended(p *pkg, action string) error {
	var b strings.Builder
	switch {
	case action == "fail":
		for _, test := range append(p.tests, "") {
			b.WriteString(strings.Join(p.outputs[test], ""))
		}
		fmt.Fprintf(&b, "FAIL  %s\n", p.name)
		r.failures = append(r.failures, b.String())
	case action == "skip":
		return nil // it has no tests
	case p.cached:
		fmt.Fprintf(&b, "ok    %s  (cached)\n", p.name)
	default:
		fmt.Fprintf(&b, "ok    %s  %s\n", p.name, p.elapsed.Round(100*time.Millisecond))
	}
	p.tests, p.outputs = nil, map[string][]string{}
	_, err := io.WriteString(r.out, b.String())
	return err
}

// cost is what a package is measured by: the processor time of its machines, which repeats on a
// busy host, or where it boots none how long it took.
func (p *pkg) cost() time.Duration {
	if p.machines > 0 {
		return p.cpu
	}
	return p.elapsed
}

// dearest are the packages, those first that cost most.
func (r *report) dearest() []*pkg {
	return slices.SortedFunc(maps.Values(r.packages), func(a, b *pkg) int {
		return cmp.Or(cmp.Compare(b.cost(), a.cost()), cmp.Compare(a.name, b.name))
	})
}

// table prints a line for each package that took more than a moment.
func (r *report) table(allowed budget, took time.Duration) {
	const moment = 2 * time.Second
	var sum pkg
	t := tabwriter.NewWriter(r.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\nminutes\tmachines\tminutes of machines\tof a processor\tbudget, s\tcost, s\t\t")
	for _, p := range r.dearest() {
		sum.machines += p.machines
		sum.open += p.open
		sum.cpu += p.cpu
		if p.cost() < moment {
			continue
		}
		note := p.name
		if p.cached {
			note += " (cached)"
		}
		fmt.Fprintf(t, "%.1f\t%d\t%.1f\t%.1f\t%.0f\t%.0f\t\t%s\n", p.elapsed.Minutes(), p.machines, p.open.Minutes(), p.cpu.Minutes(), allowed.of(p.name).Seconds(), p.cost().Seconds(), note)
	}
	fmt.Fprintf(t, "%.1f\t%d\t%.1f\t%.1f\t\t\t\tall\n", took.Minutes(), sum.machines, sum.open.Minutes(), sum.cpu.Minutes())
	t.Flush()
}

// slowest prints the tests in machines that took longest.
func (r *report) slowest() {
	const most, moment = 25, 10 * time.Second
	slices.SortStableFunc(r.guest, func(a, b guestTest) int { return cmp.Compare(b.took, a.took) })
	t := tabwriter.NewWriter(r.out, 0, 0, 2, ' ', 0)
	for i, g := range r.guest {
		if i == most || g.took < moment {
			break
		}
		if i == 0 {
			fmt.Fprintln(t, "\nslowest tests in machines, by their clocks")
		}
		fmt.Fprintf(t, "%.0f s\t%s\t%s\n", g.took.Seconds(), g.pkg, g.name)
	}
	t.Flush()
}

// again prints the end of what each package that failed printed: a log of CI is cut in its middle.
func (r *report) again() error {
	const most = 60 // lines of a package
	for _, f := range r.failures {
		lines := slices.Collect(strings.Lines(f))
		if skipped := len(lines) - most; skipped > 0 {
			lines = append([]string{fmt.Sprintf("(%d lines before these are above)\n", skipped)}, lines[skipped:]...)
		}
		if _, err := io.WriteString(r.out, "\n"+strings.Join(lines, "")); err != nil {
			return err
		}
	}
	return nil
}

// exceeded is an error when packages cost more than they may.
func (r *report) exceeded(allowed budget) error {
	var over []string
	for _, p := range r.dearest() {
		if limit := allowed.of(p.name); p.cost() > limit {
			over = append(over, fmt.Sprintf("%s took %.0f s, %.0f s more than its budget of %.0f s", p.name, p.cost().Seconds(), (p.cost()-limit).Seconds(), limit.Seconds()))
		}
	}
	if over == nil {
		return nil
	}
	return fmt.Errorf("over budget (internal/test/timed/budget.tsv):\n  %s", strings.Join(over, "\n  "))
}
