// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/explain/reading"
	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// What other lines of a text name of the node.

var (
	lockedReads  = lazyregexp.New(`(?i)lockdown: .*bpf to read kernel`)
	lockedWrites = lazyregexp.New(`(?i)lockdown: .*bpf to write user`)
)

// named is a node of which is known what a text names.
func named(n reading.Node) *node.Profile {
	p := &node.Profile{
		Release: n.Release, Machine: n.Machine, Config: n.Config, Sysctls: n.Sysctls, Lockdown: n.Lockdown, LSMs: n.LSMs,
		CgroupV1: n.CgroupV1, CgroupV2: n.CgroupV2,
	}
	if n.Enforcing && len(p.LSMs) == 0 {
		p.LSMs = []string{"selinux"}
	}
	return p
}

// explainIdleLSM is the diagnosis of a text about LSM programs in which nothing failed, and that
// shows a list of security modules without bpf. Nil if it is none.
func explainIdleLSM(read reading.Text) *load.Diagnosis {
	if !read.Node.LSMPrograms || len(read.Node.LSMs) == 0 || slices.Contains(read.Node.LSMs, "bpf") {
		return nil
	}
	r, _ := ByID("ATT501")
	return &load.Diagnosis{
		Rule: r.ID, Title: r.Title, HowKnown: load.Inferred, Remedies: r.Remedies,
		Cause:    "The program may load and attach without an error, and the kernel never calls it: bpf is not among the active security modules.",
		Evidence: []string{"the text shows the list of security modules: " + printable(strings.Join(read.Node.LSMs, ","), 200)},
	}
}

// lockdownIn is the mode of lockdown that the kernel's log shows, "" if it shows none.
func lockdownIn(lines []string) string {
	switch {
	case slices.ContainsFunc(lines, lockedReads.MatchString):
		return "confidentiality"
	case slices.ContainsFunc(lines, lockedWrites.MatchString):
		return "integrity"
	}
	return ""
}

// uncompiled says what keeps the JIT from a program that needs it, as far as a text tells.
func (f *Facts) uncompiled(m *Match) {
	if f.text == nil {
		return
	}
	m.Cause = "The program was not compiled, and it uses something that the interpreter cannot do. The JIT is switched off (net.core.bpf_jit_enable), is at its memory limit (net.core.bpf_jit_limit), or cannot compile this program."
	if strings.Contains(f.words.message, "tail_calls") && (f.Node.Machine == "aarch64" || f.Node.Machine == "") {
		m.Cause += " On arm64 it compiles tail calls together with functions of the program's own since 6.0 only."
	}
}
