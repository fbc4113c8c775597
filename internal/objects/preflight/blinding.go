// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"fmt"

	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/internal/objects/check"
	"github.com/bpfwhy/bpfwhy/node"
)

// blinding says of the programs of an object whether they survive hardening: as the node is set,
// and at 2, which somebody may set one day.
func (j judge) blinding(s Source) []Line {
	where := ""
	if s.Label != "" {
		where = " of " + s.Label
	}
	programs, err := check.Programs(s.Object, check.ForNode(j.Profile, j.Release, 2))
	if err != nil {
		return []Line{unknown(err.Error()).about("constant blinding" + where)}
	}
	j.unspared(s, programs)
	var lines []Line
	var safe []string
	for i := range programs {
		p := &programs[i]
		if p.Verdict == check.Loads {
			safe = append(safe, p.Name+where)
			continue
		}
		l := j.blinded(p, s)
		l.For = []string{p.Name + where}
		lines = append(lines, l)
	}
	if len(safe) > 0 {
		l := pass("their jumps fit, with all that the verifier may add").about("constant blinding at any " + harden)
		l.For = safe
		lines = append(lines, l)
	}
	return lines
}

// unspared marks what only breaks for a loader that 1 does not spare: the verifier adds more to its
// programs.
func (j judge) unspared(s Source, programs []check.Program) {
	at, _ := j.Sysctl(harden)
	if _, on := j.blinds(); at != 1 || on != node.Yes {
		return
	}
	at1, err := check.Programs(s.Object, check.ForNode(j.Profile, j.Release, 1))
	for i := range at1 {
		if p := &programs[i]; err == nil && p.Verdict == check.Loads && at1[i].Unprivileged != "" {
			p.Verdict, p.Confidence = at1[i].Unprivileged, check.Possible
		}
	}
}

// blinded is for a program that blinding breaks, or may break.
func (j judge) blinded(p *check.Program, s Source) Line {
	l := Line{Verdict: Warn, Rule: p.Failure(), Why: j.whatHappens(p)}
	l.Need = "constant blinding at " + harden
	j.remedy(&l, s)
	now, on := j.blinds()
	switch at, _ := j.Sysctl(harden); {
	case on == node.Unknown:
		l.Need += "=2"
		l.Unknown = true
		l.Why = "not known: " + now + ". At 2: " + l.Why
	case on == node.No:
		l.Need += "=2"
		l.Why = "the node is not set so (" + now + "), but at 2 " + l.Why
	default:
		l.Need += fmt.Sprintf("=%d", at)
		l.Why = now + ": " + l.Why
		if j.breaks(p) {
			l.Verdict = Fail
		}
	}
	return l
}

// blinds reports whether the constants of what this process loads are blinded.
func (j judge) blinds() (why string, on node.Answer) {
	if v, ok := j.Sysctl(enable); ok && v == 0 {
		return "nothing is compiled", node.No
	}
	v, ok := j.Sysctl(harden)
	switch q := j.Process; {
	case !ok:
		return j.unread(harden).Why[len("not known: "):], node.Unknown
	case v <= 0:
		return harden + " is 0", node.No
	case v >= 2:
		return harden + " is 2", node.Yes
	case q == nil:
		return harden + " is 1, and the rights of this process are not known", node.Unknown
	default:
		spares := j.Spares(q.Has("CAP_SYS_ADMIN"), q.Has("CAP_BPF"))
		return harden + " is 1, which " + map[node.Answer]string{node.Yes: "spares", node.No: "does not spare", node.Unknown: "may spare"}[spares] + " this process",
			map[node.Answer]node.Answer{node.Yes: node.No, node.No: node.Yes}[spares]
	}
}

// breaks reports that the program is known to be of no use when it is blinded: it fails, goes wrong
// silently, or may crash the machine. One that a kernel may interpret instead is not.
func (j judge) breaks(p *check.Program) bool {
	alwaysOn, known := j.JITAlwaysOn()
	switch {
	case p.MayOnly():
		return false
	case p.Verdict == check.Wraps:
		return p.AlsoPossible == ""
	}
	return known && (alwaysOn || p.Danger != "")
}

func (j judge) whatHappens(p *check.Program) string {
	what := "a jump becomes too long"
	if p.MayOnly() {
		what = "a jump may become too long"
	}
	if p.Verdict == check.Wraps {
		return what + " and goes to the wrong place, and the kernel says nothing"
	}
	alwaysOn, known := j.JITAlwaysOn()
	switch {
	case !known:
		return what + ": the load fails with 524, or where the kernel has an interpreter, the program is interpreted"
	case alwaysOn:
		return what + " and the load fails with 524, as the kernel has no interpreter"
	case p.Danger != "":
		return what + ". " + p.Danger
	}
	return what + ": the program is interpreted, or the load fails with 524"
}

// remedy is the first that fits where the object is.
func (j judge) remedy(l *Line, s Source) {
	for _, r := range explain.BlindingRemedies(j.Profile, false, false) {
		if s.Embedded == (r.ID == "run-repair") {
			l.Do, l.Command = r.Title, r.Command
			break
		}
	}
	if !s.Embedded {
		l.Command = "bpfwhy fix " + s.Path + " -o FIXED.o"
	}
}
