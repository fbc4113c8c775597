// SPDX-License-Identifier: Apache-2.0

// Package cluster starts a real API server of Kubernetes on this machine, for tests. The server,
// kubectl and Helm are built from their sources (folder tools), and etcd is Debian's. Everything
// listens on loopback addresses only.
package cluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"syscall"
)

// The packages of the tools.
const (
	APIServer  = "k8s.io/kubernetes/cmd/kube-apiserver"
	Kubectl    = "k8s.io/kubernetes/cmd/kubectl"
	Helm       = "helm.sh/helm/v4/cmd/helm"
	Controller = "k8s.io/kubernetes/cmd/kube-controller-manager"
	Scheduler  = "k8s.io/kubernetes/cmd/kube-scheduler"
	Kubelet    = "k8s.io/kubernetes/cmd/kubelet"
)

// Tools are those that the tests of `make test` need.
func Tools() []string { return []string{APIServer, Kubectl, Helm} }

// Bin is a folder of built tools.
type Bin struct{ dir string }

// Of returns the file of a tool.
func (b Bin) Of(tool string) string { return filepath.Join(b.dir, path.Base(tool)) }

// Build returns the tools, and builds those that were not built before. That takes about ten
// minutes on two processors, and 2.5 GB of memory. Two processes do not build at once.
func Build(ctx context.Context, say func(format string, args ...any), tools ...string) (Bin, error) {
	module, err := modulePath(ctx)
	if err != nil {
		return Bin{}, err
	}
	versions, err := os.ReadFile(filepath.Join(module, "go.mod"))
	if err != nil {
		return Bin{}, fmt.Errorf("read versions of the cluster's tools: %w", err)
	}
	kubernetes := regexp.MustCompile(`(?m)^\s*(?:require )?k8s\.io/kubernetes (v(\d+)\.(\d+)\.\d+)( // indirect)?$`).FindSubmatch(versions)
	if kubernetes == nil {
		return Bin{}, errors.New("read versions of the cluster's tools: go.mod does not name k8s.io/kubernetes")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return Bin{}, err
	}
	key := sha256.Sum256(append(versions, runtime.Version()...))
	b := Bin{filepath.Join(cache, "bpfwhy", "cluster", hex.EncodeToString(key[:8]))}
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return Bin{}, err
	}
	unlock, err := lock(filepath.Join(b.dir, "lock"))
	if err != nil {
		return Bin{}, err
	}
	defer unlock()
	const stamp = "k8s.io/component-base/version.git"
	flags := fmt.Sprintf("-s -w -X %[1]sVersion=%[2]s -X %[1]sMajor=%[3]s -X %[1]sMinor=%[4]s", stamp, kubernetes[1], kubernetes[2], kubernetes[3])
	for _, tool := range tools {
		if _, err := os.Stat(b.Of(tool)); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		say("building %s, which takes minutes", tool)
		if err := build(ctx, module, flags, tool, b.Of(tool)); err != nil {
			return Bin{}, err
		}
	}
	return b, nil
}

func build(ctx context.Context, module, flags, tool, file string) error {
	c := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", file+".new", tool)
	c.Dir = module
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", tool, err, out)
	}
	return os.Rename(file+".new", file)
}

// modulePath is the folder of the tools' module.
func modulePath(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the cluster's tools: go env GOMOD: %w", err)
	}
	return filepath.Join(filepath.Dir(string(bytes.TrimSpace(out))), "internal", "test", "cluster", "tools"), nil
}

func lock(file string) (unlock func(), err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", file, err)
	}
	return func() { f.Close() }, nil
}
