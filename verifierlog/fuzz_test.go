// SPDX-License-Identifier: Apache-2.0

package verifierlog

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func FuzzParse(f *testing.F) {
	for _, name := range []string{"libbpf-null.log", "libbpf-core.log", "report-null.log", "report-null-lanes.log", "report-uninit.log", "5.10.txtar", "7.2.txtar"} {
		text := read(f, name)
		f.Add(text, 0, 0)
		f.Add(text, len(text)/2, 3)
		f.Add(text[len(text)/3:len(text)/3*2], 7, 1)
	}
	f.Add("2: (15) if r0 == 0x5 goto pc-2 infinite loop detected at insn 99999999999999999999\n", 0, 0)
	f.Add("0: R0=((((((\n0: (95) exit\nR0 !read_ok", 0, 0)
	f.Add("Verification failed: \nAt:\n  a:9:9\n  >>> 1 | (95) x", 0, 0)
	f.Fuzz(func(t *testing.T, text string, hole, lines int) {
		l := Parse(text, Options{Hole: hole, MaxLines: lines})
		if l.Insn < -1 {
			t.Errorf("instruction %d", l.Insn)
		}
		if len(l.Path) > maxPath || len(l.Messages) > maxMessages {
			t.Errorf("%d steps, %d messages", len(l.Path), len(l.Messages))
		}
		if l.Message == "" && l.Match.Kind != Unknown {
			t.Errorf("%s without a message", l.Match.Kind)
		}
		for _, s := range append(l.Lines, l.Message, l.Instruction) {
			if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r != '\t' && unicode.IsControl(r) }) {
				t.Errorf("unclean line %q", s)
			}
		}
		if reg := l.Match.Args["reg"]; reg != "" {
			l.History(reg)
		}
		Classify(text)
	})
}
