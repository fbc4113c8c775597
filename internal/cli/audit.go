// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/audit"
	"github.com/bpfwhy/bpfwhy/internal/probe"
	"github.com/bpfwhy/bpfwhy/internal/render"
	"github.com/bpfwhy/bpfwhy/internal/rights"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/spf13/cobra"
)

func newAudit() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "audit",
		Short: "Every program loaded on this node, and what net.core.bpf_jit_harden would do to it",
		Long: `List every program that is loaded on this node: who holds it, whether it is compiled and blinded, and what would
become of it at net.core.bpf_jit_harden 1 and 2, with the margin. Say in one sentence whether the node can
be hardened. It reads and changes nothing, but for one load of four instructions, which shows whether loads come back here. The status is 0 when
every program would survive 2, and 1 when one would not, or could not be judged, or when loads do not come back.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			ctx := interruptible()
			if err := loadsHang(ctx); err != nil && ctx.Err() == nil {
				// Whatever the programs would survive, nothing can be loaded again here.
				return &status{code: negative, err: fmt.Errorf("audit: whether this node can be hardened cannot be said: %w", err)}
			}
			p := node.Host()
			probe.Blinding(p)
			r, err := audit.Run(ctx, p)
			switch {
			case ctx.Err() != nil:
				return fmt.Errorf("audit: interrupted")
			case err != nil:
				return fmt.Errorf("audit: %w", rights.Audit.Explain(err))
			case asJSON:
				err = render.JSON(os.Stdout, r)
			default:
				err = printAudit(newText(os.Stdout), r)
			}
			if err == nil && r.Summary.CanHarden != audit.Yes {
				err = &status{code: negative}
			}
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "as one line of JSON (docs/schema/audit-v1.schema.json)")
	return c
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
			broken = append(broken, fmt.Sprintf("%s: the jump from slot %d to %d would need %d, the limit is %d; %s", p.Title(), j.From, j.To, j.Need, j.Limit, p.At2.Why))
		}
		if why := cmp.Or(p.Unread, unsure(p.At2)); why != "" && len(unread) < auditDetails {
			unread = append(unread, p.Title()+": "+why)
		}
	}
	if len(dangers) > 0 {
		sections = append([]render.Section{{Label: "DANGER", Items: dangers}}, sections...)
	}
	if len(broken) > 0 {
		sections = append(sections, render.Section{Label: "broken", Items: broken})
	}
	// There is always something that cannot be seen.
	sections = append(sections, render.Section{Label: "not seen", Items: append(unread, r.Unseen...)})
	return t.Page(r.Summary.Sentence, sections)
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
	err := t.Table([]render.Column{{Title: "ID", Right: true}, {Title: "NAME", Most: 16}, {Title: "TYPE", Most: 18}, {Title: "INSNS", Right: true},
		{Title: "NOW"}, {Title: "BLINDED"}, {Title: "AT 1"}, {Title: "AT 2"}, {Title: "MARGIN", Right: true}, {Title: "HELD BY", Most: 60}}, rows)
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
	now := "net.core.bpf_jit_harden is unknown now"
	if r.Harden != nil {
		now = fmt.Sprintf("net.core.bpf_jit_harden is %d now", *r.Harden)
	}
	if t := r.Summary.Time; t >= 100*time.Millisecond {
		return []string{now, fmt.Sprintf("blinding would add about %v to loading these programs again", t.Round(100*time.Millisecond))}
	}
	return []string{now}
}

func auditCounts(s *audit.Summary) string {
	counts := fmt.Sprintf("%d, %d of them compiled, %d blinded", s.Programs, s.JITed, s.Blinded)
	if s.Vanished > 0 {
		counts += fmt.Sprintf("; %d more were unloaded while they were looked at", s.Vanished)
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
	used := "what is in use could not be read"
	if m.Used != nil {
		used = "at most " + size(*m.Used) + " in use"
	}
	if m.Limit != nil {
		used += fmt.Sprintf(", of %s for loaders without CAP_BPF", size(uint64(max(*m.Limit, 0))))
	}
	out := []string{used + fmt.Sprintf("; these programs take %s", size(m.Programs))}
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
