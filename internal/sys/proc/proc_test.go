// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/load"
)

func TestParseStat(t *testing.T) {
	const rest = " S 17 42 42 0 -1 4194560 1 0 0 0 5 6 0 0 20 0 1 0 1234 5 6\n"
	want := Stat{State: 'S', Parent: 17, User: 5, System: 6, Start: 1234}
	for _, name := range []string{"sh", "a b", ") R 1 2 3", "a\nb", "((", ""} {
		s, ok := ParseStat("42 (" + name + ")" + rest)
		qt.Check(t, qt.IsTrue(ok), qt.Commentf("%q", name))
		qt.Check(t, qt.Equals(s, want), qt.Commentf("%q", name))
	}
	for _, text := range []string{"", "42", "42 (sh)", "42 (sh) S 1 2", "42 (sh) S x 42 42 0 -1 4194560 1 0 0 0 5 6 0 0 20 0 1 0 1234 5 6"} {
		_, ok := ParseStat(text)
		qt.Check(t, qt.IsFalse(ok), qt.Commentf("%q", text))
	}
}

func TestField(t *testing.T) {
	const status = "Name:\tUid: 0\nUid:\t1000\t1000\t1000\t1000\nSigPnd:\t0000000000000100\n"
	qt.Check(t, qt.Equals(Field(status, "Uid"), "1000\t1000\t1000\t1000"))
	qt.Check(t, qt.Equals(Field(status, "SigPnd"), "0000000000000100"))
	qt.Check(t, qt.Equals(Field(status, "CapEff"), ""))
}

func TestCgroups(t *testing.T) {
	qt.Check(t, qt.DeepEquals(Cgroups("5:cpu,memory:/a\n4:memoryx:/b\n1:name=systemd:/c\n0::/d:e\nnonsense\n"),
		[]load.Cgroup{{Version: 1, Name: "/a"}, {Version: 2, Name: "/d:e"}}))
}
