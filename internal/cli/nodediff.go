// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/internal/render"
	"github.com/bpfwhy/bpfwhy/internal/trace"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/spf13/cobra"
)

// nodeDiff is what 'node diff' found (docs/schema/node-diff-v1.schema.json).
type nodeDiff struct {
	Schema      string            `json:"schema"`
	A           nodeSide          `json:"a"`
	B           nodeSide          `json:"b"`
	Differences []node.Difference `json:"differences"`
	// Failures are those of a trace, each kind once; absent without one. They happened on A.
	Failures []nodeFailure `json:"failures,omitempty"`
	// MoreFailures counts failures of further kinds than those listed.
	MoreFailures int `json:"more_failures,omitempty"`

	here, there *node.Profile // A and B
	kinds       map[failureKind]int
	explained   bool // some failure is
}

type nodeSide struct {
	Source  string `json:"source"` // a file, or the trace
	Release string `json:"release"`
}

type nodeFailure struct {
	Rule    string              `json:"rule"`
	Title   string              `json:"title"`
	Program string              `json:"program,omitempty"`
	Comm    string              `json:"comm"`
	Errno   int                 `json:"errno"`
	Count   int                 `json:"count"`
	By      []explain.NodeCause `json:"explained_by"`
}

const nodeDiffSchema = "bpfwhy.node-diff/v1"

func newNodeDiff() *cobra.Command {
	var traceFile string
	var asJSON bool
	c := &cobra.Command{
		Use:   "diff A B",
		Short: "What two nodes differ in, what changes the fate of loads first",
		Long: `Compare two profiles: files of 'bpfwhy node --json', or traces, which carry one too. What changes the fate of
loads comes first, with the reason. With --trace, say which difference explains each failure in a recording of
'watch --record' or 'run --record', which must come from one of the two nodes; with one profile
only, the recording's own is the other side. The status is 1 when --trace has failures and no
difference explains any of them.`,
		Example: `  bpfwhy node diff good.json bad.json
  bpfwhy node diff good.json --trace failed-on-bad.bpfwhy`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) == 2, len(args) == 1 && traceFile != "":
				return nil
			case len(args) == 1:
				return errors.New("node diff: one profile alone; give another one, or --trace FILE")
			}
			return errors.New("node diff: give two profiles, or one and --trace FILE")
		},
		RunE: func(_ *cobra.Command, args []string) error { return diffNodes(args, traceFile, asJSON) },
	}
	c.Flags().StringVar(&traceFile, "trace", "", "a recording from one of the two: which difference explains its failures")
	c.Flags().BoolVar(&asJSON, "json", false, "as one line of JSON")
	return c
}

func diffNodes(files []string, traceFile string, asJSON bool) error {
	var profiles []*node.Profile
	for _, f := range files {
		p, err := readProfile(f)
		if err != nil {
			return err
		}
		profiles = append(profiles, p)
	}
	var recording *trace.Reader
	if traceFile != "" {
		f, err := os.Open(traceFile)
		if err != nil {
			return fmt.Errorf("node diff: %w", err)
		}
		defer f.Close()
		if recording, err = trace.NewReader(f); err != nil {
			return fmt.Errorf("node diff: %s: %w", traceFile, err)
		}
		h := recording.Header()
		if len(profiles) == 1 {
			profiles, files = []*node.Profile{&h.Node, profiles[0]}, []string{traceFile, files[0]}
		} else if on, err := recordedOn(h, profiles); err != nil {
			return fmt.Errorf("node diff: %s %w", traceFile, err)
		} else if on == 1 { // what failed is A
			slices.Reverse(profiles)
			slices.Reverse(files)
		}
	}
	d := &nodeDiff{Schema: nodeDiffSchema, A: nodeSide{files[0], profiles[0].Release}, B: nodeSide{files[1], profiles[1].Release},
		Differences: node.Diff(profiles[0], profiles[1]), here: profiles[0], there: profiles[1], kinds: map[failureKind]int{}}
	if d.Differences == nil {
		d.Differences = []node.Difference{}
	}
	var cut error // a recording that ends early still says what is in it
	if recording != nil {
		s, err := newSession(recording.Header(), &selection{failed: true, all: true}, d)
		if err != nil {
			return err
		}
		if err := s.replay(recording); err != nil {
			cut = fmt.Errorf("node diff: %s: %w", traceFile, err)
		}
	}
	var err error
	if asJSON {
		err = render.JSON(os.Stdout, d)
	} else {
		err = d.print(newText(os.Stdout), traceFile)
	}
	switch {
	case err != nil:
		return err
	case cut != nil:
		return cut
	case len(d.Failures) > 0 && !d.explained:
		return &status{code: negative}
	}
	return nil
}

// readProfile reads a profile of its own, or that of a trace.
func readProfile(file string) (*node.Profile, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("node diff: %w", err)
	}
	defer f.Close()
	in := bufio.NewReader(f)
	if isTrace(in) {
		r, err := trace.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("node diff: %s: %w", file, err)
		}
		p := r.Header().Node
		return &p, nil
	}
	p, err := node.Decode(in)
	if err != nil {
		return nil, fmt.Errorf("node diff: %s: %w", file, err)
	}
	return p, nil
}

// recordedOn says which of the two a trace comes from: the one that it differs less from in what decides loads.
func recordedOn(h trace.Header, profiles []*node.Profile) (int, error) {
	var apart [2]int
	for i, p := range profiles {
		if p.Release != h.Node.Release {
			apart[i] = -1
			continue
		}
		for _, d := range node.Diff(&h.Node, p) {
			if d.Effect != node.Informs {
				apart[i]++
			}
		}
	}
	switch {
	case apart[0] < 0 && apart[1] < 0:
		return 0, fmt.Errorf("was recorded on %s, which is neither of the two: leave one out to compare with the recording's own profile", cmp.Or(h.Node.Release, "an unknown kernel"))
	case apart[0] < 0, apart[1] >= 0 && apart[1] < apart[0]:
		return 1, nil
	}
	return 0, nil
}

// Most kinds of failures in a report.
const maxKinds = 200

// failureKind tells failures apart: a trace may hold millions, which differ in nothing else.
type failureKind struct {
	rule, program, comm string
	errno               int
}

// attempt makes nodeDiff the sink of a trace: each kind of failure is looked at once.
func (d *nodeDiff) attempt(a *load.Attempt) error {
	if !a.Finding() || a.Diagnosis == nil {
		return nil
	}
	k := failureKind{a.Diagnosis.Rule, "", a.Process.Comm, a.Errno}
	switch {
	case a.Program != nil:
		k.program = a.Program.Name
	case a.Map != nil:
		k.program = a.Map.Name
	}
	if i, seen := d.kinds[k]; seen {
		d.Failures[i].Count++
		return nil
	}
	if len(d.Failures) == maxKinds {
		d.MoreFailures++
		return nil
	}
	d.kinds[k] = len(d.Failures)
	f := nodeFailure{Rule: k.rule, Title: a.Diagnosis.Title, Program: k.program, Comm: k.comm, Errno: k.errno, Count: 1,
		By: explain.Compare(a, d.here, d.there)}
	if f.By == nil {
		f.By = []explain.NodeCause{}
	}
	d.explained = d.explained || len(f.By) > 0
	d.Failures = append(d.Failures, f)
	return nil
}

// Headings of the three kinds of differences.
var effects = []struct {
	effect node.Effect
	label  string
}{{node.Decides, "decides"}, {node.MayDecide, "may"}, {node.Informs, "besides"}}

func (d *nodeDiff) print(t *render.Text, traceFile string) error {
	counts := map[node.Effect]int{}
	for _, x := range d.Differences {
		counts[x.Effect]++
	}
	headline := fmt.Sprintf("%d of %d differences change the fate of loads, %d may", counts[node.Decides], len(d.Differences), counts[node.MayDecide])
	if len(d.Differences) == 0 {
		headline = "The two do not differ in anything that decides loads"
	}
	sections := []render.Section{
		{Label: "A", Items: []string{strings.TrimSpace(d.A.Source + ", " + cmp.Or(d.A.Release, "an unknown kernel"))}},
		{Label: "B", Items: []string{strings.TrimSpace(d.B.Source + ", " + cmp.Or(d.B.Release, "an unknown kernel"))}},
	}
	for _, e := range effects {
		var items []string
		for _, x := range d.Differences {
			if x.Effect != e.effect {
				continue
			}
			s := fmt.Sprintf("%s: A %s, B %s", x.Name, x.A, x.B)
			if x.Why != "" {
				s += "; " + x.Why
			}
			if len(x.Rules) > 0 && e.effect != node.Informs {
				s += " (" + strings.Join(rulesOnly(x.Rules), ", ") + ")"
			}
			items = append(items, s)
		}
		if len(items) > 0 {
			sections = append(sections, render.Section{Label: e.label, Items: items})
		}
	}
	if err := t.Page(headline, sections); err != nil || traceFile == "" {
		return err
	}
	if len(d.Failures) == 0 {
		return t.Page(traceFile+" holds no failure", nil)
	}
	for i := range d.Failures {
		f := &d.Failures[i]
		if err := t.Page(fmt.Sprintf("%s, %s", f.Rule, f.Title), f.sections()); err != nil {
			return err
		}
	}
	if d.MoreFailures > 0 {
		return t.Page(fmt.Sprintf("%d failures of further kinds are left out", d.MoreFailures), nil)
	}
	return nil
}

// sections say what failed, and which differences explain it.
func (f *nodeFailure) sections() []render.Section {
	what := fmt.Sprintf("%s of %s", cmp.Or(f.Program, "(no name)"), f.Comm)
	if f.Errno != 0 {
		what += fmt.Sprintf(", errno %d", f.Errno)
	}
	if f.Count > 1 {
		what += fmt.Sprintf(", %d times", f.Count)
	}
	sections := []render.Section{{Label: "failed", Items: []string{what + ", on A"}}}
	var certain, maybe []string
	for _, c := range f.By {
		s := fmt.Sprintf("%s: A %s, B %s", c.Name, c.A, c.B)
		if c.Because != "" {
			s += "; " + c.Because
		}
		if c.Sure {
			certain = append(certain, s)
		} else {
			maybe = append(maybe, s)
		}
	}
	if len(f.By) == 0 {
		certain = []string{"none of the differences explains it: as far as the profiles tell, it would fail on B too"}
	}
	if len(certain) > 0 {
		sections = append(sections, render.Section{Label: "because", Items: certain})
	}
	if len(maybe) > 0 {
		sections = append(sections, render.Section{Label: "perhaps", Items: maybe})
	}
	return sections
}

// rulesOnly leaves out the prefixes that stand for whole families.
func rulesOnly(rules []string) []string {
	return slices.DeleteFunc(slices.Clone(rules), func(r string) bool { return len(r) == 3 })
}
