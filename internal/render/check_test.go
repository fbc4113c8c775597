// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/check"
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

// TestSARIF holds the log against the part of the standard that it uses. All of it was held against the standard's schema
// (OASIS, sarif-schema-2.1.0.json) when it was written.
func TestSARIF(t *testing.T) {
	var b bytes.Buffer
	qt.Assert(t, qt.IsNil(SARIF(&b, checks(), Checkout{Dir: "/src/checkout", Version: "v1.2.3"})))
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
	qt.Assert(t, qt.IsNil(SARIF(&b, again, Checkout{Dir: "/src/checkout"})))
	var moved sarifLog
	qt.Assert(t, qt.IsNil(json.Unmarshal(b.Bytes(), &moved)))
	qt.Assert(t, qt.DeepEquals(moved.Runs[0].Results[0].Fingerprints, fails.Fingerprints))
	qt.Assert(t, qt.Not(qt.DeepEquals(fails.Fingerprints, wraps.Fingerprints)))
}
