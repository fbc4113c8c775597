// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"archive/tar"
	"bufio"
	"bytes"
	"cmp"
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

// source is one place that apt gets packages from.
type source struct {
	uri      string
	suite    string
	signedBy string // keyring files, comma-separated; empty if not said
}

const (
	defaultMirror         = "http://deb.debian.org/debian"
	defaultSecurityMirror = "http://deb.debian.org/debian-security"
	defaultArchive        = "http://archive.debian.org/" // releases past their support
	debianKeyring         = "/usr/share/keyrings/debian-archive-keyring.gpg"
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

// mirrorsOf returns where to look for a suite: the mirrors that this machine
// is configured for, then Debian's own, then its archive of old releases.
func mirrorsOf(suite string, configured []source) []source {
	security := strings.HasSuffix(suite, "-security")
	var mirrors []source
	add := func(s source) {
		s = source{s.uri, suite, cmp.Or(s.signedBy, debianKeyring)}
		if !slices.Contains(mirrors, s) {
			mirrors = append(mirrors, s)
		}
	}
	for _, s := range configured {
		if strings.HasSuffix(s.suite, "-security") == security {
			add(s)
		}
	}
	if security {
		add(source{uri: defaultSecurityMirror})
		add(source{uri: defaultArchive + "debian-security"})
	} else {
		add(source{uri: defaultMirror})
		add(source{uri: defaultArchive + "debian"})
	}
	return mirrors
}

// configuredSources returns the Debian archives that apt is configured for,
// without those of others, such as a container runtime's.
func configuredSources(etc string) ([]source, error) {
	var found []source
	lists, err := filepath.Glob(filepath.Join(etc, "sources.list.d", "*"))
	if err != nil {
		return nil, err
	}
	for _, file := range append([]string{filepath.Join(etc, "sources.list")}, lists...) {
		parse := parseOneLine
		switch filepath.Ext(file) {
		case ".list":
		case ".sources":
			parse = parseDeb822
		default:
			continue
		}
		text, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read apt's sources: %w", err)
		}
		found = append(found, parse(string(text))...)
	}
	return slices.DeleteFunc(found, func(s source) bool { return !isDebianSuite(s.suite) }), nil
}

// isDebianSuite knows the suites of Debian's own archives by name.
func isDebianSuite(suite string) bool {
	release := suite
	for _, part := range []string{"-security", "-updates", "-backports", "-proposed-updates"} {
		release = strings.TrimSuffix(release, part)
	}
	return slices.Contains([]string{
		"oldoldstable", "oldstable", "stable", "testing", "unstable", "sid",
		"bullseye", "bookworm", "trixie", "forky", "duke",
	}, release)
}

// parseOneLine reads sources.list(5) lines: deb [options] uri suite component...
func parseOneLine(text string) []source {
	var sources []source
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb")
		if !ok || rest == "" || !strings.ContainsRune(" \t", rune(rest[0])) {
			continue
		}
		rest = strings.TrimSpace(rest)
		var signedBy string
		if strings.HasPrefix(rest, "[") {
			options, after, ok := strings.Cut(rest[1:], "]")
			if !ok {
				continue
			}
			for _, option := range strings.Fields(options) {
				if value, ok := strings.CutPrefix(option, "signed-by="); ok {
					signedBy = value
				}
			}
			rest = after
		}
		fields := strings.Fields(rest)
		if len(fields) < 3 || !slices.Contains(fields[2:], "main") {
			continue
		}
		sources = append(sources, source{strings.TrimSuffix(fields[0], "/"), fields[1], signedBy})
	}
	return sources
}

// parseDeb822 reads the stanzas of a .sources file.
func parseDeb822(text string) []source {
	var sources []source
	for stanza := range stanzas(strings.NewReader(text)) {
		fields := func(name string) []string { return strings.Fields(stanza[name]) }
		if !slices.Contains(fields("types"), "deb") || !slices.Contains(fields("components"), "main") ||
			strings.EqualFold(strings.TrimSpace(stanza["enabled"]), "no") {
			continue
		}
		signedBy := strings.Join(fields("signed-by"), ",")
		if !strings.HasPrefix(signedBy, "/") {
			signedBy = "" // an embedded key; Debian's own is installed as a file
		}
		for _, uri := range fields("uris") {
			for _, suite := range fields("suites") {
				sources = append(sources, source{strings.TrimSuffix(uri, "/"), suite, signedBy})
			}
		}
	}
	return sources
}

// stanzas yields the paragraphs of a Debian control file, fields by their
// lower-case name. It ends early where r does.
func stanzas(r io.Reader) func(yield func(map[string]string) bool) {
	return func(yield func(map[string]string) bool) {
		lines := bufio.NewScanner(r)
		lines.Buffer(nil, 1<<20)
		stanza := map[string]string{}
		var field string
		for lines.Scan() {
			line := lines.Text()
			switch {
			case strings.HasPrefix(line, "#"):
			case strings.TrimSpace(line) == "":
				if len(stanza) > 0 && !yield(stanza) {
					return
				}
				stanza, field = map[string]string{}, ""
			case line[0] == ' ' || line[0] == '\t':
				if field != "" {
					stanza[field] += "\n" + line
				}
			default:
				name, value, ok := strings.Cut(line, ":")
				if !ok {
					continue
				}
				field = strings.ToLower(name)
				stanza[field] = strings.TrimSpace(value)
			}
		}
		if len(stanza) > 0 {
			yield(stanza)
		}
	}
}

// debPackage is one package of an index.
type debPackage struct {
	name, version, depends string
}

// parseIndex reads the kernel packages of a Packages file, and the one of that name, the newest
// version of each.
func parseIndex(r io.Reader, name string) map[string]debPackage {
	index := map[string]debPackage{}
	for stanza := range stanzas(r) {
		p := debPackage{stanza["package"], stanza["version"], stanza["depends"]}
		if !strings.HasPrefix(p.name, "linux-") && p.name != name {
			continue
		}
		if known, ok := index[p.name]; !ok || compareVersions(p.version, known.version) > 0 {
			index[p.name] = p
		}
	}
	return index
}

// links begin the names of the packages that lead from a metapackage to what it stands for.
var links = []string{"linux-image-", "linux-binary-", "linux-source-"}

// resolve returns the packages in which a metapackage's kernel may be, itself
// first: those that it depends on by a chain of links.
func resolve(index map[string]debPackage, name string) ([]debPackage, error) {
	first, ok := index[name]
	if !ok {
		return nil, fmt.Errorf("no package %s", name)
	}
	chain := []debPackage{first}
	for i := 0; i < len(chain); i++ {
		for _, dependency := range strings.Split(chain[i].depends, ",") {
			dependency, _, _ = strings.Cut(dependency, "|")
			name, constraint, _ := strings.Cut(strings.TrimSpace(dependency), " ")
			if !slices.ContainsFunc(links, func(p string) bool { return strings.HasPrefix(name, p) }) {
				continue
			}
			p, ok := index[name]
			if !ok {
				return nil, fmt.Errorf("%s depends on %s, which the index does not have", chain[i].name, name)
			}
			if version, ok := strings.CutPrefix(constraint, "(= "); ok && strings.TrimSuffix(version, ")") != p.version {
				return nil, fmt.Errorf("%s depends on %s %s, but the index has %s", chain[i].name, name, constraint, p.version)
			}
			if !slices.Contains(chain, p) {
				chain = append(chain, p)
			}
		}
	}
	return chain, nil
}

// compareVersions orders Debian versions as deb-version(7) says: negative if
// a is older than b.
func compareVersions(a, b string) int {
	split := func(v string) (epoch, upstream, revision string) {
		if before, after, ok := strings.Cut(v, ":"); ok {
			epoch, v = before, after
		}
		if i := strings.LastIndexByte(v, '-'); i >= 0 {
			return epoch, v[:i], v[i+1:]
		}
		return epoch, v, ""
	}
	epochA, upstreamA, revisionA := split(a)
	epochB, upstreamB, revisionB := split(b)
	return cmp.Or(
		compareVersionParts(epochA, epochB),
		compareVersionParts(upstreamA, upstreamB),
		compareVersionParts(revisionA, revisionB))
}

//revive:disable-next-line:cyclomatic Debian's order of versions, character by character
func compareVersionParts(a, b string) int {
	isDigit := func(s string) bool { return s != "" && s[0] >= '0' && s[0] <= '9' }
	// A tilde sorts before everything, even the end; letters before the
	// other characters.
	weight := func(s string) int {
		switch {
		case s == "" || isDigit(s):
			return 0
		case s[0] == '~':
			return -1
		case s[0] >= 'A' && s[0] <= 'Z' || s[0] >= 'a' && s[0] <= 'z':
			return int(s[0])
		default:
			return int(s[0]) + 256
		}
	}
	number := func(s string) (digits, rest string) {
		rest = strings.TrimLeft(s, "0123456789")
		return strings.TrimLeft(s[:len(s)-len(rest)], "0"), rest
	}
	for a != "" || b != "" {
		for a != "" && !isDigit(a) || b != "" && !isDigit(b) {
			if c := cmp.Compare(weight(a), weight(b)); c != 0 {
				return c
			}
			a, b = a[1:], b[1:]
		}
		var digitsA, digitsB string
		digitsA, a = number(a)
		digitsB, b = number(b)
		if c := cmp.Or(cmp.Compare(len(digitsA), len(digitsB)), cmp.Compare(digitsA, digitsB)); c != 0 {
			return c
		}
	}
	return 0
}

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
