// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
