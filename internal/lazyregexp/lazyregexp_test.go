// SPDX-License-Identifier: Apache-2.0

package lazyregexp

import (
	"testing"

	"github.com/go-quicktest/qt"
)

func TestNew(t *testing.T) {
	r := New(`a(b*)`)
	qt.Check(t, qt.IsTrue(r.MatchString("xab")))
	qt.Check(t, qt.DeepEquals(r.FindStringSubmatch("xabb"), []string{"abb", "bb"}))
	qt.Check(t, qt.IsTrue(r.Match([]byte("ab"))))
	qt.Check(t, qt.DeepEquals(r.FindIndex([]byte("xab")), []int{1, 3}))
	qt.Check(t, qt.DeepEquals(r.FindSubmatchIndex([]byte("xab")), []int{1, 3, 2, 3}))
	qt.Check(t, qt.Equals(r.Compiled(), r.Compiled()))

	folded := New(`(?i)lock(?:down|ed)|x`)
	qt.Check(t, qt.IsNil(folded.Needs()))
	qt.Check(t, qt.IsTrue(folded.MayMatch("nothing")))
	for lower, want := range map[string]bool{"nothing": false, "lock": true, "x": true, "lokdown": false} {
		qt.Check(t, qt.Equals(folded.MayMatchFolded(lower), want), qt.Commentf("%s", lower))
	}
	qt.Check(t, qt.IsTrue(New(`A[0-9]+Bc`).MayMatchFolded("xbcx")))
	qt.Check(t, qt.IsFalse(New(`A[0-9]+Bc`).MayMatchFolded("a1b")))

	bad := New(`(`) // nothing is compiled yet
	qt.Check(t, qt.PanicMatches(func() { bad.MatchString("") }, ".*missing closing.*"))
}
