// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/internal/hostinfo/audit"
	"github.com/bpfwhy/bpfwhy/internal/hostinfo/probe"
	"github.com/bpfwhy/bpfwhy/internal/hostinfo/rights"
	"github.com/bpfwhy/bpfwhy/internal/output/render"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/spf13/cobra"
)

func newAudit(io std) *cobra.Command {
	var asJSON bool
	var proven string
	c := &cobra.Command{
		Use:   "audit",
		Short: "List the loaded programs, and what hardening would do to each",
		Long: `List every program that is loaded on this node: which process holds it, whether
it is compiled and blinded, and what would happen to it at
net.core.bpf_jit_harden 1 and 2. The column MARGIN says how much room its jumps
have left. Below the table, one sentence says whether the node can be hardened.
It says yes, no with the ways out, or that there is nothing to judge: no program
is loaded that hardening could break, or none could be read.

Nothing is changed. To see whether loads return here, audit loads one program of
four instructions. The status is 0 when every program would survive 2, and 3
when there is nothing to judge. It is 1 when a program would not survive, when
one of several could not be judged, or when loads do not return.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := interruptible(c.Context())
			if err := loadsHang(ctx); err != nil && ctx.Err() == nil {
				// Whatever the programs would survive, nothing can be loaded again here.
				return &status{code: negative, err: fmt.Errorf("audit: cannot say whether this node can be hardened: %w", err)}
			}
			p := node.Host()
			probe.Blinding(p)
			if err := adopt(p, proven); err != nil {
				return fmt.Errorf("audit: %w", err)
			}
			r, err := audit.Run(ctx, p)
			switch {
			case ctx.Err() != nil:
				return fmt.Errorf("audit: interrupted")
			case err != nil:
				return fmt.Errorf("audit: %w", rights.Audit.Explain(err))
			case asJSON:
				err = render.JSON(io.out, r)
			default:
				err = printAudit(io.text(), r)
			}
			if err != nil {
				return err
			}
			return auditStatus(r.Summary.CanHarden)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "as one line of JSON (docs/schema/audit-v2.schema.json)")
	c.Flags().StringVar(&proven, "proven", "", "a record that 'doctor --prove --record' wrote on this kernel")
	return c
}

func auditStatus(a audit.Answer) error {
	switch a {
	case audit.Yes:
		return nil
	case audit.Nothing:
		return &status{code: nothing}
	}
	return &status{code: negative}
}

// How a fate stands in the table.
var fates = map[audit.Outcome]string{
	audit.JITed: "jited", audit.NotJITed: "NOT jited", audit.Fails: "FAILS", audit.FailsOrNotJITed: "FAILS or NOT jited",
	audit.Miscompiled: "MISCOMPILED", audit.Unknown: "?",
}

// Most lines of the table; JSON has all.
const auditLines = 500

// Most programs that the text goes into, of those that break and of those that are not known.
const auditDetails = 20

func printAudit(t *render.Text, r *audit.Report) error {
	programs := slices.Clone(r.Programs)
	slices.SortStableFunc(programs, func(a, b audit.Program) int {
		return cmp.Or(cmp.Compare(rank(&a), rank(&b)), cmp.Compare(marginOf(a.At2), marginOf(b.At2)))
	})
	if len(programs) > 0 {
		if err := auditTable(t, programs); err != nil {
			return err
		}
	}
	sections := []render.Section{{Label: "harden", Items: hardening(r)}, {Label: "programs", Items: []string{auditCounts(&r.Summary)}},
		{Label: "JIT memory", Items: memory(&r.Memory)}}
	var dangers, broken, unread []string
	for i := range programs {
		p := &programs[i]
		switch {
		case len(dangers) >= auditDetails:
		case p.Danger != "":
			dangers = append(dangers, p.Title()+" is interpreted now. "+p.Danger)
		case p.At2.Danger != "":
			dangers = append(dangers, p.Title()+" would be interpreted at 2. "+p.At2.Danger)
		}
		if j := p.At2.Jump; j != nil && len(broken) < auditDetails {
			broken = append(broken, fmt.Sprintf("%s: the jump from slot %d to %d would need the offset %d, and the limit is %d; %s", p.Title(), j.From, j.To, j.Need, j.Limit, p.At2.Why))
		}
		if why := cmp.Or(p.Unread, unsure(p.At2)); why != "" && len(unread) < auditDetails {
			unread = append(unread, p.Title()+": "+why)
		}
	}
	if len(dangers) > 0 {
		sections = append([]render.Section{{Label: "DANGER", Items: dangers}}, sections...)
	}
	if len(broken) > 0 {
		sections = append(sections, render.Section{Label: "broken", Items: broken}, render.Section{Label: "rules", Items: auditRules(programs)},
			render.Section{Remedies: r.Remedies})
	}
	// There is always something that cannot be seen.
	sections = append(sections, render.Section{Label: "not seen", Items: append(unread, r.Unseen...)})
	return t.Page(r.Summary.Sentence, sections)
}

// auditRules names the rules of what breaks, in their order, and how to read them.
func auditRules(programs []audit.Program) []string {
	var ids, out []string
	for i := range programs {
		if id := programs[i].At2.Rule; id != "" && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		if rule, ok := explain.ByID(id); ok {
			out = append(out, fmt.Sprintf("%s, %s ('bpfwhy explain %s' tells more)", id, rule.Title, id))
		}
	}
	return out
}

// auditTable writes a line for each program, what breaks first.
func auditTable(t *render.Text, programs []audit.Program) error {
	var rows []render.Row
	for i := range programs[:min(len(programs), auditLines)] {
		p := &programs[i]
		row := render.Row{Cells: []string{strconv.Itoa(int(p.ID)), cmp.Or(p.Name, "(no name)"), p.Type, strconv.Itoa(p.Insns),
			map[bool]string{true: "jited", false: "NOT jited"}[p.JITed], answer(p.Blinded), fates[p.At1.Outcome], fates[p.At2.Outcome],
			marginCell(p.At2), holder(p)}}
		switch rank(p) {
		case 0:
			row.Paint = render.Bad
		case 1:
			row.Paint = render.Doubtful
		}
		rows = append(rows, row)
	}
	err := t.Table([]render.Column{{Title: "ID", Right: true}, {Title: "NAME", Most: 16}, {Title: "TYPE", Most: 18, Drop: 2},
		{Title: "INSNS", Right: true, Drop: 1}, {Title: "NOW", Drop: 4}, {Title: "BLINDED", Drop: 3}, {Title: "AT 1", Drop: 5}, {Title: "AT 2"},
		{Title: "MARGIN", Right: true}, {Title: "HELD BY", Most: 60, Shrink: true}}, rows)
	if err != nil {
		return err
	}
	if n := len(programs) - len(rows); n > 0 {
		if err := t.Page(fmt.Sprintf("%d more programs; --json has them all", n), nil); err != nil {
			return err
		}
	}
	return t.Page("", nil)
}

func hardening(r *audit.Report) []string {
	now := "net.core.bpf_jit_harden could not be read"
	if r.Harden != nil {
		now = fmt.Sprintf("net.core.bpf_jit_harden is %d now", *r.Harden)
	}
	if t := r.Summary.Time; t >= 100*time.Millisecond {
		return []string{now, fmt.Sprintf("loading these programs again would take about %v longer with blinding", t.Round(100*time.Millisecond))}
	}
	return []string{now}
}

func auditCounts(s *audit.Summary) string {
	counts := fmt.Sprintf("%d, %d of them compiled, %d blinded", s.Programs, s.JITed, s.Blinded)
	if s.Programs == 0 {
		counts = "none"
	}
	if s.Vanished > 0 {
		counts += fmt.Sprintf("; %d more were unloaded during the audit", s.Vanished)
	}
	if s.Left > 0 {
		counts += fmt.Sprintf("; %d more are not listed", s.Left)
	}
	return counts
}

func unsure(f audit.Fate) string {
	if f.Outcome == audit.Unknown {
		return f.Why
	}
	return ""
}

func memory(m *audit.Memory) []string {
	used := "how much is in use could not be read"
	if m.Used != nil {
		used = "at most " + size(*m.Used) + " in use"
	}
	if m.Limit != nil {
		used += fmt.Sprintf(", of %s for loaders without CAP_BPF", size(uint64(max(*m.Limit, 0))))
	}
	out := []string{used + fmt.Sprintf("; these programs use %s", size(m.Programs))}
	for _, o := range m.Top {
		out = append(out, fmt.Sprintf("%s: %s in %d programs", o.Owner, size(o.Bytes), o.Programs))
	}
	return out
}

// rank puts what breaks first, and then what is not known.
func rank(p *audit.Program) int {
	switch {
	case p.At2.Breaks():
		return 0
	case p.At2.Outcome == audit.Unknown:
		return 1
	}
	return 2
}

func marginOf(f audit.Fate) int {
	if f.Margin == nil {
		return 1 << 20
	}
	return *f.Margin
}

func marginCell(f audit.Fate) string {
	if f.Margin == nil {
		return "-"
	}
	return strconv.Itoa(*f.Margin)
}

func answer(b *bool) string {
	switch {
	case b == nil:
		return "?"
	case *b:
		return "yes"
	}
	return "no"
}

// holder says in short what keeps a program loaded.
func holder(p *audit.Program) string {
	var out []string
	if len(p.Owners) > 0 {
		o := p.Owners[0]
		s := fmt.Sprintf("%s[%d]", o.Comm, o.PID)
		if n := len(p.Owners) - 1 + p.MoreOwners; n > 0 {
			s += fmt.Sprintf(" and %d more", n)
		}
		if o.Container != "" {
			s += " in " + o.Container
		}
		out = append(out, s)
	}
	if len(p.Pins) > 0 {
		out = append(out, "pin "+p.Pins[0])
	}
	if len(p.Links) > 0 {
		out = append(out, p.Links[0].Type+" link "+strconv.Itoa(int(p.Links[0].ID)))
	}
	return cmp.Or(strings.Join(out, ", "), "-")
}
