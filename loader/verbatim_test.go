// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"slices"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/go-quicktest/qt"
)

// When cilium/ebpf is kept from changing calls, on a machine that the test makes up: the loads,
// each with the programs that are kept as they are in it, and what is reported.
func TestVerbatim(t *testing.T) {
	user := &ebpf.ProgramSpec{Name: "u", Type: ebpf.Kprobe, Instructions: asm.Instructions{asm.FnProbeReadUser.Call(), asm.Return()}}
	str := &ebpf.ProgramSpec{Name: "s", Type: ebpf.Kprobe, Instructions: asm.Instructions{asm.FnProbeReadUserStr.Call(), asm.Return()}}
	other := &ebpf.ProgramSpec{Name: "o", Type: ebpf.Kprobe, Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}}
	specs := map[string]*ebpf.ProgramSpec{"user": user, "str": str, "other": other}
	both := []string{"str", "user"}
	reports := func(r Repair) []Repair {
		r.Verbatim = true
		s := r
		r.Program, s.Program = "user", "str"
		return []Repair{s, r}
	}
	yes, no := true, false
	for _, c := range []struct {
		name    string
		off     bool
		closed  *bool // what is known of the kernel
		errs    []error
		loads   [][]string
		reports []Repair
		fails   bool
	}{
		{name: "open", closed: &no, errs: []error{nil}, loads: [][]string{nil}},
		{name: "not known, and nothing fails", errs: []error{nil}, loads: [][]string{nil}},
		{name: "closed", closed: &yes, errs: []error{nil}, loads: [][]string{both}, reports: reports(Repair{Early: true})},
		{name: "off", off: true, closed: &yes, errs: []error{nil}, loads: [][]string{nil}},
		{name: "open, and another error", closed: &no, errs: []error{refused("user", syscall.EINVAL)}, loads: [][]string{nil}, fails: true},
		{name: "another error once it is as it is", closed: &yes, errs: []error{refused("user", syscall.EINVAL)}, loads: [][]string{both}, fails: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var loads [][]string
			var got []Repair
			// Its programs are empty shells, which have no descriptor to ask about.
			l := &Loader{Off: c.off, AllowJITOnly: true, Report: func(r Repair) { got = append(got, r) }}
			l.memory.closed = c.closed
			err := l.load(specs, nil, func(changed rewritten, _ bool) (map[string]*ebpf.Program, func(), error) {
				loads = append(loads, kept(changed))
				if err := c.errs[len(loads)-1]; err != nil {
					return nil, nil, err
				}
				return map[string]*ebpf.Program{"user": {}, "str": {}, "other": {}}, func() {}, nil
			})
			qt.Check(t, qt.Equals(err != nil, c.fails))
			qt.Check(t, qt.DeepEquals(loads, c.loads))
			qt.Check(t, qt.DeepEquals(got, c.reports))
			qt.Check(t, qt.IsTrue(user.Instructions[0].IsBuiltinCall()))
		})
	}

	// Which errors are worth to try it.
	for _, c := range []struct {
		err  error
		want bool
	}{
		{refused("user", syscall.EINVAL), true},
		{refused("str", syscall.EPERM), true},
		{refused("user", syscall.EACCES), false},
		{refused("other", syscall.EINVAL), false},
		{fmt.Errorf("map user: %w", syscall.EINVAL), false},
	} {
		a := &attempt{l: &Loader{}, specs: specs}
		a.l.memory.closed = &yes
		qt.Check(t, qt.Equals(a.refusesSubstitute(c.err), c.want), qt.Commentf("%v", c.err))
		a.keepVerbatim()
		qt.Check(t, qt.IsFalse(a.refusesSubstitute(c.err))) // once is enough
		qt.Check(t, qt.DeepEquals(kept(a.changed()), both))
	}
}

func refused(program string, errno syscall.Errno) error {
	return fmt.Errorf("program %s: load program: %w", program, errno)
}

// kept are the programs with no helper in cilium/ebpf's eyes.
func kept(changed rewritten) (names []string) {
	for name, program := range changed {
		if !program[0].IsBuiltinCall() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
