// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

// Package auditor is a process of 'bpfwhy serve' that lives for a moment: it looks at the programs
// that are loaded, and says what hardening would do to them. It reads other people's code, so the
// reader does not do it itself.
package auditor

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/fleet"
	"github.com/bpfwhy/bpfwhy/internal/hostinfo/audit"
	"github.com/bpfwhy/bpfwhy/internal/hostinfo/probe"
	"github.com/bpfwhy/bpfwhy/internal/output/text"
	"github.com/bpfwhy/bpfwhy/node"
)

// Argv0 is the name under which the executable is the auditor: see Main.
const Argv0 = "bpfwhy-auditor"

// Bounds of what the process may take and say. It gives way to all others.
const (
	patience = 5 * time.Minute
	maxSaid  = 64 << 10
	maxWorst = 16
	maxName  = 64
	nice     = 19
)

// Main audits, if the executable was started for that; otherwise it returns at once. Call it first
// in main.
func Main() {
	if len(os.Args) == 0 || os.Args[0] != Argv0 {
		return
	}
	if err := say(); err != nil {
		fmt.Fprintln(os.Stderr, text.Line(err.Error()))
		os.Exit(1)
	}
	os.Exit(0)
}

func say() error {
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, nice); err != nil {
		return fmt.Errorf("give way: %w", err)
	}
	p := node.Host()
	probe.Blinding(p)
	r, err := audit.Run(context.Background(), p)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(condense(r))
}

// Run starts the process, and returns what it says.
func Run(ctx context.Context) (*fleet.Audit, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{Argv0}
	var out, said limited
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("audit: %w: %s", err, text.Line(strings.TrimSpace(said.String())))
	}
	var a fleet.Audit
	if err := json.Unmarshal(out.Bytes(), &a); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	return &a, nil
}

// limited takes as much as may be said.
type limited struct{ bytes.Buffer }

func (l *limited) Write(b []byte) (int, error) {
	if l.Len()+len(b) > maxSaid {
		return 0, errors.New("it says too much")
	}
	return l.Buffer.Write(b)
}

// condense counts programs by their fates, and names those that hardening breaks or nearly does.
func condense(r *audit.Report) *fleet.Audit {
	a := &fleet.Audit{At: r.Time.UTC(), Harden1: map[string]int{}, Harden2: map[string]int{}}
	for fate, n := range r.Summary.At1 {
		a.Harden1[string(fate)] = n
	}
	for fate, n := range r.Summary.At2 {
		a.Harden2[string(fate)] = n
	}
	for i := range r.Programs {
		p := &r.Programs[i]
		margin := p.At2.Margin
		if margin == nil && !p.At2.Breaks() || margin != nil && *margin >= math.MaxInt16 {
			continue // without jumps, or not judged
		}
		w := fleet.Worst{Program: cut(cmp.Or(p.Name, fmt.Sprintf("id %d", p.ID))), Tag: p.Tag}
		if len(p.Owners) > 0 {
			w.Owner = cut(p.Owners[0].Comm)
		}
		if margin != nil {
			w.Margin = *margin
		}
		a.Worst = append(a.Worst, w)
	}
	slices.SortStableFunc(a.Worst, func(a, b fleet.Worst) int { return cmp.Compare(a.Margin, b.Margin) })
	a.Worst = slices.Clone(a.Worst[:min(len(a.Worst), maxWorst)])
	return a
}

func cut(s string) string {
	if len(s) > maxName {
		s = strings.ToValidUTF8(s[:maxName], "")
	}
	return strings.Clone(s)
}
