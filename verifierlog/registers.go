// SPDX-License-Identifier: Apache-2.0

package verifierlog

import (
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
)

var register = lazyregexp.New(`^(R\d+|fp-\d+)(?:_[rwDP]+)?=(.*)$`)

// registersBefore puts together what the log says of registers before its last
// instruction: the last full state and the changes since.
func registersBefore(body []string) map[string]string {
	start := 0
	for i := len(body) - 2; i >= 0; i-- {
		// A line of its own, or one behind a jump, shows the whole state.
		if m := stateLine.FindStringSubmatch(body[i]); m != nil && m[1] != "" {
			start = i
			break
		}
		if rest := afterJump(body[i]); rest != "" && !strings.HasPrefix(rest, ";") && stateLine.MatchString(rest) {
			start = i
			break
		}
		if body[i] == hole {
			start = i + 1
			break
		}
	}
	known := make(map[string]string)
	for _, line := range body[start : len(body)-1] {
		s, ok := step(line)
		state := s.State
		if !ok {
			m := stateLine.FindStringSubmatch(line)
			if m == nil {
				if frameLine.MatchString(line) {
					update(known, line)
				}
				continue
			}
			state = m[1]
		}
		update(known, state)
	}
	if len(known) == 0 {
		return nil
	}
	return known
}

// update reads a state such as "R0=map_value(ks=4, vs=8) R10=fp0 fp-8=mmmm".
func update(known map[string]string, state string) {
	for _, field := range splitState(state) {
		if m := register.FindStringSubmatch(field); m != nil && len(known) < 128 {
			known[m[1]] = m[2]
		}
	}
}

// splitState splits at spaces that are not inside parentheses.
func splitState(state string) []string {
	var fields []string
	depth, start := 0, 0
	for i := 0; i <= len(state); i++ {
		switch {
		case i == len(state) || state[i] == ' ' && depth <= 0:
			if i > start {
				fields = append(fields, state[start:i])
			}
			start = i + 1
		case state[i] == '(':
			depth++
		case state[i] == ')':
			depth--
		}
	}
	return fields
}

var (
	assignment = lazyregexp.New(`^[rw](\d+) (\S*=) (.*)$`)
	plainMove  = lazyregexp.New(`^(?:\(s\d+\))?[rw](\d+)$`)
	stackLoad  = lazyregexp.New(`^\*\(u64 \*\)\(r10 (-\d+)\)$`)
	stackStore = lazyregexp.New(`^\*\(u64 \*\)\(r10 (-\d+)\) = r(\d+)$`)
)

// History returns the steps that made the register what it was at the failing
// instruction, oldest first and at most a dozen: its assignments back to where
// the value came from, followed through copies and the stack. The register is
// given as the verifier names it (R1).
func (l Log) History(reg string) []Step {
	want := strings.TrimPrefix(strings.ToLower(reg), "r")
	slot := "" // a stack offset while the value is spilled
	var steps []Step
	for i := len(l.Path) - 2; i >= 0 && len(steps) < 12; i-- {
		s := l.Path[i]
		if slot != "" {
			if m := stackStore.FindStringSubmatch(s.Text); m != nil && m[1] == slot {
				steps = append(steps, s)
				want, slot = m[2], ""
			}
			continue
		}
		if strings.HasPrefix(s.Text, "call ") && len(want) == 1 && want <= "5" {
			steps = append(steps, s)
			break // r0 is the result, r1 to r5 are gone
		}
		m := assignment.FindStringSubmatch(s.Text)
		if m == nil || m[1] != want {
			continue
		}
		steps = append(steps, s)
		if m[2] != "=" {
			continue // changed in place
		}
		if move := plainMove.FindStringSubmatch(m[3]); move != nil {
			want = move[1]
		} else if load := stackLoad.FindStringSubmatch(m[3]); load != nil {
			slot = load[1]
		} else {
			break
		}
	}
	for i, j := 0, len(steps)-1; i < j; i, j = i+1, j-1 {
		steps[i], steps[j] = steps[j], steps[i]
	}
	return steps
}
