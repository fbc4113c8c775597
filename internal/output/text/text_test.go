// SPDX-License-Identifier: Apache-2.0

package text

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-quicktest/qt"
)

func TestClean(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", ""},
		{"plain text", "plain text"},
		{"a\tb", "a b"},
		{"\x1b[31m", `\x1b[31m`},
		{"a\nb\rc\x00", `a\x0ab\x0dc\x00`},
		{"\x7f", `\x7f`},
		{"\u009b31m", `\x9b31m`},
		{"\xff\xfe", `\xff\xfe`},
		{"\u202eevil", `\u{202e}evil`},
		{"\u2028", `\u{2028}`},
		{"\u200b\ufeff", `\u{200b}\u{feff}`},
		{"\U000e0041", `\u{e0041}`},
		{"héllo 世界", "héllo 世界"},
	}
	for _, tt := range tests {
		qt.Check(t, qt.Equals(Clean(tt.in), tt.want))
	}
}

func TestLine(t *testing.T) {
	qt.Check(t, qt.Equals(Line("a\r\nb\x1b\n"), `a; b\x1b`))
}

func TestCut(t *testing.T) {
	qt.Check(t, qt.Equals(Cut("世界", 6), "世界"))
	qt.Check(t, qt.Equals(Cut("世界", 5), "世…")) // no half of a character
	qt.Check(t, qt.Equals(Cut("世界", 1), "…"))
	qt.Check(t, qt.Equals(Cut("\x1b\x1b\x1b", 2), `\x1b\x1b…`))
	qt.Check(t, qt.Equals(Cut("\xbf\xbf\xbf", 2), "…"))
}

// The ranges from which terminals have been attacked, whole.
func TestPrintable(t *testing.T) {
	for _, hostile := range [][2]rune{
		{0, 0x1f}, {0x7f, 0x9f}, // controls of both sets
		{0x200b, 0x200f}, {0x2060, 0x2064}, {0xfeff, 0xfeff}, // without width
		{0x202a, 0x202e}, {0x2066, 0x2069}, {0x61c, 0x61c}, // bidirectional
		{0x2028, 0x2029},   // separators of lines
		{0xe0000, 0xe007f}, // tags
	} {
		for r := hostile[0]; r <= hostile[1]; r++ {
			qt.Check(t, qt.IsFalse(Printable(r)), qt.Commentf("%U", r))
		}
	}
	for _, r := range "aé世\u0301مя☃😀~ \u00bf" {
		qt.Check(t, qt.IsTrue(Printable(r)), qt.Commentf("%U", r))
	}
}

func FuzzClean(f *testing.F) {
	f.Add("a\x1b]0;title\x07b\x9b2J\u202e\u200b\ufeff\x00\xff\xc3(\U000e0001\r\n\t")
	f.Fuzz(func(t *testing.T, s string) {
		got := Clean(s)
		for _, r := range got {
			if !Printable(r) {
				t.Fatalf("%U in %q", r, got)
			}
		}
		if !utf8.ValidString(got) || len(got) > 12*len(s) {
			t.Fatalf("%d bytes of %d: %q", len(got), len(s), got)
		}
		if again := Clean(got); again != got {
			t.Fatalf("%q, then %q", got, again)
		}
		for _, r := range strings.ReplaceAll(Replace(s), "\t", "") {
			if !Printable(r) {
				t.Fatalf("%U in %q", r, Replace(s))
			}
		}
	})
}
