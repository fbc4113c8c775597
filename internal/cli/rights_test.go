// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/bpfwhy/bpfwhy/internal/hostinfo/rights"
	"github.com/go-quicktest/qt"
	"github.com/spf13/cobra"
)

// TestEachCommandHasRights: no command is without a row in the table of rights, and no row of
// bpfwhy's is for a command or a flag that does not exist.
func TestEachCommandHasRights(t *testing.T) {
	rows := map[string]bool{} // commands, each with a row
	flag := regexp.MustCompile(` --[a-z-]+`)
	root := newRoot(std{})
	for _, c := range rights.Commands() {
		name, ours := strings.CutPrefix(c.Name, "bpfwhy ")
		if !ours {
			continue
		}
		for _, name := range strings.Split(name, ", ") {
			name = strings.TrimSuffix(name, " U") // of --user
			if name == "kubectl bpfwhy" {
				continue // another name of fleet
			}
			words := strings.Fields(flag.ReplaceAllString(name, ""))
			found, rest, err := root.Find(words)
			qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", name))
			qt.Check(t, qt.HasLen(rest, 0), qt.Commentf("%s", name))
			if f := strings.TrimSpace(flag.FindString(name)); f != "" {
				qt.Check(t, qt.IsNotNil(found.Flags().Lookup(f[2:])), qt.Commentf("%s", name))
			}
			rows[found.CommandPath()] = true
		}
	}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		covered := slices.ContainsFunc(append(parents(c), c), func(c *cobra.Command) bool { return rows[c.CommandPath()] })
		if c.Runnable() && !c.HasSubCommands() && c.Name() != "help" {
			qt.Check(t, qt.IsTrue(covered), qt.Commentf("%s has no row in internal/hostinfo/rights", c.CommandPath()))
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
	qt.Check(t, qt.IsTrue(len(rows) > 12))
}

// parents are the commands that one belongs to.
func parents(c *cobra.Command) (list []*cobra.Command) {
	for c.HasParent() {
		c = c.Parent()
		list = append(list, c)
	}
	return list
}
