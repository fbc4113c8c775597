// SPDX-License-Identifier: Apache-2.0

package nodereport

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/fleet"
)

// FuzzDecode: what is read as our objects has a name, is in bounds, and is the same when it has
// been written and read again.
func FuzzDecode(f *testing.F) {
	list, err := json.Marshal(NewList(NewReport("a", Status{
		Dropped: 1 << 40, Failures: []Failure{{Failure: fleet.Failure{ID: "1", Count: 2}}, {Failure: fleet.Failure{ID: "1"}, Over: true}},
		Loaded: []Loaded{{fleet.Program{Name: "p"}, 1}}, Lost: map[string]uint64{"ring buffer": 3},
	}), nil))
	qt.Assert(f, qt.IsNil(err))
	spec := `{"release":"6.12"}`
	id, err := fleet.ClassID([]byte(spec))
	qt.Assert(f, qt.IsNil(err))
	class := `{"kind":"NodeClass","apiVersion":"` + APIVersion + `","metadata":{"name":"` + id + `"},"spec":` + spec + `}`
	for _, seed := range []string{string(list), class, `{"kind":"List","items":[` + class + `]}`, strings.Replace(class, "6.12", "6.1", 1), `{"kind":"List","items":[null]}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		reports, classes, err := Decode(bytes.NewReader(text))
		if err != nil {
			qt.Assert(t, qt.IsTrue(reports == nil && classes == nil))
			return
		}
		qt.Assert(t, qt.IsTrue(len(reports)+len(classes) <= min(maxItems, len(text))))
		for _, c := range classes {
			qt.Assert(t, qt.IsNotNil(c.Spec))
			qt.Assert(t, qt.Equals(c.Spec.Profile().Release, c.Spec.Release))
			qt.Assert(t, qt.Matches(c.Metadata.Name, "c-[0-9a-f]{16}"))
		}
		var again List
		again.Kind = "List"
		for _, r := range reports {
			qt.Assert(t, qt.IsTrue(r.Kind == ReportKind && r.APIVersion == APIVersion))
			n := r.Node(nil)
			qt.Assert(t, qt.IsTrue(n.Name != "" && len(n.Name) <= 253))
			qt.Assert(t, qt.IsTrue(n.Dropped >= 0))
			qt.Assert(t, qt.IsTrue(len(r.Status.Over()) <= len(r.Status.Failures)))
			again.Items = append(again.Items, r)
		}
		written, err := json.Marshal(again)
		qt.Assert(t, qt.IsNil(err))
		same, _, err := Decode(bytes.NewReader(written))
		qt.Assert(t, qt.IsNil(err))
		first, err := json.Marshal(reports)
		qt.Assert(t, qt.IsNil(err))
		second, err := json.Marshal(same)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(string(second), string(first)))
	})
}
