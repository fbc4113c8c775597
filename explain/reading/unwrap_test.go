// SPDX-License-Identifier: Apache-2.0

package reading

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

const told = `load program: permission denied: 7: (71) r0 = *(u8 *)(r1 +0): R1 max value is outside of the allowed memory range (20 line(s) omitted)`

// wrappings are what one line of a program looks like after others have had it.
var wrappings = []struct{ name, raw string }{
	{"nothing", told},
	{"indented", "        " + told},
	{"tabs", "\t\t" + told},
	{"markdown quote", "> > " + told},
	{"bullet", "- " + told},
	{"page", "&gt; " + strings.ReplaceAll(told, "*", "*")},
	{"colours", "\x1b[31;1m" + told + "\x1b[0m"},
	{"colours as text", `\x1b[31m` + told + `\x1b[0m`},
	{"docker json-file", fmt.Sprintf(`{"log":%q,"stream":"stderr","time":"2026-01-02T03:04:05.678901234Z"}`, told+"\n")},
	{"CRI", "2026-01-02T03:04:05.678901234+01:00 stderr F " + told},
	{"compose", "agent-1  | " + told},
	{"kubectl", "[pod/agent-x7k2p/agent] " + told},
	{"stern", "agent-x7k2p agent " + told},
	{"stern with a time and JSON", `agent-x7k2p agent 2026-01-02T03:04:05Z {"level":"error","msg":` + strconv.Quote(told) + `}`},
	{"journal", "Jan 02 03:04:05 node-1 agent[4711]: " + told},
	{"journal, no time", "Jan 02 node-1 agent[1]: " + told},
	{"journal, another language", "Mär 26 23:57:12 H agent[1]: " + told},
	{"journal, ISO", "2026-01-02T03:04:05+0100 node-1 agent[4711]: " + told},
	{"journal, monotonic", "[  120.123456] node-1 agent[4711]: " + told},
	{"journal as JSON", fmt.Sprintf(`{"_HOSTNAME":"node-1","PRIORITY":"3","MESSAGE":%q,"_PID":"4711"}`, told)},
	{"syslog, RFC 5424", "<11>1 2026-01-02T03:04:05Z node-1 agent 4711 - - " + told},
	{"klog", "E0102 03:04:05.678901       1 main.go:42] " + told},
	{"klog, structured", `E0102 03:04:05.678901       1 main.go:42] ` + strconv.Quote(told) + ` pod="x/y"`},
	{"zap, JSON", fmt.Sprintf(`{"level":"error","ts":1767322000.1,"caller":"a/b.go:12","msg":%q,"stacktrace":"main.main\n\t/x.go:1"}`, told)},
	{"zap, console", "2026-01-02T03:04:05.678Z\tERROR\tagent\tcmd/main.go:42\t" + told},
	{"logfmt", `time="2026-01-02T03:04:05Z" level=error msg=` + strconv.Quote(told) + ` subsys=loader`},
	{"logfmt of logfmt", `time=x level=error msg=` + strconv.Quote(`level=error msg=`+strconv.Quote(told))},
	{"logrus on a terminal", "ERRO[0012] " + told},
	{"zerolog console", "3:04AM ERR " + told},
	{"Go's log", "2026/01/02 03:04:05 main.go:42: " + told},
	{"slog", `time=2026-01-02T03:04:05Z level=ERROR msg=` + strconv.Quote(told)},
	{"env_logger", "[2026-01-02T03:04:05Z ERROR agent::bpf] " + told},
	{"tracing of Rust", "2026-01-02T03:04:05.678901Z ERROR agent::bpf: " + told},
	{"Python", "2026-01-02 03:04:05,678 - root - ERROR - " + told},
	{"brackets", "[2026-01-02 03:04:05] [ERROR] " + told},
	{"GitHub's log", "2026-01-02T03:04:05.6789012Z " + told},
	{"everything", "agent-1  | \x1b[31mJan 02 03:04:05 node-1 kubelet[1]: " + fmt.Sprintf(`{"log":%q,"stream":"stderr","time":"t"}`, `time="x" level=error msg=`+strconv.Quote(told)+"\n") + "\x1b[0m"},
}

func TestUnwrap(t *testing.T) {
	for _, w := range wrappings {
		lines := Unwrap([]string{w.raw})
		qt.Check(t, qt.HasLen(lines, 1), qt.Commentf("%s: %q", w.name, lines))
		qt.Check(t, qt.Equals(lines[0].Text, told), qt.Commentf("%s", w.name))
		qt.Check(t, qt.IsFalse(lines[0].Kernel), qt.Commentf("%s", w.name))
	}
}

// What begins like a logger's prefix, and is none.
func TestUnwrapLeaves(t *testing.T) {
	for _, line := range []string{
		"R1=ctx(off=0,imm=0) R10=fp0",
		"0: R1=ctx(off=0,imm=0) R10=fp0",
		"invalid access to packet, off=12 size=1, R2(id=0,off=12,r=0)",
		"Error: virtio_net: XDP expects header/data in single page, any_header_sg required.",
		"error: could not open bpf map: Argument list too long",
		"-- BEGIN PROG LOAD LOG --",
		">>> 12 | (61) r2 = *(u32 *)(r1 +0)",
		"libbpf: prog 'x': failed to load: -22",
		"type=AVC msg=audit(1700000000.1:2): avc:  denied  { prog_load } for  pid=1 comm=\"agent\" tclass=bpf permissive=0",
		"[scx panic]: Argument list too long",
		"write /sys/kernel/tracing/kprobe_events: file exists",
		"1: Operation not permitted (os error 1)",
		"Warning: Kernel filter failed: Cannot allocate memory",
	} {
		qt.Check(t, qt.DeepEquals(Unwrap([]string{line}), []Line{{Text: line}}))
	}
}

func TestUnwrapSources(t *testing.T) {
	for _, tt := range []struct{ raw, text, source string }{
		{"agent-1  | x", "x", "agent-1 "},
		{"[pod/agent-x7k2p/agent] x", "x", "agent-x7k2p/agent "},
		{"agent-x7k2p agent x", "x", "agent-x7k2p/agent "},
		{"Jan 02 03:04:05 node-1 agent[4711]: x", "x", "agent[4711] "},
		{"Jan 02 03:04:05 node-1 systemd[1]: agent.service: x", "agent.service: x", "systemd[1] "},
	} {
		l := Unwrap([]string{tt.raw})[0]
		qt.Check(t, qt.Equals(l.Text, tt.text))
		qt.Check(t, qt.Equals(l.Source, tt.source))
	}
	for _, raw := range []string{
		"[  120.1] x", "[Mon Jan  2 03:04:05 2026] x", "kern  :err   : [  120.123456] x", "<4>[  120.123456] x", "[  120.123456][ T4711] x",
		"Jan 02 03:04:05 node-1 kernel: x", "[  120.123456] node-1 kernel: x",
	} {
		l := Unwrap([]string{raw})[0]
		qt.Check(t, qt.IsTrue(l.Kernel), qt.Commentf("%s", raw))
		qt.Check(t, qt.Equals(l.Text, "x"), qt.Commentf("%s", raw))
	}
}

func TestUnwrapSeveralLines(t *testing.T) {
	for _, tt := range []struct {
		raw  []string
		want []string
	}{
		{[]string{`{"level":"fatal","error":"load program: permission denied:\n\t0: R1=ctx() R10=fp0\n\tR7 !read_ok"}`},
			[]string{"load program: permission denied:", "0: R1=ctx() R10=fp0", "R7 !read_ok"}},
		{[]string{`level=error msg="a:\n\tb"`}, []string{`level=error msg="a:`, `b"`}[:0]},
		{[]string{`a:\n\tb\n\tc`}, []string{"a:", "b", "c"}},
		{[]string{`{"msg":"attach","error":"create link: invalid argument","prog":"x"}`}, []string{"attach: create link: invalid argument"}},
		{[]string{`{"msg":"attach","errno":-22}`}, []string{"attach: errno 22"}},
		{[]string{`{"message":"attach","error":{"message":"create link: invalid argument","code":3}}`}, []string{"attach: create link: invalid argument"}},
		{[]string{`2026-01-02T03:04:05Z	ERROR	attach	{"error": "create link: invalid argument"}`}, []string{"attach: create link: invalid argument"}},
		{[]string{`time=x level=error msg=attach err="create link: invalid argument"`}, []string{"attach: create link: invalid argument"}},
		{[]string{`E0102 03:04:05.6       1 a.go:1] "attach" err="create link: invalid argument" pod="x"`}, []string{"attach: create link: invalid argument"}},
		{[]string{`5.5.2023	{"level":"error","message":"create.failed","data":{"error":"starting task: errno 524"}}	worker`}, []string{"create.failed", "starting task: errno 524"}},
		{[]string{`    "message": "starting task: errno 524",`}, []string{"starting task: errno 524"}},
		{[]string{"2026-01-02T03:04:05Z stderr P load prog", "2026-01-02T03:04:05Z stderr F ram: errno 524"}, []string{"load program: errno 524"}},
		{[]string{"```text", "x", "```"}, []string{"", "x", ""}},
		{[]string{`{"MESSAGE":[120,32,27,91,109,121]}`}, []string{"x y"}},
		{[]string{`{"msg":"cut off in the mid`}, []string{"cut off in the mid"}},
	} {
		var got []string
		for _, l := range Unwrap(tt.raw) {
			got = append(got, l.Text)
		}
		if len(tt.want) > 0 {
			qt.Check(t, qt.DeepEquals(got, tt.want), qt.Commentf("%q", tt.raw))
		}
	}
}

func FuzzUnwrap(f *testing.F) {
	for _, w := range wrappings {
		f.Add(w.raw)
	}
	f.Add("{\"a\":[[[[{'b':\"\\u00")
	f.Fuzz(func(t *testing.T, s string) {
		raw := strings.Split(s, "\n")
		lines := Unwrap(raw)
		if len(lines) > len(s)+len(raw) {
			t.Fatalf("%d lines of %d bytes", len(lines), len(s))
		}
		total := 0
		for _, l := range lines {
			total += len(l.Text)
			if strings.ContainsAny(l.Text, "\n\r\x00") || strings.TrimSpace(l.Text) != l.Text {
				t.Fatalf("%q", l.Text)
			}
		}
		if total > 4*len(s)+64 {
			t.Fatalf("%d bytes of %d", total, len(s))
		}
	})
}
