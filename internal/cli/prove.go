// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/hostinfo/rights"
	"github.com/bpfwhy/bpfwhy/internal/repair/replay"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// Bounds of what one trace can keep the kernel busy with.
const (
	maxProofs    = 32
	maxProveTime = 5 * time.Minute
)

// prover loads the programs of a trace again.
type prover struct {
	ctx    context.Context
	header trace.Header
	here   *node.Profile
	maps   replay.Maps
	counts map[load.ReplayVerdict]int
	began  time.Time
	left   int // findings beyond the bounds
}

// prove is explain --prove. The file is read to its end before anything of it is loaded: what is
// cut or corrupt is not loaded in part.
func prove(ctx context.Context, o explainOptions) error {
	if o.what == "-" {
		return errors.New("explain --prove: the trace must be a file, because it is read twice")
	}
	if err := rights.Prove.Check(); err != nil {
		return fmt.Errorf("explain --prove: %w", err)
	}
	f, err := os.Open(o.what)
	if err != nil {
		return fmt.Errorf("explain --prove: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return fmt.Errorf("explain --prove: %w", err)
	} else if !info.Mode().IsRegular() {
		return fmt.Errorf("explain --prove: %s is not a regular file", o.what)
	}
	if err := wholeTrace(f); err != nil {
		return fmt.Errorf("explain %s: %w", o.what, err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("explain --prove: %w", err)
	}
	p := &prover{ctx: interruptible(ctx), here: node.Host(), began: time.Now(), counts: map[load.ReplayVerdict]int{}}
	if err := explainTrace(bufio.NewReader(f), o, &proof{func(h trace.Header) { p.header = h }, p.prove, p.String}); err != nil {
		return fmt.Errorf("explain %s: %w", o.what, err)
	}
	return nil
}

func wholeTrace(f *os.File) error {
	b := bufio.NewReader(f)
	if !trace.Recorded(b) {
		return errors.New("this is not a recorded trace; only traces can be proved")
	}
	r, err := trace.NewReader(b)
	if err != nil {
		return err
	}
	for {
		if _, err := r.Next(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func (p *prover) prove(a *load.Attempt) error {
	p.maps.Add(a)
	if !a.Finding() || a.Kind != load.ProgLoad {
		return nil
	}
	if p.left > 0 || p.proved() == maxProofs || time.Since(p.began) > maxProveTime {
		p.left++
		return nil
	}
	r, err := replay.Prove(p.ctx, a, replay.Options{Recorded: &p.header.Node, Here: p.here, Maps: &p.maps})
	if err != nil {
		return fmt.Errorf("load it again: %w", err)
	}
	p.counts[r.Verdict]++
	return nil
}

func (p *prover) proved() (n int) {
	for _, c := range p.counts {
		n += c
	}
	return n
}

func (p *prover) String() string {
	s := fmt.Sprintf("%d reproduced, %d not reproduced here, %d discarded, %d refused", p.counts[load.ReplayReproduced],
		p.counts[load.ReplayNotReproduced], p.counts[load.ReplayDiscarded], p.counts[load.ReplayRefused])
	if p.left > 0 {
		s += fmt.Sprintf("; %d more were not loaded again: the limit for a trace is %d programs and %s", p.left, maxProofs, maxProveTime)
	}
	return s
}
