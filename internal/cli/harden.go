// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"fmt"

	"github.com/bpfwhy/bpfwhy/internal/hostinfo/rights"
	"github.com/bpfwhy/bpfwhy/internal/repair/guardian"
	"github.com/spf13/cobra"
)

func newHarden() *cobra.Command {
	c := &cobra.Command{
		Use:   "harden",
		Short: "Undo a change of net.core.bpf_jit_harden that bpfwhy made",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(&cobra.Command{
		Use:   "restore",
		Short: "Put back net.core.bpf_jit_harden after bpfwhy was killed",
		Long: `Put back net.core.bpf_jit_harden after bpfwhy was killed (CAP_SYS_ADMIN).

'run --repair --harden-window', 'demo --allow-sysctl' and 'doctor --prove
--allow-sysctl' change this setting for a moment. A second process, the
guardian, puts it back. The change stays only if both processes were killed.
This command then undoes it, if the setting still has the value that bpfwhy
wrote. It does nothing if no change was left behind, or if a guardian is still
at work. The status is 2 if the value cannot be put back.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := guardian.RecoverRaised()
			if err != nil {
				return fmt.Errorf("restore net.core.bpf_jit_harden: %w", rights.Restore.Explain(err))
			}
			if r == (guardian.Report{}) {
				fmt.Fprintln(c.OutOrStdout(), "nothing was left behind")
				return nil
			}
			fmt.Fprintln(c.OutOrStdout(), r)
			return nil
		},
	})
	return c
}
