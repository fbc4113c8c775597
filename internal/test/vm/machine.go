// SPDX-License-Identifier: Apache-2.0

// Package vm is the lab: it boots real kernels in QEMU, runs commands in
// them, and brings their output, exit status and files back. It needs
// qemu-system-x86_64 and, to get kernels, a Debian mirror; a kernel that was
// had once is used without network.
package vm

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Machine describes one boot.
type Machine struct {
	// Kernel is an ID of [Kernels].
	Kernel string

	// Commands are run in order, each to its end, whatever the exit status
	// of the one before. A program is a guest path or a name in /bin, /sbin.
	Commands [][]string

	// Dir is the commands' working directory, / if empty.
	Dir string

	// Env adds to or replaces the guest's few variables, each "NAME=value".
	Env []string

	// Files are copied into the guest: guest path to host path. A host
	// folder is copied whole. See [Binary] for programs with libraries.
	Files map[string]string

	// Sysctls are set before the first command, by dotted name.
	Sysctls map[string]string

	// KernelArgs are added to the kernel's command line, such as
	// "lockdown=confidentiality".
	KernelArgs []string

	// CPUs is 1 if zero, at most 2.
	CPUs int

	// MemoryMiB is 1024 if zero.
	MemoryMiB int

	// CountInstructions makes the guest's clock the number of instructions
	// that its one processor executed, in ns, and lets idle time pass at
	// once: measurements repeat to the percent whatever else the host does,
	// and say nothing of caches or traps. Always emulated, at half the speed.
	CountInstructions bool

	// Timeout limits the machine's life, from QEMU's start; 2 minutes if
	// zero. Waiting for a free processor of the host does not count.
	Timeout time.Duration

	// KeepMemlock leaves RLIMIT_MEMLOCK as the kernel has it, instead of
	// unlimited.
	KeepMemlock bool

	// CgroupV1 mounts the memory controller at /sys/fs/cgroup/memory and
	// cgroup2 at /sys/fs/cgroup/unified, instead of cgroup2 alone at
	// /sys/fs/cgroup.
	CgroupV1 bool

	// Stdout and Stderr, if set, get the commands' output while they run.
	Stdout, Stderr io.Writer
}

// Result is what a machine that ran to its end gave back.
type Result struct {
	Commands []Outcome         // one for each of Machine.Commands
	Files    map[string][]byte // regular files of the guest's /out, by path below it
	Console  []byte            // the kernel's console
	Duration time.Duration     // from QEMU's start to its end
	CPU      time.Duration     // processor time of the host that QEMU took
}

// Outcome is how one command went.
type Outcome struct {
	Args       []string
	Output     []byte // stdout and stderr, in the order they arrived
	Stdout     []byte
	Stderr     []byte
	ExitStatus int // 128 plus the number of the signal that killed it
	Duration   time.Duration
}

// MachineError is a machine that did not run to its end: the kernel did not
// boot, panicked or hung, or the time was up.
type MachineError struct {
	Kernel  string
	Reason  string
	Timeout bool   // QEMU was killed because Machine.Timeout passed
	Console []byte // all of the kernel's console
	Partial Result // what arrived before
}

// consoleTail is how much of the console an error shows, in bytes.
const consoleTail = 4000

func (e *MachineError) Error() string {
	tail := bytes.TrimSpace(e.Console)
	if len(tail) > consoleTail {
		tail = append([]byte("..."), tail[len(tail)-consoleTail:]...)
	}
	if len(tail) == 0 {
		return fmt.Sprintf("run machine %s: %s; its console is empty", e.Kernel, printable([]byte(e.Reason)))
	}
	return fmt.Sprintf("run machine %s: %s; its console ends:\n%s", e.Kernel, printable([]byte(e.Reason)), printable(tail))
}

// printable keeps a guest's bytes from steering the terminal.
func printable(text []byte) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r >= ' ' && r != 0x7f && (r < 0x80 || r > 0x9f) {
			return r
		}
		if r == '\r' {
			return -1
		}
		return '.'
	}, string(bytes.ToValidUTF8(text, []byte("."))))
}

// Run boots a machine, runs its commands, and returns when it is off. Any
// exit status is a result; an error is a [*MachineError] when the machine did
// not run to its end. QEMU does not outlive this process or ctx.
func Run(ctx context.Context, m Machine) (*Result, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	if _, err := exec.LookPath(qemuProgram); err != nil {
		return nil, fmt.Errorf("run machine: %s is not installed; scripts/install-deps.sh installs it", qemuProgram)
	}
	image, err := Fetch(ctx, m.Kernel)
	if err != nil {
		return nil, err
	}
	work, remove, err := workFolder()
	if err != nil {
		return nil, fmt.Errorf("prepare machine: %w", err)
	}
	defer remove()
	release, err := takeSlot(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	accel, err := acceleration(ctx, image)
	if err != nil {
		return nil, err
	}
	if m.CountInstructions {
		accel = "tcg"
	}
	return m.run(ctx, image, accel, work)
}

func (m Machine) check() error {
	if m.CountInstructions && m.CPUs > 1 {
		return errors.New("prepare machine: instructions are counted on one CPU only")
	}
	if m.CPUs < 0 || m.CPUs > 2 {
		return fmt.Errorf("prepare machine: %d CPUs, only 1 or 2 are reliable", m.CPUs)
	}
	if m.MemoryMiB < 0 || m.Timeout < 0 {
		return errors.New("prepare machine: memory and timeout cannot be negative")
	}
	for _, args := range m.Commands {
		if len(args) == 0 || args[0] == "" {
			return errors.New("prepare machine: a command is empty")
		}
	}
	for guest := range m.Files {
		if !path.IsAbs(guest) {
			return fmt.Errorf("prepare machine: guest path %q is not absolute", guest)
		}
	}
	return nil
}

// run starts QEMU in a work folder that holds nothing else.
func (m Machine) run(ctx context.Context, image Image, accel, work string) (*Result, error) {
	initrd := filepath.Join(work, "initrd")
	if err := m.writeInitramfs(ctx, initrd, work); err != nil {
		return nil, fmt.Errorf("prepare machine: %w", err)
	}
	q := qemu{
		accel:   accel,
		kernel:  image.Path,
		initrd:  initrd,
		args:    slices.Concat(quickBoot(), m.KernelArgs),
		cpus:    max(m.CPUs, 1),
		memory:  m.MemoryMiB,
		icount:  m.CountInstructions,
		console: filepath.Join(work, "console"),
		port:    filepath.Join(work, "port"),
		monitor: filepath.Join(work, "monitor"),
	}
	if q.memory == 0 {
		q.memory = 1024
	}
	timeout := m.Timeout
	if timeout == 0 {
		timeout = 2 * time.Minute
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	// The port is a plain file, which QEMU can always write to at once; a
	// pipe or socket that is full would lose bytes.
	if err := os.WriteFile(q.port, nil, 0o600); err != nil {
		return nil, err
	}
	port, err := os.Open(q.port)
	if err != nil {
		return nil, err
	}
	defer port.Close()
	gone := make(chan struct{})
	frames := make(chan collected, 1)
	go func() {
		t := transcript{stdout: m.Stdout, stderr: m.Stderr, commands: m.Commands}
		err := t.read(bufio.NewReader(&follower{file: port, gone: gone}))
		if err != nil {
			cancel() // nobody listens any more
		}
		frames <- collected{t, err}
	}()

	start := time.Now()
	cpu, where, qemuErr := q.run(limited)
	elapsed := time.Since(start)
	close(gone)
	got := <-frames

	console, err := os.ReadFile(q.console)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	result := Result{Commands: got.outcomes, Console: console, Duration: elapsed, CPU: cpu}
	failure := func(reason string) error {
		return &MachineError{
			Kernel:  m.Kernel,
			Reason:  reason,
			Timeout: errors.Is(limited.Err(), context.DeadlineExceeded) && ctx.Err() == nil,
			Console: console,
			Partial: result,
		}
	}
	if ctx.Err() != nil {
		return nil, failure(fmt.Sprintf("stopped after %v: %v", elapsed.Round(time.Millisecond), context.Cause(ctx)))
	}
	if limited.Err() != nil {
		qemuErr = fmt.Errorf("killed after its %v were over; its processor was at\n%s", timeout, where)
	}
	if reason := got.brokenBy(qemuErr, console); reason != "" {
		return nil, failure(reason)
	}
	if result.Files, err = unpackFiles(got.files.Bytes()); err != nil {
		return nil, failure(err.Error())
	}
	return &result, nil
}
