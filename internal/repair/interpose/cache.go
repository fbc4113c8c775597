// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"sync"
	"time"

	"github.com/bpfwhy/bpfwhy/rewrite"
)

// maxCached bounds the slots of all programs that the cache holds.
const (
	maxCached   = 2_000_000
	cachedBytes = 12 // of a slot, and of an entry as it counts
)

// cache remembers by content what helped: a loader that starts again, and one that loads a program
// on each processor, pays for the failing load once.
type cache struct {
	mu      sync.Mutex
	entries map[[32]byte]*entry
	order   [][32]byte // oldest first
	slots   int
}

// entry is what was found out about a program.
type entry struct {
	result *rewrite.Result // nil: no rewriting helps
	vain   time.Time       // when no window helped either
}

// vainFor is how long it is believed that no window helps. The kernel may have been short of
// something.
const vainFor = 10 * time.Minute

func (e *entry) slots() int {
	if e.result == nil {
		return 16 // what an entry costs by itself
	}
	return 16 + len(e.result.Program) + len(e.result.New)
}

func (c *cache) get(key [32]byte) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.entries[key]
}

// inVain remembers that no window helps a program, and vain reports whether that is so.
func (c *cache) inVain(key [32]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[key]; e != nil {
		e.vain = time.Now()
	}
}

func (c *cache) vain(key [32]byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[key]
	return e != nil && !e.vain.IsZero() && time.Since(e.vain) < vainFor
}

func (c *cache) put(key [32]byte, r *rewrite.Result) {
	e := &entry{}
	if r != nil { // of it no more than is needed
		e.result = &rewrite.Result{Program: r.Program, New: r.New, Islands: r.Islands, Added: r.Added}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries == nil {
		c.entries = map[[32]byte]*entry{}
	}
	if old := c.entries[key]; old != nil {
		c.slots += e.slots() - old.slots()
		c.entries[key] = e
		return
	}
	c.entries[key] = e
	c.order = append(c.order, key)
	c.slots += e.slots()
	for c.slots > maxCached && len(c.order) > 1 {
		c.slots -= c.entries[c.order[0]].slots()
		delete(c.entries, c.order[0])
		c.order = c.order[1:]
	}
}
