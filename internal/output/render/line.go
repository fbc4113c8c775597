// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/output/text"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/mattn/go-runewidth"
)

// Legend explains the cells of the table.
const Legend = `VERIFIER is what bpf_check returned. JIT says whether the kernel compiled the
program. RETURN is what bpf(2) returned. "?" means not observed, "failed?" means
concluded and not observed, "-" means not reached.`

type column struct {
	title string
	width int
	right bool
	cell  func(*load.Attempt) string
}

// columns are the widest set that fits. The four classic probes are in each: the call with its
// name, the verifier's result, jited or not, and the value returned.
func columns(width int) []column {
	pid := column{"PID", 7, true, func(a *load.Attempt) string { return strconv.Itoa(a.Process.PID) }}
	insns := column{"INSNS", 7, true, insnsCell}
	verifier := column{"VERIFIER", 9, false, verifierCell}
	blinding := column{"BLINDING", 8, false, blindingCell}
	jit := column{"JIT", 9, false, jitCell}
	ret := column{"RETURN", 14, false, returnCell}
	total := column{"TIME", 6, true, func(a *load.Attempt) string { return duration(a.DurationNS) }}
	switch {
	case width >= 132:
		return []column{{"AT", 12, false, clock("15:04:05.000")}, pid, {"COMM", 15, false, commCell},
			{"PROGRAM", 16, false, nameCell}, {"TYPE", 18, false, typeCell}, insns, verifier, blinding, jit, ret, total}
	case width >= 102:
		return []column{{"AT", 8, false, clock("15:04:05")}, pid, {"COMM", 10, false, commCell},
			{"PROGRAM", 15, false, nameCell}, insns, verifier, blinding, jit, ret, total}
	default:
		blinding.title, blinding.width = "BLIND", 7
		return []column{pid, {"COMM", 8, false, commCell}, {"PROGRAM", 12, false, nameCell}, verifier, blinding, jit, ret, total}
	}
}

func row(cols []column, cell func(column) string) string {
	var b strings.Builder
	for i, c := range cols {
		s := fit(text.Clean(cell(c)), c.width)
		pad := strings.Repeat(" ", max(0, c.width-runewidth.StringWidth(s)))
		if i > 0 {
			b.WriteByte(' ')
		}
		if c.right {
			s = pad + s
		} else {
			s += pad
		}
		b.WriteString(s)
	}
	return strings.TrimRight(b.String(), " ")
}

func clock(layout string) func(*load.Attempt) string {
	return func(a *load.Attempt) string { return a.Time.Format(layout) }
}

func commCell(a *load.Attempt) string { return a.Process.Comm }

func nameCell(a *load.Attempt) string {
	name := ""
	switch {
	case a.Program != nil:
		name = a.Program.Name
	case a.Map != nil:
		name = a.Map.Name
	case a.Attach != nil && a.Attach.Program != nil:
		name = a.Attach.Program.Name
	}
	if name == "" {
		return "(no name)"
	}
	return name
}

func typeCell(a *load.Attempt) string {
	if a.Kind == load.ProgLoad && a.Program != nil {
		return a.Program.Type
	}
	return string(a.Kind)
}

func insnsCell(a *load.Attempt) string {
	if a.Program == nil {
		return "-"
	}
	return strconv.Itoa(a.Program.Insns)
}

func verifierCell(a *load.Attempt) string {
	s := stageCell(a, load.Verifier)
	if r, ok := a.Stage(load.Verifier); ok && r.Result == load.OK && r.DurationNS > 0 {
		s += " " + duration(r.DurationNS)
	}
	return s
}

func blindingCell(a *load.Attempt) string {
	s := stageCell(a, load.Blinding)
	if p := a.Program; p != nil && p.Blinded != nil && s != "failed" && s != "failed?" {
		if *p.Blinded {
			return "yes"
		}
		return "no"
	}
	return s
}

func jitCell(a *load.Attempt) string {
	if p := a.Program; p != nil && p.JITed != nil {
		if *p.JITed {
			return "jited"
		}
		return "NOT jited"
	}
	return stageCell(a, load.JIT)
}

func stageCell(a *load.Attempt, s load.Stage) string {
	r, listed := a.Stage(s)
	switch {
	case listed && r.Result == load.OK:
		return "ok"
	case listed && r.Result == load.StageFailed:
		return "failed"
	case a.FailedStage == s:
		return "failed?"
	case listed:
		return "?"
	}
	return "-"
}

func returnCell(a *load.Attempt) string {
	switch {
	case a.Outcome == load.Failed:
		return errnoCell(a.Errno, a.ErrnoName)
	case a.Repair != nil:
		return "repaired"
	}
	if c := a.Evidence.Calls; len(c) > 0 && c[len(c)-1].Ret >= 0 && a.Kind != load.SocketFilter {
		return fmt.Sprintf("fd %d", c[len(c)-1].Ret)
	}
	return "ok"
}

func errnoCell(errno int, name string) string {
	if name == "" {
		name = errnoName(errno)
	}
	return strings.TrimSpace(fmt.Sprintf("%d %s", -errno, name))
}

// duration fits in six cells up to a quarter of an hour.
func duration(d time.Duration) string {
	switch {
	case d <= 0:
		return "-"
	case d < time.Millisecond:
		return fmt.Sprintf("%dus", d/time.Microsecond)
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1fms", d.Seconds()*1e3)
	case d < time.Second:
		return fmt.Sprintf("%dms", d/time.Millisecond)
	case d < 100*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return fmt.Sprintf("%ds", d/time.Second)
}
