// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"github.com/bpfwhy/bpfwhy/internal/demo/failing"
	"github.com/bpfwhy/bpfwhy/internal/repair/guardian"
	"github.com/bpfwhy/bpfwhy/internal/repair/interpose"
	"github.com/bpfwhy/bpfwhy/internal/repair/launch"
	"github.com/bpfwhy/bpfwhy/internal/repair/replay"
	"github.com/bpfwhy/bpfwhy/internal/serve/auditor"
	"github.com/bpfwhy/bpfwhy/internal/serve/exporter"
	"github.com/bpfwhy/bpfwhy/internal/watch/hang"
)

// helpers: the executable is also its own helpers, told apart by argv[0]. One that was started as
// such does not return.
func helpers() {
	launch.Main()
	exporter.Main()
	auditor.Main()
	guardian.Main()
	hang.Main()
	interpose.Main()
	failing.Main()
	replay.Main()
}
