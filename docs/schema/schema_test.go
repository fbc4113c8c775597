// SPDX-License-Identifier: Apache-2.0

// Package schema checks that the published JSON schema and the Go types say the same.
package schema

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/output/render"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/go-quicktest/qt"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

const (
	file   = "load-v2.schema.json"
	fileV1 = "load-v1.schema.json"
)

func compile(t *testing.T, file string) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	s, err := c.Compile(file)
	qt.Assert(t, qt.IsNil(err))
	return s
}

func encode(t *testing.T, line any) any {
	t.Helper()
	var b bytes.Buffer
	qt.Assert(t, qt.IsNil(render.JSON(&b, line)))
	v, err := jsonschema.UnmarshalJSON(&b)
	qt.Assert(t, qt.IsNil(err))
	return v
}

func base(kind load.Kind) load.Attempt {
	return load.Attempt{
		Schema:      load.Schema,
		Kind:        kind,
		Time:        time.Date(2026, 11, 22, 13, 0, 0, 123456789, time.UTC),
		DurationNS:  1500,
		Process:     load.Process{PID: 10, TID: 11, Comm: "agent"},
		Outcome:     load.Loaded,
		Stages:      []load.StageResult{},
		VerifierLog: load.VerifierLog{Origin: load.LogNone},
	}
}

// everything sets each field, so that a type that the schema does not expect anywhere is found.
func everything() load.Attempt {
	yes := true
	a := base(load.ProgLoad)
	a.Outcome, a.Errno, a.ErrnoName = load.Failed, 524, "ENOTSUPP"
	a.Process = load.Process{PID: 4242, TID: 4243, PIDInNS: 7, UID: 65534, GID: 65534, Comm: "agent\x1b", Exe: "/usr/bin/agent",
		Cgroups:   []load.Cgroup{{Version: 2, ID: 1<<63 + 1, Name: "kubepods/pod1"}, {Version: 1, ID: 3}},
		Container: "containerd://0123", Runtime: load.RuntimeGo}
	a.Program = &load.Program{Name: "http", Type: "socket_filter", AttachType: "cgroup_inet_ingress", Insns: 19316, License: "GPL",
		ID: 4, Tag: "0123456789abcdef", JITed: &yes, Blinded: &yes, JITedBytes: 8, VerifiedInsns: 9}
	a.Map = &load.Map{Name: "m", Type: "hash", KeySize: 4, ValueSize: 8, MaxEntries: 1, Flags: 1}
	for _, s := range load.Stages {
		a.Stages = append(a.Stages, load.StageResult{Stage: s, Result: load.NotObserved})
	}
	a.Stages[5] = load.StageResult{Stage: load.Blinding, Result: load.StageFailed, Errno: 34, DurationNS: 4}
	a.FailedStage, a.Retries = load.Blinding, 3
	a.Incomplete, a.IncompleteWhy = true, []string{"ring: 3 events lost"}
	a.VerifierLog = load.VerifierLog{Origin: load.LogLoader, Lines: []string{"processed 1 insns"}, Truncated: true}
	a.Jump = &load.Jump{From: 1, To: 19000, FromSource: "a.c:1", ToSource: "a.c:2", FromText: "if (x)", ToText: "return", Insn: "goto",
		Need: 38755, Limit: 32767, Before: 19316, After: 40000, Approximate: true}
	a.Diagnosis = &load.Diagnosis{Rule: "BLIND001", Title: "t", Danger: "d", Cause: "c", HowKnown: load.Observed, Evidence: []string{"e"},
		Alternatives: []load.Alternative{{Rule: "JIT001", Title: "t", Why: "w"}},
		Remedies:     []load.Remedy{{ID: "islands", Title: "t", Price: "p", Command: "c"}}}
	a.Replay = &load.Replay{Verdict: load.ReplayNotReproduced, Why: "w", Kernel: "6.1", Harden: -1, Notes: []string{"n"},
		Original: &load.Trial{Outcome: load.Failed, Errno: 524, ErrnoName: "ENOTSUPP", DurationNS: 1, Insns: 32283},
		Repaired: &load.Trial{Outcome: load.Loaded, DurationNS: 1, Insns: 32285, JITedBytes: 4096, Islands: 1}}
	a.Repair = &load.Repair{Applied: load.RepairWindow, Islands: 1, InsnsAdded: 2, WindowNS: 250 * time.Microsecond, Exposed: []uint32{7}}
	a.Backend, a.FeatureProbe = "fentry", "haveObjName"
	a.Group = "0123456789ab"
	a.Attach = &load.Attach{Type: "cgroup_inet_ingress", Flags: 2, Message: "Device or resource busy",
		Program: &load.AttachProgram{ID: 4, Name: "http", Type: "cgroup_skb", AttachType: "cgroup_inet_ingress", Tag: "0123456789abcdef",
			MaxCtxOffset: 24, Insns: 31, Overrides: true},
		Target: &load.AttachTarget{Kind: "cgroup", Name: "pod1", Path: "/sys/fs/cgroup/kubepods/pod1", ID: 1<<63 + 1, Offset: 8, Parent: "ffff:fff2", Size: 24}}
	a.Growth = &load.Growth{Before: 2, After: 5, Parts: []load.GrowthPart{{Insn: 0, Before: 1, After: 4}, {Insn: 1, Before: 1, After: 1}}}
	a.KernelLog = []string{"trace_kprobe: Could not probe notrace function x"}
	a.Lines = []load.Line{{Insn: 0, File: "a.c", Line: 1, Text: "if (x)", Before: 1, After: 4}}
	return a
}

// repeats and lost set each field of the lines that are no attempts.
func repeats() load.Summary {
	a := everything()
	return load.Summary{Schema: load.Schema, Kind: load.KindSummary, Time: a.Time, Of: a.Kind, Group: a.Group, Process: a.Process, Program: a.Program,
		Map: a.Map, Outcome: a.Outcome, Errno: a.Errno, ErrnoName: a.ErrnoName, FailedStage: a.FailedStage, Rule: "BLIND001", Repeats: 3, Retries: 2,
		Incomplete: 1, First: a.Time, Last: a.Time.Add(time.Second)}
}

func lost() load.Loss {
	return load.Loss{Schema: load.Schema, Kind: load.KindLoss, Time: everything().Time, Loads: 7, Events: map[string]uint64{"ring buffer full": 3},
		Unknown: []string{"recursion in fentry_sys_bpf"}}
}

func hangs() load.Hang {
	a := everything()
	return load.Hang{Schema: load.Schema, Kind: load.KindHang, Time: a.Time, Calls: 2, Unsure: 1, AfterNS: 30 * time.Second, Since: a.Time, OldestNS: 31 * time.Second,
		Earlier: true, Diagnosis: a.Diagnosis, Places: []load.HangPlace{{Calls: 2, Functions: []string{"mutex_lock", "bpf_prog_pack_alloc.isra.0"}, From: "stack",
			What: []load.Kind{load.ProgLoad, load.Seccomp}, Processes: []load.Process{a.Process}}}}
}

func stories() load.Story {
	a := everything()
	return load.Story{Schema: load.Schema, Kind: load.KindStory, Time: a.Time, Process: a.Process, First: a.Time, Last: a.Time.Add(time.Second),
		Maps: load.Tally{OK: 2, Of: 2}, Programs: load.Tally{OK: 31, Of: 31}, Attached: load.Tally{OK: 30, Of: 31}, NotJITed: 1, MoreFailures: 1,
		Trivial: 2, Unattached: []string{"http"}, MoreUnattached: 1, Unseen: []load.Kind{load.TCAttach},
		Failures: []load.StoryFailure{{Of: load.LinkCreate, Name: "http", Target: "eth0", Errno: 16, ErrnoName: "EBUSY", Rule: "ATT304", Title: "Another program is on the device"}}}
}

// attempts are one of each kind.
func attempts() []load.Attempt {
	out := []load.Attempt{everything()}
	for _, k := range []load.Kind{load.MapCreate, load.BTFLoad, load.LinkCreate, load.ProgAttach, load.RawTPOpen, load.TokenCreate,
		load.Seccomp, load.SocketFilter, load.OtherCommand} {
		out = append(out, base(k))
	}
	notJITed := base(load.ProgLoad)
	notJITed.Program = &load.Program{Type: "xdp"}
	notJITed.Outcome, notJITed.FailedStage = load.LoadedNotJITed, load.Blinding
	return append(out, notJITed)
}

func TestEncodedLines(t *testing.T) {
	s := compile(t, file)
	for _, a := range attempts() {
		qt.Check(t, qt.IsNil(s.Validate(encode(t, &a))))
	}
	perf := base("perf_event_open") // a kind to come
	perf.Attach = &load.Attach{Target: &load.AttachTarget{Kind: "lirc_device"}}
	none := lost()
	none.Loads, none.Events = 0, map[string]uint64{}
	for name, line := range map[string]any{
		"summary": repeats(), "loss": lost(), "loss without a number": none, "attempt of a kind to come": &perf,
		"story": stories(), "hang": hangs(), "hang that has ended": load.Hang{Schema: load.Schema, Kind: load.KindHang, Time: perf.Time, Since: perf.Time, Places: []load.HangPlace{}},
		"line of a kind to come": map[string]any{"schema": load.Schema, "kind": "news", "time": perf.Time, "loads": "many"},
	} {
		qt.Check(t, qt.IsNil(s.Validate(encode(t, line))), qt.Commentf("%s", name))
	}
}

// TestV1: the old form is what it was, byte for byte. The golden file was written by the last
// version that knew no other.
func TestV1(t *testing.T) {
	s := compile(t, fileV1)
	want, err := os.ReadFile("testdata/load-v1.jsonl")
	qt.Assert(t, qt.IsNil(err))
	var got bytes.Buffer
	for _, a := range attempts() {
		old, ok := render.V1(&a)
		qt.Assert(t, qt.IsTrue(ok))
		qt.Assert(t, qt.IsNil(render.JSON(&got, old)))
		qt.Check(t, qt.IsNil(s.Validate(encode(t, old))))
		qt.Check(t, qt.IsNotNil(s.Validate(encode(t, &a)))) // v2 does not pass for it
	}
	qt.Check(t, qt.Equals(got.String(), string(want)))
	perf := base("perf_event_open")
	_, ok := render.V1(&perf)
	qt.Check(t, qt.IsFalse(ok)) // its list of kinds is closed
}

func TestRefuses(t *testing.T) {
	s := compile(t, file)
	tests := map[string]func(a *load.Attempt){
		"prog_load without a program":    func(a *load.Attempt) { a.Program = nil },
		"failed without errno":           func(a *load.Attempt) { a.Errno = 0 },
		"negative errno":                 func(a *load.Attempt) { a.Errno = -524 },
		"loaded with errno":              func(a *load.Attempt) { a.Outcome = load.Loaded },
		"kind that is no word":           func(a *load.Attempt) { a.Kind = "x y" },
		"unknown kind that is not whole": func(a *load.Attempt) { a.Kind, a.Stages = "perf_event_open", nil },
		"unknown stage":                  func(a *load.Attempt) { a.FailedStage = "x" },
		"unknown result":                 func(a *load.Attempt) { a.Stages[0].Result = "x" },
		"other schema":                   func(a *load.Attempt) { a.Schema = load.SchemaV1 },
		"stages null":                    func(a *load.Attempt) { a.Stages = nil },
		"no origin":                      func(a *load.Attempt) { a.VerifierLog.Origin = "" },
		"evidence null":                  func(a *load.Attempt) { a.Diagnosis.Evidence = nil },
		"unknown verdict":                func(a *load.Attempt) { a.Replay.Verdict = "x" },
		"cgroup of version 3":            func(a *load.Attempt) { a.Process.Cgroups[0].Version = 3 },
		"no group":                       func(a *load.Attempt) { a.Group = "x" },
		"target without a kind":          func(a *load.Attempt) { a.Attach.Target.Kind = "" },
		"too many lines":                 func(a *load.Attempt) { a.Lines = slices.Repeat(a.Lines, load.MaxLines+1) },
		"too many parts":                 func(a *load.Attempt) { a.Growth.Parts = slices.Repeat(a.Growth.Parts, load.MaxGrowthParts) },
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			a := everything()
			qt.Assert(t, qt.IsNil(s.Validate(encode(t, &a))))
			spoil(&a)
			qt.Assert(t, qt.IsNotNil(s.Validate(encode(t, &a))))
		})
	}
	for name, spoil := range map[string]func(h *load.Hang){
		"hang without a diagnosis": func(h *load.Hang) { h.Diagnosis = nil },
		"hang without places":      func(h *load.Hang) { h.Places = nil },
		"hang at an address":       func(h *load.Hang) { h.Places[0].Functions[0] = "0xffffffff81000000" },
	} {
		h := hangs()
		spoil(&h)
		qt.Check(t, qt.IsNotNil(s.Validate(encode(t, h))), qt.Commentf("%s", name))
	}
	for name, spoil := range map[string]func(r *load.Summary){
		"summary of nothing":    func(r *load.Summary) { r.Repeats = 0 },
		"summary of successes":  func(r *load.Summary) { r.Outcome = load.Loaded },
		"summary without group": func(r *load.Summary) { r.Group = "" },
		"summary of no kind":    func(r *load.Summary) { r.Of = "" },
		"summary by name of v1": func(r *load.Summary) { r.Schema = load.SchemaV1 },
	} {
		r := repeats()
		spoil(&r)
		qt.Check(t, qt.IsNotNil(s.Validate(encode(t, r))), qt.Commentf("%s", name))
	}
	st := stories()
	st.Failures[0].Errno = 0
	qt.Check(t, qt.IsNotNil(s.Validate(encode(t, st))))
	l := lost()
	l.Events = nil
	qt.Check(t, qt.IsNotNil(s.Validate(encode(t, l))))
}

// object is the part of a schema that names properties.
type object struct {
	Properties map[string]json.RawMessage `json:"properties"`
	Required   []string                   `json:"required"`
}

// TestEveryField: each struct has exactly the properties of its definition, and what is always
// written is required.
func TestEveryField(t *testing.T) {
	b, err := os.ReadFile(file)
	qt.Assert(t, qt.IsNil(err))
	var root struct {
		object
		Defs map[string]object `json:"$defs"`
	}
	qt.Assert(t, qt.IsNil(json.Unmarshal(b, &root)))
	tests := map[string]any{
		"stage_result": load.StageResult{}, "process": load.Process{}, "cgroup": load.Cgroup{}, "program": load.Program{},
		"map": load.Map{}, "verifier_log": load.VerifierLog{}, "jump": load.Jump{}, "diagnosis": load.Diagnosis{},
		"alternative": load.Alternative{}, "remedy": load.Remedy{}, "replay": load.Replay{}, "trial": load.Trial{}, "repair": load.Repair{},
		"attempt": load.Attempt{}, "summary": load.Summary{}, "loss": load.Loss{}, "hang": load.Hang{}, "hang_place": load.HangPlace{}, "story": load.Story{}, "tally": load.Tally{}, "story_failure": load.StoryFailure{}, "attach": load.Attach{}, "attach_program": load.AttachProgram{},
		"attach_target": load.AttachTarget{}, "growth": load.Growth{}, "growth_part": load.GrowthPart{}, "line": load.Line{},
	}
	for name := range root.Defs {
		if !slices.Contains([]string{"stage", "kind", "group"}, name) {
			qt.Check(t, qt.IsNotNil(tests[name]), qt.Commentf("definition %s has no type", name))
		}
	}
	delete(root.Defs["attempt"].Properties, "demo") // beside the attempt, by the demo alone
	for name, v := range tests {
		sameFields(t, name, root.Defs[name], v)
	}
}

// sameFields: a struct has exactly the properties of its definition, and what is always written is
// required.
func sameFields(t *testing.T, name string, o object, v any) {
	t.Helper()
	var fields, required []string
	for _, f := range flat(reflect.TypeOf(v)) {
		key, rest, _ := strings.Cut(f.Tag.Get("json"), ",")
		if key == "-" {
			continue
		}
		fields = append(fields, key)
		if !strings.Contains(rest, "omitempty") {
			required = append(required, key)
		}
	}
	slices.Sort(fields)
	slices.Sort(required)
	qt.Check(t, qt.Equals(cmp.Diff(slices.Sorted(maps.Keys(o.Properties)), fields), ""), qt.Commentf("%s", name))
	qt.Check(t, qt.Equals(cmp.Diff(slices.Sorted(slices.Values(o.Required)), required), ""), qt.Commentf("required of %s", name))
}

// flat lists the exported fields, those of embedded structs among them.
func flat(t reflect.Type) []reflect.StructField {
	var out []reflect.StructField
	for f := range t.Fields() {
		switch {
		case f.Anonymous:
			out = append(out, flat(f.Type)...)
		case f.IsExported():
			out = append(out, f)
		}
	}
	return out
}
