// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"github.com/bpfwhy/bpfwhy/internal/watch/redact"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
)

// redact takes kernel addresses out of what was recorded of a call by a version that left them in.
// Of what machine it is, is not known: the ranges of five levels of page tables hold those of four.
func (p *pieces) redact(c *trace.Call) {
	l := redact.New(redact.Five)
	if c.Flags.FromKernel {
		l.Words(c.Attr)
	}
	of := func(what trace.What) (list []redact.Piece) {
		if r := p.ranges[what]; r != nil {
			for _, s := range r.segments {
				list = append(list, redact.Piece{At: s.at, Data: s.data})
			}
		}
		return list
	}
	matched := l.Copied(&redact.Copied{Insns: of(trace.Insns), Translated: of(trace.Translated), Log: of(trace.Log), BTFLog: of(trace.BTFLog)}, c.Tag)
	c.Flags.TagMatched = matched || c.Flags.TagMatched
}
