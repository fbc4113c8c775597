// SPDX-License-Identifier: Apache-2.0

// Package sink is where 'bpfwhy serve' sends what it finds: to a log, a folder, metrics, an API
// server. A sink may be slow or broken. Its queue keeps that from all others.
package sink

import (
	"context"
	"errors"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/fleet/nodereport"
	"github.com/bpfwhy/bpfwhy/load"
)

// Sink takes items, one after the other and from one goroutine.
type Sink interface {
	// Name is a word for logs, metrics and flags: "log", "state", "kube".
	Name() string
	// Put takes an item. It returns before ctx ends, or soon after. After an error the item is put
	// again later, unless the error is Permanent. Sinks share items: none changes one.
	Put(ctx context.Context, i Item) error
	// Close writes what is held back. Nothing is put after it.
	Close(ctx context.Context) error
}

// Item is one thing to tell. One of its pointers is set.
type Item struct {
	// Failure is a failure of a kind that is new, or later failures like it, counted.
	Failure *Failure
	// State is what is known of the node as a whole. Each replaces the one before: a queue keeps
	// the last alone.
	State *State
	// Change is a setting of the node that somebody changed.
	Change *nodereport.Change
	// Loss is what was lost since the last one, Hang are loads that do not come back.
	Loss *load.Loss
	Hang *load.Hang
}

// Failure is a kind of failures in one workload. The same failures have one ID on every node: it is
// the ID of package fleet. Together with the workload it tells them apart on this node.
type Failure struct {
	nodereport.Failure // Count, First and Last are totals since Since of the node's watching
	// New says that none like it was told before.
	New bool
	// Over says that it no longer fails: its program was loaded, or its workload is gone.
	Over bool
	// Attempt is the attempt with its diagnosis where this is one attempt (always where New), and
	// Repeats counts those that were not told one by one. Neither has evidence: the instructions
	// and the verifier's log of others stay on the node, in the trace.
	Attempt *load.Attempt
	Repeats *load.Summary
}

// State is the node as it is now, with all of its failures. Class is nil while no profile is known.
type State struct {
	Report *nodereport.Report
	Class  *nodereport.Class
}

// permanent is an error that is not tried again.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// Permanent marks an error that putting the same item again would bring again.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return permanent{err}
}

// After marks an error that says when to try again, as Retry-After does.
func After(err error, wait time.Duration) error { return after{err, wait} }

type after struct {
	error
	wait time.Duration
}

func (a after) Unwrap() error { return a.error }

func isPermanent(err error) bool { _, is := errors.AsType[permanent](err); return is }
