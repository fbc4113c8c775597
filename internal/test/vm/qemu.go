// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// qemu is one QEMU process.
type qemu struct {
	accel   string // "kvm" or "tcg"
	kernel  string
	initrd  string
	args    []string // added to the kernel's command line
	cpus    int
	memory  int    // MiB
	icount  bool   // the clock counts instructions
	console string // file that gets the first serial port
	port    string // file that gets the second
	monitor string // socket of QEMU's monitor
}

const qemuProgram = "qemu-system-x86_64"

func (q qemu) command() []string {
	accel := q.accel
	if accel == "tcg" && q.cpus > 1 {
		// With a host thread for each processor, emulation crashes
		// while the kernel patches its own text.
		accel = "tcg,thread=single"
	}
	kernelArgs := append([]string{
		"console=ttyS0",
		"quiet",
		"panic=-1", // restart at once, which ends QEMU
		"oops=panic",
		"no_timer_check", // an emulated timer misses ticks on a busy host
		// A clock that is late on a busy host would be given up for the HPET, and each look at that
		// leaves the emulated code.
		"tsc=reliable",
	}, q.args...)
	command := []string{
		"-no-user-config", "-nodefaults", "-display", "none", "-no-reboot",
		"-accel", accel, "-cpu", q.model(),
		"-smp", strconv.Itoa(q.cpus), "-m", strconv.Itoa(q.memory),
		"-serial", "file:" + q.console, "-serial", "file:" + q.port,
		"-monitor", "unix:" + q.monitor + ",server=on,wait=off",
		"-kernel", q.kernel, "-initrd", q.initrd,
		"-append", strings.Join(kernelArgs, " "),
	}
	if q.icount {
		command = append(command, "-icount", "shift=0,sleep=off")
	}
	return command
}

// model is the processor. Emulation takes a repeated string instruction step by step, and kernels
// that see ERMS clear and copy memory by bytes instead of by words of 8: without it an emulated
// machine takes about a seventh less of the host.
func (q qemu) model() string {
	if q.accel == "tcg" {
		return "max,-erms"
	}
	return "max"
}

// run runs QEMU until the guest ends it or ctx does. It returns the processor time that QEMU took,
// and where the guest was when its time was over.
func (q qemu) run(ctx context.Context) (cpu time.Duration, where string, err error) {
	// The kernel sends the parent-death signal when the thread that
	// started the child ends, so this one has to live as long.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var messages bytes.Buffer
	cmd := exec.CommandContext(ctx, qemuProgram, q.command()...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stdout, cmd.Stderr = &messages, &messages
	cmd.Cancel = func() error {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			var failed error
			if where, failed = whereItIs(q.monitor); failed != nil {
				where = failed.Error()
			}
		}
		return cmd.Process.Kill()
	}
	err = cmd.Run()
	if cmd.ProcessState != nil {
		cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
	if err != nil {
		return cpu, where, fmt.Errorf("%s: %w: %s", qemuProgram, err, bytes.TrimSpace(messages.Bytes()))
	}
	return cpu, where, nil
}

// kvmPatience is how long a machine with no commands may take to boot with
// KVM. Where KVM works it takes a second or two; where it is broken, which an
// openable /dev/kvm does not rule out, it hangs.
const kvmPatience = 10 * time.Second

// acceleration returns "kvm" if a kernel was seen to boot with it since this
// host started, and "tcg" otherwise. BPFWHY_LAB_ACCEL overrides it.
//
//revive:disable-next-line:cyclomatic one step after the other, and each may fail
func acceleration(ctx context.Context, image Image) (string, error) {
	switch forced := os.Getenv("BPFWHY_LAB_ACCEL"); forced {
	case "":
	case "kvm", "tcg":
		return forced, nil
	default:
		return "", fmt.Errorf("choose acceleration: BPFWHY_LAB_ACCEL is %q, want kvm or tcg", forced)
	}
	kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return "tcg", nil
	}
	kvm.Close()

	dir, err := cacheDir()
	if err != nil {
		return "", err
	}
	unlock, err := lock(ctx, filepath.Join(dir, "accel.lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("choose acceleration: %w", err)
	}
	bootID := strings.TrimSpace(string(boot))
	known := filepath.Join(dir, "accel")
	if saved, err := os.ReadFile(known); err == nil {
		if id, accel, ok := strings.Cut(strings.TrimSpace(string(saved)), " "); ok && id == bootID && (accel == "kvm" || accel == "tcg") {
			return accel, nil
		}
	}
	work, remove, err := workFolder()
	if err != nil {
		return "", fmt.Errorf("choose acceleration: %w", err)
	}
	defer remove()
	accel := "kvm"
	probe := Machine{Kernel: image.ID, Timeout: kvmPatience}
	if _, err := probe.run(ctx, image, accel, work); err != nil {
		if _, ran := errors.AsType[*MachineError](err); !ran || ctx.Err() != nil {
			return "", err
		}
		accel = "tcg"
	}
	if err := os.WriteFile(known, []byte(bootID+" "+accel+"\n"), 0o644); err != nil {
		return "", fmt.Errorf("choose acceleration: %w", err)
	}
	return accel, nil
}

// takeSlot waits until fewer machines run for this user than the host has
// processors, so that tests in parallel do not time each other out.
func takeSlot(ctx context.Context) (release func(), err error) {
	dir, err := cacheDir()
	if err != nil {
		return nil, err
	}
	for {
		for slot := range runtime.NumCPU() {
			f, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("slot%d.lock", slot)), os.O_RDWR|os.O_CREATE, 0o644)
			if err != nil {
				return nil, fmt.Errorf("wait for a processor: %w", err)
			}
			if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
				return func() { f.Close() }, nil
			}
			f.Close()
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for a processor: %w", context.Cause(ctx))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// lock waits for the exclusive lock on a file, which the kernel releases
// should this process die.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, context.Cause(ctx))
		case <-time.After(50 * time.Millisecond):
		}
	}
}
