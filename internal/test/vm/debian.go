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
	"slices"
	"strings"
	"sync"
)

// fetchDebian writes the newest kernel that a metapackage leads to.
func fetchDebian(ctx context.Context, dir string, image debianImage, output string, log io.Writer) (origin string, err error) {
	return fetchDebianFile(ctx, dir, image, isKernelFile, output, log)
}

// isKernelFile tells a kernel image by its path in a package.
func isKernelFile(name string) bool {
	return strings.HasPrefix(name, "boot/vmlinuz-") ||
		path.Base(name) == "vmlinuz" && strings.HasPrefix(strings.TrimPrefix(name, "usr/"), "lib/modules/")
}

// fetchDebianFile writes the first wanted file of the packages that the
// newest version of a package in any of its suites leads to.
func fetchDebianFile(ctx context.Context, dir string, image debianImage, want func(string) bool, output string, log io.Writer) (origin string, err error) {
	for _, tool := range []string{"apt-get", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "", fmt.Errorf("%s is not installed: kernels come as Debian packages", tool)
		}
	}
	configured, err := configuredSources("/etc/apt")
	if err != nil {
		return "", err
	}
	var best []debPackage
	var from apt
	var troubles []error
	for _, suite := range image.suites {
		found, a, err := resolveInSuite(ctx, dir, suite, image.metapackage, configured)
		if err != nil {
			// Another suite may do, but a suite that is not looked at is
			// never passed over in silence.
			fmt.Fprintln(log, err)
			troubles = append(troubles, err)
			continue
		}
		if len(best) == 0 || compareVersions(found[0].version, best[0].version) > 0 {
			best, from = found, a
		}
	}
	if len(best) == 0 {
		return "", errors.Join(troubles...)
	}
	// The last link of the chain has the file, except where packages split
	// or merge again.
	for _, p := range slices.Backward(best) {
		deb, err := from.download(ctx, p)
		if err != nil {
			return "", err
		}
		err = extract(ctx, deb, want, output)
		if err := errors.Join(err, os.Remove(deb)); errors.Is(err, errNotInPackage) {
			continue
		} else if err != nil {
			return "", err
		}
		origin = fmt.Sprintf("%s %s of %s (%s)", p.name, p.version, from.source.suite, from.source.uri)
		fmt.Fprintln(log, origin)
		return origin, nil
	}
	return "", fmt.Errorf("no wanted file in any package that %s %s leads to", best[0].name, best[0].version)
}

// resolveInSuite tries the machine's own mirrors first.
func resolveInSuite(ctx context.Context, dir, suite, name string, configured []source) ([]debPackage, apt, error) {
	var troubles []error
	for _, s := range mirrorsOf(suite, configured) {
		a := apt{dir: filepath.Join(dir, "apt", suite), source: s}
		if err := a.update(ctx); err != nil {
			troubles = append(troubles, err)
			continue
		}
		index, err := a.index(ctx, name)
		if err != nil {
			return nil, a, err
		}
		packages, err := resolve(index, name)
		if err != nil {
			troubles = append(troubles, fmt.Errorf("suite %s of %s: %w", suite, s.uri, err))
			continue
		}
		return packages, a, nil
	}
	return nil, apt{}, errors.Join(troubles...)
}

var errNotInPackage = errors.New("the package has no such file")

// extract writes the first wanted regular file of a package.
func extract(ctx context.Context, deb string, want func(string) bool, output string) (err error) {
	var stderr bytes.Buffer
	unpack := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	unpack.Stderr = &stderr
	stream, err := unpack.StdoutPipe()
	if err != nil {
		return err
	}
	if err := unpack.Start(); err != nil {
		return fmt.Errorf("unpack %s: %w", filepath.Base(deb), err)
	}
	wait := sync.OnceValue(unpack.Wait)
	defer wait()
	// Ends dpkg-deb and its child, which writes the stream, when the rest of
	// the package is not needed.
	defer stream.Close()
	archive := tar.NewReader(stream)
	for {
		header, err := archive.Next()
		if err == io.EOF {
			return errNotInPackage
		}
		if err != nil {
			stream.Close()
			wait()
			return fmt.Errorf("unpack %s: %w: %s", filepath.Base(deb), err, bytes.TrimSpace(stderr.Bytes()))
		}
		if header.Typeflag != tar.TypeReg || !want(strings.TrimPrefix(path.Clean(header.Name), "/")) {
			continue
		}
		f, err := os.Create(output)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, archive)
		return errors.Join(err, f.Close())
	}
}
