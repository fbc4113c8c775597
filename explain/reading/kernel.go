// SPDX-License-Identifier: Apache-2.0

package reading

import (
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
)

// Kernel is the kernel that a text names, as uname(1) does. It is empty where the text names none,
// or several: then nothing tells which of them the failure is of.
type Kernel struct {
	Release, Machine string
}

var (
	// uname -a, and the first line of the kernel's log.
	unameAll    = lazyregexp.New(`\bLinux \S+ (\d+\.\d+[^\s#]*) #\d+[^\n]*`)
	bootedLinux = lazyregexp.New(`\bLinux version (\d+\.\d+\S*)`)
	// What people and tools write: "Kernel: 5.4.0-96", "kernel version is 4.14.105".
	kernelIs = lazyregexp.New(`(?i)\bkernel(?: ?(?:version|release|detected))?(?: is)?\s*(?:[:=]\s*|\s\(?)(?:Linux )?(\d\.\d{1,2}(?:\.\d{1,3})?\S*)`)
	// uname -r, alone in its line. The end tells it from the version of anything else.
	unameRelease = lazyregexp.New(`^(\d\.\d{1,2}\.\d{1,3}[-.+~\w]*(?:-(?:generic|amd64|arm64|aws|azure|gcp|gke|cloud|lts|default|arch|raspi|rt|rpi|lowlatency|microsoft)\b|\.(?:el|fc|amzn|cm|al)\d|\.(?:x86_64|aarch64))\S*)$`)
	// A release with an end that vendors give it, among other words.
	vendorRelease = lazyregexp.New(`(?:^|[\s(=:"'])(\d\.\d{1,2}\.\d{1,3}[-.+~\w]*(?:-(?:generic|amd64|arm64|aws|azure|gcp|gke|cloud|lts|default|arch\d?|raspi|rt|rpi|lowlatency|microsoft|coreos|flatcar|talos|zen|android|rockchip|tegra)\w*|\.(?:el|fc|amzn|cm|al)\d|\.(?:x86_64|aarch64))[-.+~\w]*)`)
	// The name of a distribution with a release of three numbers behind it, as no distribution has.
	ofDistribution = lazyregexp.New(`(?i)\b(?:arch(?: ?linux)?|debian|ubuntu|fedora|manjaro|nixos|gentoo|alpine|opensuse|tumbleweed|raspbian|raspberry pi(?: os)?|wsl2?|yocto|buildroot|android|talos|flatcar|cos|centos|rhel|rocky|alma\w*|amazon linux(?: 2)?)\b[^.:]{0,24}?[ ,(](\d\.\d{1,2}\.\d{1,3}(?:[-+~\w.]*\w)?)`)
	// Words about kernels in general.
	otherKernel = lazyregexp.New(`(?i)\b(?:requires?|required|needs?|at least|or (?:newer|later|higher|above)|since|before|than|minimum|supports?|supported|introduced|available (?:in|from|since)|from (?:kernel|linux)|works?|worked|fixed|until|built for|compiled for)\b|>=|=>|<=|≥|\b\d\.\d{1,2}\+`)
	machineName = lazyregexp.New(`(?i)\b(x86_64|amd64|aarch64|arm64|armv[5-8]\w*|riscv64|s390x|ppc64le|loongarch64|i[3-6]86)\b`)
)

// machines are the names of machines as uname(1) has them, where others are in use.
var machines = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}

// kernelOf finds the kernel that the lines name. What uname(1) prints, and what the kernel says of
// itself, counts for more than what people write.
func kernelOf(lines []Line) Kernel {
	var named [asPeople + 1][]string
	machine := ""
	for _, l := range lines {
		release, how, rest := releaseIn(l.Text)
		if release == "" {
			continue
		}
		if !slices.Contains(named[how], release) {
			named[how] = append(named[how], release)
		}
		if m := machineName.FindStringSubmatch(rest); m != nil {
			machine = strings.ToLower(m[1])
		}
	}
	if m, ok := machines[machine]; ok {
		machine = m
	}
	for _, releases := range named {
		if r := oneOf(releases); r != "" {
			return Kernel{Release: r, Machine: machine}
		}
		if len(releases) > 0 {
			return Kernel{}
		}
	}
	return Kernel{}
}

// oneOf is the release that all of some are, in the words of the longest, "" where they differ.
func oneOf(releases []string) (longest string) {
	for _, r := range releases {
		if len(r) > len(longest) {
			longest = r
		}
	}
	for _, r := range releases {
		if !strings.HasPrefix(longest, strings.TrimRight(r, ".+x")) {
			return ""
		}
	}
	return longest
}

// How a release is named.
const (
	asUname = iota // by the kernel itself
	asPeople
)

// releaseIn is the release that a line names, how, and the part of the line that tells more of it.
func releaseIn(text string) (release string, how int, rest string) {
	if len(text) > 1024 || !strings.ContainsAny(text, "0123456789") {
		return "", 0, ""
	}
	if m := unameAll.FindStringSubmatch(text); m != nil {
		return m[1], asUname, m[0]
	}
	for _, r := range []*lazyregexp.Regexp{bootedLinux, unameRelease} {
		if m := r.FindStringSubmatch(text); m != nil {
			return m[1], asUname, text
		}
	}
	if otherKernel.MatchString(text) {
		return "", 0, ""
	}
	for _, r := range []*lazyregexp.Regexp{kernelIs, vendorRelease, ofDistribution} {
		if m := r.FindStringSubmatch(text); m != nil {
			return strings.TrimRight(m[1], `.,;:)]"'`), asPeople, text
		}
	}
	return "", 0, ""
}
