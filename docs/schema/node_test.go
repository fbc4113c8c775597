// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/internal/hostinfo/audit"
	"github.com/bpfwhy/bpfwhy/internal/hostinfo/probe"
	"github.com/bpfwhy/bpfwhy/internal/objects/preflight"
	"github.com/bpfwhy/bpfwhy/internal/output/render"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/go-quicktest/qt"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// nodeDiff is the shape of what 'node diff --json' writes; the command's own test holds its output
// against the schema.
type nodeDiff struct {
	Schema      string            `json:"schema"`
	A           side              `json:"a"`
	B           side              `json:"b"`
	Differences []node.Difference `json:"differences"`
	Failures    []failure         `json:"failures,omitempty"`
	More        int               `json:"more_failures,omitempty"`
}

type side struct {
	Source  string `json:"source"`
	Release string `json:"release"`
}

type failure struct {
	Rule    string              `json:"rule"`
	Title   string              `json:"title"`
	Program string              `json:"program,omitempty"`
	Comm    string              `json:"comm"`
	Errno   int                 `json:"errno"`
	Count   int                 `json:"count"`
	By      []explain.NodeCause `json:"explained_by"`
}

func wholeNode() node.Document {
	n := uint64(65536)
	return node.Document{Schema: node.Schema, Profile: node.Profile{
		Release: "6.1.0", Version: "#1", Machine: "x86_64", Distro: "Debian", Config: map[string]string{"CONFIG_BPF": "y"}, ConfigSource: "kallsyms",
		Sysctls: map[string]string{"net.core.bpf_jit_harden": "2"}, Lockdown: "integrity", LSMs: []string{"bpf"}, BTF: true, CgroupV2: true, CgroupV1: true,
		JITUsed: &n, Container: "docker", Process: &node.Process{Capabilities: []string{"CAP_BPF"}, InitialUser: true, Seccomp: "filter", Memlock: &n},
		Features: &node.Features{Programs: map[string]bool{"xdp": true}, Maps: map[string]bool{"hash": false}, Helpers: map[string][]string{"xdp": {"bpf_loop"}},
			Instructions: map[string]bool{"v4": true}},
		Blinding: &node.Blinding{WholeProgram: true, From: "BTF"}, Interpreter: &node.Interpreter{Refuses: true, From: "BTF"}, Proven: map[node.Behaviour]node.Proof{node.ChecksWrap: {Does: true, Seen: "s"}}, Unknown: map[string]string{"lsms": "why"},
	}}
}

func wholeProof() probe.Proof {
	return probe.Proof{Schema: probe.ProofSchema, Bpfwhy: "v1", Node: wholeNode(),
		Hooks: []trace.Hook{{Function: load.FnCheck, Symbol: "bpf_check", Via: "fentry", Why: "w"}},
		Rows:  []probe.Row{{Name: node.ChecksWrap, Table: "unknown", Seen: "no", How: "h"}}}
}

func wholePreflight() preflight.Report {
	return preflight.Report{Schema: preflight.Schema, Release: "6.1", Verdict: preflight.Fail, Warned: 1, Lines: []preflight.Line{
		{Need: "n", Verdict: preflight.Warn, Unknown: true, For: []string{"p"}, Why: "w", Rule: "BTF003", Do: "d", Command: "c"}}}
}

func wholeDiff() nodeDiff {
	d := node.Difference{Name: "lockdown", A: "none", B: "integrity", Effect: node.Decides, Rules: []string{"PERM004"}, Why: "w"}
	return nodeDiff{Schema: "bpfwhy.node-diff/v1", A: side{"a.json", "6.1"}, B: side{"b.json", "6.1"}, Differences: []node.Difference{d}, More: 1,
		Failures: []failure{{Rule: "PERM004", Title: "t", Program: "p", Comm: "c", Errno: 22, Count: 1,
			By: []explain.NodeCause{{Difference: d, Rule: "PERM004", Sure: true, Because: "b"}}}}}
}

func wholeAudit() audit.Report {
	yes, n, u, l, h := true, -1, uint64(4096), int64(1<<30), 2
	fate := audit.Fate{Outcome: audit.Fails, Rule: "BLIND001", Blinded: &yes, Margin: &n, After: 9, Time: 5, Jump: &audit.Jump{From: 1, To: 9, Need: 32768, Limit: 32767}, Why: "w", Danger: "d"}
	return audit.Report{Schema: audit.Schema, Time: time.Date(2026, 11, 22, 13, 0, 0, 1, time.UTC), Release: "6.1", Harden: &h,
		Summary: audit.Summary{CanHarden: audit.No, Sentence: "No.", Programs: 1, Judged: 1, JITed: 1, Blinded: 1,
			At1: map[audit.Outcome]int{audit.JITed: 1}, At2: map[audit.Outcome]int{audit.Fails: 1}, Time: 5, Vanished: 1, Left: 1},
		Remedies: []load.Remedy{{ID: "r", Title: "t", Price: "p", Command: "c"}},
		Memory:   audit.Memory{Used: &u, Limit: &l, Programs: 9, Top: []audit.Share{{Owner: "a", Programs: 1, Bytes: 9}}},
		Programs: []audit.Program{{ID: 1, Name: "p\x1b", Type: "xdp", Tag: "00", UID: 0, Insns: 2, Functions: 1, JITed: true, JITedBytes: 9, Blinded: &yes,
			Owners:     []audit.Owner{{PID: 1, Comm: "c", Exe: "/e", UID: 0, Container: "docker://1", Runtime: load.RuntimeGo, Holds: "program"}},
			MoreOwners: 1, Pins: []string{"/sys/fs/bpf/p"}, Links: []audit.Link{{ID: 1, Type: "xdp"}}, At1: fate, At2: fate, Unread: "u", Danger: "d"}},
		Unseen: []string{"x"}}
}

// reports are the documents besides load-v2, with what each definition of their schema describes.
func reports() map[string]struct {
	full  any
	empty any
	defs  map[string]any
} {
	type report = struct {
		full, empty any
		defs        map[string]any
	}
	a := wholeAudit()
	return map[string]struct {
		full  any
		empty any
		defs  map[string]any
	}{
		"node-v1": report{wholeNode(), node.Document{Schema: node.Schema},
			map[string]any{"process": node.Process{}, "features": node.Features{}, "blinding": node.Blinding{}, "interpreter": node.Interpreter{}, "proof": node.Proof{}}},
		"prove-v1": report{wholeProof(), probe.Proof{Schema: probe.ProofSchema, Node: node.Document{Schema: node.Schema}, Hooks: []trace.Hook{}, Rows: []probe.Row{}},
			map[string]any{"hook": trace.Hook{}, "row": probe.Row{}}},
		"preflight-v1": report{wholePreflight(), preflight.Report{Schema: preflight.Schema, Verdict: preflight.Pass,
			Lines: []preflight.Line{{Need: "n", Verdict: preflight.Pass, Why: "w"}}}, map[string]any{"line": preflight.Line{}}},
		"node-diff-v1": report{wholeDiff(), nodeDiff{Schema: "bpfwhy.node-diff/v1", Differences: []node.Difference{}},
			map[string]any{"side": side{}, "difference": node.Difference{}, "failure": failure{}, "cause": explain.NodeCause{}}},
		"audit-v2": report{a, audit.Report{Schema: audit.Schema, Programs: []audit.Program{}, Memory: audit.Memory{Top: []audit.Share{}},
			Summary: audit.Summary{CanHarden: audit.Nothing, At1: map[audit.Outcome]int{}, At2: map[audit.Outcome]int{}}},
			map[string]any{"summary": a.Summary, "remedy": load.Remedy{}, "memory": a.Memory, "share": audit.Share{}, "program": audit.Program{}, "owner": audit.Owner{},
				"link": audit.Link{}, "fate": audit.Fate{}, "jump": audit.Jump{}}},
	}
}

func TestReports(t *testing.T) {
	for name, r := range reports() {
		t.Run(name, func(t *testing.T) {
			c := jsonschema.NewCompiler()
			c.AssertFormat()
			s, err := c.Compile(name + ".schema.json")
			qt.Assert(t, qt.IsNil(err))
			for _, v := range []any{r.full, r.empty} {
				var b bytes.Buffer
				qt.Assert(t, qt.IsNil(render.JSON(&b, v)))
				parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(b.Bytes()))
				qt.Assert(t, qt.IsNil(err))
				qt.Check(t, qt.IsNil(s.Validate(parsed)), qt.Commentf("%s", b.Bytes()))
				// Without any one of what is required, and of another schema, it is refused.
				for _, spoil := range spoilt(parsed.(map[string]any), s.Required) {
					qt.Check(t, qt.IsNotNil(s.Validate(spoil)))
				}
			}
			everyField(t, name, r.full, r.defs)
		})
	}
}

func spoilt(doc map[string]any, required []string) []map[string]any {
	var out []map[string]any
	copied := func() map[string]any {
		c := map[string]any{}
		for k, v := range doc {
			c[k] = v
		}
		out = append(out, c)
		return c
	}
	for _, k := range required {
		delete(copied(), k)
	}
	copied()["schema"] = "bpfwhy.other/v1"
	return out
}

// everyField compares a report and its parts with their definitions.
func everyField(t *testing.T, name string, root any, types map[string]any) {
	t.Helper()
	b, err := os.ReadFile(name + ".schema.json")
	qt.Assert(t, qt.IsNil(err))
	var schema struct {
		object
		Defs map[string]object `json:"$defs"`
	}
	qt.Assert(t, qt.IsNil(json.Unmarshal(b, &schema)))
	sameFields(t, name, schema.object, root)
	for def, o := range schema.Defs {
		if len(o.Properties) == 0 {
			continue // a plain value
		}
		if v, ok := types[def]; qt.Check(t, qt.IsTrue(ok), qt.Commentf("definition %s of %s has no type", def, name)) {
			sameFields(t, def+" of "+name, o, v)
		}
	}
}
