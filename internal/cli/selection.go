// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/watch/enrich"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/spf13/cobra"
)

// selection is what watch and run have in common: which attempts, by which hooks, and in what form.
type selection struct {
	std
	comm    string
	cgroup  string
	pod     string // the uid of a pod of Kubernetes
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
	case s.pod != "" && !ofPod(a, s.pod):
		return false
	case a.Finding():
		return true
	case s.failed:
		return false
	case s.all:
		return true
	}
	return a.FeatureProbe == "" && a.Kind == load.ProgLoad
}

// ofPod reports an attempt of a process in a pod. Names of control groups say so everywhere,
// while paths and ids need the machine's own view.
func ofPod(a *load.Attempt, uid string) bool {
	return slices.ContainsFunc(a.Process.Cgroups, func(g load.Cgroup) bool {
		c, ok := enrich.Parse(g.Name)
		return ok && c.PodUID == uid
	})
}

// checkPod refuses what is no uid, such as a pod's name.
func checkPod(uid string) error {
	if c, ok := enrich.Parse("/kubepods/pod" + uid); uid != "" && (!ok || c.PodUID != uid) {
		return usage("--pod %q: give the uid of a pod: kubectl get pod NAME -o jsonpath={.metadata.uid}", uid)
	}
	return nil
}
