// SPDX-License-Identifier: Apache-2.0

//go:build !(linux && amd64)

package cli

import (
	"context"
	"errors"

	"github.com/bpfwhy/bpfwhy/node"
	"github.com/spf13/cobra"
)

// here are the commands that need a kernel that they can watch. There is none: each says so.
func here(io std) []*cobra.Command {
	var list []*cobra.Command
	for _, name := range []string{"watch", "serve", "run", "demo", "doctor", "node", "audit", "harden"} {
		c := &cobra.Command{
			Use:                name,
			Short:              needsLinux,
			DisableFlagParsing: true,
			RunE:               func(*cobra.Command, []string) error { return errors.New(name + " " + needsLinux) },
		}
		if name == "node" {
			c.AddCommand(newNodeDiff(io))
		}
		list = append(list, c)
	}
	return list
}

const needsLinux = "needs Linux on x86-64"

func host() (*node.Profile, error) { return nil, errors.New("--kernel host " + needsLinux) }

func prove(context.Context, explainOptions) error { return errors.New("explain --prove " + needsLinux) }
