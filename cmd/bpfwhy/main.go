// SPDX-License-Identifier: Apache-2.0

// Command bpfwhy says why the kernel refused a BPF program.
package main

import (
	"os"

	"github.com/bpfwhy/bpfwhy/internal/cli"
	"github.com/bpfwhy/bpfwhy/internal/guardian"
	"github.com/bpfwhy/bpfwhy/internal/hang"
	"github.com/bpfwhy/bpfwhy/internal/interpose"
	"github.com/bpfwhy/bpfwhy/internal/launch"
	"github.com/bpfwhy/bpfwhy/internal/patient"
	"github.com/bpfwhy/bpfwhy/internal/replay"
)

func main() {
	// The executable is also its own helpers, told apart by argv[0].
	launch.Main()
	guardian.Main()
	hang.Main()
	interpose.Main()
	patient.Main()
	replay.Main()
	os.Exit(cli.Main(os.Args))
}
