// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/internal/output/render"
	"github.com/bpfwhy/bpfwhy/internal/output/terminal"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/spf13/cobra"
)

type explainOptions struct {
	selection
	what   string
	list   bool
	prove  bool
	proven string
}

func newExplain(io std) *cobra.Command {
	o := explainOptions{selection: selection{std: io}}
	c := &cobra.Command{
		Use:   "explain RULE|ERRNO|FILE|TEXT|-...",
		Short: "Explain a rule, an errno, a recorded trace, or error text",
		Long: `Explain a rule (BLIND001), an errno with all its meanings (524, ENOTSUPP), a
trace recorded with --record, or error text as loaders print it. The text is in
a file, comes on standard input (-), or is given as words. No root is needed. If
a file's name looks like a rule or an errno, write ./NAME.

With --prove (root), each failed program of a trace is loaded again on this
machine, as it was recorded. If blinding may be the reason, it is also loaded
with its long jumps split in two (jump islands). A program gets empty maps of
the same kind and the loader's capabilities. It is never attached. This hands
programs from the trace's author to this kernel's verifier and compiler, which
have had bugs. Prove only traces that you trust.`,
		Example: `  bpfwhy explain 524
  bpfwhy explain BLIND001 -22
  bpfwhy explain 'load program: operation not supported'
  kubectl describe pod x | bpfwhy explain -`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) == 0 && !o.list:
				return errors.New("explain: give a rule, an errno, a trace, or - for text on standard input: bpfwhy explain BLIND001")
			case len(args) > 0 && o.list:
				return errors.New("explain: --list lists all rules and errnos, and takes nothing else")
			case len(args) > 1 && o.prove:
				return errors.New("explain: --prove takes one trace")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if o.list {
				return o.reference()
			}
			return explainAll(c.Context(), o, args)
		},
	}
	f := c.Flags()
	f.BoolVar(&o.failed, "failed", false, "of a trace: only loads that failed or were not compiled")
	f.BoolVar(&o.all, "all", false, "of a trace: also feature probes, and calls for maps, BTF, links and others that succeeded")
	f.BoolVar(&o.list, "list", false, "list all rules, and all errnos that have an explanation")
	f.BoolVar(&o.json, "json", false, "as JSON Lines")
	o.schema.flag(c)
	f.StringVar(&o.proven, "proven", "", "of a trace: a record of the trace's kernel, written by 'doctor --prove --record'")
	f.BoolVar(&o.prove, "prove", false, "load a trace's failed programs again, as they were and repaired (root)")
	return c
}

// ruleLike is what a rule's id looks like, so that a mistyped one is not taken for a file.
var ruleLike = regexp.MustCompile(`^[A-Za-z]{2,8}[0-9]{3}$`)

// explainAll explains each of several things, or all of them as one text.
func explainAll(ctx context.Context, o explainOptions, args []string) error {
	if err := o.schema.check(); err != nil {
		return err
	}
	if !o.prove && areText(args) {
		return explainText(o.std, "this text", strings.NewReader(strings.Join(args, " ")), o.json)
	}
	for _, what := range args {
		o.what = what
		if err := explainAny(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

// areText reports words of which at least one is nothing else than a word: no rule, no errno, no
// file, and nothing that looks like one of these and is mistyped. A single word is a name.
func areText(args []string) bool {
	if len(args) == 1 && !strings.ContainsAny(args[0], " \n") {
		return false
	}
	return slices.ContainsFunc(args, func(s string) bool {
		_, rule := explain.ByID(s)
		_, errno := explain.ErrnoByName(s)
		if _, err := os.Stat(s); rule || errno || err == nil || s == "-" || strings.HasPrefix(s, errnoPrefix) {
			return false
		}
		return strings.ContainsAny(s, " \n") || !nameLike.MatchString(s)
	})
}

var nameLike = regexp.MustCompile(`^(?:[A-Za-z]{2,8}[0-9]{1,4}|[-+]?[0-9]+|\S*/\S*|\S+\.[a-z]{1,8})$`)

// signed lets errnos with a sign be arguments of explain: "-22" looks like flags.
func signed(args []string) []string {
	if len(args) == 0 || args[0] != "explain" {
		return args
	}
	args = slices.Clone(args)
	for i, a := range args {
		if a == "--" {
			break
		}
		if len(a) > 1 && a[0] == '-' && strings.Trim(a[1:], "0123456789") == "" {
			args[i] = errnoPrefix + a
		}
	}
	return args
}

const errnoPrefix = "errno "

func explainAny(ctx context.Context, o explainOptions) error {
	if o.prove {
		return prove(ctx, o)
	}
	if r, ok := explain.ByID(o.what); ok {
		return o.rule(&r)
	}
	if e, ok := explain.ErrnoByName(o.what); ok {
		return o.errno(&e)
	}
	if o.what == "-" {
		if f, ok := o.in.(*os.File); ok {
			if width, _ := terminal.Of(f); width > 0 {
				o.say("paste the text, then press Ctrl-D at the beginning of a line")
			}
		}
		return explainInput("standard input", o.in, o)
	}
	o.what = strings.TrimPrefix(o.what, errnoPrefix)
	f, err := os.Open(o.what)
	switch {
	case errors.Is(err, fs.ErrNotExist) && ruleLike.MatchString(o.what):
		return fmt.Errorf("explain %s: no such rule; 'bpfwhy explain --list' lists them all", o.what)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("explain %s: neither a rule, nor an errno, nor a file; 'bpfwhy explain --list' lists rules and errnos", o.what)
	case err != nil:
		return fmt.Errorf("explain: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return fmt.Errorf("explain %s: this is a directory", o.what)
	}
	return explainInput(o.what, f, o)
}

// explainInput tells a trace from text by its first bytes.
func explainInput(name string, in io.Reader, o explainOptions) error {
	b := bufio.NewReader(in)
	if _, err := b.Peek(1); err != nil && err != io.EOF {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if trace.Recorded(b) {
		if err := explainTrace(b, o, nil); err != nil {
			return fmt.Errorf("explain %s: %w", name, err)
		}
		return nil
	}
	if err := skipBlanks(b); err != nil {
		return fmt.Errorf("explain %s: %w", name, err)
	}
	return explainText(o.std, name, b, o.json)
}

// skipBlanks goes on to the first character of a text.
func skipBlanks(in *bufio.Reader) error {
	for {
		c, err := in.ReadByte()
		switch {
		case errors.Is(err, io.EOF):
			return errors.New("it is empty")
		case err != nil:
			return err
		case !unicode.IsSpace(rune(c)):
			return in.UnreadByte()
		}
	}
}

// proof is how the programs of a trace are loaded again.
type proof struct {
	begin func(trace.Header)
	each  func(*load.Attempt) error
	said  func() string
}

func explainTrace(in io.Reader, o explainOptions, p *proof) error {
	r, err := trace.NewReader(in)
	if err != nil {
		return err
	}
	out := o.sink(o.out, o.text())
	h := r.Header()
	if err := adopt(&h.Node, o.proven); err != nil {
		return err
	}
	s, err := newSession(h, &o.selection, out)
	if err != nil {
		return err
	}
	if p != nil {
		p.begin(h)
		s.Prove = p.each
	}
	err = s.replay(r)
	s.summary.For = 0
	if o.json {
		return err
	}
	text := o.text()
	by, missing := coverage(r.Header())
	recorded := []string{fmt.Sprintf("on %s, watched by %s", cmp.Or(r.Header().Node.Release, "an unknown kernel"), by)}
	if len(missing) > 0 {
		recorded = append(recorded, "not observed, only concluded: "+strings.Join(missing, ", "))
	}
	sections := []render.Section{{Label: "recorded", Items: recorded}}
	if p != nil {
		sections = append(sections, render.Section{Label: "proved", Items: []string{p.said()}})
	}
	return errors.Join(err, text.Page("", sections), text.Summary(&s.summary))
}

// reference lists what can be asked for by name.
func (o *explainOptions) reference() error {
	var rules, errnos []render.Row
	for _, r := range explain.All() {
		if o.json {
			if err := o.rule(&r); err != nil {
				return err
			}
		}
		rules = append(rules, render.Row{Cells: []string{r.ID, r.Title}})
	}
	for _, e := range explain.Errnos() {
		if o.json {
			if err := o.errno(&e); err != nil {
				return err
			}
		}
		errnos = append(errnos, render.Row{Cells: []string{strconv.Itoa(e.Number), e.Name, e.Prints}})
	}
	if o.json {
		return nil
	}
	t := o.text()
	return errors.Join(t.Table([]render.Column{{Title: "RULE"}, {Title: "TITLE", Shrink: true}}, rules),
		t.Table([]render.Column{{Title: "ERRNO", Right: true}, {Title: "NAME"}, {Title: "PRINTED AS", Shrink: true}}, errnos))
}

// The JSON forms of the reference.
type ruleJSON struct {
	Rule     string `json:"rule"`
	Title    string `json:"title"`
	Text     string `json:"text"`
	Stage    string `json:"stage"`
	Kernels  string `json:"kernels,omitempty"`
	Remedies any    `json:"remedies"`
}

func (o *explainOptions) rule(r *explain.Rule) error {
	if o.json {
		return render.JSON(o.out, ruleJSON{r.ID, r.Title, r.Text, string(r.Stage), r.Kernels, r.Remedies})
	}
	return o.text().Rule(r)
}

type errnoJSON struct {
	Errno    int           `json:"errno"`
	Name     string        `json:"errno_name"`
	Note     string        `json:"note,omitempty"`
	Meanings []meaningJSON `json:"meanings"`
}

type meaningJSON struct {
	Command string   `json:"command"`
	Text    string   `json:"text"`
	Rules   []string `json:"rules"`
}

func (o *explainOptions) errno(e *explain.Errno) error {
	if !o.json {
		return o.text().Errno(e)
	}
	out := errnoJSON{Errno: e.Number, Name: e.Name, Note: e.Note, Meanings: []meaningJSON{}}
	for _, m := range e.Meanings {
		out.Meanings = append(out.Meanings, meaningJSON{m.Command, m.Text, m.Rules})
	}
	return render.JSON(o.out, out)
}
