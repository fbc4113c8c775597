// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Kernel is one of the lab's kernels.
type Kernel struct {
	ID     string // stable: names the kind of kernel, not its newest version
	Source string // how it is had, in words

	debian debianImage // the zero value for a kernel that is not a package
	source debianImage // leads to linux-source of the same kernel; likewise
}

// debianImage says which package leads to a kernel.
type debianImage struct {
	metapackage string
	suites      []string // the newest version in any of them is taken
}

// Kernels returns the lab's kernels, oldest first.
func Kernels() []Kernel {
	debian := func(id, metapackage, source string, suites ...string) Kernel {
		return Kernel{
			ID:     id,
			Source: fmt.Sprintf("Debian's %s, newest of %s", metapackage, strings.Join(suites, ", ")),
			debian: debianImage{metapackage, suites},
			source: debianImage{source, suites},
		}
	}
	return []Kernel{
		debian("5.10", "linux-image-cloud-amd64", "linux-source-5.10", "bullseye", "bullseye-security"),
		debian("6.1", "linux-image-cloud-amd64", "linux-source-6.1", "bookworm", "bookworm-security"),
		debian("6.12", "linux-image-6.12-cloud-amd64", "linux-source-6.12", "bookworm-security"),
		debian("7", "linux-image-cloud-amd64", "linux-source", "sid"),
		{ID: "hardened", Source: "Linux 6.1 with CONFIG_BPF_JIT_ALWAYS_ON, found in BPFWHY_KERNELS or ../shared/kernels, else built by scripts/build-hardened-kernel.sh"},
	}
}

// Image is a bootable kernel on this host.
type Image struct {
	ID      string `json:"-"`
	Path    string `json:"-"` // a bzImage
	Release string // as uname -r says it
	Origin  string // package, version and suite, or the file it was found in
}

// Cached returns the kernel's image if it can be had without network or
// compiler, and an error that is os.ErrNotExist otherwise.
func Cached(id string) (Image, error) {
	kernel, err := find(id)
	if err != nil {
		return Image{}, err
	}
	if kernel.debian.metapackage == "" {
		if image, err := findHardened(); !errors.Is(err, os.ErrNotExist) {
			return image, err
		}
	}
	dir, err := cacheDir()
	if err != nil {
		return Image{}, err
	}
	return readCached(id, filepath.Join(dir, id))
}

// Fetch returns the kernel's image, from the cache if it is there; else it
// gets it from Debian's mirror or builds it, saying so on standard error.
func Fetch(ctx context.Context, id string) (Image, error) {
	image, err := Cached(id)
	if !errors.Is(err, os.ErrNotExist) {
		return image, err
	}
	return fetch(ctx, id, false)
}

// Refresh replaces a cached kernel by the newest one there is.
func Refresh(ctx context.Context, id string) (Image, error) {
	return fetch(ctx, id, true)
}

//revive:disable-next-line:cyclomatic one step after the other, and each may fail
func fetch(ctx context.Context, id string, refresh bool) (Image, error) {
	kernel, err := find(id)
	if err != nil {
		return Image{}, err
	}
	dir, err := cacheDir()
	if err != nil {
		return Image{}, err
	}
	unlock, err := lock(ctx, filepath.Join(dir, "fetch.lock"))
	if err != nil {
		return Image{}, err
	}
	defer unlock()
	if !refresh {
		// Another process may have been quicker.
		if image, err := Cached(id); !errors.Is(err, os.ErrNotExist) {
			return image, err
		}
	}
	// What a killed process left behind.
	left, err := filepath.Glob(filepath.Join(dir, id+".new-*"))
	if err != nil {
		return Image{}, fmt.Errorf("fetch kernel %s: %w", id, err)
	}
	for _, folder := range left {
		if err := os.RemoveAll(folder); err != nil {
			return Image{}, fmt.Errorf("fetch kernel %s: %w", id, err)
		}
	}
	fresh, err := os.MkdirTemp(dir, id+".new-")
	if err != nil {
		return Image{}, fmt.Errorf("fetch kernel %s: %w", id, err)
	}
	defer os.RemoveAll(fresh)
	// MkdirTemp's folders are private; a cache need not be.
	if err := os.Chmod(fresh, 0o755); err != nil {
		return Image{}, fmt.Errorf("fetch kernel %s: %w", id, err)
	}
	log := prefixedWriter{os.Stderr, "lab: kernel " + id + ": "}
	var origin string
	if kernel.debian.metapackage != "" {
		origin, err = fetchDebian(ctx, dir, kernel.debian, filepath.Join(fresh, imageName), log)
	} else {
		origin, err = buildHardened(ctx, dir, filepath.Join(fresh, imageName), log)
	}
	if err != nil {
		return Image{}, fmt.Errorf("fetch kernel %s: %w", id, err)
	}
	release, err := bzImageRelease(filepath.Join(fresh, imageName))
	if err != nil {
		return Image{}, fmt.Errorf("fetch kernel %s: %w", id, err)
	}
	about, err := json.MarshalIndent(Image{Release: release, Origin: origin}, "", "\t")
	if err != nil {
		return Image{}, err
	}
	if err := os.WriteFile(filepath.Join(fresh, aboutName), append(about, '\n'), 0o644); err != nil {
		return Image{}, fmt.Errorf("fetch kernel %s: %w", id, err)
	}
	final := filepath.Join(dir, id)
	if err := os.RemoveAll(final); err != nil {
		return Image{}, fmt.Errorf("fetch kernel %s: %w", id, err)
	}
	if err := os.Rename(fresh, final); err != nil {
		return Image{}, fmt.Errorf("fetch kernel %s: %w", id, err)
	}
	return readCached(id, final)
}

const (
	imageName = "vmlinuz"
	aboutName = "about.json" // the rest of an Image
)

func readCached(id, dir string) (Image, error) {
	about, err := os.ReadFile(filepath.Join(dir, aboutName))
	if err != nil {
		return Image{}, fmt.Errorf("read cached kernel %s: %w", id, err)
	}
	image := Image{ID: id, Path: filepath.Join(dir, imageName)}
	if err := json.Unmarshal(about, &image); err != nil {
		return Image{}, fmt.Errorf("read cached kernel %s: %w", id, err)
	}
	if _, err := os.Stat(image.Path); err != nil {
		return Image{}, fmt.Errorf("read cached kernel %s: %w", id, err)
	}
	return image, nil
}

func find(id string) (Kernel, error) {
	var ids []string
	for _, kernel := range Kernels() {
		if kernel.ID == id {
			return kernel, nil
		}
		ids = append(ids, kernel.ID)
	}
	return Kernel{}, fmt.Errorf("no kernel %q in the lab, which has %s", id, strings.Join(ids, ", "))
}

// cacheDir returns the folder of kernels and locks, which it makes.
// BPFWHY_KERNEL_CACHE overrides its place.
func cacheDir() (string, error) {
	dir := os.Getenv("BPFWHY_KERNEL_CACHE")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find kernel cache: %w; set BPFWHY_KERNEL_CACHE", err)
		}
		dir = filepath.Join(cache, "bpfwhy", "kernels")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find kernel cache: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make kernel cache: %w", err)
	}
	return dir, nil
}

// findHardened looks for a hardened kernel that somebody built already.
func findHardened() (Image, error) {
	folders := filepath.SplitList(os.Getenv("BPFWHY_KERNELS"))
	folders = append(folders, filepath.Join(sourceDir(), "../../../../shared/kernels"))
	for _, folder := range folders {
		found, err := filepath.Glob(filepath.Join(folder, "vmlinuz-*jit-always-on"))
		if err != nil {
			return Image{}, fmt.Errorf("look for a hardened kernel: %w", err)
		}
		if len(found) == 0 {
			continue
		}
		newest := found[len(found)-1]
		release, err := bzImageRelease(newest)
		if err != nil {
			return Image{}, err
		}
		return Image{ID: "hardened", Path: newest, Release: release, Origin: newest}, nil
	}
	return Image{}, fmt.Errorf("look for a hardened kernel in %s: %w", strings.Join(folders, ", "), os.ErrNotExist)
}

// buildHardened compiles the hardened kernel to output.
func buildHardened(ctx context.Context, dir, output string, log io.Writer) (origin string, err error) {
	source := filepath.Join(filepath.Dir(output), "linux-source.tar.xz")
	origin, err = fetchDebianFile(ctx, dir, debianImage{"linux-source-6.1", []string{"bookworm", "bookworm-security"}},
		func(name string) bool { return name == "usr/src/linux-source-6.1.tar.xz" }, source, log)
	if err != nil {
		return "", err
	}
	defer os.Remove(source)
	fmt.Fprintln(log, "building, which takes about ten minutes on two processors")
	build := exec.CommandContext(ctx, filepath.Join(sourceDir(), "../../../scripts/build-hardened-kernel.sh"), output, source)
	build.Stdout, build.Stderr = log, log
	// Stopping has to reach the compilers, not the script alone.
	build.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	build.Cancel = func() error { return syscall.Kill(-build.Process.Pid, syscall.SIGTERM) }
	if err := build.Run(); err != nil {
		return "", fmt.Errorf("build hardened kernel: %w", err)
	}
	return "built from " + origin, nil
}

// bzImageRelease reads the version string that the x86 boot protocol
// (Documentation/arch/x86/boot.rst) keeps at offset 0x200 plus the 16-bit
// value at 0x20e; its first word is what uname -r says.
func bzImageRelease(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	setup := make([]byte, 64<<10) // more than the setup code ever takes
	n, err := io.ReadFull(f, setup)
	if err != nil && err != io.ErrUnexpectedEOF {
		return "", fmt.Errorf("read kernel version of %s: %w", path, err)
	}
	setup = setup[:n]
	if len(setup) < 0x210 || string(setup[0x202:0x206]) != "HdrS" {
		return "", fmt.Errorf("read kernel version of %s: not a bzImage", path)
	}
	at := int(binary.LittleEndian.Uint16(setup[0x20e:])) + 0x200
	if at >= len(setup) {
		return "", fmt.Errorf("read kernel version of %s: offset %#x is outside its header", path, at)
	}
	text, _, _ := strings.Cut(string(setup[at:]), "\x00")
	release, _, _ := strings.Cut(text, " ")
	return release, nil
}

// prefixedWriter starts each Write, which is one line or several, with a
// prefix.
type prefixedWriter struct {
	w      io.Writer
	prefix string
}

func (w prefixedWriter) Write(p []byte) (int, error) {
	lines := strings.ReplaceAll(strings.TrimSuffix(string(p), "\n"), "\n", "\n"+w.prefix)
	if _, err := fmt.Fprintf(w.w, "%s%s\n", w.prefix, lines); err != nil {
		return 0, err
	}
	return len(p), nil
}
