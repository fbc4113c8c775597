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
	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/check"
	"github.com/bpfwhy/bpfwhy/internal/jitonly"
	"github.com/bpfwhy/bpfwhy/internal/object"
	"github.com/bpfwhy/bpfwhy/internal/render"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

type checkOptions struct {
	harden string
	kernel string
	format string
	paths  []string
}

func newCheck() *cobra.Command {
	var o checkOptions
	c := &cobra.Command{
		Use:   "check OBJECT|FOLDER...",
		Short: "What hardening will do to the programs in object files",
		Long: `Say of each program in object files whether it still loads when net.core.bpf_jit_harden blinds its constants: the
jump that no longer fits, with its lines of source, and how far the others are from that. Of a folder, all *.o
files below it. It needs neither root nor a kernel: without --kernel the verdicts hold for each kernel from 5.10 to 7.2.

The exit status is 0 when all load, 1 when one is predicted not to, 2 for bad input.`,
		Example: `  bpfwhy check probe.o
  bpfwhy check --kernel 6.1 build/
  bpfwhy check --format sarif build/ > bpfwhy.sarif`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("check: give objects or folders: bpfwhy check build/")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			o.paths = args
			return checkAll(o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.harden, "harden", "2", "value of net.core.bpf_jit_harden: 0, 1 (loaders without CAP_BPF), 2 (all)")
	f.StringVar(&o.kernel, "kernel", "", "only this one: host, a release (5.10, 6.1, 6.12, 7.2), or a profile of 'bpfwhy node --json'")
	f.StringVar(&o.format, "format", "text", "text, json (schema bpfwhy.check/v1), or sarif (2.1.0, for code scanning)")
	return c
}

func checkAll(o checkOptions) error {
	settings, err := o.settings()
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	write, ok := reportWriters[o.format]
	if !ok {
		return fmt.Errorf("check: --format %s: not text, json or sarif", o.format)
	}
	ctx := interruptible()
	report := &check.Report{Schema: check.Schema, Harden: settings.Harden, Kernel: settings.KernelName}
	files, err := o.files()
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	objects, err := checkFiles(ctx, files, settings)
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	for i, r := range objects {
		if files[i].found && errors.Is(r.err, object.ErrForeign) {
			report.Summary.Skipped++
			continue
		}
		report.Objects = append(report.Objects, r.Object)
	}
	if len(report.Objects) == 0 {
		return fmt.Errorf("check: no BPF objects below %s", strings.Join(o.paths, ", "))
	}
	report.Count()
	if len(files) == 1 && report.Summary.Bad == 1 && o.format == "text" {
		return outcome(report) // nothing else to say
	}
	if err := write(report); err != nil {
		return fmt.Errorf("check: write the result: %w", err)
	}
	return outcome(report)
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
		return fmt.Errorf("check: %d of %d objects cannot be read, the first is %s: %s", len(bad), len(r.Objects), bad[0].Path, bad[0].Error)
	case r.Summary.Fails+r.Summary.Wraps > 0:
		return &status{code: negative}
	}
	return nil
}

// release is a kernel's version as people write it.
var release = regexp.MustCompile(`^([1-9][0-9]?)\.([0-9]{1,3})$`)

func (o checkOptions) settings() (check.Settings, error) {
	s := check.Settings{KernelName: "any", Kernel: blinding.AnyKernel()}
	harden, err := strconv.Atoi(o.harden)
	if err != nil || harden < 0 || harden > 2 {
		return s, fmt.Errorf("--harden %s: not 0, 1 or 2", o.harden)
	}
	s.Harden = harden
	if o.kernel == "" {
		return s, nil
	}
	if m := release.FindStringSubmatch(o.kernel); m != nil {
		major, _ := strconv.Atoi(m[1])
		minor, _ := strconv.Atoi(m[2])
		s.KernelName, s.Kernel = o.kernel, blinding.ForVersion(major, minor)
		s.JITOnly.Version = insn.Version{Major: major, Minor: minor}
		return s, nil
	}
	profile, err := profileOf(o.kernel)
	if err != nil {
		return s, err
	}
	v, ok := profile.Kernel()
	if !ok {
		return s, fmt.Errorf("--kernel %s: no release in the profile: %q", o.kernel, profile.Release)
	}
	s.KernelName, s.Kernel = profile.Release, blinding.ForVersion(v.Major, v.Minor)
	if b := profile.Blinding; b != nil {
		s.Kernel.WholeProgram, s.Kernel.RangeCheck = b.WholeProgram, b.WholeProgram
	}
	s.Kernel = s.Kernel.On(cmp.Or(profile.Machine, "unknown"))
	s.JITOnly = jitonly.Kernel{Version: insn.Version{Major: v.Major, Minor: v.Minor}, Machine: profile.Machine}
	s.JITOnly.Refuses, _ = profile.RefusesJITOnly()
	return s, nil
}

func profileOf(kernel string) (*node.Profile, error) {
	if kernel == "host" {
		return node.Host(), nil
	}
	f, err := os.Open(kernel)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("--kernel %s: neither host, nor a release like 6.1, nor a file", kernel)
	} else if err != nil {
		return nil, fmt.Errorf("--kernel: %w", err)
	}
	defer f.Close()
	p, err := node.Decode(f)
	if err != nil {
		return nil, fmt.Errorf("--kernel %s: %w", kernel, err)
	}
	return p, nil
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

type checked struct {
	check.Object
	err error
}

// checkFiles checks them in parallel, in order. On a terminal it says how far it is once a second has passed.
func checkFiles(ctx context.Context, files []candidate, s check.Settings) ([]checked, error) {
	results := make([]checked, len(files))
	var done atomic.Int64
	stop := progress(&done, len(files))
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(min(runtime.GOMAXPROCS(0), maxParallel))
	for i, f := range files {
		g.Go(func() error {
			if ctx.Err() != nil {
				return errors.New("interrupted")
			}
			results[i].Object, results[i].err = check.File(f.path, s)
			done.Add(1)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return results, nil
}

// progress writes a line on the terminal that the caller's stop removes.
func progress(done *atomic.Int64, of int) (stop func()) {
	if width, _ := terminal(os.Stderr); width == 0 {
		return func() {}
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		shown := false
		for t := time.NewTicker(time.Second); ; {
			select {
			case <-t.C:
				fmt.Fprintf(os.Stderr, "\r%d of %d objects", done.Load(), of)
				shown = true
			case <-end:
				if t.Stop(); shown {
					fmt.Fprint(os.Stderr, "\r\x1b[K")
				}
				return
			}
		}
	}()
	return func() { close(end); <-ended }
}

var reportWriters = map[string]func(*check.Report) error{
	"text":  func(r *check.Report) error { return newText(os.Stdout).Check(r) },
	"json":  func(r *check.Report) error { return render.JSON(os.Stdout, r) },
	"sarif": writeSARIF,
}

func writeSARIF(r *check.Report) error {
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	return render.SARIF(os.Stdout, r, render.Checkout{Dir: dir, Version: buildInfo().Version})
}
