// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/bpfwhy/bpfwhy/internal/sys/atomicfile"
)

// newCopy is for init containers: an image that holds nothing but bpfwhy has no cp.
func newCopy() *cobra.Command {
	return &cobra.Command{
		Use:   "copy FILE",
		Short: "Copy this executable to a file",
		Long: `Copy this executable to a file. An init container that holds nothing else
gives bpfwhy to another container so ('bpfwhy fleet repair').`,
		Hidden: true,
		Args:   one("copy: give one file"),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := copySelf(args[0]); err != nil {
				return fmt.Errorf("copy: %w", err)
			}
			return nil
		},
	}
}

func copySelf(file string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	from, err := os.Open(self)
	if err != nil {
		return err
	}
	defer from.Close()
	return atomicfile.Write(file, 0o755, func(to io.Writer) error { _, err := io.Copy(to, from); return err })
}
