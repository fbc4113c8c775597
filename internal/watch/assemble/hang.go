// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
	"github.com/bpfwhy/bpfwhy/internal/watch/enrich"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// Most places and processes of one place that are named, and functions of a stack.
const (
	maxPlaces    = 16
	maxNamed     = 5
	maxFunctions = 32
)

// Hang groups calls that do not come back by where they wait.
func Hang(h trace.Header, r *trace.Hang) *load.Hang {
	out := &load.Hang{
		Schema: load.Schema, Kind: load.KindHang, Time: wallClock(h, r.At), Calls: len(r.Calls) + max(r.More, 0), AfterNS: since(0, r.After),
		Since: wallClock(h, r.At), Places: []load.HangPlace{},
	}
	at := map[string]int{}
	for i := range r.Calls {
		c := &r.Calls[i]
		if t := wallClock(h, c.ID.Start); t.Before(out.Since) {
			out.Since, out.OldestNS = t, since(c.ID.Start, r.At)
		}
		out.Earlier = out.Earlier || c.Earlier
		if c.Unsure {
			out.Unsure++
		}
		functions := symbols(c.Functions)
		key := c.From + " " + strings.Join(functions, " ")
		n, ok := at[key]
		if !ok {
			n = len(out.Places)
			at[key] = n
			out.Places = append(out.Places, load.HangPlace{Functions: functions, From: clip(visible(c.From), 16)})
		}
		p := &out.Places[n]
		p.Calls++
		if !slices.Contains(p.What, c.Kind) {
			p.What = append(p.What, c.Kind)
		}
		if len(p.Processes) < maxNamed && c.TGID != 0 && !slices.ContainsFunc(p.Processes, func(q load.Process) bool { return q.PID == int(c.TGID) }) {
			p.Processes = append(p.Processes, hanging(c))
		}
	}
	if out.Unsure == len(r.Calls) { // nothing is known of those that are not listed
		out.Unsure = out.Calls
	}
	slices.SortStableFunc(out.Places, func(a, b load.HangPlace) int { return cmp.Compare(b.Calls, a.Calls) })
	out.Places = out.Places[:min(len(out.Places), maxPlaces)]
	return out
}

func hanging(c *trace.HangingCall) load.Process {
	p := load.Process{PID: int(c.TGID), TID: int(c.ID.TID), Comm: clip(visible(c.Comm), 64)}
	if c.Cgroup2 != nil {
		p.Cgroups = []load.Cgroup{{Version: 2, ID: c.Cgroup2.ID, Name: clip(visible(c.Cgroup2.Name), 1024)}}
	}
	enrich.Process(&p)
	return p
}

var symbol = lazyregexp.New(`^[A-Za-z_][A-Za-z0-9_.]{0,127}$`)

// symbols leaves out what is no function's name.
func symbols(names []string) []string {
	var out []string
	for _, n := range names {
		if symbol.MatchString(n) && len(out) < maxFunctions {
			out = append(out, n)
		}
	}
	return out
}

func wallClock(h trace.Header, ns uint64) time.Time { return (&Assembler{header: h}).time(ns) }
