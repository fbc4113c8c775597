// SPDX-License-Identifier: Apache-2.0

// Command init is process 1 of a lab machine: it mounts what a BPF tool
// expects, runs the commands of its specification, hands their output and the
// files of /out to the host, and powers the machine off.
package main

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/test/vm/wire"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "init: runs only as process 1 of a lab machine")
		os.Exit(2)
	}
	// Should this process end early, the kernel panics, which the host
	// reports with the console's last lines.
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "lab init:", err)
		os.Exit(1)
	}
}

func run() error {
	if err := mount("devtmpfs", "/dev", ""); err != nil && !errors.Is(err, unix.EBUSY) {
		return err
	}
	openConsole()
	// The root of an initramfs starts out writable by everybody.
	if err := os.Chmod("/", 0o755); err != nil {
		return err
	}
	port, err := openPort(wire.Port)
	if err != nil {
		return err
	}
	enc := wire.NewEncoder(port)
	if err := serve(enc); err != nil {
		if err := enc.Encode(wire.Fatal, []byte(err.Error())); err != nil {
			return err
		}
	} else if err := enc.Encode(wire.Done, nil); err != nil {
		return err
	}
	// Every byte has to leave the port before the machine goes away.
	if err := unix.IoctlSetInt(int(port.Fd()), unix.TCSBRK, 1); err != nil {
		return fmt.Errorf("drain %s: %w", wire.Port, err)
	}
	// With -no-reboot a restart ends QEMU, also where ACPI is not built in.
	return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

func serve(enc *wire.Encoder) error {
	raw, err := os.ReadFile(wire.SpecPath)
	if err != nil {
		return fmt.Errorf("read specification: %w", err)
	}
	var spec wire.Spec
	if err := json.Unmarshal(raw, &spec); err != nil {
		return fmt.Errorf("parse %s: %w", wire.SpecPath, err)
	}
	// Commands inherit the environment, and their names are looked up in its
	// PATH.
	os.Clearenv()
	for _, entry := range spec.Env {
		name, value, _ := strings.Cut(entry, "=")
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("set environment %q: %w", entry, err)
		}
	}
	if err := mountAll(spec.CgroupV1); err != nil {
		return err
	}
	if err := loopbackUp(); err != nil {
		return err
	}
	for name, value := range spec.Sysctls {
		path := "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
		if err := os.WriteFile(path, []byte(value), 0); err != nil {
			return fmt.Errorf("set sysctl %s: %w", name, err)
		}
	}
	if !spec.KeepMemlock {
		// Before 5.11 BPF memory counts against this limit.
		unlimited := &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
		if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, unlimited); err != nil {
			return fmt.Errorf("raise locked memory limit: %w", err)
		}
	}
	for _, args := range spec.Commands {
		if err := enc.Encode(wire.Start, nil); err != nil {
			return err
		}
		start := time.Now()
		code := execute(enc, spec, args)
		status, err := json.Marshal(wire.Status{Code: code, Duration: int64(time.Since(start))})
		if err != nil {
			return err
		}
		if err := enc.Encode(wire.Exit, status); err != nil {
			return err
		}
	}
	return sendFiles(enc)
}

// execute runs one command and returns its exit status. Process 1 inherits
// every orphan, so it reaps whatever ends until its own child does.
func execute(enc *wire.Encoder, spec wire.Spec, args []string) int {
	stderr := enc.Writer(wire.Stderr)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = spec.Dir
	outRead, outWrite, err := os.Pipe()
	if err != nil {
		fmt.Fprintln(stderr, "lab:", err)
		return 126
	}
	errRead, errWrite, err := os.Pipe()
	if err != nil {
		fmt.Fprintln(stderr, "lab:", err)
		return 126
	}
	cmd.Stdout, cmd.Stderr = outWrite, errWrite
	err = cmd.Start()
	outWrite.Close()
	errWrite.Close()
	if err != nil {
		fmt.Fprintln(stderr, "lab:", err)
		return 127
	}
	var copies sync.WaitGroup
	copies.Go(func() { io.Copy(enc.Writer(wire.Stdout), outRead) })
	copies.Go(func() { io.Copy(stderr, errRead) })

	var status syscall.WaitStatus
	for {
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			fmt.Fprintln(stderr, "lab: wait:", err)
			return 126
		}
		if pid == cmd.Process.Pid {
			break
		}
	}
	// A process left behind may keep the pipes open; its output is not
	// the command's.
	drained := make(chan struct{})
	go func() { copies.Wait(); close(drained) }()
	select {
	case <-drained:
	case <-time.After(time.Second):
	}
	outRead.Close()
	errRead.Close()
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

// sendFiles sends the regular files below /out as a gzipped tar.
func sendFiles(enc *wire.Encoder) error {
	buffered := bufio.NewWriterSize(enc.Writer(wire.Files), wire.MaxPayload)
	// The port is slower than the fastest compression, even under emulation.
	zip, err := gzip.NewWriterLevel(buffered, gzip.BestSpeed)
	if err != nil {
		return err
	}
	archive := tar.NewWriter(zip)
	err = filepath.WalkDir(wire.OutDir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(wire.OutDir, path)
		if err != nil {
			return err
		}
		if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))}); err != nil {
			return err
		}
		_, err = archive.Write(data)
		return err
	})
	if err != nil {
		return fmt.Errorf("archive %s: %w", wire.OutDir, err)
	}
	return errors.Join(archive.Close(), zip.Close(), buffered.Flush())
}

func mountAll(cgroupV1 bool) error {
	type point struct {
		fstype, target, options string
		optional                bool
	}
	points := []point{
		{fstype: "proc", target: "/proc"},
		{fstype: "sysfs", target: "/sys"},
		{fstype: "tmpfs", target: "/tmp", options: "mode=1777"},
		{fstype: "tmpfs", target: "/run"},
		{fstype: "tmpfs", target: "/dev/shm", options: "mode=1777"},
		{fstype: "tmpfs", target: wire.OutDir, options: "mode=1777"},
		{fstype: "devpts", target: "/dev/pts", optional: true},
		{fstype: "debugfs", target: "/sys/kernel/debug", optional: true},
		{fstype: "tracefs", target: "/sys/kernel/tracing", optional: true},
		{fstype: "securityfs", target: "/sys/kernel/security", optional: true},
		{fstype: "bpf", target: "/sys/fs/bpf", optional: true},
	}
	if cgroupV1 {
		points = append(points,
			point{fstype: "tmpfs", target: "/sys/fs/cgroup"},
			point{fstype: "cgroup", target: "/sys/fs/cgroup/memory", options: "memory"},
			point{fstype: "cgroup2", target: "/sys/fs/cgroup/unified"})
	} else {
		points = append(points, point{fstype: "cgroup2", target: "/sys/fs/cgroup", optional: true})
	}
	for _, p := range points {
		if p.fstype == "tmpfs" && holdsFiles(p.target) {
			if err := os.Chmod(p.target, 0o777|os.ModeSticky); err != nil {
				return err
			}
			continue
		}
		if err := mount(p.fstype, p.target, p.options); err != nil {
			if !p.optional {
				return err
			}
			fmt.Fprintln(os.Stderr, "lab init:", err)
		}
	}
	return nil
}

// holdsFiles reports that files were copied there for the command: a mount would hide them. The
// root is in memory too.
func holdsFiles(folder string) bool {
	entries, err := os.ReadDir(folder)
	return err == nil && len(entries) > 0
}

func mount(fstype, target, options string) error {
	// In sysfs the folder is there or the file system is not built in.
	if err := os.MkdirAll(target, 0o755); err != nil {
		return fmt.Errorf("mount %s: %w", fstype, err)
	}
	if err := unix.Mount(fstype, target, fstype, 0, options); err != nil {
		return fmt.Errorf("mount %s on %s: %w", fstype, target, err)
	}
	return nil
}

// openConsole gives process 1 its standard streams, which an initramfs
// without a /dev/console node leaves closed.
func openConsole() {
	fd, err := unix.Open("/dev/console", unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return
	}
	for std := range 3 {
		if fd != std {
			unix.Dup3(fd, std, 0)
		}
	}
	if fd > 2 {
		unix.Close(fd)
	}
}

// openPort opens a serial port for bytes that nothing may translate.
func openPort(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	raw := &unix.Termios{Cflag: unix.CS8 | unix.CREAD | unix.CLOCAL | unix.B115200}
	raw.Cc[unix.VMIN] = 1
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, raw); err != nil {
		return nil, fmt.Errorf("make %s raw: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, request); err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	request.SetUint16(request.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	return nil
}
