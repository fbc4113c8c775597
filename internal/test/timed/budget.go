// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// budget is what packages may cost, by name below the module. The others may cost what "others"
// may.
type budget map[string]time.Duration

const others = "others"

func (b budget) of(name string) time.Duration {
	if limit, ok := b[name]; ok {
		return limit
	}
	return b[others]
}

// dearestFirst orders packages, so that no long one begins when the others are done.
func (b budget) dearestFirst(module string, packages []string) {
	slices.SortStableFunc(packages, func(p, q string) int {
		return cmp.Compare(b.of(strings.TrimPrefix(q, module)), b.of(strings.TrimPrefix(p, module)))
	})
}

// parseBudget reads lines of a name and seconds. Lines that begin with # are comments.
func parseBudget(text string) (budget, error) {
	b := budget{}
	lines := bufio.NewScanner(strings.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(line, "\t")
		seconds, err := strconv.ParseUint(value, 10, 31)
		if _, twice := b[name]; !ok || err != nil || twice {
			return nil, fmt.Errorf("budget.tsv:%d: %q is not one package's name, a tab, and seconds", n, line)
		}
		b[name] = time.Duration(seconds) * time.Second
	}
	if _, ok := b[others]; !ok {
		return nil, fmt.Errorf("budget.tsv: no line for %s", others)
	}
	return b, lines.Err()
}
