// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"

	"github.com/bpfwhy/bpfwhy/internal/buildinfo"
	"github.com/bpfwhy/bpfwhy/internal/render"
	"github.com/bpfwhy/bpfwhy/internal/trace"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/spf13/cobra"
)

// build is where a binary comes from, and what it writes.
type build struct {
	buildinfo.Info
	Schemas []string `json:"schemas"`
}

func buildInfo() build {
	return build{buildinfo.Read(), []string{load.Schema, load.SchemaV1, trace.Schema}}
}

func newVersion() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "version",
		Short: "Print the version, the commit and the Go release it was built with",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return version(asJSON) },
	}
	c.Flags().BoolVar(&asJSON, "json", false, "as one line of JSON")
	return c
}

func version(asJSON bool) error {
	b := buildInfo()
	if asJSON {
		return render.JSON(os.Stdout, b)
	}
	fmt.Printf("bpfwhy %s\n", b.Version)
	if b.Commit != "" {
		s := ""
		if b.Modified {
			s = ", modified"
		}
		fmt.Printf("commit %s%s\n", b.Commit, s)
	}
	fmt.Printf("%s %s\n", b.Go, b.Platform)
	return nil
}
