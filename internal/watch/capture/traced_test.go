// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"testing"

	"github.com/go-quicktest/qt"
)

func TestReasonIn(t *testing.T) {
	const log = "[   10.000000] trace_kprobe: error: Failed to register probe event\n  Command: p:k/x no_such  \n             ^\n" +
		"[   11.000000] trace_uprobe: error: Failed to find the given file\n  Command: p:k/y /no/such:0x10\n                 ^\n" +
		"[   12.000000] trace_kprobe: error: Event name is too long\n  Command: p:k/x no_such\n             ^\n"
	qt.Check(t, qt.Equals(reasonIn(log, "p:k/x no_such"), "trace_kprobe: error: Event name is too long"))
	qt.Check(t, qt.Equals(reasonIn(log, "p:k/y /no/such:0x10"), "trace_uprobe: error: Failed to find the given file"))
	qt.Check(t, qt.Equals(reasonIn(log, "p:k/z no_such"), ""))
	qt.Check(t, qt.Equals(reasonIn("", "p:k/z no_such"), ""))
	qt.Check(t, qt.Equals(reasonIn("  Command: a\n[x\n] \n", "a"), ""))
}
