// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/output/text"
	"github.com/bpfwhy/bpfwhy/load"
)

// page collects labelled, wrapped paragraphs.
type page struct {
	t *Text
	b bytes.Buffer
}

// The text stands right of the labels.
const margin = 12

func (p *page) print(label, s string) { p.item(label, "", s) }

// item wraps s behind a bullet, right of the label.
func (p *page) item(label, bullet, s string) {
	indent := margin + len(bullet)
	for i, l := range wrap(text.Clean(s), p.t.width-indent) {
		switch {
		case i > 0:
			p.b.WriteString(strings.Repeat(" ", indent))
		case label == "":
			p.b.WriteString(strings.Repeat(" ", margin) + bullet)
		case len(label) > margin-3: // it gets a line of its own
			p.b.WriteString("  " + p.t.bold(label) + "\n" + strings.Repeat(" ", margin) + bullet)
		default:
			p.b.WriteString("  " + p.t.bold(label) + strings.Repeat(" ", max(1, margin-2-len(label))) + bullet)
		}
		p.b.WriteString(l + "\n")
	}
}

// verbatim is for commands and logs: never wrapped, because it is there to be copied.
func (p *page) verbatim(label, bullet, s string) {
	if label != "" {
		p.b.WriteString("  " + p.t.bold(label) + strings.Repeat(" ", max(1, margin-2-len(label))))
	} else {
		p.b.WriteString(strings.Repeat(" ", margin))
	}
	p.b.WriteString(strings.TrimRight(bullet+text.Clean(s), " ") + "\n")
}

// danger comes first: what else there is to say is of less weight.
func (p *page) danger(d *load.Diagnosis) {
	if d.Danger != "" {
		p.print("DANGER", d.Danger)
	}
}

func (p *page) by(a *load.Attempt) {
	who := fmt.Sprintf("%s, pid %d", a.Process.Comm, a.Process.PID)
	if n := a.Process.PIDInNS; n != 0 && n != a.Process.PID {
		who += fmt.Sprintf(" (%d in its namespace)", n)
	}
	who += fmt.Sprintf(", uid %d", a.Process.UID)
	if a.Process.Exe != "" {
		who += ", " + a.Process.Exe
	}
	if a.Process.Container != "" {
		who += ", container " + a.Process.Container
	}
	p.print("by", who)
	if a.Retries > 0 {
		p.print("retries", fmt.Sprintf("%d: the loader made %d calls to load it; this is the last", a.Retries, a.Retries+1))
	}
}

// why is a diagnosis below its title and above what to do; how says what its kind of knowledge
// means.
func (p *page) why(d *load.Diagnosis, how string) {
	if d.Cause != "" {
		p.print("cause", d.Cause)
	}
	p.print("known", string(d.HowKnown)+how)
	label := "evidence"
	for _, e := range d.Evidence {
		p.item(label, "- ", e)
		label = ""
	}
	label = "also possible"
	for _, a := range d.Alternatives {
		p.item(label, "- ", fmt.Sprintf("%s, %s: %s", a.Rule, a.Title, a.Why))
		label = ""
	}
}

func (p *page) remedies(remedies []load.Remedy) {
	label := "fixes"
	for i, r := range remedies {
		p.item(label, fmt.Sprintf("%d. ", i+1), r.Title)
		label = ""
		if r.Price != "" {
			p.item("", "   cost: ", r.Price)
		}
		try := "   try: "
		for l := range strings.Lines(r.Command) {
			p.verbatim("", try, strings.TrimRight(l, "\n"))
			try = "        "
		}
	}
}
