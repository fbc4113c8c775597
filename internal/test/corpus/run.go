// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/demo/failing"
	"github.com/bpfwhy/bpfwhy/internal/watch/capture"
	"github.com/bpfwhy/bpfwhy/internal/watch/diagnose"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// Run is one case as one backend saw it; the backend "none" saw nothing.
type Run struct {
	Case    string
	Backend string
	Err     string `json:",omitempty"` // the loader could not be run
	Errno   int    // as the loader says; -1 when it does not
	Output  string `json:",omitempty"`
	Seconds float64

	Missing  []load.Function `json:",omitempty"` // what the backend says that it does not watch
	Attempts []*load.Attempt
}

// Following is fentry that watches only our own children, as the command run does: it sees the ends
// of their system calls.
const Following = "following"

// Tools says where the loaders are.
type Tools struct {
	Dir      string // of what is built: failing, raw, libbpf, load.py, and the objects
	Python   string
	Bpftrace string
	Bpftool  string
}

// Watch says how a series of cases is observed.
type Watch struct {
	Kernel   string   // whose fates hold
	Backends []string // as capture names them; "" is the best one
	Tools    Tools
	// Followed observes our own children alone.
	Followed bool
	// Sysctls sets sysctls and returns what puts them back.
	Sysctls func(ctx context.Context, values map[string]string) (restore func() error, err error)
	Log     func(string)
}

func (w Watch) logf(format string, args ...any) {
	if w.Log != nil {
		w.Log(fmt.Sprintf(format, args...))
	}
}

// patience is how long after the last case events may still be on their way, and a loader may try
// again.
const patience = time.Second

// Observe runs cases one after the other, each in processes of its own, and returns what each
// backend made of them: they all watch the same loads, at the same time. Without a backend the
// loaders run unobserved, and say only which errno they met.
func Observe(ctx context.Context, w Watch, cases []Case) (runs []Run, err error) {
	var watchers []*watcher
	defer func() {
		for _, wt := range watchers {
			start := time.Now()
			err = errors.Join(err, wt.c.Close(), <-wt.done)
			w.logf("%s: closed in %.1f s", wt.name, time.Since(start).Seconds())
		}
	}()
	for _, backend := range w.Backends {
		start := time.Now()
		wt, err := watch(ctx, backend, w.Followed)
		if err != nil {
			return nil, fmt.Errorf("watch by %s: %w", backend, err)
		}
		watchers = append(watchers, wt)
		w.logf("%s: opened in %.1f s", wt.name, time.Since(start).Seconds())
	}
	for _, g := range groups(cases) {
		of, err := w.group(ctx, watchers, g)
		runs = append(runs, of...)
		if err != nil {
			return runs, err
		}
	}
	return runs, nil
}

// rounds is how often a case is run whose record a backend itself declares incomplete.
const rounds = 3

// group runs cases that need the same sysctls.
func (w Watch) group(ctx context.Context, watchers []*watcher, cases []Case) (runs []Run, err error) {
	if len(cases[0].Sysctls) > 0 {
		restore, err := w.Sysctls(ctx, cases[0].Sysctls)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, restore()) }()
	}
	runs = w.pass(ctx, watchers, cases)
	for range rounds - 1 {
		var again []Case
		for _, c := range cases {
			if slices.ContainsFunc(runs, func(r Run) bool { return r.Case == c.Name && w.spoilt(c, r) }) {
				again = append(again, c)
			}
		}
		if len(again) == 0 {
			break
		}
		for _, r := range w.pass(ctx, watchers, again) {
			i := slices.IndexFunc(runs, func(o Run) bool { return o.Case == r.Case && o.Backend == r.Backend })
			c := again[slices.IndexFunc(again, func(c Case) bool { return c.Name == r.Case })]
			if w.spoilt(c, runs[i]) {
				w.logf("%s: %s once more: events were lost", r.Backend, r.Case)
				runs[i] = r
			}
		}
	}
	return runs, nil
}

// spoilt reports a run that went wrong while, as it says itself, events were lost.
func (w Watch) spoilt(c Case, r Run) bool {
	lost := slices.ContainsFunc(r.Attempts, func(a *load.Attempt) bool { return containsPart(a.IncompleteWhy, "lost") })
	if !lost || c.skip(w.Kernel, r.Backend) != "" {
		return false
	}
	j, _ := c.Judge(w.Kernel, r)
	return j == Wrong
}

// pass runs each case once.
func (w Watch) pass(ctx context.Context, watchers []*watcher, cases []Case) (runs []Run) {
	// The node as somebody would find it who began to watch now.
	profile := node.Host()
	bare := make([]Run, len(cases))
	spans := make([]span, len(cases))
	for i, c := range cases {
		if c.HostOnly {
			time.Sleep(patience) // events of so many are lost, and make what is near incomplete
		}
		spans[i].from = monotonic()
		bare[i] = w.run(ctx, c)
		spans[i].to = monotonic()
		bare[i].Seconds = float64(spans[i].to-spans[i].from) / 1e9
	}
	if watchers == nil {
		return bare
	}
	time.Sleep(patience)
	for _, wt := range watchers {
		if !wt.rest(ctx) {
			w.logf("%s: events are still on their way", wt.name)
		}
		of := slices.Clone(bare)
		header := wt.header
		header.Node = *profile
		for _, a := range conclude(header, wt.take()) {
			at := a.Time.UnixNano() - header.Epoch
			n := slices.IndexFunc(spans, func(s span) bool { return s.from <= at && at <= s.to })
			if n >= 0 { // else it is of another process, between two cases
				of[n].Attempts = append(of[n].Attempts, a)
			}
		}
		for i := range of {
			of[i].Backend, of[i].Missing = wt.name, wt.missing()
		}
		runs = append(runs, of...)
	}
	return runs
}

// span is when a case ran, in ns of the monotonic clock.
type span struct{ from, to int64 }

// watcher collects records while the loaders run.
type watcher struct {
	name   string
	c      *capture.Capture
	header trace.Header
	done   chan error

	mu      sync.Mutex
	records []trace.Record
}

func watch(ctx context.Context, backend string, followed bool) (*watcher, error) {
	opts := capture.Options{Backend: backend, Node: *node.Host(), Tool: "corpus"}
	if backend == Following {
		opts.Backend, followed = "fentry", true
	}
	if followed {
		opts.OnlyFollowed, opts.PIDs = true, []int{os.Getpid()}
	}
	c, err := capture.Open(ctx, opts)
	if err != nil {
		return nil, err
	}
	w := &watcher{name: cmp.Or(backend, c.Header().Backend), c: c, header: c.Header(), done: make(chan error, 1)}
	go w.read()
	return w, nil
}

func (w *watcher) missing() (functions []load.Function) {
	for _, h := range w.header.Hooks {
		if h.Via == "" {
			functions = append(functions, h.Function)
		}
	}
	return functions
}

func (w *watcher) read() {
	for {
		r, err := w.c.Next()
		if err != nil {
			if err == io.EOF {
				err = nil
			}
			w.done <- err
			return
		}
		w.mu.Lock()
		w.records = append(w.records, r)
		w.mu.Unlock()
	}
}

// rest waits until everything has been read: on a busy machine that takes longer than patience, and
// what comes later would be of no case.
func (w *watcher) rest(ctx context.Context) bool {
	const often, pause = 600, 50 * time.Millisecond
	for i := 0; i < often && ctx.Err() == nil; i++ {
		if !w.c.Behind() {
			time.Sleep(pause) // the last one is still to be kept
			return true
		}
		time.Sleep(pause)
	}
	return false
}

func (w *watcher) take() []trace.Record {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.records
	w.records = nil
	return r
}

// conclude concludes as watch does.
func conclude(h trace.Header, records []trace.Record) []*load.Attempt {
	var out []*load.Attempt
	for a := range diagnose.Attempts(h, diagnose.Of(records)) { // which has no errors
		a.Evidence = load.Evidence{}
		out = append(out, a)
	}
	return out
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
	r := Run{Case: c.Name, Backend: "none", Errno: -1}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
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
	said := false
	if c.Loader == Failing {
		var res failing.Result
		if err := json.Unmarshal(out, &res); err != nil {
			r.Err = fmt.Sprintf("read the result of the failing load: %v: %s", err, r.Output)
			return r
		}
		r.Errno, said = res.Errno, true
	}
	for line := range strings.Lines(string(out)) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "errno "); ok {
			said = true
			if v, err := strconv.Atoi(n); err == nil {
				r.Errno = v
			}
		}
	}
	if !said && c.Loader != Bpftrace && c.Loader != Bpftool {
		r.Err = "the loader did not say how it ended: " + r.Output
	}
	return r
}

// command is how a case is run, and under which name if not its own.
func (t Tools) command(c Case) (args []string, argv0 string, err error) {
	switch c.Loader {
	case Failing:
		return append([]string{t.Dir + "/failing", "-json"}, c.Args...), "", nil
	case C:
		return append([]string{t.Dir + "/raw"}, c.Args...), "", nil
	case Libbpf:
		return append([]string{t.Dir + "/libbpf"}, t.inDir(c.Args)...), "", nil
	case Cilium:
		return append([]string{"/proc/self/exe"}, t.inDir(c.Args)...), argv0Cilium, nil
	case Attach:
		return append([]string{"/proc/self/exe"}, c.Args...), argv0Attach, nil
	case Python:
		return []string{t.Python, "-I", "-S", t.Dir + "/load.py"}, "", nil
	case Bpftrace:
		return append([]string{t.Bpftrace}, c.Args...), "", nil
	case Bpftool:
		return append([]string{t.Bpftool}, c.Args...), "", nil
	}
	return nil, "", fmt.Errorf("run case %s: no loader %q", c.Name, c.Loader)
}

// inDir gives an object its path.
func (t Tools) inDir(args []string) []string {
	args = slices.Clone(args)
	if strings.HasSuffix(args[0], ".o") {
		args[0] = t.Dir + "/" + args[0]
	}
	return args
}

// groups puts cases that need the same sysctls together: these belong to the whole machine. The
// first group needs none.
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

// ignored reports attempts that a failing load makes on its way to the one that counts: filling up
// the JIT's memory.
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
