// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/internal/objects/check"
	"github.com/bpfwhy/bpfwhy/internal/objects/object"
	"github.com/bpfwhy/bpfwhy/internal/output/render"
	"github.com/bpfwhy/bpfwhy/rewrite"
	"github.com/spf13/cobra"
)

type fixOptions struct {
	std
	input, output string
	gotol, dry    bool
	overwrite     bool
	limit         int
}

func newFix(io std) *cobra.Command {
	o := fixOptions{std: io}
	c := &cobra.Command{
		Use:   "fix OBJECT -o OUTPUT",
		Short: "Repair an object file whose programs fail under hardening",
		Long: `Write an object file whose programs load when net.core.bpf_jit_harden blinds
their constants. A jump that would become too long is split: it goes through a
plain goto placed on its way (a jump island), which blinding leaves alone.
libbpf, bpftool and cilium/ebpf load the result like the original. Functions
that need no repair keep their bytes. If none needs repair, the result is a
copy.

The exit status is 0 when all programs of the result are predicted to load, 1
when one may still fail, and 2 for bad input and for objects that cannot be
changed.`,
		Example: `  bpfwhy fix probe.o -o probe.fixed.o
  bpfwhy fix --dry-run probe.o`,
		Args: one("fix: give the object to repair: bpfwhy fix IN.o -o OUT.o"),
		RunE: func(c *cobra.Command, args []string) error {
			o.input = args[0]
			if c.Flags().Changed("limit") && (o.limit < rewrite.MinLimit || o.limit > blinding.MaxOffset) {
				return usage("fix: --limit %d: not in %d..%d", o.limit, rewrite.MinLimit, blinding.MaxOffset)
			}
			return fix(o)
		},
	}
	f := c.Flags()
	f.StringVarP(&o.output, "output", "o", "", "write the result here")
	f.BoolVar(&o.gotol, "gotol", false, "use gotol, for kernels that take it (from 6.6, or a backport; see 'bpfwhy node')")
	f.IntVar(&o.limit, "limit", 0, "longest jump to keep, in instruction slots after blinding (default: the longest that is safe)")
	f.BoolVar(&o.overwrite, "overwrite", false, "allow OUTPUT to be the input")
	f.BoolVar(&o.dry, "dry-run", false, "say what would be changed, and write nothing")
	return c
}

func fix(o fixOptions) error {
	if o.output == "" && !o.dry {
		return usage("fix: say where to write the result (-o OUTPUT), or use --dry-run")
	}
	if !o.dry && !o.overwrite && sameFile(o.input, o.output) {
		return fmt.Errorf("fix %s: the output is the input itself; use --overwrite to replace it", o.input)
	}
	in, err := object.ReadFile(o.input)
	if err != nil {
		return fmt.Errorf("fix %s: %w", o.input, err)
	}
	settings := check.Settings{Harden: 2, Kernel: blinding.AnyKernel()}
	before, err := check.Programs(in, settings)
	if err != nil {
		return fmt.Errorf("fix %s: %w", o.input, err)
	}
	fixed, err := in.Fix(object.FixOptions{Kernel: blinding.AnyKernel(), Limit: o.limit, Gotol: o.gotol})
	if err != nil {
		return fmt.Errorf("fix %s: %w", o.input, err)
	}
	after, err := check.Programs(fixed.Object, settings)
	if err != nil {
		return fmt.Errorf("fix %s: check the result: %w", o.input, err)
	}
	if !o.dry {
		if err := writeObject(o.output, o.input, fixed.Bytes); err != nil {
			return fmt.Errorf("fix %s: %w", o.input, err)
		}
	}
	r := render.Repair{Input: o.input, Output: o.output, Fixed: fixed, Before: before, After: after}
	if o.dry {
		r.Output = ""
	}
	if err := o.text().Repair(&r); err != nil {
		return fmt.Errorf("fix: %w", err)
	}
	if r.Unrepaired() > 0 {
		return &status{code: negative}
	}
	return nil
}

// writeObject writes next to the output and renames, so that nobody sees half an object.
func writeObject(output, input string, b []byte) error {
	mode := fs.FileMode(0o644)
	if info, err := os.Stat(input); err == nil {
		mode = info.Mode().Perm()
	}
	if info, err := os.Lstat(output); err == nil {
		switch {
		case info.IsDir():
			return fmt.Errorf("write %s: this is a directory", output)
		case info.Mode()&fs.ModeSymlink != 0:
			// The link stays and its file is replaced, as by any other writer.
			target, err := filepath.EvalSymlinks(output)
			if err != nil {
				return fmt.Errorf("write %s: %w", output, err)
			}
			return writeObject(target, input, b)
		case !info.Mode().IsRegular():
			return fmt.Errorf("write %s: not a regular file", output)
		}
	}
	f, err := os.CreateTemp(filepath.Dir(output), ".bpfwhy-*"+filepath.Ext(output))
	if err != nil {
		return fmt.Errorf("write %s: %w", output, errors.Unwrap(err))
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(mode), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), output)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", output, err), os.Remove(f.Name()))
	}
	return nil
}

// sameFile reports whether both names lead to one file.
func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}
