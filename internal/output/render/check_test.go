// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/objects/check"
	"github.com/go-quicktest/qt"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// checks are made up, so that the model may change its mind.
func checks() *check.Report {
	source := func(file string, line int, text string) *check.Source {
		return &check.Source{File: file, Line: line, Text: text}
	}
	r := &check.Report{Schema: check.Schema, Harden: 2, Kernel: "any", Objects: []check.Object{
		{Path: "build/http.o", Programs: []check.Program{
			{Name: "http", Section: "socket", Verdict: check.Fails, Rule: "BLIND001", Insns: 19316, Blinded: 51234, Functions: 1, Margin: -5988, WorstMargin: -6000,
				Confidence: check.Likely, BlindingNS: 1900 * time.Millisecond, TooFar: 12, Jump: &check.Jump{Function: "http", From: 14, To: 19310,
					Insn: "if r1 == 0xd goto pc+19295", Need: 38755, Limit: 32767, Source: source("src/parser.c", 118, "if (c == '\\r')"), Target: source("/src/checkout/src/parser.c", 240, "return 0;")}},
			{Name: "count", Section: "xdp", Verdict: check.Loads, Insns: 12, Blinded: 20, Functions: 1, Margin: 32767, Confidence: check.Certain},
		}},
		{Path: "../elsewhere/a b.o", Programs: []check.Program{
			{Name: "back", Section: "tc", Verdict: check.Wraps, Rule: "BLIND004", Insns: 30000, Blinded: 32800, Functions: 3, Margin: 4, WorstMargin: -2,
				Confidence: check.Possible, BlindingNS: time.Microsecond, TooFar: 1, Jump: &check.Jump{Function: "parse", From: 900, To: 2,
					Insn: "if r1 == 0x1 goto pc-899", Need: -32769, Limit: -32768, Source: source("/usr/include/x.h", 3, "")}},
		}},
		{Path: "build/cat.o\x1b[31m", Error: "not an ELF object", Programs: []check.Program{}},
		{Path: "build/maps.o", Programs: []check.Program{}},
	}}
	r.Summary.Skipped = 2
	r.Count()
	return r
}

func TestCheck(t *testing.T) {
	var b bytes.Buffer
	qt.Assert(t, qt.IsNil(NewText(&b, 0, false).Check(checks())))
	qt.Assert(t, qt.IsFalse(strings.Contains(b.String(), "\x1b")))
	golden(t, "check", b.Bytes())
}

// TestCheckAlike: what is equal is one block, with all programs and a repair for each object. What
// differs in more than its slots is a block of its own.
func TestCheckAlike(t *testing.T) {
	r := checks()
	http := r.Objects[0].Programs[0]
	other := http
	jump := *http.Jump
	jump.Need++
	other.Name, other.Jump = "http6", &jump
	danger := http
	danger.Name, danger.Danger = "http7", "It may crash the machine."
	r.Objects[0].Programs = append(r.Objects[0].Programs, other, danger)
	r.Objects[1].Programs = []check.Program{http}
	r.Count()
	var b bytes.Buffer
	qt.Assert(t, qt.IsNil(NewText(&b, 0, false).Check(r)))
	qt.Check(t, qt.Equals(strings.Count(b.String(), "FAILS  http"), 2), qt.Commentf("%s", b.String()))
	for _, want := range []string{
		"  same for  - http6 (socket, 19316 insns) of build/http.o, where it is the offset 38756\n            - http (socket, 19316 insns) of ../elsewhere/a b.o\n",
		"  repair    bpfwhy fix build/http.o -o build/http.fixed.o\n            bpfwhy fix '../elsewhere/a b.o' -o '../elsewhere/a b.fixed.o'\n",
		"FAILS  http7 (socket, 19316 insns)\n  DANGER ",
	} {
		qt.Check(t, qt.StringContains(b.String(), want))
	}

	r.Objects[0].Programs = r.Objects[0].Programs[:1]
	for range 30 {
		r.Objects = append(r.Objects, r.Objects[0])
		r.Objects[len(r.Objects)-1].Path = strings.Repeat("x", len(r.Objects)) + ".o"
	}
	b.Reset()
	qt.Assert(t, qt.IsNil(NewText(&b, 0, false).Check(r)))
	qt.Check(t, qt.StringContains(b.String(), "            - 11 more\n"))
	qt.Check(t, qt.StringContains(b.String(), "            and likewise for 27 more\n"))
}

// TestCheckTight: a program that loads with less room than was asked for is told, in each form.
func TestCheckTight(t *testing.T) {
	r := checks()
	r.MinMargin = 100
	p := &r.Objects[0].Programs[1]
	p.Margin, p.Jump = 99, &check.Jump{Function: "count", From: 1, To: 9, Insn: "goto pc+7", Need: 32668, Limit: 32767}
	r.Count()
	qt.Assert(t, qt.IsTrue(p.Tight && p.Rejected))
	for name, test := range map[string]struct {
		write func(*bytes.Buffer) error
		want  []string
	}{
		"text": {func(b *bytes.Buffer) error { return NewText(b, 0, false).Check(r) }, []string{"count          loads, TIGHT", "TIGHT  count (xdp, 12 insns)",
			"margin    99 slots left, and at least 100 were asked for", "build/http.fixed.o --limit 32667\n", "; 2 with fewer than 100 slots to spare"}}, // "back" has 4
		"junit": {func(b *bytes.Buffer) error { return JUnit(b, r) }, []string{"with only 99 slots to spare (at least 100 were asked for)", `type="BLIND001"`}},
		"sarif": {func(b *bytes.Buffer) error { return SARIF(b, r, Checkout{Files: fstest.MapFS{}}) },
			[]string{"with only 99 slots to spare (at least 100 were asked for)", `"verdict":"loads"`}},
		"json": {func(b *bytes.Buffer) error { return JSON(b, r) }, []string{`"min_margin":100`, `"rejected":true,"tight":true,"insns":12`}},
	} {
		var b bytes.Buffer
		qt.Assert(t, qt.IsNil(test.write(&b)))
		for _, want := range test.want {
			qt.Check(t, qt.StringContains(b.String(), want), qt.Commentf("%s", name))
		}
	}
}

// Where it is not known whether the kernel notices a jump that wraps, each form says both.
func TestCheckAlsoPossible(t *testing.T) {
	for name, write := range map[string]func(*bytes.Buffer, *check.Report) error{
		"text":  func(b *bytes.Buffer, r *check.Report) error { return NewText(b, 0, false).Check(r) },
		"sarif": func(b *bytes.Buffer, r *check.Report) error { return SARIF(b, r, Checkout{Files: fstest.MapFS{}}) },
		"junit": func(b *bytes.Buffer, r *check.Report) error { return JUnit(b, r) },
		"json":  func(b *bytes.Buffer, r *check.Report) error { return JSON(b, r) },
	} {
		var without, with bytes.Buffer
		r := checks()
		qt.Assert(t, qt.IsNil(write(&without, r)))
		qt.Check(t, qt.IsFalse(strings.Contains(without.String(), "it is refused")), qt.Commentf("%s", name))
		r.Objects[1].Programs[0].AlsoPossible = "it is refused"
		qt.Assert(t, qt.IsNil(write(&with, r)))
		qt.Check(t, qt.StringContains(with.String(), "it is refused"), qt.Commentf("%s", name))
	}
}

// TestSARIF holds the log against the part of the standard that it uses. All of it was held against
// the standard's schema (OASIS, sarif-schema-2.1.0.json) when it was written.
func TestSARIF(t *testing.T) {
	var b bytes.Buffer
	at := Checkout{Top: "/src/checkout", Dir: "/src/checkout", Version: "v1.2.3",
		Files: fstest.MapFS{"src/parser.c": {}, "build/http.o": {}}}
	qt.Assert(t, qt.IsNil(SARIF(&b, checks(), at)))
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	schema, err := c.Compile("testdata/sarif-subset.schema.json")
	qt.Assert(t, qt.IsNil(err))
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(b.Bytes()))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(schema.Validate(v)))

	var log sarifLog
	qt.Assert(t, qt.IsNil(json.Unmarshal(b.Bytes(), &log)))
	run := log.Runs[0]
	for _, r := range run.Results {
		qt.Check(t, qt.Equals(run.Tool.Driver.Rules[r.RuleIndex].ID, r.RuleID))
	}
	qt.Assert(t, qt.Equals(len(run.Results), 2))
	fails, wraps := run.Results[0], run.Results[1]
	qt.Assert(t, qt.Equals(fails.Locations[0].Physical.Artifact.URI, "src/parser.c"))
	qt.Assert(t, qt.Equals(fails.Locations[0].Physical.Region.Start, 118))
	qt.Assert(t, qt.Equals(fails.Level, "error"))
	qt.Assert(t, qt.Equals(fails.Related[0].Physical.Artifact.URI, "src/parser.c")) // inside the checkout, though absolute
	qt.Assert(t, qt.Equals(wraps.Level, "warning"))
	qt.Assert(t, qt.Equals(wraps.Locations[0].Physical.Artifact.URI, "a%20b.o")) // neither the header nor the object lies inside
	qt.Assert(t, qt.IsFalse(run.Invocations[0].Successful))
	qt.Assert(t, qt.Equals(len(run.Invocations[0].Notifications), 1))

	// Fingerprints stay when lines move and distances change, and tell programs apart.
	again := checks()
	again.Objects[0].Programs[0].Jump.Source.Line++
	again.Objects[0].Programs[0].Jump.Need++
	b.Reset()
	qt.Assert(t, qt.IsNil(SARIF(&b, again, at)))
	var moved sarifLog
	qt.Assert(t, qt.IsNil(json.Unmarshal(b.Bytes(), &moved)))
	qt.Assert(t, qt.DeepEquals(moved.Runs[0].Results[0].Fingerprints, fails.Fingerprints))
	qt.Assert(t, qt.Not(qt.DeepEquals(fails.Fingerprints, wraps.Fingerprints)))
}

// A page that is sent to a file that is not there shows nothing: only files that the checkout has
// are named, from wherever bpfwhy was run.
func TestSARIFNamesFilesThatAreThere(t *testing.T) {
	at := Checkout{Top: "/src/checkout", Dir: "/src/checkout/agent", Files: fstest.MapFS{
		"agent/bpf/probe.c": {}, "agent/include": {Mode: fs.ModeDir}, "lib/util.h": {}, "build/a b.o": {}}}
	for _, test := range []struct{ file, uri string }{
		{"bpf/probe.c", "agent/bpf/probe.c"},       // compiled where bpfwhy runs
		{"./lib/util.h", "lib/util.h"},             // compiled at the top
		{"../lib/util.h", "lib/util.h"},            //
		{"/src/checkout/lib/util.h", "lib/util.h"}, //
		{"/src/checkout/agent/./bpf/probe.c", "agent/bpf/probe.c"},
		{"probe.c", ""}, {"/build/1/agent/bpf/probe.c", ""}, // of another machine
		{"/usr/include/linux/bpf.h", ""}, {"../../other/lib/util.h", ""}, {"include", ""}, {"", ""},
	} {
		l, ok := at.line(&check.Source{File: test.file, Line: 3})
		qt.Check(t, qt.Equals(ok, test.uri != ""), qt.Commentf("%s", test.file))
		qt.Check(t, qt.Equals(l.Physical.Artifact.URI, test.uri), qt.Commentf("%s", test.file))
	}
	qt.Check(t, qt.Equals(at.object("../build/a b.o").Physical.Artifact.URI, "build/a%20b.o"))
	qt.Check(t, qt.Equals(at.object("/elsewhere/a b.o").Physical.Artifact.URI, "a%20b.o"))
}

// Each program is a case, and what does not load fails with its rule; what is hostile in a name is
// not for a terminal to obey.
func TestJUnit(t *testing.T) {
	var b bytes.Buffer
	qt.Assert(t, qt.IsNil(JUnit(&b, checks())))
	var got struct {
		Suites []struct {
			Name  string `xml:"name,attr"`
			Cases []struct {
				Name    string `xml:"name,attr"`
				Failure *struct {
					Message string `xml:"message,attr"`
					Type    string `xml:"type,attr"`
				} `xml:"failure"`
				Error *struct {
					Message string `xml:"message,attr"`
				} `xml:"error"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	qt.Assert(t, qt.IsNil(xml.Unmarshal(b.Bytes(), &got)))
	qt.Assert(t, qt.HasLen(got.Suites, 4))
	http := got.Suites[0].Cases
	qt.Assert(t, qt.HasLen(http, 2))
	qt.Check(t, qt.Equals(http[0].Failure.Type, "BLIND001"))
	qt.Check(t, qt.StringContains(http[0].Failure.Message, "need the offset 38755, and 16 bits reach 32767"))
	qt.Check(t, qt.IsNil(http[1].Failure))
	qt.Check(t, qt.Equals(got.Suites[2].Cases[0].Error.Message, "not an ELF object"))
	qt.Check(t, qt.IsFalse(strings.Contains(b.String(), "\x1b")))
}
