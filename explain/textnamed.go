// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
)

// What other lines of a text name of the node.

var (
	lockedReads  = lazyregexp.New(`(?i)lockdown: .*bpf to read kernel`)
	lockedWrites = lazyregexp.New(`(?i)lockdown: .*bpf to write user`)
)

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
