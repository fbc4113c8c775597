// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"errors"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/output/render"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
)

func TestFailOn(t *testing.T) {
	seen := func(rules map[string]int, notJITed int) render.Summary {
		return render.Summary{Rules: rules, NotJITed: notJITed}
	}
	mixed := seen(map[string]int{"BLIND003": 2, "PERM001": 1, "UNKNOWN": 1}, 2)
	for _, test := range []struct {
		f    failOn
		s    render.Summary
		want []string
	}{
		{failOn{"any"}, render.Summary{Attempts: 3, Loaded: 3}, nil},
		{failOn{"any"}, mixed, []string{"any: 4 loads"}},
		{failOn{"failed", "not-jited"}, mixed, []string{"failed: 2 loads", "not-jited: 2 loads"}},
		{failOn{"BLINDING", "perm", "perm001", "unknown", "VER"}, mixed,
			[]string{"BLINDING: 2 loads (BLIND003)", "perm: 1 load (PERM001)", "perm001: 1 load (PERM001)", "unknown: 1 load (UNKNOWN)"}},
		{failOn{"failed"}, seen(map[string]int{"BLIND003": 2}, 2), nil},
		{failOn{"permission", "jit"}, seen(map[string]int{"PERM003": 1, "VER001": 7}, 0), []string{"permission: 1 load (PERM003)"}},
		// What hangs has not worked; what was lost may be of any class but one.
		{failOn{"failed"}, render.Summary{Hanging: 1}, []string{"failed: 1 load"}},
		{failOn{"blinding"}, render.Summary{Losses: trace.Losses{LostLoads: 2}}, []string{"2 loads failed, of which nothing else is known"}},
		{failOn{"not-jited"}, render.Summary{Losses: trace.Losses{LostLoads: 2}}, nil},
	} {
		qt.Check(t, qt.DeepEquals(test.f.met(&test.s), test.want), qt.Commentf("%q %+v", test.f, test.s))
		qt.Check(t, qt.IsNil(test.f.check()), qt.Commentf("%q", test.f))
	}
	for _, bad := range []string{"", "every", "blinding ", "VER000", "UNKNOWN001"} {
		qt.Check(t, qt.IsNotNil(failOn{bad}.check()), qt.Commentf("%q", bad))
	}

	// The command's own status counts where nothing is found; a watch that broke off finds nothing.
	o := &runOptions{failOn: failOn{"any"}, args: []string{"agent"}}
	own := &status{code: 7}
	qt.Check(t, qt.Equals(codeOf(o.verdict(&render.Summary{}, nil, own)), 7))
	qt.Check(t, qt.Equals(codeOf(o.verdict(&mixed, nil, own)), 121))
	qt.Check(t, qt.Equals(codeOf(o.verdict(&render.Summary{}, errors.New("write: disk full"), nil)), 2))
	o.failOn = nil
	qt.Check(t, qt.Equals(codeOf(o.verdict(&mixed, errors.New("write: disk full"), nil)), 0))
}
