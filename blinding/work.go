// SPDX-License-Identifier: Apache-2.0

package blinding

import "time"

// perSlot is what one slot costs in one walk over a program, measured on one
// machine, a Xeon with kernel 6.18, with programs of 5,000 to 30,000
// instructions: see TestTime.
const perSlot = 1.4 // ns

// Time estimates how long the kernel's pass takes with interrupts on one
// processor, on top of a load without blinding. It says whether a slow start is
// blinding's doing, no more: machines differ.
func (v Verdict) Time() time.Duration { return time.Duration(float64(v.Work) * perSlot) }

// work counts the slots that the pass walks over. From 7.1 the pass goes over
// the whole program, before function by function.
func (c *code) work(v Verdict) int64 {
	end := len(c.prog)
	if v.FailIndex >= 0 && !v.Wraps {
		end = v.FailIndex + 1
	}
	var sum int64
	for _, f := range c.functions {
		base, total := f.Start, f.Len()
		if c.kernel.WholeProgram {
			base, total = 0, len(c.prog)
		}
		if f.Start >= end {
			break
		}
		before := c.growth[f.Start]
		for _, after := range c.growth[f.Start+1 : min(f.End, end)+1] {
			delta := after - before
			if delta == 0 {
				continue
			}
			size := int64(total + before - c.growth[base])
			before = after
			sum += size
			// Beyond this it is first tried, then done.
			if size+int64(delta) > MaxOffset {
				sum += size
			}
		}
	}
	return sum
}
