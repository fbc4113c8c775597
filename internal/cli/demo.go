// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/bpfwhy/bpfwhy/internal/demo"
	"github.com/bpfwhy/bpfwhy/internal/output/render"
	"github.com/bpfwhy/bpfwhy/internal/output/text"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/spf13/cobra"
)

type demoOptions struct {
	std
	list, allow, json bool
	schema            schemaVersion
	backend           string
}

func newDemo(io std) *cobra.Command {
	o := demoOptions{std: io}
	c := &cobra.Command{
		Use:   "demo [NAME...]",
		Short: "Provoke real load failures and explain them",
		Long: `Make real loads fail, each in its own process, explain each failure, and compare
the explanation with the known cause. Without names, run all cases that this
host can run.

Nothing on the machine is changed, with one exception, which needs
--allow-sysctl: for the blinding cases net.core.bpf_jit_harden is raised to 2
for about a second. A second process puts it back, even if this one is killed.
No setting is lowered.

The exit status is 0 when every case was explained as expected. It is 1 when one
was not, when a case needs --allow-sysctl, or when you named a case that this
machine cannot run. It is 2 for bad input, and when the kernel cannot be
watched. Cases that need a virtual machine, or hooks that this kernel lacks,
count only if you name them. Where no hook shows the stage that failed, an
answer that leaves the cause open and lists the true one is as expected.`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: demoNames,
		RunE:              func(c *cobra.Command, args []string) error { return runDemo(c.Context(), o, args) },
	}
	f := c.Flags()
	f.BoolVar(&o.list, "list", false, "list the cases and exit")
	f.BoolVar(&o.allow, "allow-sysctl", false, "allow net.core.bpf_jit_harden to be raised and put back")
	f.BoolVar(&o.json, "json", false, "JSON Lines, one attempt a line (docs/schema/load-v2.schema.json)")
	o.schema.flag(c)
	backendFlag(c, &o.backend)
	return c
}

func demoNames(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	var names []string
	for _, c := range demo.Cases() {
		names = append(names, c.Name+"\t"+c.Title)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func runDemo(ctx context.Context, o demoOptions, names []string) error {
	if err := checkBackend(o.backend); err != nil {
		return err
	}
	if err := o.schema.check(); err != nil {
		return err
	}
	cases, err := demo.Find(names)
	if err != nil {
		return err
	}
	if o.list {
		return listDemo(o.std, cases, o.json)
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	each := demoText(o.text(), o.out)
	if o.json {
		each = demoJSON(o.std, o.schema)
	}
	sum, err := demo.Run(ctx, demo.Options{
		Names:       names,
		AllowSysctl: o.allow,
		Backend:     o.backend,
		Tool:        buildInfo().Version,
		Progress:    func(s string) { o.say("%s", s) },
		Watching:    func(h trace.Header) { o.say("watching %s", coverageWords(h)) },
		Each:        each,
	})
	switch {
	case err == context.Canceled: // and nothing else went wrong on the way out
		return errors.New("interrupted; nothing is left behind")
	case err != nil:
		return err
	}
	for mechanism, n := range sum.Lost {
		o.say("%d events were lost: %s", n, mechanism)
	}
	for _, mechanism := range sum.Unknown {
		o.say("how many events were lost is not known: %s", mechanism)
	}
	words := fmt.Sprintf("%d explained as expected, %d not", sum.Right, sum.Wrong)
	if sum.NotRun > 0 {
		words += fmt.Sprintf(", %d NOT RUN", sum.NotRun)
	}
	if sum.Beyond > 0 {
		words += fmt.Sprintf("; %d not run: this machine or its hooks do not allow them", sum.Beyond)
	}
	o.say("%s", words)
	if !sum.OK() {
		return &status{code: negative}
	}
	return nil
}

func coverageWords(h trace.Header) string {
	by, missing := coverage(h)
	if len(missing) == 0 {
		return "by " + by + "; every stage is observed"
	}
	return "by " + by + "; not observed, only concluded: " + strings.Join(missing, ", ")
}

func listDemo(io std, cases []demo.Case, asJSON bool) error {
	type line struct {
		Case    string        `json:"case"`
		Title   string        `json:"title"`
		Harden  int           `json:"needs_harden,omitempty"`
		VM      bool          `json:"only_in_vm,omitempty"`
		Expects []demo.Expect `json:"expects"`
	}
	if asJSON {
		for _, c := range cases {
			if err := render.JSON(io.out, line{c.Name, c.Title, c.Harden(), c.VM(), c.Expect}); err != nil {
				return err
			}
		}
		return nil
	}
	var rows []render.Row
	for _, c := range cases {
		needs := ""
		switch {
		case c.VM():
			needs = "VM"
		case c.Harden() > 0:
			needs = "sysctl"
		}
		rows = append(rows, render.Row{Cells: []string{c.Name, c.Title, needs}})
	}
	t := io.text()
	return errors.Join(t.Table([]render.Column{{Title: "CASE"}, {Title: "WHAT", Shrink: true}, {Title: "NEEDS"}}, rows),
		t.Page("", []render.Section{{Label: "sysctl", Items: []string{"net.core.bpf_jit_harden=2, or --allow-sysctl"}}, {Label: "VM", Items: []string{"a virtual machine"}}}))
}

// demoText writes for people: what was done, what bpfwhy says about it, and whether that is right.
func demoText(t *render.Text, w io.Writer) func(demo.Outcome) error {
	return func(o demo.Outcome) error {
		head := fmt.Sprintf("== %s: %s", o.Case.Name, o.Case.Title)
		if o.Skipped != "" {
			word := "NOT RUN"
			if !o.Demanded {
				word = "not run"
			}
			_, err := fmt.Fprintf(w, "%s\n   %s: %s\n\n", head, word, text.Clean(o.Skipped))
			return err
		}
		if _, err := fmt.Fprintln(w, head); err != nil {
			return err
		}
		if o.Attempt != nil {
			if err := t.Explain(o.Attempt); err != nil {
				return err
			}
		}
		verdict := "as expected"
		if !o.OK() {
			verdict = "NOT AS EXPECTED: " + strings.Join(o.Wrong, "; ")
		}
		_, err := fmt.Fprintf(w, "   %s\n\n", text.Clean(verdict))
		return err
	}
}

// demoJSON writes the attempts, each with what the demo says of it in a member of its own. A case
// that was not run has no attempt: that is said on standard error.
func demoJSON(to std, schema schemaVersion) func(demo.Outcome) error {
	type verdict struct {
		Case    string        `json:"case"`
		Title   string        `json:"title"`
		Result  string        `json:"result"` // expected, wrong
		Wrong   []string      `json:"wrong,omitempty"`
		Expects []demo.Expect `json:"expects"`
	}
	return func(o demo.Outcome) error {
		if o.Skipped != "" && o.Demanded {
			to.say("%s was NOT RUN: %s", o.Case.Name, o.Skipped)
		}
		if o.Attempt == nil {
			return nil
		}
		v := verdict{o.Case.Name, o.Case.Title, "expected", o.Wrong, o.Case.Expect}
		if !o.OK() {
			v.Result = "wrong"
		}
		a := o.Attempt
		if schema.old() {
			var ok bool
			if a, ok = render.V1(a); !ok {
				return nil
			}
		}
		return render.JSON(to.out, struct {
			*load.Attempt
			Demo verdict `json:"demo"`
		}{a, v})
	}
}
