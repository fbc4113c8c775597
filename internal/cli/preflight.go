// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/hostinfo/probe"
	"github.com/bpfwhy/bpfwhy/internal/objects/object"
	"github.com/bpfwhy/bpfwhy/internal/objects/preflight"
	"github.com/bpfwhy/bpfwhy/internal/output/render"
	"github.com/bpfwhy/bpfwhy/internal/sys/tracefs"
	"github.com/bpfwhy/bpfwhy/internal/watch/capture"
	"github.com/bpfwhy/bpfwhy/internal/watch/hang"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/spf13/cobra"
)

// checkPreflight is doctor --preflight. What is asked for is read before anything is tried.
func checkPreflight(ctx context.Context, o doctorOptions, files []string) error {
	var n preflight.Needs
	for _, w := range o.needs {
		if err := n.Add(strings.TrimSpace(w)); err != nil {
			return usage("doctor: --needs: %w", err)
		}
	}
	for _, f := range files {
		if err := addFile(&n, f, len(files) > 1); err != nil {
			return fmt.Errorf("doctor: %s: %w", f, err)
		}
	}
	ctx = interruptible(ctx)
	h := hostFor(ctx, &n)
	if ctx.Err() != nil {
		return errors.New("doctor: interrupted")
	}
	r := preflight.Judge(h, &n)
	var err error
	if o.json {
		err = render.JSON(o.out, r)
	} else {
		err = o.text().Preflight(r)
	}
	if err == nil && r.Verdict == preflight.Fail {
		err = &status{code: negative}
	}
	return err
}

// addFile adds the needs of an object, or of those in the data of an executable.
func addFile(n *preflight.Needs, path string, several bool) error {
	label := ""
	if several {
		label = filepath.Base(path)
	}
	obj, err := object.ReadFile(path)
	if err == nil {
		return addObject(n, preflight.Source{Path: path, Label: label, Object: obj})
	}
	if !errors.Is(err, object.ErrForeign) {
		return err
	}
	found := 0
	for e, err := range object.ReadEmbedded(path) {
		if err != nil {
			return err
		}
		found++
		obj, err := object.Parse(e.Bytes)
		if err == nil {
			err = addObject(n, preflight.Source{Path: path, Label: label, Embedded: true, Object: obj})
		}
		if err != nil {
			return fmt.Errorf("the object in it at %#x: %w", e.Offset, err)
		}
	}
	if found == 0 {
		return errors.New("not a BPF object, and no BPF object is in its data")
	}
	return nil
}

func addObject(n *preflight.Needs, s preflight.Source) error {
	if len(s.Object.Programs) == 0 && !s.Embedded {
		return errors.New("no program in it")
	}
	return n.AddObject(s)
}

// hostFor is this node, with what the needs ask for tried. Nothing is tried where loads hang.
func hostFor(ctx context.Context, n *preflight.Needs) preflight.Host {
	waiting := scanWaiting()
	h := preflight.Host{Profile: node.Host()}
	if err := loadsHang(ctx); err != nil {
		h.Hangs = err.Error()
		if e, ok := errors.AsType[*hang.Error](err); ok {
			h.HangRule = hang.Rule(e.Place)
		}
		probe.Blinding(h.Profile)
		h.Profile.Unknown["features"] = "not tried, because loads hang"
		return h
	}
	h.Tried = waysHere()
	types, all := n.HelperTypes()
	if all {
		probe.Add(ctx, h.Profile)
	} else {
		probe.AddFor(ctx, h.Profile, types)
	}
	if others := waiting.still(); others != nil && others.Diagnosis != nil {
		h.Others, h.OthersRule = others.Diagnosis.Cause, others.Diagnosis.Rule
	}
	return h
}

// waysHere are the ways of attaching, with why they do not work here.
func waysHere() map[preflight.Way]string {
	ways := map[preflight.Way]string{preflight.Fentry: "", preflight.Kprobe: "", preflight.Tracefs: ""}
	if err := capture.TryFentry(); err != nil {
		ways[preflight.Fentry] = err.Error()
	}
	if err := capture.TryKprobes(); err != nil {
		ways[preflight.Kprobe] = err.Error()
	}
	if tracefs.Mounted() == "" {
		ways[preflight.Tracefs] = "tracefs is not mounted, or this process may not enter it"
	}
	return ways
}

// features are what --needs takes, for a shell: several with commas between.
func features(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	before := ""
	if i := strings.LastIndexByte(begun, ','); i >= 0 {
		before = begun[:i+1]
	}
	var list []string
	for _, w := range preflight.Words() {
		s := before + w.Word
		if w.Note != "" {
			s += "\t" + w.Note
		}
		list = append(list, s)
	}
	return list, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}
