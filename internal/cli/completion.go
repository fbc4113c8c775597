// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strings"

	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/spf13/cobra"
)

// complete lets a shell offer what a flag takes, and no files. A choice may have a note behind a
// tab.
func complete(c *cobra.Command, flag string, choices ...string) {
	// The error is for a flag that does not exist.
	_ = c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(choices, cobra.ShellCompDirectiveNoFileComp))
}

// rulesAndErrnos are what explain explains besides files, which a shell offers too.
func rulesAndErrnos(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	var list []string
	for _, r := range explain.All() {
		list = append(list, r.ID+"\t"+r.Title)
	}
	for _, e := range explain.Errnos() {
		list = append(list, e.Name+"\t"+strings.Join(strings.Fields(e.Prints), " "))
	}
	return list, cobra.ShellCompDirectiveDefault
}

// kernels are what check --kernel takes besides files.
func kernels(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return []string{"host\tthis machine", "5.10", "5.15", "6.1", "6.6", "6.12", "6.18", "7.2"}, cobra.ShellCompDirectiveDefault
}
