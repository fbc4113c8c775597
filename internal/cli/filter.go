// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/bpfwhy/bpfwhy/internal/capture"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/spf13/cobra"
)

// selection is what watch and run have in common: which attempts, by which hooks, and in what form.
type selection struct {
	comm    string
	cgroup  string
	failed  bool
	all     bool
	json    bool
	schema  schemaVersion
	record  string
	backend string
}

// schemaVersion is the form of the JSON lines: "v2", or "v1" for readers that know no other.
type schemaVersion string

var schemaVersions = []string{"v2", "v1"}

func (v *schemaVersion) flag(c *cobra.Command) {
	c.Flags().StringVar((*string)(v), "schema", schemaVersions[0], "form of the JSON lines: v2, or v1, in which every repeat is a line of its own")
	// The error is for a flag that does not exist.
	_ = c.RegisterFlagCompletionFunc("schema", cobra.FixedCompletions(schemaVersions, cobra.ShellCompDirectiveNoFileComp))
}

func (v schemaVersion) check() error {
	if !slices.Contains(schemaVersions, string(v)) {
		return fmt.Errorf("--schema %q: choose one of %s", string(v), strings.Join(schemaVersions, ", "))
	}
	return nil
}

func (v schemaVersion) old() bool { return v == "v1" }

// backends in the order in which capture tries them.
var backends = []string{"fentry", "kprobe", "tracepoint", "tp_btf"}

func (s *selection) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&s.comm, "comm", "", "only threads of this name (as in /proc/PID/comm, at most 15 bytes)")
	f.StringVar(&s.cgroup, "cgroup", "", "only this cgroup v2 and those below it: a path, or an id (its inode number)")
	f.BoolVar(&s.failed, "failed", false, "only loads that fail or end up not jited")
	f.BoolVar(&s.all, "all", false, "also feature probes, and healthy map, BTF, link and other calls")
	f.BoolVar(&s.json, "json", false, "JSON Lines: attempts, summaries of repeats, losses (docs/schema/load-v2.schema.json)")
	s.schema.flag(c)
	f.StringVar(&s.record, "record", "", "write what was captured to this file, for 'bpfwhy explain FILE' (mode 0600)")
	backendFlag(c, &s.backend)
}

func backendFlag(c *cobra.Command, name *string) {
	c.Flags().StringVar(name, "backend", "", "force one kind of hook: "+strings.Join(backends, ", "))
	// The error is for a flag that does not exist.
	_ = c.RegisterFlagCompletionFunc("backend", cobra.FixedCompletions(backends, cobra.ShellCompDirectiveNoFileComp))
}

// options translates the selection for the kernel side.
func (s *selection) options() (capture.Options, error) {
	o := capture.Options{Backend: s.backend, Comm: s.comm, FailedOnly: s.failed, All: s.all}
	if err := s.schema.check(); err != nil {
		return o, err
	}
	if err := checkBackend(s.backend); err != nil {
		return o, err
	}
	if len(s.comm) > 15 {
		return o, fmt.Errorf("--comm %q: the kernel keeps 15 bytes of a name, and these are %d", s.comm, len(s.comm))
	}
	if s.failed && s.all {
		return o, errors.New("--failed and --all exclude each other")
	}
	if s.cgroup != "" {
		root, err := capture.Cgroup2Root()
		if err != nil {
			return o, fmt.Errorf("--cgroup: %w", err)
		}
		g, err := findCgroup(s.cgroup, root)
		if err != nil {
			return o, fmt.Errorf("--cgroup: %w", err)
		}
		o.CgroupID = g.id
	}
	return o, nil
}

func checkBackend(name string) error {
	if name == "" || slices.Contains(backends, name) {
		return nil
	}
	return fmt.Errorf("--backend %q: choose one of %s", name, strings.Join(backends, ", "))
}

// shows reports whether an attempt is one to show.
func (s *selection) shows(a *load.Attempt) bool {
	switch {
	case a.Finding():
		return true
	case s.failed:
		return false
	case s.all:
		return true
	}
	return a.FeatureProbe == "" && a.Kind == load.ProgLoad
}

// cgroup is a control group of the v2 hierarchy: its id, and its depth below the root, which is 0.
type cgroup struct {
	id    uint64
	level int
}

// findCgroup takes the id of a group, the path of its directory, or its path as /proc/PID/cgroup shows it. The id is the
// inode number of the directory (kernfs, 64-bit kernels since 5.5).
func findCgroup(s, root string) (cgroup, error) {
	if id, err := strconv.ParseUint(s, 10, 64); err == nil {
		return cgroupByID(id, root)
	}
	for _, path := range []string{s, filepath.Join(root, s)} {
		path, err := filepath.Abs(path)
		if err != nil {
			continue
		}
		rel, err := filepath.Rel(root, path)
		if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
			continue
		}
		if ino, err := inode(path); err == nil {
			return cgroup{ino, depth(rel)}, nil
		}
	}
	return cgroup{}, fmt.Errorf("%s is neither the id nor the path of a control group below %s", s, root)
}

func cgroupByID(id uint64, root string) (cgroup, error) {
	var found *cgroup
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // a group that has just gone
		}
		if ino, err := inode(path); err == nil && ino == id {
			rel, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			found = &cgroup{id, depth(rel)}
			return fs.SkipAll
		}
		return nil
	})
	if err != nil {
		return cgroup{}, err
	}
	if found == nil {
		return cgroup{}, fmt.Errorf("no control group below %s has the id %d", root, id)
	}
	return *found, nil
}

func depth(rel string) int {
	if rel == "." {
		return 0
	}
	return strings.Count(rel, "/") + 1
}

func inode(path string) (uint64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() {
		return 0, fmt.Errorf("%s is no directory", path)
	}
	return st.Ino, nil
}
