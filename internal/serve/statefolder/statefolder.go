// SPDX-License-Identifier: Apache-2.0

// Package statefolder is a folder that says what a node is and what fails on it: node.json, and a
// recording of each kind of failures. Each file is whole at any time, and readable by its owner
// alone: they tell of other people's programs.
package statefolder

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/fleet/nodereport"
	"github.com/bpfwhy/bpfwhy/internal/serve/sink"
	"github.com/bpfwhy/bpfwhy/internal/sys/atomicfile"
)

// The names in the folder.
const (
	NodeFile  = "node.json"
	Failures  = "failures"
	extension = ".bpfwhy"
)

// RingBytes is what all recordings together may take. The oldest make room.
const RingBytes = 64 << 20

// Folder is an open state folder. It is a sink of states, and keeps recordings.
type Folder struct {
	path string
	most int64
	// written is told of each state that is on the disk.
	written func(*nodereport.Status)
}

// Open makes the folder if there is none, and removes what an earlier process left unfinished.
func Open(path string, written func(*nodereport.Status)) (*Folder, error) {
	f := &Folder{path: path, most: RingBytes, written: written}
	if err := os.MkdirAll(filepath.Join(path, Failures), 0o700); err != nil {
		return nil, fmt.Errorf("make state folder: %w", err)
	}
	for _, dir := range []string{path, filepath.Join(path, Failures)} {
		if err := atomicfile.Clean(dir); err != nil {
			return nil, fmt.Errorf("clean state folder: %w", err)
		}
	}
	return f, nil
}

// maxNode bounds node.json as it is read.
const maxNode = 4 << 20

// Read returns the state that is in the folder, nil if there is none. One that cannot be read is an
// error; the next state replaces it.
func (f *Folder) Read() (*nodereport.Report, error) {
	file, err := os.Open(filepath.Join(f.path, NodeFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	defer file.Close()
	reports, _, err := nodereport.Decode(io.LimitReader(file, maxNode))
	if err != nil {
		return nil, fmt.Errorf("read state %s: %w", file.Name(), err)
	}
	if len(reports) != 1 {
		return nil, fmt.Errorf("read state %s: %d reports, not one", file.Name(), len(reports))
	}
	return reports[0], nil
}

// Name is that of the sink.
func (*Folder) Name() string { return "state" }

// Put writes a state. What else it is given is in the next state.
func (f *Folder) Put(_ context.Context, i sink.Item) error {
	if i.State == nil {
		return nil
	}
	b, err := json.MarshalIndent(nodereport.NewList(i.State.Report, i.State.Class), "", "  ")
	if err != nil {
		return sink.Permanent(fmt.Errorf("encode state: %w", err))
	}
	if err := atomicfile.Write(filepath.Join(f.path, NodeFile), 0o600, func(w io.Writer) error { _, err := w.Write(append(b, '\n')); return err }); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	f.written(&i.State.Report.Status)
	return nil
}

// Close has nothing to do.
func (*Folder) Close(context.Context) error { return nil }

var id = regexp.MustCompile(`^[0-9a-f]{1,64}$`)

// Has reports whether there is a recording of a kind of failures.
func (f *Folder) Has(failure string) bool {
	_, err := os.Lstat(f.recording(failure))
	return err == nil
}

func (f *Folder) recording(failure string) string {
	return filepath.Join(f.path, Failures, failure+extension)
}

// Record keeps a recording of a kind of failures, which write writes.
func (f *Folder) Record(failure string, write func(io.Writer) error) error {
	if !id.MatchString(failure) {
		return fmt.Errorf("keep recording: %q is no id", failure)
	}
	if err := atomicfile.Write(f.recording(failure), 0o600, write); err != nil {
		return fmt.Errorf("keep recording: %w", err)
	}
	return f.trim(failure + extension)
}

// trim removes the oldest recordings until the others fit. The newest stays.
func (f *Folder) trim(newest string) error {
	dir := filepath.Join(f.path, Failures)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list recordings: %w", err)
	}
	var files []fs.FileInfo
	var bytes int64
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || !strings.HasSuffix(e.Name(), extension) {
			continue
		}
		files = append(files, info)
		bytes += info.Size()
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int {
		return cmp.Or(a.ModTime().Compare(b.ModTime()), strings.Compare(a.Name(), b.Name()))
	})
	for _, old := range files {
		if bytes <= f.most {
			break
		}
		if old.Name() == newest {
			continue
		}
		if err := os.Remove(filepath.Join(dir, old.Name())); err != nil {
			return fmt.Errorf("remove recording: %w", err)
		}
		bytes -= old.Size()
	}
	return nil
}
