// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"time"

	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// ran reports that an execution of fn was seen to begin.
func (c *call) ran(fn load.Function) bool {
	s := c.sum(fn)
	return s != nil && (s.Calls > 0 || s.Open)
}

// ended reports that every execution of fn that began was seen to end.
func (c *call) ended(fn load.Function) bool {
	s := c.sum(fn)
	return s == nil || !s.Open
}

// worked reports that fn ran and never failed.
func (c *call) worked(fn load.Function) bool {
	s := c.sum(fn)
	return s != nil && s.Calls > 0 && s.Failed == 0 && !s.Open
}

func (c *call) sum(fn load.Function) *trace.Stage {
	for i := range c.rec.Stages {
		if c.rec.Stages[i].Function == fn {
			return &c.rec.Stages[i]
		}
	}
	return nil
}

// observed says which stages the hooks in place can see.
func (a *Assembler) observed(c *call) map[load.Stage]bool {
	w := a.watched
	o := map[load.Stage]bool{
		load.Request:    w[load.FnLoad],
		load.Permission: w[load.FnLoad] && (w[load.FnCapable] || w[load.FnLSM]),
		load.Resources:  w[load.FnLoad] && w[load.FnCheck],
		load.BTF:        w[load.FnCheck] && w[load.FnDoCheck],
		load.Verifier:   w[load.FnCheck],
		load.Blinding:   w[load.FnBlind] || w[load.FnPatch],
		load.JIT:        w[load.FnJIT] || w[load.FnSelect] || c.rec.Prog != nil,
		load.Install:    w[load.FnNewFD] || w[load.FnLoad] && w[load.FnSelect],
	}
	return o
}

// stages lists what is known of each stage. A stage that the attempt did not reach is left out, and
// so is blinding where nothing asked for it.
func (a *Assembler) stages(f *retryGroup, end conclusion, bl *blindingVerdict) []load.StageResult {
	c := f.last
	known := a.passed(f)
	if known[load.JIT] && bl.wanted == yes {
		known[load.Blinding] = true // the JIT compiles nothing that it was to blind and could not
	}
	list := make([]load.StageResult, 0, len(load.Stages))
	over := false
	for _, s := range load.Stages {
		r := load.StageResult{Stage: s, Result: load.NotObserved, DurationNS: c.spent(s)}
		switch {
		case s == end.stage:
			if end.seen {
				r.Result, r.Errno = load.StageFailed, end.errno
				if r.Errno == 0 {
					r.Errno = c.errno()
				}
			}
			over = true
		case over && (c.rec.Ret < 0 || s != load.Install):
			continue
		case s == load.Blinding && bl.wanted == no && c.kind == load.ProgLoad:
			continue
		case known[s]:
			r.Result = load.OK
		case !relevant(c.kind, s):
			continue
		}
		list = append(list, r)
	}
	return list
}

// relevant reports whether attempts of a kind have a stage.
//
//revive:disable-next-line:cyclomatic the stages of one kind after the other
func relevant(k load.Kind, s load.Stage) bool {
	switch k {
	case load.ProgLoad:
		return true
	case load.Seccomp, load.SocketFilter:
		return s != load.BTF && s != load.Blinding
	case load.MapCreate, load.LinkCreate, load.RawTPOpen, load.ProgAttach, load.LinkUpdate:
		return s != load.Verifier && s != load.Blinding && s != load.JIT
	case load.BTFLoad:
		return s == load.Request || s == load.Permission || s == load.Resources || s == load.BTF || s == load.Install
	}
	return s == load.Request || s == load.Permission || s == load.Resources && putsInPlace(k)
}

// passed says which stages are known to have ended well: seen, or followed by one that was seen.
//
//revive:disable-next-line:cyclomatic a case for each sign that a stage ended well
func (a *Assembler) passed(f *retryGroup) map[load.Stage]bool {
	c := f.last
	p := make(map[load.Stage]bool)
	upTo := func(last load.Stage) {
		for _, s := range load.Stages {
			if s == load.Blinding || !relevant(c.kind, s) {
				if s == last {
					return
				}
				continue
			}
			p[s] = true
			if s == last {
				return
			}
		}
	}
	if c.ran(load.FnLoad) {
		upTo(load.Request)
	}
	if c.ran(load.FnCheck) {
		upTo(load.Resources)
	}
	if c.ran(load.FnDoCheck) {
		upTo(load.BTF)
	}
	if c.worked(load.FnCheck) || c.ran(load.FnSelect) || c.ran(load.FnJIT) || c.ran(load.FnBlind) ||
		c.ran(load.FnJITSubprogs) || c.kind == load.ProgLoad && judge(f.words()) == logAccepted {
		upTo(load.Verifier)
	}
	if c.rec.Ret >= 0 {
		upTo(load.Verifier)
		p[load.Install] = true
		if c.kind != load.ProgLoad {
			upTo(load.Install)
		}
	}
	p[load.Blinding] = c.worked(load.FnBlind)
	if c.rec.Prog != nil {
		p[load.Blinding] = p[load.Blinding] || c.rec.Prog.Blinded
		p[load.JIT] = c.rec.Prog.JITed
	} else if c.worked(load.FnJIT) {
		p[load.JIT] = true
	}
	return p
}

// spent is the time that a stage took in the last call, 0 where it was not measured.
func (c *call) spent(s load.Stage) time.Duration {
	total := func(fn load.Function) time.Duration {
		if sum := c.sum(fn); sum != nil {
			return time.Duration(min(sum.Total, c.duration()))
		}
		return 0
	}
	within := func(inner, outer load.Function) bool {
		i, o := c.sum(inner), c.sum(outer)
		return i != nil && o != nil && i.First >= o.First && i.First <= o.First+o.Total
	}
	d := time.Duration(0)
	switch s {
	case load.Request:
		if sum := c.sum(load.FnLoad); sum != nil {
			d = since(c.rec.ID.Start, sum.First)
		}
	case load.Verifier:
		d = total(load.FnCheck)
		for _, fn := range []load.Function{load.FnSelect, load.FnJITSubprogs} {
			// Up to 7.0 the JIT of a program without calls comes after bpf_check, from 7.1 on
			// inside.
			if within(fn, load.FnCheck) {
				d -= total(fn)
			}
		}
	case load.Blinding:
		d = total(load.FnBlind)
	case load.JIT:
		d = total(load.FnJIT)
		if within(load.FnBlind, load.FnJIT) {
			d -= total(load.FnBlind)
		}
	case load.Install:
		d = total(load.FnNewFD)
	}
	return max(d, 0)
}
