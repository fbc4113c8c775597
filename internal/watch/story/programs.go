// SPDX-License-Identifier: Apache-2.0

package story

import (
	"slices"

	"github.com/bpfwhy/bpfwhy/load"
)

// Bounds of what is remembered of a process's programs.
const (
	maxPrograms   = 128
	maxUnattached = 8
	// programSize is that of one program, with its name of at most 15 bytes.
	programSize = 64
)

// program is one that was loaded, and not attached so far.
type program struct {
	id      int
	trivial bool
	name    string
	typ     string
}

// programs are those of one process.
type programs struct {
	waiting []program
	// unsure: something was attached, and it is not known which program.
	unsure bool
}

// idle are the types whose programs do nothing by what they return: one of two instructions, which
// can only return a constant, does nothing at all.
func idle(typ string) bool {
	return slices.Contains([]string{"kprobe", "tracepoint", "raw_tracepoint", "perf_event", "tracing"}, typ)
}

// tries reports a load of a program that does nothing, as loaders make to see what a kernel can.
func tries(a *load.Attempt) bool {
	return a.Kind == load.ProgLoad && a.Program != nil && a.Program.Insns <= 2 && (idle(a.Program.Type) || a.Program.Name == "")
}

// tried reports whether what is attached was loaded as such. One that decides something by what it
// returns is somebody's, once it is attached.
func (p *programs) tried(a *load.Attempt) (trivial, decides bool) {
	i := p.index(a)
	if i < 0 || !p.waiting[i].trivial {
		return false, false
	}
	decides = !idle(p.waiting[i].typ)
	p.waiting[i].trivial = !decides
	return !decides, decides
}

// index is the place of the program that an attempt attaches, -1 if it is not among those that
// wait.
func (p *programs) index(a *load.Attempt) int {
	if a.Attach == nil || a.Attach.Program == nil || a.Attach.Program.ID == 0 {
		return -1
	}
	return slices.IndexFunc(p.waiting, func(w program) bool { return w.id == a.Attach.Program.ID })
}

func (p *programs) remember(l *load.Program, trivial bool) {
	if l.ID != 0 && len(p.waiting) < maxPrograms {
		p.waiting = append(p.waiting, program{l.ID, trivial, cut(l.Name), l.Type})
	}
}

// add takes a call that worked.
func (p *programs) add(a *load.Attempt) {
	switch {
	case a.Kind == load.ProgLoad && a.Program != nil:
		p.remember(a.Program, false)
	case !a.Kind.Attaches() && a.Kind != load.ObjPin, makesTarget(a.Kind):
	default:
		i := p.index(a)
		if i >= 0 {
			p.waiting = slices.Delete(p.waiting, i, i+1)
		}
		named := a.Attach != nil && (a.Attach.Program != nil && a.Attach.Program.ID != 0 || a.Kind == load.ObjPin && a.Map != nil)
		p.unsure = p.unsure || i < 0 && !named
	}
}

// tell adds to a story what was not attached, and how it could have been without being seen.
func (p *programs) tell(s *load.Story, watched func(load.Function) bool) {
	if p.unsure {
		return
	}
	for _, w := range p.waiting {
		if w.trivial {
			continue
		}
		for _, k := range unseen(w.typ, watched) {
			if !slices.Contains(s.Unseen, k) {
				s.Unseen = append(s.Unseen, k)
			}
		}
		if len(s.Unattached) == maxUnattached {
			s.MoreUnattached++
			continue
		}
		s.Unattached = append(s.Unattached, w.name)
	}
}

// unseen are the ways to attach a program of a type that nothing shows on this node.
func unseen(typ string, watched func(load.Function) bool) []load.Kind {
	switch {
	case slices.Contains([]string{"kprobe", "tracepoint", "perf_event"}, typ) && !watched(load.FnPerfEvent):
		return []load.Kind{load.PerfEventSetBPF}
	case typ == "xdp" && !watched(load.FnXDPChange):
		return []load.Kind{load.XDPAttach}
	case (typ == "sched_cls" || typ == "sched_act") && !watched(load.FnTCFilter):
		return []load.Kind{load.TCAttach}
	case typ == "socket_filter" && !watched(load.FnSockAttach), typ == "sk_reuseport" && !watched(load.FnReuseport):
		return []load.Kind{load.SocketAttach}
	}
	return nil
}
