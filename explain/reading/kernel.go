// SPDX-License-Identifier: Apache-2.0

package reading

import (
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
	// Words about kernels in general.
	otherKernel = lazyregexp.New(`(?i)\b(?:requires?|required|needs?|at least|or (?:newer|later|higher|above)|since|before|than|minimum|supports?|supported|introduced|available (?:in|from|since)|from (?:kernel|linux)|works?|worked|fixed|until|built for|compiled for)\b|>=|=>|<=|≥|\b\d\.\d{1,2}\+`)
	machineName = lazyregexp.New(`(?i)\b(x86_64|amd64|aarch64|arm64|armv[5-8]\w*|riscv64|s390x|ppc64le|loongarch64|i[3-6]86)\b`)
)

// machines are the names of machines as uname(1) has them, where others are in use.
var machines = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}

// kernelOf finds the kernel that the lines name.
func kernelOf(lines []Line) (k Kernel) {
	machine := ""
	for _, l := range lines {
		release, rest := releaseIn(l.Text)
		if release == "" {
			continue
		}
		if k.Release != "" && k.Release != release {
			return Kernel{}
		}
		k.Release = release
		if m := machineName.FindStringSubmatch(rest); m != nil {
			machine = strings.ToLower(m[1])
		}
	}
	if m, ok := machines[machine]; ok {
		machine = m
	}
	k.Machine = machine
	return k
}

// releaseIn is the release that a line names, and the part of the line that tells more of it.
func releaseIn(text string) (release, rest string) {
	if len(text) > 1024 || !strings.ContainsAny(text, "0123456789") {
		return "", ""
	}
	if m := unameAll.FindStringSubmatch(text); m != nil {
		return m[1], m[0]
	}
	if m := bootedLinux.FindStringSubmatch(text); m != nil {
		return m[1], text
	}
	if m := unameRelease.FindStringSubmatch(text); m != nil {
		return m[1], text
	}
	if m := kernelIs.FindStringSubmatch(text); m != nil && !otherKernel.MatchString(text) {
		return strings.TrimRight(m[1], `.,;:)]"'`), text
	}
	return "", ""
}
