// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"regexp"
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/watch/hook"
	"github.com/bpfwhy/bpfwhy/load"
)

// TestRows: the rows of package hook and the lines of bpf/functions.h are the same, in the same
// order, and each has its programs in the object.
func TestRows(t *testing.T) {
	spec, err := loadCore()
	qt.Assert(t, qt.IsNil(err))
	var numbers *btf.Enum
	qt.Assert(t, qt.IsNil(spec.Types.TypeByName("hook", &numbers)))
	var lines, rows []string
	for i, v := range numbers.Values {
		qt.Check(t, qt.Equals(v.Value, uint64(i)))
		lines = append(lines, v.Name)
	}
	seen := map[load.Function]bool{}
	for n := range uint32(coreHookH_MAX) + 1 {
		h := hook.Numbered(n)
		if h == nil {
			continue
		}
		rows = append(rows, "H_"+h.Points[0].Program)
		qt.Check(t, qt.Equals(h.Number, n))
		qt.Check(t, qt.Equals(hook.Of(h.Function), h))
		qt.Check(t, qt.IsFalse(seen[h.Function]), qt.Commentf("%s", h.Function))
		seen[h.Function] = true
	}
	qt.Check(t, qt.DeepEquals(append(rows, "H_MAX"), lines))

	programs := map[string]bool{}
	for _, s := range sites() {
		for _, b := range []backend{fentry, kprobe} {
			for _, name := range s.programs(b) {
				qt.Check(t, qt.IsNotNil(spec.Programs[name]), qt.Commentf("%s has no %s", s.Function, name))
				programs[name] = true
			}
		}
	}
	ofHook := regexp.MustCompile(`^(fentry|fexit|kprobe|kretprobe)_`)
	for name := range spec.Programs {
		qt.Check(t, qt.Equals(ofHook.MatchString(name), programs[name]), qt.Commentf("no row has %s", name))
	}
}
