// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"testing"

	"github.com/bpfwhy/bpfwhy/internal/objects/preflight"
	"github.com/go-quicktest/qt"
)

// TestPreflight: what is not met has its reason, its remedy, and some of its programs; what is met
// has one line. Names come from other people's objects.
func TestPreflight(t *testing.T) {
	r := &preflight.Report{Release: "6.1.0", Verdict: preflight.Fail, Failed: 1, Passed: 1, Lines: []preflight.Line{
		{Need: "map:arena", Verdict: preflight.Fail, For: []string{"a\x1b[31m", "b", "c", "d", "e"}, Why: "tried: the kernel has no maps of type arena",
			Rule: "FEAT005", Do: "Leave it out", Command: "one\ntwo"},
		{Need: "program:xdp", Verdict: preflight.Pass, For: []string{"p"}, Why: "tried: the kernel has the type", Do: "nothing"},
	}}
	var b bytes.Buffer
	qt.Assert(t, qt.IsNil(NewText(&b, 0, false).Preflight(r)))
	qt.Check(t, qt.Equals(b.String(), `FAIL  map:arena (a\x1b[31m, b, c, d and 1 more)
      tried: the kernel has no maps of type arena
      do: Leave it out
          one
          two
      more: bpfwhy explain FEAT005
PASS  program:xdp (1 program): tried: the kernel has the type

FAIL  1 failed, 0 warned, 1 passed; Linux 6.1.0
`))
	var coloured bytes.Buffer
	qt.Assert(t, qt.IsNil(NewText(&coloured, 80, true).Preflight(r)))
	qt.Check(t, qt.IsTrue(bytes.Contains(coloured.Bytes(), []byte("\x1b[31mFAIL\x1b[0m"))))
	qt.Check(t, qt.IsFalse(bytes.Contains(b.Bytes(), []byte("\x1b"))))
}
