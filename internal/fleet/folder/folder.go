// SPDX-License-Identifier: Apache-2.0

// Package folder reads a fleet from files: recordings ('watch --record', 'run --record'), profiles
// ('node --json') and what 'serve' and kubectl say of nodes.
package folder

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/fleet"
	"github.com/bpfwhy/bpfwhy/internal/fleet/nodereport"
	"github.com/bpfwhy/bpfwhy/internal/watch/diagnose"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/node"
)

// maxFiles bounds how many files are read.
const maxFiles = 100_000

// Skipped is a file that says nothing, or not all of it.
type Skipped struct {
	File string
	Err  error
	// Partly: what came before the error was taken.
	Partly bool
}

// Read takes files, and the files of folders and of the folders in them. A file is of the node that
// it is named after: worker-1.json, worker-1.bpfwhy and worker-1/anything are of worker-1. But a
// NodeReport names its node, and so the node of all files in the state folder of 'serve'. Files of
// a folder that are nothing of bpfwhy's are skipped, and returned; one that was named itself is an
// error.
func Read(paths []string) (*fleet.Fleet, []Skipped, error) {
	g := gatherer{nodes: map[string]*fleet.Node{}, kept: map[string]bool{}, reports: map[string]*nodereport.Report{}, classes: map[string]*nodereport.Class{}}
	for _, p := range paths {
		if err := g.path(p); err != nil {
			return nil, nil, err
		}
	}
	for name, r := range g.reports {
		g.node(name).Merge(r.Node(g.classes[r.Status.Class]), r.Status.Over())
	}
	f := &fleet.Fleet{}
	for _, n := range g.nodes {
		f.Nodes = append(f.Nodes, n)
	}
	slices.SortFunc(f.Nodes, func(a, b *fleet.Node) int { return cmp.Compare(a.Name, b.Name) })
	f.Settle()
	return f, g.skipped, nil
}

type gatherer struct {
	nodes   map[string]*fleet.Node
	skipped []Skipped
	files   int
	taken   []fs.FileInfo   // folders and files that were named: one counts once
	kept    map[string]bool // kinds of failures of which an attempt is kept
	reports map[string]*nodereport.Report
	classes map[string]*nodereport.Class
}

func (g *gatherer) path(p string) error {
	info, err := os.Stat(p)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(g.taken, func(t fs.FileInfo) bool { return os.SameFile(t, info) }) {
		return nil
	}
	g.taken = append(g.taken, info)
	if !info.IsDir() {
		partly, err := g.file(p, name(filepath.Base(p)))
		if err != nil && !partly {
			return fmt.Errorf("%s: %w", p, err)
		}
		if err != nil {
			g.skipped = append(g.skipped, Skipped{p, err, true})
		}
		return nil
	}
	return g.folder(p)
}

// folder takes the files of a folder and of those in it.
func (g *gatherer) folder(top string) error {
	states := map[string]string{} // the nodes of state folders
	return filepath.WalkDir(top, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			g.skipped = append(g.skipped, Skipped{File: file, Err: err})
			return nil
		}
		if d.IsDir() {
			states[file] = cmp.Or(stateOf(file), states[filepath.Dir(file)])
			return nil
		}
		// Nothing is waited for: a pipe or a device in the folder is no file of ours.
		if !d.Type().IsRegular() || strings.HasPrefix(d.Name(), ".") {
			return nil
		}
		if g.files++; g.files > maxFiles {
			return fmt.Errorf("%s: more than %d files", top, maxFiles)
		}
		if partly, err := g.file(file, cmp.Or(states[filepath.Dir(file)], below(top, file))); err != nil {
			g.skipped = append(g.skipped, Skipped{file, err, partly})
		}
		return nil
	})
}

// below is the node that a file below a folder is named after.
func below(top, file string) string {
	relative, err := filepath.Rel(top, file)
	if err != nil {
		relative = filepath.Base(file)
	}
	first, _, nested := strings.Cut(relative, string(filepath.Separator))
	if !nested {
		first = name(first)
	}
	return first
}

// name is the node's, of a file's.
func name(file string) string {
	for _, ext := range []string{".gz", ".json", ".bpfwhy", ".trace"} {
		file = strings.TrimSuffix(file, ext)
	}
	return file
}

// file takes one file. Partly says that something was taken although there is an error.
func (g *gatherer) file(file, node string) (partly bool, err error) {
	f, err := os.Open(file)
	if err != nil {
		return false, err
	}
	defer f.Close()
	in := bufio.NewReader(f)
	if trace.Recorded(in) {
		return g.recording(in, node)
	}
	return false, g.text(in, node)
}

// maxText bounds a file of JSON: the reports of the largest clusters, as kubectl writes them.
const maxText = 512 << 20

// stateFile is that of the folder of 'serve'.
const stateFile = "node.json"

// stateOf returns the node of a state folder, "" for other folders.
func stateOf(folder string) string {
	path := filepath.Join(folder, stateFile)
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if reports, _, err := nodereport.Decode(io.LimitReader(f, maxText)); err == nil && len(reports) == 1 {
		return reports[0].Metadata.Name
	}
	return ""
}

// text takes objects of Kubernetes, or a profile.
func (g *gatherer) text(in io.Reader, name string) error {
	b, err := io.ReadAll(io.LimitReader(in, maxText+1))
	if err != nil {
		return err
	}
	if len(b) > maxText {
		return fmt.Errorf("more than %d MiB", maxText>>20)
	}
	reports, classes, err := nodereport.Decode(bytes.NewReader(b))
	if errors.Is(err, nodereport.ErrOther) {
		return g.profile(bytes.NewReader(b), name)
	}
	if err != nil {
		return err
	}
	for _, r := range reports {
		g.reports[r.Metadata.Name] = r
	}
	for _, c := range classes {
		g.classes[c.Metadata.Name] = c
	}
	return nil
}

func (g *gatherer) node(name string) *fleet.Node {
	n := g.nodes[name]
	if n == nil {
		n = &fleet.Node{Name: name}
		g.nodes[name] = n
	}
	return n
}

func (g *gatherer) profile(in io.Reader, name string) error {
	p, err := node.Decode(in)
	if err != nil {
		return err
	}
	g.node(name).Profile = p // one with features beats that of a recording
	return nil
}

func (g *gatherer) recording(in *bufio.Reader, name string) (partly bool, err error) {
	r, err := trace.NewReader(in)
	if err != nil {
		return false, err
	}
	n := g.node(name)
	h := r.Header()
	if n.Profile == nil {
		n.Profile = &h.Node
	}
	n.Watched = true
	defer n.Forget(g.kept)
	for a, err := range diagnose.Attempts(h, diagnose.File(r)) {
		if err != nil {
			return true, err
		}
		n.Add(a)
	}
	return false, nil
}
