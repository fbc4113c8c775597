// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

// Package exporter is the process of 'bpfwhy serve' that has no rights. It gets records of the
// kernel from the reader, finds out why loads failed, and tells sinks.
package exporter

import (
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/output/text"
	"github.com/bpfwhy/bpfwhy/internal/serve/stream"
	"github.com/bpfwhy/bpfwhy/internal/sys/privilege"
	"github.com/bpfwhy/bpfwhy/internal/sys/resident"
	"github.com/bpfwhy/bpfwhy/internal/sys/threads"
)

// Argv0 is the name under which the executable is the exporter: see Main.
const Argv0 = "bpfwhy-exporter"

// The descriptors that the exporter is started with.
const (
	streamFD = 3
	pageFD   = 4
)

// memory is what the heap may grow to before it is collected without waiting. One failure can hold
// a program of 2 MiB with its BTF, its log and what the verifier made of it.
const memory = 40 << 20

// gcPercent lets garbage grow to half of what is alive.
const gcPercent = 50

// Main exports until the reader ends, if the executable was started for that; otherwise it returns
// at once. Call it first in main.
func Main() {
	if len(os.Args) == 0 || os.Args[0] != Argv0 {
		return
	}
	if err := run(); err != nil {
		say("%v", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func say(format string, args ...any) {
	fmt.Fprintln(os.Stderr, "bpfwhy: serve: "+text.Line(fmt.Sprintf(format, args...)))
}

func run() error {
	if err := giveUp(); err != nil {
		return err
	}
	// The reader says when it ends. A signal to the whole group is for the reader. A log that
	// nobody reads is an error of that sink.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	threads.LimitProcessors()
	debug.SetMemoryLimit(memory)
	debug.SetGCPercent(gcPercent)
	page, err := stream.OpenPage(os.NewFile(pageFD, "page"))
	if err != nil {
		return err
	}
	defer page.Close()
	in := os.NewFile(streamFD, "stream")
	defer in.Close()
	r := stream.NewReader(in)
	first, _, err := r.Next()
	if err != nil {
		return fmt.Errorf("read from the reader: %w", err)
	}
	if first.Start == nil {
		return fmt.Errorf("read from the reader: the first line is not the start")
	}
	e, err := open(first.Start, page)
	if err != nil {
		return err
	}
	if err := resident.Release(); err != nil {
		say("%v", err)
	}
	return e.run(r)
}

// giveUp gives up every right, for good. Files are written as the user who started the service.
func giveUp() error {
	if err := privilege.Drop(); err != nil {
		return fmt.Errorf("give up capabilities: %w", err)
	}
	if _, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("set no_new_privs: %w", errno)
	}
	return nil
}
