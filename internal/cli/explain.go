// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/internal/render"
	"github.com/bpfwhy/bpfwhy/internal/trace"
	"github.com/spf13/cobra"
)

type explainOptions struct {
	selection
	what  string
	prove bool
}

func newExplain() *cobra.Command {
	var o explainOptions
	c := &cobra.Command{
		Use:   "explain ID|ERRNO|FILE|-",
		Short: "Explain a rule, an errno, a recorded trace, or error text",
		Long: `Explain a rule (BLIND001), an errno with all its meanings (524, ENOTSUPP), a trace recorded with
--record, or error text as loaders print it, in a file or pasted on standard input (-). It needs no root.
A file whose name looks like a rule or an errno is meant by ./NAME.

With --prove (root) each program of a trace that failed is loaded again here, as it was and, where blinding may be
the reason, with jump islands: with stand-ins for its maps, the loader's capabilities, never attached. That hands a
program of whoever wrote the trace to this kernel's verifier and compiler, which have had bugs: prove what you trust.`,
		Example: `  bpfwhy explain 524
  bpfwhy explain BLIND001
  kubectl describe pod x | bpfwhy explain -`,
		Args: one("explain: give a rule, an errno, a trace, or - for text on standard input: bpfwhy explain BLIND001"),
		RunE: func(_ *cobra.Command, args []string) error {
			o.what = args[0]
			return explainAny(o)
		},
	}
	f := c.Flags()
	f.BoolVar(&o.failed, "failed", false, "of a trace, only loads that failed or ended up not jited")
	f.BoolVar(&o.all, "all", false, "of a trace, also feature probes, and healthy map, BTF, link and other calls")
	f.BoolVar(&o.json, "json", false, "as JSON Lines")
	o.schema.flag(c)
	f.BoolVar(&o.prove, "prove", false, "load the failed programs of a trace again, as they were and repaired (root)")
	return c
}

// ruleLike is what a rule's id looks like, so that a mistyped one is not taken for a file.
var ruleLike = regexp.MustCompile(`^[A-Za-z]{2,8}[0-9]{3}$`)

// Most that is read of pasted text.
const maxText = 4 << 20

func explainAny(o explainOptions) error {
	if err := o.schema.check(); err != nil {
		return err
	}
	if o.prove {
		return prove(o)
	}
	if r, ok := explain.ByID(o.what); ok {
		return explainRule(&r, o.json)
	}
	if e, ok := explain.ErrnoByName(o.what); ok {
		return explainErrno(&e, o.json)
	}
	if o.what == "-" {
		return explainInput("standard input", os.Stdin, o)
	}
	f, err := os.Open(o.what)
	switch {
	case errors.Is(err, fs.ErrNotExist) && ruleLike.MatchString(o.what):
		return fmt.Errorf("explain %s: no such rule (docs/rules.md lists them all)", o.what)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("explain %s: neither a rule, nor an errno, nor a file", o.what)
	case err != nil:
		return fmt.Errorf("explain: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return fmt.Errorf("explain %s: is a directory", o.what)
	}
	return explainInput(o.what, f, o)
}

// explainInput tells a trace from text by its first bytes.
func explainInput(name string, in io.Reader, o explainOptions) error {
	b := bufio.NewReader(in)
	if _, err := b.Peek(1); err != nil && err != io.EOF {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if isTrace(b) {
		if err := explainTrace(b, o, nil); err != nil {
			return fmt.Errorf("explain %s: %w", name, err)
		}
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(b, maxText+1))
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	switch {
	case len(bytes.TrimSpace(text)) == 0:
		return fmt.Errorf("explain %s: it is empty", name)
	case bytes.IndexByte(text, 0) >= 0:
		return fmt.Errorf("explain %s: neither a trace nor text", name)
	case len(text) > maxText:
		say("%s: only its first %d MiB are read", name, maxText>>20)
		text = text[:maxText]
	}
	return explainText(name, string(text), o.json)
}

// isTrace looks at the first bytes, and leaves them to be read.
func isTrace(in *bufio.Reader) bool {
	const plain = `{"header"`
	head, _ := in.Peek(len(plain))
	return bytes.HasPrefix(head, []byte{0x1f, 0x8b}) || bytes.Equal(head, []byte(plain))
}

func explainTrace(in io.Reader, o explainOptions, p *prover) error {
	r, err := trace.NewReader(in)
	if err != nil {
		return err
	}
	out := o.sink(os.Stdout, newText(os.Stdout))
	s, err := newSession(r.Header(), &o.selection, out)
	if err != nil {
		return err
	}
	if p != nil {
		p.header = r.Header()
		s.prove = p.prove
	}
	err = s.replay(r)
	s.summary.For = 0
	if o.json {
		return err
	}
	text := newText(os.Stdout)
	by, missing := coverage(r.Header())
	recorded := []string{fmt.Sprintf("on %s, watched by %s", cmp.Or(r.Header().Node.Release, "an unknown kernel"), by)}
	if len(missing) > 0 {
		recorded = append(recorded, "not observed but concluded: "+strings.Join(missing, ", "))
	}
	sections := []render.Section{{Label: "recorded", Items: recorded}}
	if p != nil {
		sections = append(sections, render.Section{Label: "proved", Items: []string{p.String()}})
	}
	return errors.Join(err, text.Page("", sections), text.Summary(&s.summary))
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

func explainRule(r *explain.Rule, asJSON bool) error {
	if asJSON {
		return render.JSON(os.Stdout, ruleJSON{r.ID, r.Title, r.Text, string(r.Stage), r.Kernels, r.Remedies})
	}
	return newText(os.Stdout).Rule(r)
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

func explainErrno(e *explain.Errno, asJSON bool) error {
	if !asJSON {
		return newText(os.Stdout).Errno(e)
	}
	out := errnoJSON{Errno: e.Number, Name: e.Name, Note: e.Note}
	for _, m := range e.Meanings {
		out.Meanings = append(out.Meanings, meaningJSON{m.Command, m.Text, m.Rules})
	}
	return render.JSON(os.Stdout, out)
}
