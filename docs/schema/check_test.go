// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"

	"github.com/bpfwhy/bpfwhy/internal/objects/check"
	"github.com/bpfwhy/bpfwhy/internal/output/render"
	"github.com/go-quicktest/qt"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

const checkFile = "check-v1.schema.json"

func wholeCheck() check.Report {
	line := &check.Source{File: "a.c", Line: 3, Text: "if (x)"}
	r := check.Report{Schema: check.Schema, Harden: 2, Kernel: "any", Objects: []check.Object{
		{Path: "a.o", Programs: []check.Program{{
			Name: "p", Section: "xdp", Verdict: check.Fails, Rule: "BLIND001", Unprivileged: check.Wraps, Insns: 9, Blinded: 20, Functions: 1,
			Margin: -3, WorstMargin: -9, Added: 6, Confidence: check.Likely, BlindingNS: 7, TooFar: 1,
			AlsoPossible: "a", Danger: "d", Jump: &check.Jump{Function: "p", From: 1, To: 8, Insn: "goto", Need: 32770, Limit: 32767, Source: line, Target: line},
		}}},
		{Path: "b.o", Error: "not an ELF object", Programs: []check.Program{}},
	}}
	r.Count()
	return r
}

func validate(t *testing.T, r *check.Report) error {
	t.Helper()
	s, err := jsonschema.NewCompiler().Compile(checkFile)
	qt.Assert(t, qt.IsNil(err))
	var b bytes.Buffer
	qt.Assert(t, qt.IsNil(render.JSON(&b, r)))
	v, err := jsonschema.UnmarshalJSON(&b)
	qt.Assert(t, qt.IsNil(err))
	return s.Validate(v)
}

func TestCheck(t *testing.T) {
	r := wholeCheck()
	qt.Assert(t, qt.IsNil(validate(t, &r)))
	tests := map[string]func(r *check.Report){
		"other schema":           func(r *check.Report) { r.Schema = "bpfwhy.check/v2" },
		"harden 3":               func(r *check.Report) { r.Harden = 3 },
		"no objects":             func(r *check.Report) { r.Objects = nil },
		"no programs":            func(r *check.Report) { r.Objects[1].Programs = nil },
		"failure without a rule": func(r *check.Report) { r.Objects[0].Programs[0].Rule = "" },
		"failure without a jump": func(r *check.Report) { r.Objects[0].Programs[0].Jump = nil },
		"rule of what loads":     func(r *check.Report) { r.Objects[0].Programs[0].Verdict = check.Loads },
		"unknown verdict":        func(r *check.Report) { r.Objects[0].Programs[0].Verdict = "maybe" },
		"unknown confidence":     func(r *check.Report) { r.Objects[0].Programs[0].Confidence = "" },
		"impossible limit":       func(r *check.Report) { r.Objects[0].Programs[0].Jump.Limit = 32768 },
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			r := wholeCheck()
			spoil(&r)
			qt.Assert(t, qt.IsNotNil(validate(t, &r)))
		})
	}
}

// TestCheckFields: each struct has exactly the properties of its definition, and what is always
// written is required.
func TestCheckFields(t *testing.T) {
	b, err := os.ReadFile(checkFile)
	qt.Assert(t, qt.IsNil(err))
	var root struct {
		object
		Defs map[string]object `json:"$defs"`
	}
	qt.Assert(t, qt.IsNil(json.Unmarshal(b, &root)))
	root.Defs["report"] = root.object
	tests := map[string]any{"report": check.Report{}, "summary": check.Summary{}, "object": check.Object{}, "program": check.Program{},
		"jump": check.Jump{}, "source": check.Source{}}
	qt.Assert(t, qt.Equals(len(root.Defs), len(tests)))
	for name, v := range tests {
		sameFields(t, name, root.Defs[name], v)
	}
}
