// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/load"
	"github.com/spf13/cobra"
)

// selection is what watch and run have in common: which attempts, by which hooks, and in what form.
type selection struct {
	std
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
	c.Flags().StringVar((*string)(v), "schema", schemaVersions[0], "form of the JSON lines: v2, or v1 with a line for every repeat")
	complete(c, "schema", schemaVersions...)
}

func (v schemaVersion) check() error {
	if !slices.Contains(schemaVersions, string(v)) {
		return usage("--schema %q: choose one of %s", string(v), strings.Join(schemaVersions, ", "))
	}
	return nil
}

func (v schemaVersion) old() bool { return v == "v1" }

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
