// SPDX-License-Identifier: Apache-2.0

// Command sentences lists the sentences of the verifiers of the lab's kernels, and what loaders
// print of failures: go run ./internal/test/sentences [KERNEL|LOADER...]. It fetches Debian's
// packages (150 MB for the source of a kernel), and writes verifierlog/testdata/sentences and
// explain/testdata/loaders.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/bpfwhy/bpfwhy/internal/test/vm"
)

const lists = "verifierlog/testdata/sentences"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	wanted := os.Args[1:]
	list := func(name string, write func() error) {
		if len(wanted) > 0 && !slices.Contains(wanted, name) {
			return
		}
		if err := write(); err != nil {
			fmt.Fprintln(os.Stderr, "sentences:", err)
			os.Exit(1)
		}
	}
	for _, id := range []string{"5.10", "6.1", "6.12", "7"} {
		list(id, func() error { return write(ctx, id) })
	}
	for _, l := range loaders {
		list(l.name, func() error { return writeLoader(ctx, l) })
	}
}

// write lists the sentences of one kernel: file, function and format, as C has it.
func write(ctx context.Context, id string) error {
	var b strings.Builder
	n := 0
	origin, err := vm.Source(ctx, id, mayPrint, func(name, text string) error {
		if !concernsBPF(name, text) {
			return nil
		}
		for _, s := range extract(name, text) {
			fmt.Fprintf(&b, "%s\t%s\t%s\n", s.file, s.function, s.format)
			n++
		}
		return nil
	})
	if err != nil {
		return err
	}
	file := filepath.Join(lists, id+".txt")
	fmt.Printf("%s: %d sentences\n", file, n)
	return os.WriteFile(file, []byte("# "+origin+"\n"+b.String()), 0o644)
}
