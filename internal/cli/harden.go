// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"

	"github.com/bpfwhy/bpfwhy/internal/guardian"
	"github.com/bpfwhy/bpfwhy/internal/rights"
	"github.com/spf13/cobra"
)

func newHarden() *cobra.Command {
	c := &cobra.Command{
		Use:   "harden",
		Short: "What bpfwhy changed about net.core.bpf_jit_harden",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(&cobra.Command{
		Use:   "restore",
		Short: "Put back net.core.bpf_jit_harden where a killed bpfwhy left it changed",
		Long: `Put back net.core.bpf_jit_harden where a bpfwhy that was killed together with its guardian left it changed ('run
--harden-window', 'demo --allow-sysctl'). It is put back only if it is still what bpfwhy set it to. Where nothing was left
behind, or a guardian is at work, nothing is done. The status is 2 when it cannot be put back.`,
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
