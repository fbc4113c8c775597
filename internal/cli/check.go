// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/internal/objects/check"
	"github.com/bpfwhy/bpfwhy/internal/objects/object"
	"github.com/bpfwhy/bpfwhy/internal/output/render"
	"github.com/bpfwhy/bpfwhy/internal/output/terminal"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

type checkOptions struct {
	std
	harden string
	kernel string
	format string
	failOn string
	margin int
	paths  []string
}

func newCheck(io std) *cobra.Command {
	o := checkOptions{std: io}
	c := &cobra.Command{
		Use:   "check OBJECT|EXECUTABLE|FOLDER...",
		Short: "Predict what hardening does to the programs in object files",
		Long: `Predict for each program in object files whether it still loads when
net.core.bpf_jit_harden blinds its constants. For a program that does not, show
the jump that becomes too long and its source lines. For the others, show how
close they are to the limit. For a folder, check all *.o files below it. For an
executable (a loader in Go, C or Rust), check the objects in its data.
Neither root nor a special kernel is needed. Without --kernel the verdicts hold
for each kernel from 5.10 to 7.2.

The exit status is 1 if a program is predicted not to load, 2 for bad input, and
0 otherwise. A program that only may fail (confidence "possible") is shown, but
counts for status 1 only with --fail-on possible. With --min-margin N, a program
also counts if its tightest jump has less than N slots left.`,
		Example: `  bpfwhy check probe.o
  bpfwhy check --min-margin 2000 build/
  bpfwhy check --kernel 6.1 build/
  bpfwhy check --format sarif build/ > bpfwhy.sarif`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("check: give objects or folders: bpfwhy check build/")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			o.paths = args
			return checkAll(c.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.harden, "harden", "2", "value of net.core.bpf_jit_harden: 0, 1 (loaders without CAP_BPF), 2 (all)")
	f.StringVar(&o.kernel, "kernel", "", "predict for this kernel: host, a release such as 6.1, or a profile of 'bpfwhy node --json'")
	f.StringVar(&o.format, "format", "text", formatNames(true))
	f.BoolFunc("json", "the same as --format json", func(s string) error {
		on, err := strconv.ParseBool(s)
		if on {
			o.format = "json"
		}
		return err
	})
	f.StringVar(&o.failOn, "fail-on", "likely", "how sure it must be that a program does not load, for status 1: likely, or possible")
	f.IntVar(&o.margin, "min-margin", 0, "status 1 also for programs with fewer slots left than this (the column MARGIN)")
	complete(c, "fail-on", "likely\tas the code stands", "possible\tonly with what the verifier may add")
	complete(c, "harden", "0", "1\tloaders without CAP_BPF", "2\tall loaders")
	_ = c.RegisterFlagCompletionFunc("kernel", kernels) // the error is for a flag that does not exist
	names := make([]string, len(formats))
	for i, f := range formats {
		names[i] = f.name + "\t" + f.note
	}
	complete(c, "format", names...)
	return c
}

func checkAll(ctx context.Context, o checkOptions) error {
	settings, err := o.settings()
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	i := slices.IndexFunc(formats, func(f format) bool { return f.name == o.format })
	if i < 0 {
		return usage("check: --format %s: not %s", o.format, formatNames(false))
	}
	ctx = interruptible(ctx)
	report, err := o.report(settings)
	if err != nil {
		return err
	}
	files, err := o.files()
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	objects, err := checkFiles(ctx, files, settings, o.err)
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	for i, list := range objects {
		if list == nil && files[i].found {
			report.Summary.Skipped++
		}
		report.Objects = append(report.Objects, list...)
	}
	if len(report.Objects) == 0 {
		return fmt.Errorf("check: no BPF objects below %s", strings.Join(o.paths, ", "))
	}
	report.Count()
	if len(report.Objects) == 1 && report.Summary.Bad == 1 && o.format == "text" {
		return outcome(report) // nothing else to say
	}
	if err := formats[i].write(o.out, report); err != nil {
		return fmt.Errorf("check: write the result: %w", err)
	}
	return outcome(report)
}

// report has no results yet, only what they are for.
func (o checkOptions) report(s check.Settings) (*check.Report, error) {
	failOn := check.Confidence(o.failOn)
	switch {
	case o.margin < 0 || o.margin > blinding.MaxOffset:
		return nil, usage("check: --min-margin %d: not in 0..%d", o.margin, blinding.MaxOffset)
	case failOn != check.Likely && failOn != check.Possible:
		return nil, usage("check: --fail-on %q: not likely or possible", o.failOn)
	}
	return &check.Report{Schema: check.Schema, Harden: s.Harden, Kernel: s.KernelName, FailOn: failOn, MinMargin: o.margin}, nil
}

// outcome is the exit status. The report lists all objects that are no good; one line says it.
func outcome(r *check.Report) error {
	var bad []check.Object
	for _, o := range r.Objects {
		if o.Error != "" {
			bad = append(bad, o)
		}
	}
	switch {
	case len(bad) == 1:
		return fmt.Errorf("check %s: %s", bad[0].Path, bad[0].Error)
	case len(bad) > 1:
		return fmt.Errorf("check: %d of %d objects cannot be read. The first is %s: %s", len(bad), len(r.Objects), bad[0].Path, bad[0].Error)
	case r.Summary.Rejected > 0:
		return &status{code: negative}
	}
	return nil
}

// What people write for a kernel: its version, or what uname -r prints there.
var (
	release     = regexp.MustCompile(`^[1-9][0-9]?\.[0-9]{1,3}$`)
	fullRelease = regexp.MustCompile(`^[1-9][0-9]?\.[0-9]{1,3}(-rc[0-9]+|\.[0-9]{1,3})([.+~_-][-.+~_0-9A-Za-z]{1,64})?$`)
)

func (o checkOptions) settings() (check.Settings, error) {
	s := check.Settings{KernelName: "any", Kernel: blinding.AnyKernel()}
	harden, err := strconv.Atoi(o.harden)
	if err != nil || harden < 0 || harden > 2 {
		return s, usage("--harden %s: not 0, 1 or 2", o.harden)
	}
	s.Harden = harden
	if o.kernel == "" {
		return s, nil
	}
	profile, name, machine, err := profileOf(o.kernel)
	if err != nil {
		return s, err
	}
	if _, ok := profile.Kernel(); !ok {
		return s, fmt.Errorf("--kernel %s: the release in the profile is %q, which is not one", o.kernel, profile.Release)
	}
	s = check.ForNode(profile, name, harden)
	s.Kernel = s.Kernel.On(machine)
	return s, nil
}

// profileOf is the kernel that somebody names, as it is called, and its machine: "" where none in
// particular is meant.
func profileOf(kernel string) (p *node.Profile, name, machine string, err error) {
	p = &node.Profile{Release: kernel}
	switch {
	case kernel == "host":
		if p, err = host(); err != nil {
			return nil, "", "", err
		}
		return p, p.Release, p.Machine, nil
	case release.MatchString(kernel):
		return p, kernel, "", nil
	}
	f, err := os.Open(kernel)
	switch missing := errors.Is(err, fs.ErrNotExist); {
	case missing && fullRelease.MatchString(kernel):
		return p, p.Title(), "", nil
	case missing:
		return nil, "", "", usage("--kernel %s: neither host, nor a release like 6.1, nor a file", kernel)
	case err != nil:
		return nil, "", "", fmt.Errorf("--kernel: %w", err)
	}
	defer f.Close()
	if p, err = node.Decode(f); err != nil {
		return nil, "", "", fmt.Errorf("--kernel %s: %w", kernel, err)
	}
	return p, p.Release, cmp.Or(p.Machine, "unknown"), nil
}

// candidate is a file to check; found in a folder, it may turn out to be none of ours.
type candidate struct {
	path  string
	found bool
}

// files lists what was asked for: files as they are, of folders the object files below them.
func (o checkOptions) files() ([]candidate, error) {
	var list []candidate
	for _, p := range o.paths {
		info, err := os.Stat(p)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, errors.Unwrap(err))
		}
		if !info.IsDir() {
			list = append(list, candidate{path: p})
			continue
		}
		err = filepath.WalkDir(p, func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case filepath.Ext(path) == ".o" && (d.Type().IsRegular() || d.Type() == fs.ModeSymlink && isFile(path)):
				list = append(list, candidate{path, true})
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("look through %s: %w", p, err)
		}
	}
	// A file that was named twice is checked once.
	seen := map[string]bool{}
	list = slices.DeleteFunc(list, func(c candidate) bool {
		again := seen[filepath.Clean(c.path)]
		seen[filepath.Clean(c.path)] = true
		return again
	})
	return list, nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// Most objects that are in memory at a time.
const maxParallel = 8

// checkFiles checks them in parallel, in order. On a terminal it says how far it is once a second
// has passed.
func checkFiles(ctx context.Context, files []candidate, s check.Settings, tell *os.File) ([][]check.Object, error) {
	results := make([][]check.Object, len(files))
	var done atomic.Int64
	stop := progress(tell, &done, len(files))
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(min(runtime.GOMAXPROCS(0), maxParallel))
	for i, f := range files {
		g.Go(func() error {
			if ctx.Err() != nil {
				return errors.New("interrupted")
			}
			results[i] = f.check(s)
			done.Add(1)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return results, nil
}

// check gives the objects that a file is or has. A file for another machine has none where it was
// only found; one that was named may be an executable, with objects in its data.
func (f candidate) check(s check.Settings) []check.Object {
	o, err := check.File(f.path, s)
	switch {
	case !errors.Is(err, object.ErrForeign):
		return []check.Object{o}
	case f.found:
		return nil
	}
	list, err := check.Executable(f.path, s)
	if err == nil && len(list) == 0 {
		o.Error += ", and no BPF object is in its data"
		list = []check.Object{o}
	}
	return list
}

// progress writes a line on the terminal that the caller's stop removes.
func progress(to *os.File, done *atomic.Int64, of int) (stop func()) {
	if width, _ := terminal.Of(to); width == 0 {
		return func() {}
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		shown := false
		for t := time.NewTicker(time.Second); ; {
			select {
			case <-t.C:
				fmt.Fprintf(to, "\r%d of %d objects", done.Load(), of)
				shown = true
			case <-end:
				if t.Stop(); shown {
					fmt.Fprint(to, "\r\x1b[K")
				}
				return
			}
		}
	}()
	return func() { close(end); <-ended }
}

type format struct {
	name, note string
	write      func(to *os.File, r *check.Report) error
}

// formats are what a report can be written as.
var formats = []format{
	{"text", "", func(to *os.File, r *check.Report) error { return newText(to).Check(r) }},
	{"json", "schema bpfwhy.check/v1", func(to *os.File, r *check.Report) error { return render.JSON(to, r) }},
	{"sarif", "2.1.0, for code scanning", writeSARIF},
	{"junit", "XML, for reports of tests", func(to *os.File, r *check.Report) error { return render.JUnit(to, r) }},
}

// formatNames lists the formats, with what is to be known of each.
func formatNames(notes bool) string {
	var names []string
	for _, f := range formats {
		if notes && f.note != "" {
			f.name += " (" + f.note + ")"
		}
		names = append(names, f.name)
	}
	sep := " or "
	if notes {
		sep = ", or "
	}
	return strings.Join(names[:len(names)-1], ", ") + sep + names[len(names)-1]
}

func writeSARIF(to *os.File, r *check.Report) error {
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	top := checkoutOf(dir)
	return render.SARIF(to, r, render.Checkout{Top: top, Dir: dir, Files: os.DirFS(top), Version: buildInfo().Version})
}

// checkoutOf is the top of the checkout that a folder lies in: the nearest one with a .git, which
// is a file in a worktree. Without one it is the folder itself.
func checkoutOf(dir string) string {
	for top := dir; ; top = filepath.Dir(top) {
		if _, err := os.Stat(filepath.Join(top, ".git")); err == nil {
			return top
		}
		if top == filepath.Dir(top) {
			return dir
		}
	}
}
