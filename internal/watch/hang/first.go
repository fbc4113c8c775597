// SPDX-License-Identifier: Apache-2.0

package hang

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/sys/selfprobe"
	"golang.org/x/sys/unix"
)

// Argv0 is the name under which an executable makes the first load: see Main.
const Argv0 = "bpfwhy-first-load"

// Deadline is how long the smallest load may take before we look whether it still moves.
const Deadline = 3 * time.Second

// A load that has not run for this long hangs. One that runs has a slow machine, until the last.
const (
	unmoved = 2 * time.Second
	last    = time.Minute
)

// Error says that a load of our own does not come back.
type Error struct {
	Place
	After time.Duration
	// Left is the process of an earlier start's first load, which still hangs; 0: it is this
	// start's.
	Left int
}

func (e *Error) Error() string {
	where := "where, the kernel does not say"
	switch {
	case len(e.Functions) > 1:
		where = "in " + strings.Join(e.Functions[:min(len(e.Functions), 6)], " < ")
	case len(e.Functions) == 1:
		where = "in " + e.Functions[0]
	case e.Call != "":
		where = "inside " + e.Call
	}
	what := "a load of four instructions"
	if e.Left != 0 {
		what += fmt.Sprintf(" that an earlier start made (process %d)", e.Left)
	}
	return fmt.Sprintf("%s has not come back after %v: it hangs %s ('bpfwhy explain %s')", what, e.After, where, Rule(e.Place))
}

// First makes the smallest load in a process of its own, and returns an *Error when that waits for
// something that does not come: the process is left behind then, for nothing ends one that waits
// for a lock of the kernel. While such a process is there, no other is made. Whatever else becomes
// of the load is not the matter here. Any other error says that it could not be tried. The
// executable's main, or TestMain, calls Main.
//
//revive:disable-next-line:cyclomatic one system call after the other, and each may fail
func First(ctx context.Context, atMost time.Duration) error {
	if err := firstLeft(ctx); err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{Argv0}
	cmd.Dir = "/"
	// Not of our session: a Ctrl-C is ours, and what is left behind holds no terminal.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	ready, theirs, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make a pipe for the first load: %w", err)
	}
	defer ready.Close()
	cmd.Stdout = theirs
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return fmt.Errorf("start a process for the first load: %w", err)
	}
	began, ended := make(chan struct{}), make(chan struct{})
	go func() {
		var b [1]byte
		if n, _ := io.ReadFull(ready, b[:]); n == 1 {
			close(began)
		}
	}()
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	defer cmd.Process.Kill()
	// A slow machine takes its time to start a process. That is not the load's.
	start := time.NewTimer(time.Minute)
	defer start.Stop()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-start.C:
		return fmt.Errorf("start a process for the first load: it did not start within a minute")
	case <-began:
	}
	pid := cmd.Process.Pid // its first thread makes the load
	var seen Thread
	for since, pause, inside := time.Now(), atMost, false; ; pause = unmoved {
		select {
		case <-ended:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		before, was := seen, inside
		seen, inside = look(fmt.Sprintf("/proc/%d/", pid), pid, pid)
		took := time.Since(since)
		switch {
		case inside && (was && seen.waits(&before) || took > last):
			return &Error{Place: Of(pid), After: took.Round(time.Second)}
		case took > last:
			return fmt.Errorf("the process of the first load is not in it after %v", took.Round(time.Second))
		}
	}
}

// Main makes the load and ends the process, if the executable was started for it; otherwise it
// returns at once. It belongs at the very start of main.
func Main() {
	if len(os.Args) != 1 || os.Args[0] != Argv0 {
		return
	}
	runtime.LockOSThread() // still the first thread
	code, license := insn.Encode(selfprobe.Trivial()), []byte("GPL\x00")
	var pin runtime.Pinner
	pin.Pin(&code[0])
	pin.Pin(&license[0])
	attr := abi.ProgLoad{
		ProgType: abi.ProgTypeSocketFilter, InsnCnt: uint32(len(code) / insn.Size), Insns: uint64(uintptr(unsafe.Pointer(&code[0]))),
		License: uint64(uintptr(unsafe.Pointer(&license[0]))), ProgName: abi.NameOf(selfprobe.Name),
	}
	_, _ = os.Stdout.Write([]byte{1})
	os.Stdout.Close()
	_, _, _ = unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	// The collector ends a process with a pinner that nobody will release, and it comes after two
	// minutes.
	pin.Unpin()
	os.Exit(0)
}
