// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/redact"
	"github.com/bpfwhy/bpfwhy/internal/trace"
)

// redact takes kernel addresses out of what was recorded of a call by a version that left them in. Of what machine it is, is not known: the
// ranges of five levels of page tables hold those of four.
func (p *pieces) redact(c *trace.Call) {
	l := redact.New(redact.Five)
	if c.Flags.FromKernel {
		l.Words(c.Attr)
	}
	p.ranges[trace.Insns].runs(insn.Size, func(code []byte, cut bool) {
		c.Flags.TagMatched = l.Submitted(code, cut, c.Tag) || c.Flags.TagMatched
	})
	p.ranges[trace.Translated].runs(insn.Size, l.Instructions)
	p.ranges[trace.Log].runs(1, l.Log)
	p.ranges[trace.BTFLog].runs(1, l.Log)
}

// runs gives each stretch without a hole to a function, which may change it in place, from the first whole unit on. cut are those that do not
// begin where the range does.
func (r *bytesOf) runs(unit uint64, change func(b []byte, cut bool)) {
	if r == nil {
		return
	}
	for rest := r.segments; len(rest) > 0; {
		n := 1
		for n < len(rest) && rest[n].at == rest[n-1].end() {
			n++
		}
		run := rest[:n]
		rest = rest[n:]
		whole := run[0].data
		if n > 1 {
			whole = nil
			for _, s := range run {
				whole = append(whole, s.data...)
			}
		}
		skip := -run[0].at % unit
		change(whole[min(int(skip), len(whole)):], run[0].at != 0)
		if n > 1 {
			for _, s := range run {
				whole = whole[copy(s.data, whole):]
			}
		}
	}
}
