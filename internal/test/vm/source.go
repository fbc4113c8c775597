// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// Source reads the source of a kernel, as Debian builds it, and calls visit with each wanted file.
// Paths begin at the top of the tree, as in kernel/bpf/verifier.c. The origin names the package.
// The package has about 150 MB, and is not kept.
func Source(ctx context.Context, id string, want func(path string) bool, visit func(path, text string) error) (origin string, err error) {
	kernel, err := find(id)
	if err != nil {
		return "", err
	}
	if kernel.source.metapackage == "" {
		return "", fmt.Errorf("kernel %s has no source package", id)
	}
	dir, err := cacheDir()
	if err != nil {
		return "", err
	}
	unlock, err := lock(ctx, filepath.Join(dir, "fetch.lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	temporary, err := os.MkdirTemp(dir, "source-")
	if err != nil {
		return "", fmt.Errorf("read source of kernel %s: %w", id, err)
	}
	defer os.RemoveAll(temporary)
	archive := filepath.Join(temporary, "linux-source.tar.xz")
	isArchive := func(name string) bool {
		return strings.HasPrefix(name, "usr/src/linux-source-") && strings.HasSuffix(name, ".tar.xz")
	}
	log := prefixedWriter{os.Stderr, "lab: source of kernel " + id + ": "}
	if origin, err = fetchDebianFile(ctx, dir, kernel.source, isArchive, archive, log); err != nil {
		return "", err
	}
	return origin, walkArchive(ctx, archive, want, visit)
}

// walkArchive unpacks a tar.xz on the way, and strips the folder that holds it all.
func walkArchive(ctx context.Context, archive string, want func(path string) bool, visit func(path, text string) error) error {
	inside := func(name string) string {
		_, name, _ = strings.Cut(name, "/")
		return name
	}
	return walkCommand(exec.CommandContext(ctx, "xz", "-dc", archive),
		func(name string) bool { return want(inside(name)) },
		func(name, text string) error { return visit(inside(name), text) })
}

// walkCommand reads the tar archive that a command writes.
func walkCommand(unpack *exec.Cmd, want func(path string) bool, visit func(path, text string) error) error {
	var stderr bytes.Buffer
	unpack.Stderr = &stderr
	stream, err := unpack.StdoutPipe()
	if err != nil {
		return err
	}
	if err := unpack.Start(); err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	err = walkTar(stream, want, visit)
	stream.Close()
	if failed := unpack.Wait(); err == nil && failed != nil {
		err = fmt.Errorf("%s: %w: %s", filepath.Base(unpack.Path), failed, bytes.TrimSpace(stderr.Bytes()))
	}
	return err
}

func walkTar(stream io.Reader, want func(path string) bool, visit func(path, text string) error) error {
	files := tar.NewReader(stream)
	for {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			// The padding behind the end must be read, or xz complains of a closed pipe.
			_, err = io.Copy(io.Discard, stream)
			return err
		}
		if err != nil {
			return fmt.Errorf("read the archive: %w", err)
		}
		name := path.Clean(header.Name)
		if header.Typeflag != tar.TypeReg || !want(name) {
			continue
		}
		text, err := io.ReadAll(files)
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		if err := visit(name, string(text)); err != nil {
			return err
		}
	}
}

// Package reads the files of the newest package of a name in a suite, and calls visit with each
// that is wanted. Paths have no slash in front.
func Package(ctx context.Context, suite, name string, want func(path string) bool, visit func(path, text string) error) (origin string, err error) {
	dir, err := cacheDir()
	if err != nil {
		return "", err
	}
	unlock, err := lock(ctx, filepath.Join(dir, "fetch.lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	configured, err := configuredSources("/etc/apt")
	if err != nil {
		return "", err
	}
	found, a, err := resolveInSuite(ctx, dir, suite, name, configured)
	if err != nil {
		return "", err
	}
	deb, err := a.download(ctx, found[0])
	if err != nil {
		return "", err
	}
	defer os.Remove(deb)
	err = walkCommand(exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb), want, visit)
	return fmt.Sprintf("%s %s of %s", found[0].name, found[0].version, suite), err
}
