// SPDX-License-Identifier: Apache-2.0

// Command bpfwhy says why the kernel refused a BPF program.
package main

import (
	"context"
	"os"

	"github.com/bpfwhy/bpfwhy/internal/cli"
)

func main() {
	helpers()
	os.Exit(cli.Main(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr))
}
