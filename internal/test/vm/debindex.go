// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
)

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
