// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"testing"

	"github.com/go-quicktest/qt"
)

func TestHasWord(t *testing.T) {
	const line = "trace_kprobe: Could not probe notrace function ktime_get_boot_fast_ns"
	for name, want := range map[string]bool{
		"ktime_get_boot_fast_ns": true, "ktime_get": false, "get_boot": false, "no_such_function": false, "trace_kprobe": true,
	} {
		qt.Check(t, qt.Equals(hasWord(line, name), want), qt.Commentf("%s", name))
	}
	qt.Check(t, qt.IsTrue(hasWord("eth1: not eth10, eth1", "eth1")))
	qt.Check(t, qt.IsFalse(hasWord("eth10", "eth1")))
	qt.Check(t, qt.IsTrue(hasWord("eth10 eth1", "eth1")))
	qt.Check(t, qt.IsFalse(hasWord("", "eth1")))
}
