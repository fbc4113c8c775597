// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/repair/ladder"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/rewrite"
)

// way is that of a captured program up the ladder. Nothing that is loaded is kept, or runs.
type way struct {
	ctx      context.Context
	client   *client
	plan     *plan
	timeout  time.Duration
	recorded *load.Attempt
	program  *ladder.Program

	replay   *load.Replay // what came of it
	original *answer      // of the program as it was recorded
	err      error        // that ends the replay
}

// Load loads the program in its form.
func (w *way) Load() ladder.Seen {
	form := w.program.Form()
	got, err := w.ask(form)
	if err != nil {
		w.err = err
		return ladder.Seen{Err: err}
	}
	var trial *load.Trial
	broken := ladder.IsBlinding(got.Errno)
	if form == nil {
		trial = outcome(got, len(w.plan.prog))
		w.original, w.replay.Original = got, trial
		// What a kernel does with a program that it cannot compile depends on whether it has an
		// interpreter: the repair is worth trying where the two kernels differ, though it proves
		// nothing about the other. Of any other failure it proves nothing.
		broken = notCompiled(w.recorded) && (broken || same(trial, w.recorded))
	} else {
		trial = outcome(got, len(form.Program))
		trial.Islands = form.Islands
		w.replay.Repaired = trial
	}
	switch {
	case got.Errno != 0:
		return ladder.Seen{Err: unix.Errno(got.Errno), Program: w.program, Blinding: broken}
	case got.JITed == 0 && (form != nil || notCompiled(w.recorded)):
		return ladder.Seen{Interpreted: []*ladder.Program{w.program}}
	}
	return ladder.Seen{}
}

// ask has the child load the program as it was recorded, or in another form.
func (w *way) ask(form *rewrite.Result) (*answer, error) {
	t := w.plan.trial
	if form == nil {
		t.Insns, t.Log = insn.Encode(w.plan.prog), !notCompiled(w.recorded)
		return w.client.ask(w.ctx, &t, w.timeout)
	}
	t.Insns = insn.Encode(form.Program)
	t.FuncInfo, t.LineInfo = moved(t.FuncInfo, t.FuncRec, form.New), moved(t.LineInfo, t.LineRec, form.New)
	t.Refs = slices.Clone(t.Refs)
	for i := range t.Refs {
		t.Refs[i].Slot = form.New[t.Refs[i].Slot]
	}
	return w.client.ask(w.ctx, &t, w.timeout)
}

// Drop has nothing to do: the child has closed what it loaded.
func (w *way) Drop() {}
