// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/load"
)

const generated = "<!-- Written by `make bench`. Do not edit. -->\n"

// table writes a Markdown table.
func table(b *strings.Builder, head []string, rows [][]string) {
	line := func(cells []string) { fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | ")) }
	line(head)
	line(slices.Repeat([]string{"---"}, len(head)))
	for _, r := range rows {
		line(r)
	}
	b.WriteString("\n")
}

func caller(c cost) float64 { return c.Loader }
func total(c cost) float64  { return c.Loader + c.Tracer }

// ratios is a table of one row for each work and one column for each variant that ran, relative to
// untraced.
func ratios(b *strings.Builder, m measured, list []work, unit string, what func(cost) float64) {
	ran := slices.DeleteFunc(slices.Clone(variants), func(v string) bool { return m.Missing[v] != "" })
	var rows [][]string
	for _, w := range list {
		base, ok := m.of(w.kind, untraced, what)
		if !ok || base == 0 {
			continue
		}
		row := []string{w.title, thousands(base) + " " + unit}
		for _, v := range ran[1:] {
			cell := "-"
			if x, ok := m.of(w.kind, v, what); ok {
				cell = fmt.Sprintf("%.2f", x/base)
			}
			row = append(row, cell)
		}
		rows = append(rows, row)
	}
	table(b, append([]string{"", untraced}, ran[1:]...), rows)
}

// shownHooks is how many programs of a profile are worth a row.
const shownHooks = 6

// hooksDoc says which of bpfwhy's programs the costs of the caller are spent in.
func hooksDoc(b *strings.Builder, m measured) {
	fmt.Fprintf(b, "Where the caller's time goes: instructions per load inside bpfwhy's own programs, as the kernel\n"+
		"counts them (kernel.bpf_stats_enabled). The cost of entering and leaving a program is not included.\n\n")
	var rows [][]string
	for _, backend := range profiledBackends {
		for _, w := range profiled {
			list := m.Hooks[backend][w.kind]
			sum := 0.0
			for _, c := range list {
				sum += c.NS
			}
			cells := []string{}
			for _, c := range list[:min(len(list), shownHooks)] {
				cells = append(cells, fmt.Sprintf("%s %s (%s runs)", c.Program, thousands(c.NS), thousands(c.Runs)))
			}
			rows = append(rows, []string{backend, titleOf(w.kind), thousands(sum), strings.Join(cells, ", ")})
		}
	}
	table(b, []string{"backend", "", "in all", "most of it"}, rows)
}

func titleOf(kind string) string {
	for _, w := range works(true, false) {
		if w.kind == kind {
			return w.title
		}
	}
	return kind
}

// thousands writes a number with separators.
func thousands(x float64) string {
	s := fmt.Sprintf("%.0f", x)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// noWorse allows for what one run differs from the next.
const noWorse = 1.02

// aim says where bpfwhy, by the backend that it chooses by itself, is worse than the script.
func aim(b *strings.Builder, m measured, list []work, backend string) {
	var worse []string
	for _, w := range list {
		for _, by := range []struct {
			name string
			what func(cost) float64
		}{{"the caller", caller}, {"in all", total}} {
			ours, ok := m.of(w.kind, backend, by.what)
			theirs, ok2 := m.of(w.kind, script, by.what)
			if ok && ok2 && ours > theirs*noWorse {
				worse = append(worse, fmt.Sprintf("%s, %s (%+.0f %%)", w.title, by.name, 100*(ours/theirs-1)))
			}
		}
	}
	if len(worse) == 0 {
		fmt.Fprintf(b, "bpfwhy chooses %s here. It costs no more than the script anywhere.\n\n", backend)
		return
	}
	fmt.Fprintf(b, "bpfwhy chooses %s here. It costs more than the script in: %s. It costs no more in all others.\n\n", backend, strings.Join(worse, "; "))
}

func benchmarksDoc(lab map[string]measured, host hostFigures) string {
	b := &strings.Builder{}
	b.WriteString(`# Benchmarks

` + generated + `
What watching costs, compared with a bpftrace script of four probes that people use for the same
purpose. [side-by-side.md](side-by-side.md) shows what each of the two says. ` + "`make bench`" + `
measures all of this and writes this page. [benchmarks-commands.md](benchmarks-commands.md) has the
size of the commands and the cost of their start.

* **The caller**: processor time of the thread that makes the call, per call. This is what watching
  costs the process that is watched.
* **In all**: processor time of the caller and of the tool together, per call, with what the tool
  prints.
* The column *untraced* has absolute figures. All others are ratios to it: 1.10 is a tenth more. The
  variants take turns in each round. A figure is the median of the rounds.

## In the lab

These machines are emulated and have one processor. Their clock counts instructions, so a figure is
a number of executed instructions. It repeats to the percent. It says nothing about caches, traps
and the speed of a real processor. Only the ratios mean anything.

`)
	for _, kernel := range slices.Sorted(maps.Keys(lab)) {
		m := lab[kernel]
		fmt.Fprintf(b, "### Linux %s\n\nThe caller:\n\n", m.Release)
		ratios(b, m, works(true, false), "insns", caller)
		b.WriteString("In all:\n\n")
		ratios(b, m, works(true, false), "insns", total)
		aim(b, m, works(true, false), "fentry")
		hooksDoc(b, m)
	}

	if len(host.first) > 0 {
		hostDoc(b, host)
	}
	return b.String()
}

func hostDoc(b *strings.Builder, host hostFigures) {
	fmt.Fprintf(b, "## On a real machine\n\nLinux %s on %d CPUs, %s. Times are real.\n\n", host.Release, host.cpus, host.cpu)
	for _, v := range variants {
		if why := host.Missing[v]; why != "" {
			fmt.Fprintf(b, "* not possible there: %s. `%s`\n", v, oneLine(why))
		}
	}
	b.WriteString("\nThe caller:\n\n")
	ratios(b, host.measured, works(false, false), "ns", caller)
	b.WriteString("In all:\n\n")
	ratios(b, host.measured, works(false, false), "ns", total)

	var ready, shown []float64
	for _, f := range host.first {
		ready, shown = append(ready, f.ready.Seconds()), append(shown, f.shown.Seconds())
	}
	rows := [][]string{
		{"from the start of `bpfwhy watch` until it says that it watches", seconds(median(ready)), ""},
		{"from its start until it shows a first load (one is made every millisecond)", seconds(median(shown)), "0.3 s"},
		{"the slowest of " + fmt.Sprint(len(shown)) + " starts", seconds(slices.Max(shown)), ""},
		{"processor time of a watch in which nothing happens", fmt.Sprintf("%.2f %% of one CPU", host.idle), ""},
		{fmt.Sprintf("largest resident memory in a storm: %s failing loads of 30,000 instructions in %.0f s, all explained",
			thousands(float64(host.storm.loads)), host.storm.took.Seconds()), fmt.Sprintf("%.1f MiB", float64(host.storm.peakKiB)/1024), "64 MiB"},
	}
	table(b, []string{"", "measured", "aim: below"}, rows)
	fmt.Fprintf(b, "What the watch said at the end of the storm:\n\n```\n%s\n```\n", host.storm.summary)
}

func seconds(s float64) string { return fmt.Sprintf("%.3f s", s) }

func oneLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

var subjectTitles = map[string]string{
	"ok":             "a load that works",
	"null-map-value": "a map value without a null check",
	"far-jump":       "a far jump under bpf_jit_harden=2",
	"far-calls":      "the same in a function that is called",
	"emfile":         "no file descriptor left",
	"no-capability":  "a loader without capabilities",
}

func sideBySideDoc(t *testing.T, all map[string]comparison) string {
	b := &strings.Builder{}
	b.WriteString(`# Side by side

` + generated + `
This page compares ` + "`bpfwhy watch`" + ` with the bpftrace script that this tool's first user wrote to
follow failing loads. Both watched the same loads on each kernel of the lab. The table shows what
each of them told right. Below the table is every word of both. The script is
[internal/test/bench/testdata/original.bt](../internal/test/bench/testdata/original.bt). It prints
what the verifier returned, whether the program came back from the JIT compiled, and what the system
call returned. On 5.10, bpftrace 0.17 does not find the struct that the script names, so it gets the
struct in a header.

` + "*Outcome*: loaded, loaded without being compiled, or failed with the true errno. *Stage*: where the\n" +
		"load failed. *Partly* means that a reader who knows the kernel can narrow it down. *Cause*: why it\n" +
		"failed, in words and with evidence. The script says nothing about causes. The truth is the table of\n" +
		"the test corpus, [internal/test/corpus/cases.go](../internal/test/corpus/cases.go), written from the kernel's sources.\n\n")

	var kernels []string
	for _, k := range vm.Kernels() { // oldest first
		if _, ok := all[k.ID]; ok {
			kernels = append(kernels, k.ID)
		}
	}
	var rows [][]string
	var count [2]struct{ outcome, stage, cause, of, ofCause int }
	for _, name := range subjects {
		for _, k := range kernels {
			c, want := all[k], fate(t, name, k)
			readings := [2]told{readScript(c.Script[name], comm(name), want), readBpfwhy(c.attempts, comm(name), want)}
			row := []string{subjectTitles[name], k, truthInWords(want.Outcome, want.Errno, want.Stage)}
			for i, r := range readings {
				row = append(row, r.words, r.outcome.String(), r.stage.String(), r.cause.String())
				n := &count[i]
				n.of++
				n.outcome += one(r.outcome)
				if r.stage != none {
					n.ofCause++
					n.stage += one(r.stage)
					n.cause += one(r.cause)
				}
			}
			rows = append(rows, row)
		}
	}
	for i, name := range []string{"The script", "bpfwhy"} {
		n := count[i]
		fmt.Fprintf(b, "* **%s** told the outcome of %d of %d loads. Of the %d that went wrong, it told the exact stage of %d and the cause of %d.\n",
			name, n.outcome, n.of, n.ofCause, n.stage, n.cause)
	}
	b.WriteString("\n")
	table(b, []string{"load", "kernel", "truth", "script: what a reader concludes", "outcome", "stage", "cause", "bpfwhy: rule, how known", "outcome", "stage", "cause"}, rows)

	for _, k := range kernels {
		c := all[k]
		fmt.Fprintf(b, "## Linux %s (%s)\n\n", c.Release, k)
		for _, name := range subjects {
			fmt.Fprintf(b, "### %s: %s\n\nThe loader itself: `%s`\n\nScript:\n\n```\n%s\n```\n\nbpfwhy watch:\n\n```\n%s\n```\n\n",
				k, subjectTitles[name], c.Loader[name], strings.TrimRight(c.Script[name], "\n"), strings.TrimRight(c.Bpfwhy[name], "\n"))
		}
	}
	return b.String()
}

// comm is what the kernel keeps of a name.
func comm(name string) string { return name[:min(len(name), 15)] }

func truthInWords(o load.Outcome, errno int, stage load.Stage) string {
	switch o {
	case load.Failed:
		return fmt.Sprintf("%s, -%d", stage, errno)
	case load.LoadedNotJITed:
		return fmt.Sprintf("%s, loaded, not compiled", stage)
	}
	return "loaded"
}

func one(m mark) int {
	if m == yes {
		return 1
	}
	return 0
}

func TestThousands(t *testing.T) {
	for x, want := range map[float64]string{0: "0", 999: "999", 1000: "1,000", 1234567.4: "1,234,567"} {
		if got := thousands(x); got != want {
			t.Errorf("%v: %s, want %s", x, got, want)
		}
	}
}
