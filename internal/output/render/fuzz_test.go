// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/output/text"
	"github.com/bpfwhy/bpfwhy/load"
)

// obeyed finds what a terminal, or who looks at it, might take for something else.
func obeyed(s string) (rune, bool) {
	if !utf8.ValidString(s) {
		return utf8.RuneError, true
	}
	for _, r := range s {
		if r != '\n' && !text.Printable(r) {
			return r, true
		}
	}
	return 0, false
}

// FuzzAttempt renders attempts of any content, as a process names its programs and a file holds
// them.
func FuzzAttempt(f *testing.F) {
	for _, s := range []string{
		`{"kind":"prog_load","outcome":"failed","errno":524,"process":{"comm":"a\u001b[2J"},"program":{"name":"\u202ex","type":"xdp","insns":-1},"duration_ns":-5}`,
		`{"outcome":"loaded_not_jited","diagnosis":{"rule":"X","cause":"\u0007","evidence":["\n"],"remedies":[{"command":"a\nb","price":"\u009b"}]},"verifier_log":{"lines":["\r","` + strings.Repeat("x", 300) + `"]}}`,
		`{"kind":"map_create","map":{"name":"\ud800","type":"\u0000"},"stages":[{"stage":"jit","result":"failed","errno":-1}],"incomplete":true,"incomplete_why":["\u001b"],"jump":{"from":1,"to":-2}}`,
	} {
		f.Add([]byte(s), 80, false)
		f.Add([]byte(s), 0, true)
	}
	f.Fuzz(func(t *testing.T, b []byte, width int, colour bool) {
		var a load.Attempt
		if json.Unmarshal(b, &a) != nil {
			return
		}
		var text, line bytes.Buffer
		w := NewText(&text, width, false)
		qt.Assert(t, qt.IsNil(w.Line(&a)))
		if n := strings.Count(text.String(), "\n"); n != 1 {
			t.Fatalf("%d lines", n)
		}
		qt.Assert(t, qt.IsNil(w.Explain(&a)))
		if a.Repair != nil {
			qt.Assert(t, qt.IsNil(w.Repaired(&a)))
		}
		if r, bad := obeyed(text.String()); bad {
			t.Fatalf("%U in %q", r, text.String())
		}
		if colour {
			qt.Assert(t, qt.IsNil(NewText(&text, width, true).Explain(&a)))
		}
		qt.Assert(t, qt.IsNil(JSON(&line, &a)))
		if r, bad := obeyed(line.String()); bad || strings.Count(line.String(), "\n") != 1 || !json.Valid(line.Bytes()) {
			t.Fatalf("%U in %q", r, line.String())
		}
	})
}
