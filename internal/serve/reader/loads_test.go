// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package reader

import (
	"fmt"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/watch/capture"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

func call(tgid uint32, name string, insns uint32, ret int64) *trace.Record {
	a := abi.ProgLoad{InsnCnt: insns, ProgName: abi.NameOf(name)}
	return &trace.Record{Call: &trace.Call{Kind: load.ProgLoad, TGID: tgid, Ret: ret, Attr: abi.Bytes(&a), Prog: &trace.Prog{JITed: ret >= 0}}}
}

// Healthy loads are counted and go no further, but for those that may be the end of a failure.
func TestMatters(t *testing.T) {
	l := newLoads()
	qt.Check(t, qt.IsFalse(l.matters(call(1, "a", 10, 3))))
	qt.Check(t, qt.IsFalse(l.matters(&trace.Record{Begin: &trace.Begin{TGID: 2}})))
	qt.Check(t, qt.IsTrue(l.matters(call(2, "b", 10, -22))))
	qt.Check(t, qt.IsTrue(l.matters(&trace.Record{Begin: &trace.Begin{TGID: 2}})))
	qt.Check(t, qt.IsTrue(l.matters(call(2, "c", 10, 3))), qt.Commentf("the same process"))
	qt.Check(t, qt.IsTrue(l.matters(call(3, "b", 10, 3))), qt.Commentf("the same program"))
	qt.Check(t, qt.IsFalse(l.matters(call(3, "c", 10, 3))))
	qt.Check(t, qt.IsFalse(l.matters(call(3, "tiny", 2, 3))), qt.Commentf("asks what the kernel can do"))
	qt.Check(t, qt.IsTrue(l.matters(&trace.Record{Loss: &trace.Loss{}})))
	qt.Check(t, qt.DeepEquals(l.types([]capture.TypeCount{{Type: 0, Count: 2}, {Type: abi.ProgTypeLSM, Count: 1}}), map[string]uint64{"unspec": 7, "lsm": 1}))
	var names []string
	for _, p := range l.programs([]capture.ProgramCount{{Name: "a", Insns: 10, Count: 2}, {Name: "d", Insns: 10, Count: 1}}) {
		names = append(names, fmt.Sprint(p.Name, " ", p.Count))
	}
	qt.Check(t, qt.DeepEquals(names, []string{"a 3", "b 1", "c 2", "d 1"}))
}

// What is remembered is bounded.
func TestMattersHostile(t *testing.T) {
	l := newLoads()
	for i := range uint32(10_000) {
		name := string([]byte{'a' + byte(i%26), 'a' + byte(i/26%26), 'a' + byte(i/676%26)})
		l.matters(call(i, name, 10, -22))
		l.matters(call(i, name+"x", 10, 3))
	}
	qt.Check(t, qt.IsTrue(len(l.processes) <= maxFailing))
	qt.Check(t, qt.IsTrue(len(l.names) <= maxFailing))
	qt.Check(t, qt.IsTrue(len(l.ok) <= maxPrograms))
	qt.Check(t, qt.DeepEquals(l.types(nil), map[string]uint64{"unspec": 10_000}))
}
