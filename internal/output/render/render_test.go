// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/output/text"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/go-quicktest/qt"
	"github.com/google/go-cmp/cmp"
	"github.com/mattn/go-runewidth"
)

var update = flag.Bool("update", false, "write testdata anew")

var at = time.Date(2026, 11, 22, 14, 3, 7, 123456789, time.UTC)

func pointer[T any](v T) *T { return &v }

// attempts are those whose look matters. They are made up, so that rules may change their words.
func attempts() map[string]*load.Attempt {
	agent := load.Process{PID: 4242, TID: 4243, PIDInNS: 7, UID: 0, Comm: "agent", Exe: "/usr/bin/agent", Container: "containerd://0123456789ab"}
	return map[string]*load.Attempt{
		"loaded": {
			Kind: load.ProgLoad, Time: at, DurationNS: 12345 * time.Microsecond, Process: agent, Outcome: load.Loaded,
			Program: &load.Program{Name: "count", Type: "kprobe", Insns: 12, ID: 7, JITed: pointer(true), Blinded: pointer(false)},
			Stages: []load.StageResult{{Stage: load.Request, Result: load.OK}, {Stage: load.Verifier, Result: load.OK, DurationNS: 850 * time.Microsecond},
				{Stage: load.JIT, Result: load.OK}, {Stage: load.Install, Result: load.OK}},
			Evidence: load.Evidence{Calls: []load.Call{{Ret: 9}}},
		},
		"blinding": {
			Kind: load.ProgLoad, Time: at, DurationNS: 2 * time.Second, Process: agent, Outcome: load.Failed, Errno: 524, ErrnoName: "ENOTSUPP",
			Program: &load.Program{Name: "http_filter", Type: "socket_filter", Insns: 19316},
			Stages: []load.StageResult{{Stage: load.Request, Result: load.OK}, {Stage: load.Verifier, Result: load.OK, DurationNS: 12 * time.Millisecond},
				{Stage: load.Blinding, Result: load.StageFailed, Errno: 34, DurationNS: 1900 * time.Millisecond}, {Stage: load.JIT, Result: load.NotObserved}},
			FailedStage: load.Blinding, Retries: 2,
			Jump: &load.Jump{From: 14, To: 19310, FromSource: "parser.c:118", FromText: "\tif (c == '\\r')", ToSource: "parser.c:240",
				ToText: "return 0;", Insn: "if r1 == 0xd goto +19295", Need: 38755, Limit: 32767, Before: 19316, After: 51234},
			Diagnosis: &load.Diagnosis{Rule: "BLIND001", Title: "Constant blinding pushes a jump out of range", HowKnown: load.Observed,
				Cause:        strings.Repeat("Each instruction with a constant becomes three. ", 4),
				Evidence:     []string{"net.core.bpf_jit_harden is 2", "bpf_patch_insn_single returned -34 for instruction 14"},
				Alternatives: []load.Alternative{{Rule: "JIT001", Title: "JIT memory limit", Why: "it returns the same errno"}},
				Remedies: []load.Remedy{{ID: "islands", Title: "Rewrite the far jumps", Price: "two instructions each"},
					{ID: "harden", Title: "Lower harden to 1", Price: "scanners want 2", Command: "sysctl -w net.core.bpf_jit_harden=1"}}},
			VerifierLog: load.VerifierLog{Origin: load.LogLoader, Lines: []string{"processed 19316 insns (limit 1000000)"}},
			Incomplete:  true, IncompleteWhy: []string{"ring: 3 events lost"},
		},
		"interpreter": {
			Kind: load.ProgLoad, Time: at, DurationNS: 90 * time.Microsecond, Process: load.Process{PID: 1, Comm: "systemd"}, Outcome: load.LoadedNotJITed,
			Program:     &load.Program{Type: "cgroup_device", Insns: 3, JITed: pointer(false)},
			Stages:      []load.StageResult{{Stage: load.Verifier, Result: load.NotObserved}, {Stage: load.JIT, Result: load.NotObserved}},
			FailedStage: load.JIT,
			Diagnosis:   &load.Diagnosis{Rule: "UNKNOWN", Title: "The evidence does not single out a cause", HowKnown: load.Inferred},
		},
		"hostile": {
			Kind: load.ProgLoad, Time: at, DurationNS: -5, Process: load.Process{PID: 1 << 30, Comm: "a\x1b[31mb\nc\u202ed\xff", Exe: "/tmp/\x07"}, Outcome: load.Failed,
			Errno: 22, ErrnoName: "EINVAL", Program: &load.Program{Name: "\x1b]0;owned\x07", Type: "type_77777777777777777777", Insns: 1000000000},
			VerifierLog: load.VerifierLog{Origin: load.LogKernel, Lines: []string{"R0 \x1b[2J invalid\u009b" + strings.Repeat("界", 300)}},
			Diagnosis: &load.Diagnosis{Rule: "X\x1b", Title: "\u2066t", Cause: strings.Repeat("x", 300), HowKnown: "\x1bhow", Evidence: []string{"\r\n\x00"},
				Remedies: []load.Remedy{{Title: "t\x1b", Price: "\x1b", Command: "a\x1b\nb\x1b"}}},
		},
		"seccomp": {
			Kind: load.Seccomp, Time: at, DurationNS: 30 * time.Microsecond, Process: agent, Outcome: load.Failed, Errno: 524, ErrnoName: "ENOTSUPP",
			Program: &load.Program{Type: "seccomp", Insns: 120}, Stages: []load.StageResult{{Stage: load.JIT, Result: load.StageFailed, Errno: 524}}, FailedStage: load.JIT,
		},
		"attach": {
			Kind: load.LinkCreate, Time: at, DurationNS: 30 * time.Microsecond, Process: agent, Outcome: load.Failed, Errno: 95, ErrnoName: "EOPNOTSUPP",
			Stages: []load.StageResult{{Stage: load.Request, Result: load.NotObserved}}, FailedStage: load.Request,
			Attach: &load.Attach{
				Type: "xdp", Flags: 4, Message: "Underlying driver does not support XDP in native mode",
				Program: &load.AttachProgram{ID: 31, Name: "filter", Type: "xdp", AttachType: "xdp", Tag: "a04f5eef06a7f555", MaxCtxOffset: 8},
				Target:  &load.AttachTarget{Kind: "netdev", Name: "eth0", ID: 2},
			},
		},
		"attach-tracepoint": {
			Kind: load.PerfEventSetBPF, Time: at, Process: agent, Outcome: load.Failed, Errno: 13, ErrnoName: "EACCES",
			Attach: &load.Attach{
				Program: &load.AttachProgram{Name: "on\x1b[2J_open", Type: "tracepoint", AttachType: "cgroup_inet_egress"},
				Target:  &load.AttachTarget{Kind: "tracepoint", Name: "syscalls/sys_enter_openat\u202e", Parent: "ffff:fff2", ID: 611, Size: 64, Offset: 0x10, Path: "/p\x07"},
			},
		},
		"attach-log": {
			Kind: load.PerfEventOpen, Time: at, Process: agent, Outcome: load.Failed, Errno: 22, ErrnoName: "EINVAL",
			Attach:    &load.Attach{Target: &load.AttachTarget{Kind: "function", Name: "do_x"}},
			KernelLog: []string{"trace_kprobe: Could not probe notrace function do_x", "usb 1-1: \x1b[2J\u202eproduct"},
		},
		"map": {
			Kind: load.MapCreate, Time: at, Process: agent, Outcome: load.Failed, Errno: 1, ErrnoName: "EPERM",
			Map: &load.Map{Name: "events", Type: "ringbuf", MaxEntries: 4096},
		},
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		qt.Assert(t, qt.IsNil(os.WriteFile(file, got, 0o644)))
		return
	}
	want, err := os.ReadFile(file)
	qt.Assert(t, qt.IsNil(err))
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Fatalf("%s (-want +got):\n%s", file, d)
	}
}

func TestExplain(t *testing.T) {
	for name, a := range attempts() {
		for suffix, width := range map[string]int{"": 100, "-narrow": 60} {
			t.Run(name+suffix, func(t *testing.T) {
				var b bytes.Buffer
				qt.Assert(t, qt.IsNil(NewText(&b, width, false).Explain(a)))
				golden(t, name+suffix+".txt", b.Bytes())
				harmless(t, b.String())
			})
		}
	}
}

func TestTable(t *testing.T) {
	for suffix, width := range map[string]int{"pipe": 0, "wide": 140, "medium": 110, "narrow": 80} {
		t.Run(suffix, func(t *testing.T) {
			var b bytes.Buffer
			text := NewText(&b, width, false)
			qt.Assert(t, qt.IsNil(text.Heading()))
			as := attempts()
			for _, name := range []string{"loaded", "blinding", "interpreter", "hostile", "seccomp", "map"} {
				qt.Assert(t, qt.IsNil(text.Line(as[name])))
			}
			golden(t, "table-"+suffix+".txt", b.Bytes())
			harmless(t, b.String())
			lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
			qt.Assert(t, qt.HasLen(lines, 7)) // one line each, whatever a name holds
			for _, l := range lines {
				if width > 0 {
					qt.Check(t, qt.IsTrue(runewidth.StringWidth(l) <= width), qt.Commentf("%q", l))
				}
			}
		})
	}
}

// harmless: nothing that a terminal obeys but the line feed.
func harmless(t *testing.T, s string) {
	t.Helper()
	for _, r := range s {
		if r != '\n' && !text.Printable(r) {
			t.Fatalf("%U in the output", r)
		}
	}
}

func TestColour(t *testing.T) {
	a := attempts()["blinding"]
	var plain, colour bytes.Buffer
	qt.Assert(t, qt.IsNil(NewText(&plain, 100, false).Line(a)))
	qt.Assert(t, qt.IsNil(NewText(&colour, 100, true).Line(a)))
	qt.Assert(t, qt.StringContains(colour.String(), "\x1b[31m"))
	qt.Assert(t, qt.Not(qt.StringContains(plain.String(), "\x1b")))
	// Colour adds escapes and changes nothing else.
	stripped := strings.NewReplacer("\x1b[31m", "", "\x1b[0m", "").Replace(colour.String())
	qt.Assert(t, qt.Equals(stripped, plain.String()))
}

func TestSummary(t *testing.T) {
	as := attempts()
	var s Summary
	for _, name := range []string{"loaded", "blinding", "interpreter", "seccomp"} {
		s.Add(as[name], true)
	}
	s.Add(as["blinding"], true)
	probe := *as["map"]
	probe.FeatureProbe = "haveX"
	s.Add(&probe, false)
	s.Add(as["loaded"], false)
	s.AddRepeat(as["blinding"])
	s.Lose(&trace.Loss{Mechanism: "ring", Count: 3})
	s.Lose(&trace.Loss{Mechanism: "ring", Count: 4})
	s.Lose(&trace.Loss{Mechanism: trace.LostLoads, Count: 2})
	s.Lose(&trace.Loss{Mechanism: "recursion in x\x1b", Unknown: true})
	s.Lose(&trace.Loss{Mechanism: "recursion in x\x1b", Unknown: true})
	qt.Assert(t, qt.IsFalse(s.Whole()))
	s.For = 34567 * time.Millisecond
	qt.Assert(t, qt.Equals(s.Attempts, 6))
	qt.Assert(t, qt.Equals(s.Failed, 4))
	qt.Assert(t, qt.Equals(s.Repeats, 1))
	qt.Assert(t, qt.DeepEquals(s.Rules, map[string]int{"BLIND001": 3, "UNKNOWN": 1}))
	var b bytes.Buffer
	qt.Assert(t, qt.IsNil(NewText(&b, 100, false).Summary(&s)))
	golden(t, "summary.txt", b.Bytes())
}

func TestRepeats(t *testing.T) {
	at := time.Date(2026, 11, 29, 1, 2, 3, 0, time.UTC)
	r := load.Summary{Program: &load.Program{Name: "http\x1b"}, Process: load.Process{PID: 7, Comm: "agent"}, Outcome: load.Failed, Errno: 524,
		ErrnoName: "ENOTSUPP", Rule: "BLIND001", Repeats: 1, First: at, Last: at}
	var b bytes.Buffer
	text := NewText(&b, 100, false)
	qt.Assert(t, qt.IsNil(text.Repeats(&r)))
	r.Repeats, r.Last, r.Outcome, r.Errno = 1234, at.Add(time.Hour), load.LoadedNotJITed, 0
	qt.Assert(t, qt.IsNil(text.Repeats(&r)))
	golden(t, "repeats.txt", b.Bytes())
}

func TestJSONIsHarmlessAndExact(t *testing.T) {
	for name, a := range attempts() {
		var b bytes.Buffer
		qt.Assert(t, qt.IsNil(JSON(&b, a)))
		harmless(t, b.String())
		qt.Assert(t, qt.Equals(strings.Count(b.String(), "\n"), 1), qt.Commentf("%s", name))
	}
	// Beyond the 16 bits of \u, beside what is printable.
	in := map[string]string{"k": "a\u202e\u009b\x7f\U000e0041é界\U0001f600<&>"}
	var b bytes.Buffer
	qt.Assert(t, qt.IsNil(JSON(&b, in)))
	qt.Assert(t, qt.Equals(b.String(), `{"k":"a\u202e\u009b\u007f\udb40\udc41é界`+"\U0001f600"+`<&>"}`+"\n"))
	var out map[string]string
	qt.Assert(t, qt.IsNil(json.Unmarshal(b.Bytes(), &out)))
	qt.Assert(t, qt.DeepEquals(out, in))
}

func FuzzWrap(f *testing.F) {
	f.Add("a few words", 8)
	f.Add("界界界界界界界界界", 3)
	f.Add("\xff\x1b"+strings.Repeat("x", 100), 10)
	f.Fuzz(func(t *testing.T, s string, width int) {
		width = min(max(width, -1), 200)
		in := text.Clean(s)
		lines := wrap(in, width)
		qt.Assert(t, qt.IsTrue(len(lines) > 0))
		for _, l := range lines {
			qt.Assert(t, qt.IsTrue(runewidth.StringWidth(l) <= max(width, 8)), qt.Commentf("%q", l))
		}
		// Nothing is lost but the space between words.
		squeeze := func(s string) string { return strings.Join(strings.Fields(s), "") }
		qt.Assert(t, qt.Equals(squeeze(strings.Join(lines, "")), squeeze(in)))
	})
}

func TestDuration(t *testing.T) {
	tests := map[time.Duration]string{
		0: "-", -1: "-", 500: "0us", 31 * time.Microsecond: "31us", 999999: "999us", 1234567: "1.2ms", 12 * time.Millisecond: "12ms",
		4830 * time.Millisecond: "4.8s", 200 * time.Second: "200s",
	}
	for d, want := range tests {
		qt.Check(t, qt.Equals(duration(d), want))
	}
}

// TestStory: a loader's start in a few lines, of which none is wider than the terminal, and whose
// names cannot steer it.
func TestStory(t *testing.T) {
	s := load.Story{Process: load.Process{Comm: "agent\x1b[2J", PID: 812, Exe: "/usr/bin/agent"}, Last: time.Time{}.Add(1200 * time.Millisecond),
		Maps: load.Tally{OK: 12, Of: 12}, Programs: load.Tally{OK: 31, Of: 31}, Attached: load.Tally{OK: 30, Of: 31}, MoreFailures: 2,
		Failures: []load.StoryFailure{{Of: load.PerfEventSetBPF, Name: "on_exec\x1b[2J", Target: "sched/sched_process_exec", Errno: 13, ErrnoName: "EACCES", Rule: "ATT001"}}}
	var b bytes.Buffer
	qt.Assert(t, qt.IsNil(NewText(&b, 80, false).Story(&s)))
	qt.Check(t, qt.Equals(b.String(), `STORY  agent\x1b[2J, pid 812, in 1.2s
  loader    /usr/bin/agent
  did       12 of 12 maps created, 31 of 31 programs loaded, 30 of 31 attached
  failed    - perf_event_set_bpf of on_exec\x1b[2J to sched/sched_process_exec:
              -13 EACCES, ATT001
            - and 2 more

`))
}
