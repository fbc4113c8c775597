// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/test/vm/wire"
)

// guestEnv is what every command finds set, before Machine.Env.
func (m Machine) guestEnv() []string {
	return append([]string{
		"PATH=/usr/sbin:/usr/bin",
		"HOME=/root",
		"TMPDIR=/tmp",
		"TERM=dumb",
		wire.KernelEnv + "=" + m.Kernel,
	}, m.Env...)
}

// writeInitramfs writes the guest's whole file system. It is not compressed:
// an emulated processor unpacks slower than QEMU loads.
func (m Machine) writeInitramfs(ctx context.Context, file, work string) (err error) {
	initProgram := filepath.Join(work, "init")
	if err := buildInit(ctx, initProgram); err != nil {
		return err
	}
	spec, err := json.Marshal(wire.Spec{
		Commands:    m.Commands,
		Dir:         m.Dir,
		Env:         m.guestEnv(),
		Sysctls:     m.Sysctls,
		KeepMemlock: m.KeepMemlock,
		CgroupV1:    m.CgroupV1,
	})
	if err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buffered := bufio.NewWriterSize(f, 1<<20)
	archive := newCPIOWriter(buffered)
	for _, folder := range []string{"/dev", "/proc", "/sys", "/tmp", "/run", "/etc", "/root", "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib64", wire.OutDir} {
		if err := archive.folder(folder); err != nil {
			return err
		}
	}
	for _, merged := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := archive.symlink("/"+merged, "usr/"+merged); err != nil {
			return err
		}
	}
	if err := archive.device("/dev/console", 5, 1); err != nil {
		return err
	}
	if err := archive.hostFile("/init", initProgram); err != nil {
		return err
	}
	if err := archive.file(wire.SpecPath, 0o600, int64(len(spec)), bytes.NewReader(spec)); err != nil {
		return err
	}
	for _, guest := range slices.Sorted(maps.Keys(m.Files)) {
		if err := archive.hostFile(mergedPath(guest), m.Files[guest]); err != nil {
			return err
		}
	}
	return errors.Join(archive.close(), buffered.Flush())
}

// mergedPath is where a guest path is in a file system whose /bin, /sbin,
// /lib and /lib64 are links into /usr.
func mergedPath(guest string) string {
	guest = path.Clean(guest)
	for _, merged := range []string{"/bin/", "/sbin/", "/lib/", "/lib64/"} {
		if strings.HasPrefix(guest, merged) {
			return "/usr" + guest
		}
	}
	return guest
}

// buildInit compiles process 1 of the guests; Go's build cache makes this
// quick after the first time.
func buildInit(ctx context.Context, output string) error {
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", output, "github.com/bpfwhy/bpfwhy/internal/test/vm/init")
	build.Dir = sourceDir()
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOOS=linux", "GOARCH=amd64")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the guests' init: %w\n%s", err, bytes.TrimSpace(out))
	}
	return nil
}

// sourceDir is this package's folder, or the working directory when the
// binary does not know where it was built.
func sourceDir() string {
	_, file, _, _ := runtime.Caller(0)
	if dir := filepath.Dir(file); filepath.IsAbs(dir) {
		if _, err := os.Stat(file); err == nil {
			return dir
		}
	}
	return "."
}
