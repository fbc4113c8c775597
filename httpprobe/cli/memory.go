// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"math"
	"runtime/debug"

	"github.com/bpfwhy/bpfwhy/httpprobe/connection"
	"github.com/bpfwhy/bpfwhy/httpprobe/metrics"
	"github.com/bpfwhy/bpfwhy/httpprobe/sources"
	"github.com/bpfwhy/bpfwhy/httpprobe/table"
	"github.com/bpfwhy/bpfwhy/internal/sys/scrape"
)

const (
	// outputBytes: what waits grows by doubling.
	outputBytes = 2 * maxKept
	// exchangesBytes: most of an exchange is its path.
	exchangesBytes = maxExchanges * (1024 + 384)
	// containersBytes are those of the names, in two maps that may be half empty.
	containersBytes = 2 * 2 * maxContainers * 128
	// readerBytes are those of one who reads the figures: buffers, and what decompresses them for
	// him.
	readerBytes = 96 << 10
	// runtimeBytes are those of Go itself: stacks, spans, our own programs and the kernel's types
	// while they are loaded.
	runtimeBytes = 16 << 20
	// gcPercent lets garbage grow to half of what is alive before it is collected; near the limit
	// it is collected earlier.
	gcPercent = 50
)

// memory is what the heap of a probe with so many series may grow to, in bytes: the sum of what its
// parts promise to hold at most. docs/httpprobe.md tells it.
func memory(series int) int64 {
	return int64(connection.HeapBytes + sources.HeapBytes + table.HeapBytes + metrics.HeapBytes(series) +
		outputBytes + exchangesBytes + containersBytes + scrape.MaxReaders*readerBytes + runtimeBytes)
}

// limitMemory tells the collector, unless GOMEMLIMIT does.
func limitMemory(series int) {
	if debug.SetMemoryLimit(-1) == math.MaxInt64 {
		debug.SetMemoryLimit(memory(series))
	}
}
