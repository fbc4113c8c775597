// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"math"
	"runtime/debug"

	"github.com/bpfwhy/bpfwhy/internal/watch/capture"
	"github.com/bpfwhy/bpfwhy/internal/watch/diagnose"
)

// sessionMemory is what the heap of a session may grow to, in bytes: the sum of what its parts
// promise to hold at most, and of what the work on one attempt takes for a moment. docs/cli.md
// tells it.
const sessionMemory = capture.Memory + diagnose.Memory + queueBytes + heldMemory + repairsMemory + work + runtimeBytes

const (
	// Of the records that a live feed holds each is a chunk at most.
	queueBytes = diagnose.Queued * capture.RecordBytes
	// work: the instructions of a program and of what the verifier made of it, 2 MiB each as they
	// came, decoded, encoded for its tag, with their places after blinding, its lines of source and
	// its log, as text and as JSON.
	work = 32 << 20
	// runtimeBytes are those of Go itself: stacks, spans, the rules, the flags.
	runtimeBytes = 8 << 20
	// gcPercent lets garbage grow to half of what is alive before it is collected; near the limit
	// it is collected earlier.
	gcPercent = 50
)

// limitMemory tells the collector, unless GOMEMLIMIT does. beside is what this process holds
// besides the session, in bytes. It returns what takes that back.
func limitMemory(beside int64) func() {
	if debug.SetMemoryLimit(-1) != math.MaxInt64 {
		return func() {}
	}
	limit, percent := debug.SetMemoryLimit(sessionMemory+beside), debug.SetGCPercent(gcPercent)
	return func() {
		debug.SetMemoryLimit(limit)
		debug.SetGCPercent(percent)
	}
}
