// SPDX-License-Identifier: Apache-2.0

// Command httpprobe watches the status codes and latency of HTTP on a node.
package main

import (
	"os"

	"github.com/bpfwhy/bpfwhy/httpprobe/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr)) }
