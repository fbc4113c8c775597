// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"

	"github.com/bpfwhy/bpfwhy/node"
)

// adopt takes what a record of doctor --prove, or a profile, has proven of a kernel over. "" is no
// file.
func adopt(n *node.Profile, file string) error {
	if file == "" {
		return nil
	}
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("--proven: %w", err)
	}
	defer f.Close()
	p, err := node.Decode(f)
	if err == nil {
		err = n.Adopt(p)
	}
	if err != nil {
		return fmt.Errorf("--proven %s: %w", file, err)
	}
	return nil
}
