// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"fmt"
	"testing"

	"github.com/go-quicktest/qt"
)

// FuzzParseStat: a process chooses its name, and with it nothing else of what is read.
func FuzzParseStat(f *testing.F) {
	f.Add("cat", byte('S'), 1, uint64(2), uint64(3), uint64(4))
	f.Add(") R 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", byte('Z'), -1, uint64(0), uint64(1)<<63, ^uint64(0))
	f.Add("1 (a) S 2 1 1 1 1 1 1 1 1 1 7 8 1 1 1 1 1 1 9", byte('D'), 0, uint64(0), uint64(0), uint64(0))
	f.Add("a\nb (c", byte('I'), 400, uint64(0), uint64(0), uint64(0))
	f.Fuzz(func(t *testing.T, name string, state byte, parent int, user, system, start uint64) {
		if s, ok := ParseStat(name); ok { // a line of any content
			check(t, "", s)
		}
		if state <= ' ' || state >= 0x7f || state == ')' {
			return // the kernel's are letters
		}
		check(t, name, Stat{State: state, Parent: parent, User: user, System: system, Start: start})
	})
}

// check reads what the kernel would write.
func check(t *testing.T, name string, want Stat) {
	line := fmt.Sprintf("42 (%s) %c %d 42 42 0 -1 4194560 1 2 3 4 %d %d 5 6 20 0 1 0 %d 8192 100 18446744073709551615\n",
		name, rune(want.State), want.Parent, want.User, want.System, want.Start)
	got, ok := ParseStat(line)
	if want.State < 0x7f && want.State != ')' { // of a line that no kernel wrote, the state may be anything
		qt.Assert(t, qt.IsTrue(ok), qt.Commentf("%q", line))
		qt.Assert(t, qt.Equals(got, want))
	}
}
