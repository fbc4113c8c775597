// SPDX-License-Identifier: Apache-2.0

package verifierlog

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// The lists are made by go run ./internal/test/sentences.
var listed = []string{"5.10", "6.1", "6.12", "7"}

// Every sentence of the verifiers of four kernels is known, or stands in none.txt with a reason.
func TestEverySentence(t *testing.T) {
	reasons := readNone(t)
	used := make(map[int]bool)
	for _, kernel := range listed {
		var ruled, noted, none int
		for _, s := range readSentences(t, kernel) {
			m := Classify(s.example())
			at := slices.IndexFunc(reasons, func(n exempt) bool { return n.covers(s) })
			switch {
			case at >= 0 && m.Kind != Unknown && reasons[at].format != "*":
				t.Errorf("%s: %q is %s, and stands in none.txt", kernel, s.format, m.Kind)
			case at >= 0:
				used[at] = true
				none++
			case m.Kind == Unknown:
				t.Errorf("%s: nothing explains\n\t%s\t%s\t%s", kernel, s.file, s.function, s.format)
			case m.Kind == Rejected && m.Note == (Note{}) && m.Args["config"] == "":
				t.Errorf("%s: %q has neither a kind of its own nor a note", kernel, s.format)
			case m.Kind == Rejected:
				noted++
			default:
				ruled++
			}
		}
		t.Logf("kernel %s: %d sentences, %d with a rule, %d with a note alone, %d that are no complaint", kernel, ruled+noted+none, ruled, noted, none)
	}
	for i, n := range reasons {
		if !used[i] {
			t.Errorf("none.txt: no kernel has %q of %s", n.format, n.file)
		}
	}
}

// sentence is a line of a list.
type sentence struct{ file, function, format string }

func readSentences(t *testing.T, kernel string) []sentence {
	t.Helper()
	var out []sentence
	for _, l := range readTable(t, "testdata/sentences/"+kernel+".txt", 3) {
		out = append(out, sentence{l[0], l[1], l[2]})
	}
	qt.Assert(t, qt.IsTrue(len(out) > 500))
	return out
}

// exempt are sentences that say nothing of a program, with the reason.
type exempt struct{ sentence }

func readNone(t *testing.T) []exempt {
	t.Helper()
	var out []exempt
	for _, l := range readTable(t, "testdata/sentences/none.txt", 4) {
		qt.Check(t, qt.Not(qt.Equals(l[3], "")))
		out = append(out, exempt{sentence{l[0], l[1], l[2]}})
	}
	return out
}

// covers compares with *, which stands for anything.
func (n exempt) covers(s sentence) bool {
	is := func(pattern, text string) bool { return pattern == "*" || pattern == text }
	return is(n.file, s.file) && is(n.function, s.function) && is(n.format, s.format)
}

func readTable(t *testing.T, file string, columns int) [][]string {
	t.Helper()
	text, err := os.ReadFile(file)
	qt.Assert(t, qt.IsNil(err))
	var out [][]string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || line[0] == '#' {
			continue
		}
		fields := strings.Split(line, "\t")
		qt.Assert(t, qt.HasLen(fields, columns), qt.Commentf("%s: %q", file, line))
		out = append(out, fields)
	}
	return out
}

// examples are sentences that need other words than the usual ones in place of %s.
var examples = map[string]string{
	`invalid%s stack R%d off=%d size=%d\n`:                            `invalid write to stack R%d off=%d size=%d\n`,
	`invalid%s stack R%d off=%lld size=%d\n`:                          `invalid read from stack R%d off=%lld size=%d\n`,
	`invalid unbounded variable-offset%s stack R%d\n`:                 `invalid unbounded variable-offset write to stack R%d\n`,
	`invalid variable-offset%s stack R%d var_off=%s off=%d size=%d\n`: `invalid variable-offset indirect access to stack R%d var_off=%s off=%d size=%d\n`,
	`invalid variable-offset%s stack R%d var_off=%s size=%d\n`:        `invalid variable-offset read from stack R%d var_off=%s size=%d\n`,
	`invalid%s read from stack R%d off %d+%d size %d\n`:               `invalid indirect read from stack R%d off %d+%d size %d\n`,
	`invalid%s read from stack R%d var_off %s+%d size %d\n`:           `invalid indirect read from stack R%d var_off %s+%d size %d\n`,
	`%s cannot be used inside bpf_local_irq_save-ed region\n`:         `tail_call cannot be used inside bpf_local_irq_save-ed region\n`,
	`%s cannot be used inside bpf_preempt_disable-ed region\n`:        `bpf_throw cannot be used inside bpf_preempt_disable-ed region\n`,
	`%s cannot be used inside bpf_rcu_read_lock-ed region\n`:          `BPF_EXIT instruction in main prog cannot be used inside bpf_rcu_read_lock-ed region\n`,
	`%s cannot be used inside bpf_spin_lock-ed region\n`:              `BPF_LD_[ABS|IND] cannot be used inside bpf_spin_lock-ed region\n`,
	`%s would lead to reference leak\n`:                               `BPF_EXIT instruction in main prog would lead to reference leak\n`,
	`%s the register R%d is not a known value (%s)\n`:                 `At async callback return the register R%d is not a known value (%s)\n`,
	`At program exit the register R0 `:                                `At program exit the register R0 has value (0x2; 0x0) should have been in (0x0; 0x1)`,
	`At %s the register %s `:                                          `At callback return the register R0 has unknown scalar value should have been in (0x0; 0x1)`,
	`%s the register %s has`:                                          `At bpf_set_retval the register R1 has smin=5 smax=5 should have been in [-4095, 0]`,
	`R%d type=%s `:                                                    `R%d type=%s expected=fp`,
	`arg#%d is %s `:                                                   `arg#%d is %s expected ptr_ or socket`,
	`R%d is %s `:                                                      `R%d is %s expected trusted_ptr_ or socket`,
	`R%d and `:                                                        `R%d and R%d memory, len pair leads to invalid memory access`,
	`arg#%d reference type('%s %s') %s\n`:                             `arg#%d reference type('%s %s') is ambiguous\n`,
	`%s\n`:                                                            `%s\n`,
}

var (
	conversion = regexp.MustCompile(`%[-+#0 *]*\d*(?:hh?|ll?|z)?[a-zA-Z%]`)
	offset     = regexp.MustCompile(`(var_off[= ])%s`)
)

// example puts numbers and words into a format, and returns the first line of the result.
func (s sentence) example() string {
	f := s.format
	if e, ok := examples[f]; ok {
		f = e
	}
	f = offset.ReplaceAllString(f, "$1(0x0; 0xff)")
	f = conversion.ReplaceAllStringFunc(f, func(c string) string {
		switch c[len(c)-1] {
		case 's':
			return "foo"
		case 'x':
			if strings.Contains(c, "#") {
				return "0x2"
			}
			return "02"
		case 'c':
			return " "
		case '%':
			return "%"
		}
		if strings.Contains(c, "+") {
			return "+8"
		}
		return "8"
	})
	f = strings.NewReplacer(`\n`, "\n", `\t`, "\t", `\"`, `"`).Replace(f)
	line, _, _ := strings.Cut(strings.TrimLeft(f, "\n"), "\n")
	return strings.TrimSpace(line)
}
