// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"

	"github.com/bpfwhy/bpfwhy/internal/output/render"
	"github.com/bpfwhy/bpfwhy/internal/sys/buildinfo"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
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

func newVersion(io std) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "version",
		Short: "Print the version, the commit and the Go release it was built with",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return version(io, asJSON) },
	}
	c.Flags().BoolVar(&asJSON, "json", false, "as one line of JSON")
	return c
}

func version(io std, asJSON bool) error {
	b := buildInfo()
	if asJSON {
		return render.JSON(io.out, b)
	}
	_, err := fmt.Fprint(io.out, b)
	return err
}

// String is for people, and ends with a newline.
func (b build) String() string {
	s := "bpfwhy " + b.Version + "\n"
	if b.Commit != "" {
		s += "commit " + b.Commit
		if b.Modified {
			s += ", modified"
		}
		s += "\n"
	}
	return s + b.Go + " " + b.Platform + "\n"
}
