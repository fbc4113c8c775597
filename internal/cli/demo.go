// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/bpfwhy/bpfwhy/internal/demo"
	"github.com/bpfwhy/bpfwhy/internal/render"
	"github.com/bpfwhy/bpfwhy/internal/trace"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/spf13/cobra"
)

type demoOptions struct {
	list, allow, json bool
	schema            schemaVersion
	backend           string
}

func newDemo() *cobra.Command {
	var o demoOptions
	c := &cobra.Command{
		Use:   "demo [NAME...]",
		Short: "Provoke real load failures and explain them",
		Long: `Provoke real load failures, each in a process of its own, explain each, and compare the explanation with what is known
to be right. Without names, all cases that a host allows.

The machine is left alone, with one exception that takes --allow-sysctl: net.core.bpf_jit_harden is raised to 2 for the
blinding cases, for a second or so, and put back by a process that outlives a SIGKILL of this one. Nothing is lowered.

The exit status is 0 when every case was explained as expected; 1 when one was not, when a case could not be run for
want of --allow-sysctl, or when a case was named that this machine cannot run; 2 for bad input, and when the kernel
cannot be watched. Cases that only run in a virtual machine, and one that the hooks at hand cannot show, do not count
unless they are named. Where no hook shows the stage in question, an answer that leaves the cause open and names the
true one is as expected.`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: demoNames,
		RunE:              func(c *cobra.Command, args []string) error { return runDemo(c.Context(), o, args) },
	}
	f := c.Flags()
	f.BoolVar(&o.list, "list", false, "list the cases and leave")
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
	if o.backend != "" && !slices.Contains(backends, o.backend) {
		return fmt.Errorf("--backend %q: choose one of %s", o.backend, strings.Join(backends, ", "))
	}
	if err := o.schema.check(); err != nil {
		return err
	}
	cases, err := demo.Find(names)
	if err != nil {
		return err
	}
	if o.list {
		return listDemo(os.Stdout, cases, o.json)
	}
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	each := demoText(newText(os.Stdout), os.Stdout)
	if o.json {
		each = demoJSON(os.Stdout, o.schema)
	}
	sum, err := demo.Run(ctx, demo.Options{
		Names:       names,
		AllowSysctl: o.allow,
		Backend:     o.backend,
		Tool:        buildInfo().Version,
		Progress:    func(s string) { say("%s", s) },
		Watching:    func(h trace.Header) { say("watching %s", coverageWords(h)) },
		Each:        each,
	})
	switch {
	case err == context.Canceled: // and nothing else went wrong on the way out
		return errors.New("interrupted; nothing is left behind")
	case err != nil:
		return err
	}
	for mechanism, n := range sum.Lost {
		say("%d events were lost: %s", n, mechanism)
	}
	for _, mechanism := range sum.Unknown {
		say("how many events were lost is not known: %s", mechanism)
	}
	words := fmt.Sprintf("%d explained as expected, %d not", sum.Right, sum.Wrong)
	if sum.NotRun > 0 {
		words += fmt.Sprintf(", %d NOT RUN", sum.NotRun)
	}
	if sum.Beyond > 0 {
		words += fmt.Sprintf("; %d not run: beyond this machine or its hooks", sum.Beyond)
	}
	say("%s", words)
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
	return "by " + by + "; not observed but concluded: " + strings.Join(missing, ", ")
}

func listDemo(w io.Writer, cases []demo.Case, asJSON bool) error {
	type line struct {
		Case    string        `json:"case"`
		Title   string        `json:"title"`
		Harden  int           `json:"needs_harden,omitempty"`
		VM      bool          `json:"only_in_vm,omitempty"`
		Expects []demo.Expect `json:"expects"`
	}
	if asJSON {
		for _, c := range cases {
			if err := render.JSON(w, line{c.Name, c.Title, c.Harden(), c.VM(), c.Expect}); err != nil {
				return err
			}
		}
		return nil
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range cases {
		needs := ""
		switch {
		case c.VM():
			needs = "only in a virtual machine"
		case c.Harden() > 0:
			needs = fmt.Sprintf("net.core.bpf_jit_harden=%d, or --allow-sysctl", c.Harden())
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", c.Name, c.Title, needs)
	}
	return table.Flush()
}

// demoText writes for people: what was done, what bpfwhy says about it, and whether that is right.
func demoText(text *render.Text, w io.Writer) func(demo.Outcome) error {
	return func(o demo.Outcome) error {
		head := fmt.Sprintf("== %s: %s", o.Case.Name, o.Case.Title)
		if o.Skipped != "" {
			word := "NOT RUN"
			if !o.Demanded {
				word = "not run"
			}
			_, err := fmt.Fprintf(w, "%s\n   %s: %s\n\n", head, word, render.Clean(o.Skipped))
			return err
		}
		if _, err := fmt.Fprintln(w, head); err != nil {
			return err
		}
		if o.Attempt != nil {
			if err := text.Explain(o.Attempt); err != nil {
				return err
			}
		}
		verdict := "as expected"
		if !o.OK() {
			verdict = "NOT AS EXPECTED: " + strings.Join(o.Wrong, "; ")
		}
		_, err := fmt.Fprintf(w, "   %s\n\n", render.Clean(verdict))
		return err
	}
}

// demoJSON writes the attempts, each with what the demo says of it in a member of its own. A case that was not run has no attempt: that is
// said on standard error.
func demoJSON(w io.Writer, schema schemaVersion) func(demo.Outcome) error {
	type verdict struct {
		Case    string        `json:"case"`
		Title   string        `json:"title"`
		Result  string        `json:"result"` // expected, wrong
		Wrong   []string      `json:"wrong,omitempty"`
		Expects []demo.Expect `json:"expects"`
	}
	return func(o demo.Outcome) error {
		if o.Skipped != "" && o.Demanded {
			say("%s was NOT RUN: %s", o.Case.Name, o.Skipped)
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
		return render.JSON(w, struct {
			*load.Attempt
			Demo verdict `json:"demo"`
		}{a, v})
	}
}
