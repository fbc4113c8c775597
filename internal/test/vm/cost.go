// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"fmt"
	"strings"
	"time"
)

// Cost is what a machine took of the host.
type Cost struct {
	Duration time.Duration
	CPU      time.Duration // processor time
}

// CostAttr is the name of the attribute that a test has for each machine it boots.
const CostAttr = "machine"

// TookAttr is the name of the attribute that says how long a guest's test took, by the guest's
// clock.
const TookAttr = "took"

// Cost is what the machine took.
func (r *Result) Cost() Cost { return Cost{r.Duration, r.CPU} }

// String is read by [ParseCost].
func (c Cost) String() string { return fmt.Sprintf("%v %v", c.Duration, c.CPU) }

// ParseCost reads what [Cost.String] wrote.
func ParseCost(s string) (c Cost, err error) {
	duration, cpu, _ := strings.Cut(s, " ")
	if c.Duration, err = time.ParseDuration(duration); err == nil {
		c.CPU, err = time.ParseDuration(cpu)
	}
	if err != nil {
		return Cost{}, fmt.Errorf("read cost of a machine: %w", err)
	}
	return c, nil
}
