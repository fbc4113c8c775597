// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/internal/assemble"
	"github.com/bpfwhy/bpfwhy/internal/capture"
	"github.com/bpfwhy/bpfwhy/internal/patient"
	"github.com/bpfwhy/bpfwhy/internal/trace"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// Run is one case as it was observed with one backend.
type Run struct {
	Case    string
	Backend string
	Err     string `json:",omitempty"` // the loader could not be run
	Errno   int    // as the loader says; -1 when it does not
	Output  string `json:",omitempty"`
	Seconds float64

	Attempts []*load.Attempt
}

// Tools says where the loaders are.
type Tools struct {
	Dir      string // of what is built: raw, libbpf, load.py, and the objects
	Python   string
	Bpftrace string
	Bpftool  string
}

// Watch says how a series of cases is observed.
type Watch struct {
	Backend string
	Tools   Tools
	// Followed observes our own children alone.
	Followed bool
	// Harden sets net.core.bpf_jit_harden and returns what puts it back.
	Harden func(ctx context.Context, value int) (restore func() error, err error)
}

// patience is how long after the last case events may still be on their way, and a loader may try again.
const patience = time.Second

// Observe runs cases one after the other, each in processes of its own, and returns what was concluded of each.
func Observe(ctx context.Context, w Watch, cases []Case) ([]Run, trace.Header, error) {
	profile := node.Host()
	opts := capture.Options{Backend: w.Backend, Node: *profile, Tool: "corpus"}
	if w.Followed {
		opts.OnlyFollowed, opts.PIDs = true, []int{os.Getpid()}
	}
	c, err := capture.Open(ctx, opts)
	if err != nil {
		return nil, trace.Header{}, err
	}
	done := make(chan concluded, 1)
	go func() { done <- conclude(c, profile) }()

	type span struct{ from, to int64 }
	var runs []Run
	var spans []span
	var runErr error
	// Hardened cases come together: the sysctl belongs to the whole machine.
	for _, harden := range []int{0, 2} {
		of := slices.DeleteFunc(slices.Clone(cases), func(c Case) bool { return c.Harden != harden })
		if len(of) == 0 {
			continue
		}
		restore := func() error { return nil }
		if harden != 0 {
			if restore, runErr = w.Harden(ctx, harden); runErr != nil {
				break
			}
		}
		for _, cs := range of {
			from := monotonic()
			r := w.run(ctx, cs)
			to := monotonic()
			r.Seconds = float64(to-from) / 1e9
			runs, spans = append(runs, r), append(spans, span{from, to})
		}
		runErr = errors.Join(runErr, restore())
	}
	time.Sleep(patience)
	closeErr := c.Close()
	got := <-done
	header := c.Header()
	for _, a := range got.attempts {
		at := a.Time.UnixNano() - header.Epoch
		i := slices.IndexFunc(spans, func(s span) bool { return s.from <= at && at <= s.to })
		if i < 0 {
			continue // another process, between two cases
		}
		a.Evidence = load.Evidence{}
		runs[i].Attempts = append(runs[i].Attempts, a)
	}
	return runs, header, errors.Join(runErr, closeErr, got.err)
}

type concluded struct {
	attempts []*load.Attempt
	err      error
}

// conclude reads to the end and concludes as watch does.
func conclude(c *capture.Capture, profile *node.Profile) concluded {
	var out concluded
	asm := assemble.New(c.Header())
	take := func(attempts []*load.Attempt) {
		for _, a := range attempts {
			explain.Conclude(a, profile)
			a.Evidence = load.Evidence{}
			out.attempts = append(out.attempts, a)
		}
	}
	for {
		r, err := c.Read()
		if err != nil {
			take(asm.Flush())
			if err != io.EOF {
				out.err = err
			}
			return out
		}
		take(asm.Add(r))
	}
}

func monotonic() int64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return 0
	}
	return ts.Nano()
}

// limit is for one loader. bpftool's probes are thousands of loads, and emulated machines are slow.
const limit = 60 * time.Second

func (w Watch) run(ctx context.Context, c Case) Run {
	r := Run{Case: c.Name, Backend: w.Backend, Errno: -1}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if c.Loader == Patient {
		res, err := runPatient(ctx, c.Args[0])
		if err != nil {
			r.Err = err.Error()
			return r
		}
		r.Errno = res.Errno
		return r
	}
	args, argv0, err := w.Tools.command(c)
	if err != nil {
		r.Err = err.Error()
		return r
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	if argv0 != "" {
		cmd.Args[0] = argv0
	}
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	r.Output = tail(string(out), 1500)
	if e, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || e.ExitCode() < 0 || c.Loader != Bpftrace) {
		r.Err = fmt.Sprintf("%v: %s", err, r.Output)
		return r
	}
	for line := range strings.Lines(string(out)) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "errno "); ok {
			if v, err := strconv.Atoi(n); err == nil {
				r.Errno = v
			}
		}
	}
	if r.Errno < 0 && c.Loader != Bpftrace && c.Loader != Bpftool {
		r.Err = "the loader did not say how it ended: " + r.Output
	}
	return r
}

func runPatient(ctx context.Context, name string) (patient.Result, error) {
	p, err := patient.Find(name)
	if err != nil {
		return patient.Result{}, err
	}
	proc, err := patient.Start(ctx, p)
	if err != nil {
		return patient.Result{}, err
	}
	return proc.Go()
}

// command is how a case is run, and under which name if not its own.
func (t Tools) command(c Case) (args []string, argv0 string, err error) {
	switch c.Loader {
	case C:
		return append([]string{t.Dir + "/raw"}, c.Args...), "", nil
	case Libbpf:
		return append([]string{t.Dir + "/libbpf", t.Dir + "/" + c.Args[0]}, c.Args[1:]...), "", nil
	case Cilium:
		args := slices.Clone(c.Args)
		if args[0] != "features" {
			args[0] = t.Dir + "/" + args[0]
		}
		return append([]string{"/proc/self/exe"}, args...), argv0Cilium, nil
	case Python:
		return []string{t.Python, "-I", "-S", t.Dir + "/load.py"}, "", nil
	case Bpftrace:
		return append([]string{t.Bpftrace}, c.Args...), "", nil
	case Bpftool:
		return append([]string{t.Bpftool}, c.Args...), "", nil
	}
	return nil, "", fmt.Errorf("run case %s: no loader %q", c.Name, c.Loader)
}

// groups puts cases that need the same sysctls together. The first group needs none.
func groups(cases []Case) [][]Case {
	var out [][]Case
	for _, c := range cases {
		i := slices.IndexFunc(out, func(g []Case) bool { return maps.Equal(g[0].Sysctls, c.Sysctls) })
		if i < 0 {
			out = append(out, []Case{c})
			continue
		}
		out[i] = append(out[i], c)
	}
	slices.SortStableFunc(out, func(a, b []Case) int { return min(len(a[0].Sysctls), 1) - min(len(b[0].Sysctls), 1) })
	return out
}

// ignored reports attempts that a patient makes on its way to the one that counts: filling up the JIT's memory.
func (r Run) ignored(a *load.Attempt) bool {
	return a.Program != nil && a.Program.Name == "filler"
}

func alternatives(d *load.Diagnosis) []string {
	out := []string{}
	for _, a := range d.Alternatives {
		out = append(out, a.Rule)
	}
	return out
}

func describe(a *load.Attempt) string {
	name := ""
	if a.Program != nil {
		name = fmt.Sprintf(" %q (%s, %d insns)", a.Program.Name, a.Program.Type, a.Program.Insns)
	}
	s := fmt.Sprintf("%s%s %s errno %d, stage %s, %d retries", a.Kind, name, a.Outcome, a.Errno, a.FailedStage, a.Retries)
	if a.FeatureProbe != "" {
		s += ", probe " + a.FeatureProbe
	}
	if d := a.Diagnosis; d != nil {
		s += fmt.Sprintf(", %s %v: %s %q", d.Rule, alternatives(d), d.Cause, d.Evidence)
	}
	if len(a.VerifierLog.Lines) > 0 {
		s += fmt.Sprintf("; log (%s) %q", a.VerifierLog.Origin, a.VerifierLog.Lines[max(0, len(a.VerifierLog.Lines)-3):])
	}
	return s
}

func containsPart(lines []string, part string) bool {
	return slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, part) })
}

func tail(s string, n int) string {
	s = strings.TrimSpace(s)
	if len(s) > n {
		s = "…" + s[len(s)-n:]
	}
	return s
}
