// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// apt runs the machine's apt on lists of its own, so that the machine's stay
// as they are. Signatures are checked as apt always does.
type apt struct {
	dir    string // holds lists, caches and configuration of one suite
	source source
}

// update fetches the suite's index.
func (a apt) update(ctx context.Context) error {
	for file := range strings.SplitSeq(a.source.signedBy, ",") {
		if _, err := os.Stat(file); err != nil {
			return fmt.Errorf("read suite %s of %s: no keyring to check its signature (install debian-archive-keyring): %w", a.source.suite, a.source.uri, err)
		}
	}
	for _, folder := range []string{"lists/partial", "cache/archives/partial", "sources.list.d"} {
		if err := os.MkdirAll(filepath.Join(a.dir, folder), 0o755); err != nil {
			return fmt.Errorf("prepare apt: %w", err)
		}
	}
	options := "arch=amd64 signed-by=" + a.source.signedBy
	if strings.HasPrefix(a.source.uri, defaultArchive) {
		// Signed as ever, but nobody renews the date.
		options += " check-valid-until=no"
	}
	list := fmt.Sprintf("deb [%s] %s %s main\n", options, a.source.uri, a.source.suite)
	// Whatever else the machine configures, such as a proxy, applies; its
	// hooks do not.
	conf := fmt.Sprintf(`Dir::Etc::sourcelist "%[1]s/sources.list";
Dir::Etc::sourceparts "%[1]s/sources.list.d";
Dir::State "%[1]s";
Dir::State::lists "%[1]s/lists";
Dir::State::status "/dev/null";
Dir::Cache "%[1]s/cache";
APT::Architecture "amd64";
#clear APT::Architectures;
APT::Architectures { "amd64"; };
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
`, a.dir)
	for name, text := range map[string]string{"sources.list": list, "apt.conf": conf} {
		if err := os.WriteFile(filepath.Join(a.dir, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("prepare apt: %w", err)
		}
	}
	if _, err := a.output(ctx, a.dir, "apt-get", "update", "-q"); err != nil {
		return fmt.Errorf("read suite %s of %s: %w", a.source.suite, a.source.uri, err)
	}
	return nil
}

// index returns the suite's kernel packages, and the one of that name.
func (a apt) index(ctx context.Context, name string) (map[string]debPackage, error) {
	files, err := a.output(ctx, a.dir, "apt-get", "indextargets", "--format", "$(FILENAME)", "Created-By: Packages")
	if err != nil {
		return nil, fmt.Errorf("find index of suite %s: %w", a.source.suite, err)
	}
	names := strings.Fields(string(files))
	if len(names) != 1 {
		return nil, fmt.Errorf("find index of suite %s: apt names %d files, want 1", a.source.suite, len(names))
	}
	text, err := a.output(ctx, a.dir, "/usr/lib/apt/apt-helper", "cat-file", names[0])
	if err != nil {
		return nil, fmt.Errorf("read index of suite %s: %w", a.source.suite, err)
	}
	return parseIndex(bytes.NewReader(text), name), nil
}

// download returns the path of the package's file, whose hash apt checked.
func (a apt) download(ctx context.Context, p debPackage) (string, error) {
	dir := filepath.Join(a.dir, "packages")
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if _, err := a.output(ctx, dir, "apt-get", "download", "-q", p.name+"="+p.version); err != nil {
		return "", fmt.Errorf("download %s %s: %w", p.name, p.version, err)
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return "", err
	}
	if len(debs) != 1 {
		return "", fmt.Errorf("download %s %s: apt left %d files, want 1", p.name, p.version, len(debs))
	}
	return debs[0], nil
}

func (a apt) output(ctx context.Context, dir, tool string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, tool, append([]string{"-c", filepath.Join(a.dir, "apt.conf")}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", filepath.Base(tool), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}
