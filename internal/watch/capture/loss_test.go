// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/go-quicktest/qt"
)

// said writes each loss as "mechanism count from to", or "mechanism ?".
func said(records []trace.Record) (lines []string) {
	for _, r := range records {
		if l := r.Loss; l.Unknown {
			lines = append(lines, l.Mechanism+" ?")
		} else {
			lines = append(lines, fmt.Sprintf("%s %d %d-%d", l.Mechanism, l.Count, l.From, l.To))
		}
	}
	return lines
}

var errUnread = errors.New("not read")

// Whatever single reads do, no count is ever negative, and none is told twice.
func TestLossesWhenReadsFail(t *testing.T) {
	ok := func(n uint64) reading { return reading{n: n} }
	bad := reading{err: errUnread}
	for _, test := range []struct {
		name  string
		looks [][]reading // of one mechanism; the last one is final
		want  []string
	}{
		{"grows", [][]reading{{ok(2)}, {ok(2)}, {ok(5)}}, []string{"x 2 0-1", "x 3 2-3"}},
		{"fails in between", [][]reading{{ok(2)}, {bad}, {ok(5)}}, []string{"x 2 0-1", "x 3 1-3"}},
		{"fails at first", [][]reading{{bad}, {ok(5)}}, []string{"x 5 0-2"}},
		{"fails at last", [][]reading{{ok(2)}, {bad}}, []string{"x 2 0-1", "x ?"}},
		{"runs backward", [][]reading{{ok(5)}, {ok(0)}, {ok(7)}}, []string{"x 5 0-1", "x 2 1-3"}},
		{"runs backward at last", [][]reading{{ok(5)}, {ok(0)}}, []string{"x 5 0-1", "x ?"}},
		{"what both missed", [][]reading{{ok(5), ok(2)}, {ok(6), ok(9)}}, []string{"x 2 0-1", "x 1 1-2"}},
		{"one of two fails", [][]reading{{ok(5), ok(2)}, {ok(9), bad}, {ok(9), ok(3)}}, []string{"x 2 0-1", "x 1 1-3"}},
		{"one of two fails at last", [][]reading{{ok(5), ok(2)}, {ok(9), bad}}, []string{"x 2 0-1", "x ?"}},
		{"one of two is gone", [][]reading{{ok(5), ok(2)}, {ok(9)}}, []string{"x 2 0-1", "x ?"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var a accounts
			var got []string
			for i, look := range test.looks {
				got = append(got, said(a.look(readings{"x": look}, uint64(i+1), i == len(test.looks)-1))...)
			}
			qt.Check(t, qt.DeepEquals(got, test.want))
		})
	}
}

func TestFailingLoads(t *testing.T) {
	var counted uint64
	var err error
	f := failedLoads{counted: func() (uint64, error) { return counted, err }}
	at := uint64(0)
	look := func(after time.Duration, final bool) []string {
		at += uint64(after)
		var lines []string
		for _, r := range f.settle(at, final, true) {
			lines = append(lines, fmt.Sprintf("%d %v", r.Loss.Count, r.Loss.Unknown))
			qt.Check(t, qt.Equals(r.Loss.Mechanism, trace.LostLoads))
		}
		return lines
	}
	counted, f.arrived = 10, 10
	qt.Check(t, qt.HasLen(look(time.Second, false), 0))
	// What is on its way is not lost.
	counted = 13
	qt.Check(t, qt.HasLen(look(time.Second, false), 0))
	f.arrived = 13
	qt.Check(t, qt.HasLen(look(time.Minute, false), 0))
	// What stays away is, as far as it never came.
	counted = 20
	qt.Check(t, qt.HasLen(look(time.Second, false), 0))
	f.arrived = 18
	qt.Check(t, qt.HasLen(look(time.Second, false), 0))
	counted, f.arrived = 30, 26
	qt.Check(t, qt.DeepEquals(look(time.Second, false), []string{"2 false"}))
	// A read that fails says nothing, and the end says all.
	err = errUnread
	qt.Check(t, qt.HasLen(look(time.Second, false), 0))
	err = nil
	qt.Check(t, qt.DeepEquals(look(time.Second, true), []string{"2 false"}))
	qt.Check(t, qt.HasLen(look(time.Second, true), 0))
	err = errUnread
	qt.Check(t, qt.DeepEquals(look(time.Second, true), []string{"0 true"}))
	err = nil
	// Loads of which it is not known whether they failed.
	qt.Check(t, qt.DeepEquals(said(f.settle(at, true, false)), []string{trace.LostLoads + " ?"}))
	// More came than was counted: not below zero.
	f.arrived = 1000
	qt.Check(t, qt.HasLen(look(time.Hour, true), 0))
}

// Missed runs count where they do not show in their call.
func TestMissedBy(t *testing.T) {
	for program, want := range map[string]string{
		"fentry_sys_bpf": "recursion in fentry_sys_bpf", "fentry_sys_bpf_reentrant": "recursion in fentry_sys_bpf", "fexit_sys_bpf": "", "fexit_sys_bpf_reentrant": "",
		"fentry_bpf_check": "recursion in bpf_check", "fexit_bpf_check": "recursion in bpf_check", "fexit_security_bpf": "recursion in fexit_security_bpf",
		"kretprobe_sys_bpf": "recursion in kretprobe_sys_bpf", "task_exit": "", "task_exit_reentrant": "", "task_fork_reentrant": "recursion in task_fork",
		syscallProgram: trace.LostSyscalls, syscallProgram + reentrantSuffix: trace.LostSyscalls,
	} {
		qt.Check(t, qt.Equals(missedBy(program), want), qt.Commentf("%s", program))
	}
}

// A missed end of a load may have been a failure.
func TestBlind(t *testing.T) {
	for mechanism, blind := range map[string]bool{
		"end of call not seen": true, "recursion in kretprobe_sys_bpf": true, "recursion in kretprobe_x64_sys_bpf": true, "kretprobe missed in __sys_bpf": true,
		"recursion in fentry_sys_bpf": true, "recursion in btf_sys_exit": true, "recursion in exit_bpf": true,
		"ring buffer full": false, "ring buffer full for a call": false, "recursion in kprobe_sys_bpf": false, "recursion in bpf_check": false,
		"kretprobe missed in bpf_check": false, "too many calls in flight": false, // each is marked, and its end counted
		"far too many calls in flight": true,
	} {
		var l lossMeter
		l.look(readings{mechanism: {{n: 0}}}, 1, false)
		qt.Check(t, qt.IsFalse(l.blind()))
		l.look(readings{mechanism: {{n: 1}}}, 2, false)
		qt.Check(t, qt.Equals(l.blind(), blind), qt.Commentf("%s", mechanism))
	}
}
