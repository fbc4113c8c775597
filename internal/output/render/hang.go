// SPDX-License-Identifier: Apache-2.0

package render

import (
	"time"

	"github.com/bpfwhy/bpfwhy/load"
)

// Hang writes what is known of loads that do not come back.
func (t *Text) Hang(h *load.Hang) error {
	p := page{t: t}
	if h.Calls == 0 {
		p.b.WriteString(t.bold("BACK  the loads that hung have come back, or their threads have ended") + "\n\n")
		_, err := t.w.Write(p.b.Bytes())
		return err
	}
	p.b.WriteString(t.bold(t.paint("HANGING", red)) + "  " + t.bold(plural(h.Calls, "load")+" in the kernel for longer than "+h.AfterNS.Round(time.Second).String()) + "\n")
	diagnosis(&p, h.Diagnosis)
	if h.Diagnosis != nil {
		p.remedies(h.Diagnosis.Remedies)
	}
	p.b.WriteByte('\n')
	_, err := t.w.Write(p.b.Bytes())
	return err
}
