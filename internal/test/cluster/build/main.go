// SPDX-License-Identifier: Apache-2.0

// Command build builds the tools of the cluster tests into the user's cache folder, or does
// nothing where they are there. With arguments, it builds these packages of the tools' module.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/bpfwhy/bpfwhy/internal/test/cluster"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	tools := os.Args[1:]
	if len(tools) == 0 {
		tools = cluster.Tools()
	}
	say := func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	if _, err := cluster.Build(ctx, say, tools...); err != nil {
		say("build: %v", err)
		os.Exit(1)
	}
}
