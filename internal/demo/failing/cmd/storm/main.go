// SPDX-License-Identifier: Apache-2.0

// Command storm loads programs from fifty threads at once, some that work and some that fail in
// different ways, and prints what the kernel told each. It is a tool of the project's own tests.
package main

import (
	"fmt"
	"os"

	"github.com/bpfwhy/bpfwhy/internal/demo/failing"
)

func main() {
	failing.Main()
	if len(os.Args) != 1 {
		fmt.Fprintln(os.Stderr, "usage: storm")
		os.Exit(2)
	}
	if err := failing.WriteStorm(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "storm:", err)
		os.Exit(1)
	}
}
