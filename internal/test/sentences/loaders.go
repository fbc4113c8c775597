// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/test/vm"
)

const loaderLists = "explain/testdata/loaders"

// loader is a program or library that loads BPF, and how its sentences are found in Debian's
// packages of it.
type loader struct {
	name     string
	packages []string
	files    *regexp.Regexp // by their path in the package
	sentence *regexp.Regexp // its first group is the sentence; nil: the strings of a binary
	about    *regexp.Regexp // what a sentence must be about
}

var (
	goErrors   = regexp.MustCompile(`(?:errors\.New|fmt\.Errorf)\("((?:[^"\\]|\\.)+)"`)
	rustErrors = regexp.MustCompile(`(?:#\[error\(|\.context\(\s*|format!\(\s*|with_invalid_\w+\(\s*|bail!\(\s*)"((?:[^"\\]|\\.)+)"`)
	python     = regexp.MustCompile(`Exception\(\s*"((?:[^"\\]|\\.)+)"`)
	// failing are the words of sentences about failures.
	failing = regexp.MustCompile(`(?i)fail|error|cannot|can't|could ?n|unable|unsupported|invalid|incompatible|mismatch|denied|missing|doesn't|does not|\bnot? (?:supported|found|available|compatible|permitted)|no BTF|too (?:big|many|large|long)|exceeds|requires`)
	ofBPF   = regexp.MustCompile(`(?i)bpf|btf|seccomp|xdp`)
)

var loaders = []loader{
	{"libbpf", []string{"libbpf1"}, regexp.MustCompile(`/libbpf\.so[.\d]*$`), nil, regexp.MustCompile(`^libbpf: `)},
	{"libxdp", []string{"libxdp1"}, regexp.MustCompile(`/libxdp\.so[.\d]*$`), nil, regexp.MustCompile(`^libxdp: `)},
	{"cilium-ebpf", []string{"golang-github-cilium-ebpf-dev"}, regexp.MustCompile(`/ebpf/(?:\w+|link/\w+|internal/sys/\w+|internal/linux/\w+|rlimit/\w+|internal/tracefs/\w+|btf/(?:btf|handle|core|load\w*|kernel|ext_info))\.go$`), goErrors, regexp.MustCompile(`.`)},
	{"aya", []string{"librust-aya-dev", "librust-aya-obj-dev"}, regexp.MustCompile(`\.rs$`), rustErrors, regexp.MustCompile(`.`)},
	{"libbpf-rs", []string{"librust-libbpf-rs-dev"}, regexp.MustCompile(`/src/\w+\.rs$`), rustErrors, regexp.MustCompile(`.`)},
	{"bcc", []string{"libbpfcc"}, regexp.MustCompile(`/libbcc_bpf\.so[.\d]*$`), nil, regexp.MustCompile(`(?i)^(?:bpf|fail|error|could|cannot|open|attach|detach|enable|ioctl|perf|[%\w' ]*%)[^:]`)},
	{"bcc-python", []string{"python3-bpfcc"}, regexp.MustCompile(`/bcc/(?:__init__|table|usdt)\.py$`), python, regexp.MustCompile(`.`)},
	{"bpftrace", []string{"bpftrace"}, regexp.MustCompile(`usr/bin/bpftrace$`), nil, regexp.MustCompile(`^(?:Attachment failed|BPF_FUNC_\w+ not|BTF: failed|Can't attach|Cannot replace|Error (?:loading|attaching)|` +
		`Failed to (?:attach|create|get BTF|load|open kernel|resolve kernel|find)|Missing required kernel|No BTF found for|Unable to attach|Unknown BPF|failed to load|error finding uprobe|is not traceable)`)},
	{"iproute2", []string{"iproute2"}, regexp.MustCompile(`/(?:tc|ip)$`), nil, ofBPF},
	{"crun", []string{"crun"}, regexp.MustCompile(`usr/bin/crun$`), nil, ofBPF},
	{"runc", []string{"golang-github-opencontainers-runc-dev", "golang-github-opencontainers-cgroups-dev"}, regexp.MustCompile(`(?:ebpf|seccomp|devices|devicefilter)/?\w*(?:/\w+)*\.go$`), goErrors, regexp.MustCompile(`(?i)bpf|seccomp|filter|device|prog|rule`)},
	{"systemd", []string{"systemd", "libsystemd-shared"}, regexp.MustCompile(`/libsystemd-(?:core|shared)-\d+\.so$`), nil, ofBPF},
}

// writeLoader lists the sentences of one loader about failures.
func writeLoader(ctx context.Context, l loader) error {
	var origins, found []string
	for _, name := range l.packages {
		origin, err := vm.Package(ctx, "sid", name, func(file string) bool {
			return l.files.MatchString(file) && !strings.HasSuffix(file, "_test.go")
		}, func(_, text string) error {
			for _, s := range l.sentences(text) {
				if failing.MatchString(s) && l.about.MatchString(s) && !slices.Contains(found, s) {
					found = append(found, s)
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		origins = append(origins, origin)
	}
	slices.Sort(found)
	file := path.Join(loaderLists, l.name+".txt")
	fmt.Printf("%s: %d sentences\n", file, len(found))
	text := fmt.Sprintf("# %s\n%s\n", strings.Join(origins, ", "), strings.Join(found, "\n"))
	return os.WriteFile(filepath.FromSlash(file), []byte(text), 0o644)
}

func (l loader) sentences(text string) []string {
	var out []string
	if l.sentence != nil {
		for _, m := range l.sentence.FindAllStringSubmatch(text, -1) {
			s := strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(m[1])
			s = continued.ReplaceAllString(s, "")
			s, _, _ = strings.Cut(s, `\n`)
			out = append(out, s)
		}
		return out
	}
	// What strings(1) finds.
	for s := range strings.FieldsFuncSeq(text, func(r rune) bool { return r < ' ' || r > '~' }) {
		if s = strings.TrimSpace(s); len(s) < 400 && len(s) >= 12 && strings.Contains(s, " ") {
			out = append(out, s)
		}
	}
	return out
}

// continued is a string of Rust that goes on in the next line.
var continued = regexp.MustCompile(`\\\n\s*`)
