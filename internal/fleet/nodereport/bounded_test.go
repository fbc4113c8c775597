// SPDX-License-Identifier: Apache-2.0

package nodereport

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/fleet"
)

// A report for an API server is never larger than it may be, and counts what it leaves out.
func TestBounded(t *testing.T) {
	s := Status{Dropped: 5, Lost: map[string]uint64{}}
	for i := range 200 {
		f := Failure{Failure: fleet.Failure{ID: fmt.Sprint(i), Count: 2, Message: strings.Repeat("é", 128)}}
		f.Pod = strings.Repeat("p", 200)
		s.Failures = append(s.Failures, f)
		s.Loaded = append(s.Loaded, Loaded{fleet.Program{Name: fmt.Sprint(i)}, 1})
		s.Changes = append(s.Changes, Change{Name: fmt.Sprint(i)})
		s.Lost[strings.Repeat("x", i)] = 1
	}
	r := NewReport("a", s)
	b := r.Bounded()
	text, err := json.Marshal(b)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(len(text) <= MaxBytes), qt.Commentf("%d", len(text)))
	kept := len(b.Status.Failures)
	qt.Check(t, qt.IsTrue(kept > 10 && kept <= MaxFailures), qt.Commentf("%d: what fails is worth most", kept))
	qt.Check(t, qt.Equals(b.Status.Dropped, 5+2*uint64(200-kept)))
	qt.Check(t, qt.Equals(b.Status.Changes[len(b.Status.Changes)-1].Name, "199"))
	qt.Check(t, qt.HasLen(r.Status.Failures, 200)) // it is shared
	small := NewReport("a", Status{Failures: s.Failures[:2]})
	qt.Check(t, qt.HasLen(small.Bounded().Status.Failures, 2))
}

// Hostile and strange texts are errors, and not taken for a profile of nothing.
func TestDecodeStrange(t *testing.T) {
	for text, want := range map[string]string{
		`{}`: ErrOther.Error(),
		`[]`: ErrOther.Error(),
		`{"kind":"List","items":[{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}]}`:                           `object 1: apiVersion is "v1".*`,
		`{"kind":"NodeReport","apiVersion":"bpfwhy.dev/v1alpha1"}`:                                                     "object 1: it has no name",
		`{"kind":"NodeClass","apiVersion":"bpfwhy.dev/v1alpha1","metadata":{"name":"c-1"},"spec":{"release":"6"}}`:     `object 1: class "c-1" is not what its name says`,
		`{"kind":"NodeClass","apiVersion":"bpfwhy.dev/v1alpha1","metadata":{"name":"c-1"}}`:                            `object 1: class "c-1" is not what its name says`,
		`{"kind":"NodeReport","apiVersion":"bpfwhy.dev/v1alpha1","metadata":{"name":"a"},"status":{"failing":"many"}}`: "object 1: .*cannot unmarshal.*",
	} {
		_, _, err := Decode(strings.NewReader(text))
		qt.Check(t, qt.ErrorMatches(err, want), qt.Commentf("%s", text))
	}
}
