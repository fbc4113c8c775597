// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// What lib/vsprintf.c makes of the verifier's formats.
func TestFormat(t *testing.T) {
	const minus = ^uint64(0)
	for _, test := range []struct {
		format  string
		args    [4]uint64
		strings [4]string
		want    string
	}{
		{"", [4]uint64{}, [4]string{}, ""},
		{"BPF program is too large. Processed %d insn\n", [4]uint64{1000001}, [4]string{}, "BPF program is too large. Processed 1000001 insn\n"},
		{"R%d invalid mem access '%s'\n", [4]uint64{0, 0xffff0000}, [4]string{"", "map_value_or_null"}, "R0 invalid mem access 'map_value_or_null'\n"},
		{"R%d min value is negative %d\n", [4]uint64{1, 0xdead_beef_ffff_fffe}, [4]string{}, "R1 min value is negative -2\n"},
		{"unknown func %s#%d\n", [4]uint64{1, 113}, [4]string{"bpf_probe_read_kernel"}, "unknown func bpf_probe_read_kernel#113\n"},
		{"invalid func unknown#%u", [4]uint64{195896080}, [4]string{}, "invalid func unknown#195896080"},
		{"off=%llx %lx %x", [4]uint64{minus, 1 << 40, 1 << 40}, [4]string{}, "off=ffffffffffffffff 10000000000 0"},
		{"%#x|%#llx|%#X", [4]uint64{255, 255, 255}, [4]string{}, "0xff|0xff|0XFF"},
		{"%lld %ld %zd %zu", [4]uint64{minus, minus, minus, minus}, [4]string{}, "-1 -1 -1 18446744073709551615"},
		{"%hd %hu %hhd %hhu", [4]uint64{0x18000, 0x18000, 0x180, 0x180}, [4]string{}, "-32768 32768 -128 128"},
		{"%-5d|%5d|%05d|%+d", [4]uint64{42, 42, 42, 42}, [4]string{}, "42   |   42|00042|+42"},
		{"%-5s|%5s|%.2s|%c", [4]uint64{1, 1, 1, 'x'}, [4]string{"ab", "ab", "abc"}, "ab   |   ab|ab|x"},
		{"%*d|%.*s", [4]uint64{4, 7, 2, 1}, [4]string{"", "", "", "abc"}, "   7|ab"},
		{"%.3d %o %i", [4]uint64{7, 8, 0xffffffff}, [4]string{}, "007 10 -1"},
		{"%02x:%02x", [4]uint64{5, 255}, [4]string{}, "05:ff"},
		{"100%% of %s", [4]uint64{}, [4]string{}, "100% of (null)"},
		{"%d %d %d %d %d!", [4]uint64{1, 2, 3, 4}, [4]string{}, "1 2 3 4 …!"},
		{"at %pS then %p", [4]uint64{1, 0xab}, [4]string{}, "at … then 00000000000000ab"},
		{"lone %", [4]uint64{}, [4]string{}, "lone "},
		{"%y", [4]uint64{}, [4]string{}, "%y"},
		{"%-", [4]uint64{}, [4]string{}, ""},
	} {
		t.Run(test.format, func(t *testing.T) {
			got := format(&trace.Message{Format: test.format, Args: test.args, Strings: test.strings})
			qt.Check(t, qt.Equals(got, test.want))
		})
	}
	huge := format(&trace.Message{Format: strings.Repeat("%999999999d", 1000)})
	qt.Check(t, qt.IsTrue(len(huge) < 3*maxMessage))
}

func FuzzFormat(f *testing.F) {
	f.Add("R%-5d %#llx %.*s %pS%%", uint64(1), uint64(2), "text")
	f.Fuzz(func(t *testing.T, s string, x, y uint64, text string) {
		got := format(&trace.Message{Format: s, Args: [4]uint64{x, y, x, y}, Strings: [4]string{text, text, text, text}})
		if len(got) > 2*maxMessage {
			t.Errorf("%d bytes", len(got))
		}
	})
}

// The verifier says a line in parts, to a loader that asked for no log.
func TestKernelsWords(t *testing.T) {
	c := loadCall(req{typ: 1, name: "p", insnCnt: 3}, -13)
	say := func(f string, args ...uint64) trace.Record {
		s := &trace.Message{ID: c.ID, Format: f}
		copy(s.Args[:], args)
		return trace.Record{Message: s}
	}
	var recs []trace.Record
	for i := range uint64(100) {
		recs = append(recs, say("noise %d\n", i))
	}
	recs = append(recs, say("R%d ", 1), say("invalid \x1b[31mzero-sized read\n"), say("processed %d insns\n", 4), trace.Record{Call: c})
	at := attempts(header("6.12", classicHooks), recs...)[0]
	qt.Check(t, qt.Equals(at.VerifierLog.Origin, load.LogKernel))
	qt.Check(t, qt.DeepEquals(at.VerifierLog.Lines, []string{"noise 94", "noise 95", "noise 96", "noise 97", "noise 98", "noise 99",
		`R1 invalid \x1b[31mzero-sized read`, "processed 4 insns"}))
	qt.Check(t, qt.DeepEquals(at.Evidence.Messages, at.VerifierLog.Lines))
	qt.Check(t, qt.Equals(at.FailedStage, load.Verifier))

	silent := attempts(header("6.12", classicHooks), trace.Record{Call: c})[0]
	qt.Check(t, qt.DeepEquals(silent.VerifierLog, load.VerifierLog{Origin: load.LogNone}))
}

func TestLog(t *testing.T) {
	piece := func(at uint64, s string) segment { return segment{at, []byte(s)} }
	many := strings.Repeat("line\n", 100)
	for _, test := range []struct {
		name  string
		r     *bytesOf
		text  string
		lines []string
		whole bool
	}{
		{"none", nil, "", nil, true},
		{"empty", &bytesOf{total: 1, segments: []segment{piece(0, "\x00")}}, "", nil, true},
		{"ends at NUL", &bytesOf{total: 4096, segments: []segment{piece(0, "a\nb\n\x00garbage\n")}}, "a\nb\n", []string{"a", "b"}, true},
		{"full buffer", &bytesOf{total: 3, segments: []segment{piece(0, "abc")}}, "abc", []string{"abc"}, true},
		{"cut", &bytesOf{total: 10, segments: []segment{piece(0, "abc")}}, "abc", []string{"abc"}, false},
		{"hole", &bytesOf{total: 100, segments: []segment{piece(0, "head\n"), piece(90, "tail\n\x00")}},
			"head\n\n[… 85 bytes of the log were not copied …]\ntail\n",
			[]string{"head", "[… 85 bytes of the log were not copied …]", "tail"}, false},
		{"two pieces", &bytesOf{total: 6, segments: []segment{piece(0, "ab"), piece(2, "c\nd\x00")}}, "abc\nd", []string{"abc", "d"}, true},
		{"escapes", &bytesOf{total: 1, segments: []segment{piece(0, "a\x1b]0;x\x07\tb\xff\u202eü\r\n")}},
			"a\\x1b]0;x\\x07\tb\\xff\\u202eü\\x0d\n", []string{"a\\x1b]0;x\\x07\tb\\xff\\u202eü\\x0d"}, true},
		{"last lines", &bytesOf{total: 500, segments: []segment{piece(0, many)}}, many, strings.Split(strings.TrimSpace(many[:100]), "\n"), true},
		{"blank lines", &bytesOf{total: 1, segments: []segment{piece(0, "\n\na\n \n\nb\n\n")}}, "\n\na\n \n\nb\n\n", []string{"a", "b"}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := readLog(test.r)
			qt.Check(t, qt.Equals(got.s, test.text))
			qt.Check(t, qt.Equals(got.whole, test.whole))
			if test.lines == nil {
				test.lines = []string{}
			}
			qt.Check(t, qt.DeepEquals(lastLines(got.s, logLines), test.lines))
		})
	}
	long := lastLines(strings.Repeat("ü", 5000), 20)
	qt.Assert(t, qt.HasLen(long, 1))
	qt.Check(t, qt.Equals(long[0], strings.Repeat("ü", 512)+"…"))
}

func TestJudge(t *testing.T) {
	for _, test := range []struct {
		log  string
		want logVerdict
	}{
		{"", logSilent},
		{"processed 5 insns (limit 1000000) max_states_per_insn 0", logAccepted},
		{"0: R1=ctx(off=0,imm=0) R10=fp0\n1: (95) exit\nprocessed 2 insns (limit", logAccepted},
		{"1: (95) exit\nverification time 5 usec\nstack depth 0+0\nprocessed 2 insns (limit", logAccepted},
		{"func#0 @0\n0: R1=ctx() R10=fp0\n; int f() @ a.c:1\n0: (b7) r0 = 0\nmark_precise: frame0: last_idx 1\nprocessed 2 insns", logAccepted},
		{" R0_w=inv1 R10=fp0\n1: (95) exit\nprocessed 2 insns", logAccepted},
		{"0: (79) r0 = *(u64 *)(r1 +0)\nR1 invalid mem access 'scalar'\nprocessed 1 insns", logRefused},
		{"R0 !read_ok\nprocessed 1 insns", logRefused},
		{"R10 !read_ok", logRefused},
		{"frame pointer is read only\nprocessed 3 insns", logRefused},
		{"arg#0 pointer type STRUCT x must point to scalar\nprocessed 0 insns", logRefused},
		{"Unreleased reference id=2 alloc_insn=3\nprocessed 4 insns", logRefused},
		{"BPF program is too large. Processed 1000001 insn\nprocessed 1000001 insns (limit 1000000)", logRefused},
		{"BPF program is too large. Processed 1000001 insn\nverification time 9613007 usec\nstack depth 0 max 0\ninsns processed 1000001\nprocessed 1000001 insns (limit 1000000)", logRefused}, // 7.2
		{"jump out of range from insn 0 to 9\n", logRefused},
		{"0: R1=ctx() R10=fp0\n0: (b7) r0 =", logSilent}, // cut off
	} {
		qt.Check(t, qt.Equals(judge(lastLines(test.log, logLines)), test.want), qt.Commentf("%q", test.log))
	}
}

// btfWith builds BTF with nothing but strings, and returns their offsets.
func btfWith(texts ...string) (blob []byte, offs []uint32) {
	section := []byte{0}
	for _, s := range texts {
		offs = append(offs, uint32(len(section)))
		section = append(append(section, s...), 0)
	}
	blob = binary.LittleEndian.AppendUint16(nil, 0xeb9f)
	blob = append(blob, 1, 0)
	for _, v := range []uint32{24, 0, 8, 8, uint32(len(section))} {
		blob = binary.LittleEndian.AppendUint32(blob, v)
	}
	blob = append(blob, make([]byte, 8)...) // types
	return append(blob, section...), offs
}

func lineInfo(recSize int, entries ...[4]uint32) []byte {
	var b []byte
	for _, e := range entries {
		rec := make([]byte, recSize)
		for i, v := range e {
			binary.LittleEndian.PutUint32(rec[4*i:], v)
		}
		b = append(b, rec...)
	}
	return b
}

func TestSourceLines(t *testing.T) {
	blob, off := btfWith("/src/a.c", "\treturn x;", "int \x1b[2Jx;")
	for _, rec := range []int{16, 24} {
		info := lineInfo(rec, [4]uint32{4, off[0], off[1], 12<<10 | 3}, [4]uint32{0, off[0], off[2], 7 << 10}, [4]uint32{9, 9999, off[0] + 5, 1 << 31})
		c := loadCall(req{typ: 1, insnCnt: 3, set: map[int]uint32{progLineRec: uint32(rec), progLineCnt: 3}}, -13)
		at := attempts(header("6.12", classicHooks), chunk(c, trace.LineInfo, info), chunk(c, trace.BTF, blob), trace.Record{Call: c})[0]
		qt.Check(t, qt.DeepEquals(at.Evidence.Lines, []load.SourceLine{
			{Insn: 0, File: "/src/a.c", Line: 7, Text: `int \x1b[2Jx;`},
			{Insn: 4, File: "/src/a.c", Line: 12, Col: 3, Text: "\treturn x;"},
			{Insn: 9, Line: 1 << 21, Text: "a.c"},
		}))
	}
}

// Lengths that lie give fewer lines, never a panic.
func TestHostileBTF(t *testing.T) {
	blob, off := btfWith("a.c", "text")
	info := lineInfo(16, [4]uint32{0, off[0], off[1], 1 << 10})
	for name, change := range map[string]func(b, i []byte) ([]byte, []byte, uint32, uint32){
		"no BTF":     func(b, i []byte) ([]byte, []byte, uint32, uint32) { return nil, i, 16, 1 },
		"cut header": func(b, i []byte) ([]byte, []byte, uint32, uint32) { return b[:20], i, 16, 1 },
		"magic":      func(b, i []byte) ([]byte, []byte, uint32, uint32) { b[0] = 0; return b, i, 16, 1 },
		"header length": func(b, i []byte) ([]byte, []byte, uint32, uint32) {
			copy(b[4:], "\xff\xff\xff\xff")
			return b, i, 16, 1
		},
		"string offset": func(b, i []byte) ([]byte, []byte, uint32, uint32) {
			copy(b[16:], "\xff\xff\xff\xff")
			return b, i, 16, 1
		},
		"string length": func(b, i []byte) ([]byte, []byte, uint32, uint32) {
			copy(b[20:], "\xff\xff\xff\xff")
			return b, i, 16, 1
		},
		"cut strings":       func(b, i []byte) ([]byte, []byte, uint32, uint32) { return b[:len(b)-3], i, 16, 1 },
		"count":             func(b, i []byte) ([]byte, []byte, uint32, uint32) { return b, i, 16, 1 << 31 },
		"record size 0":     func(b, i []byte) ([]byte, []byte, uint32, uint32) { return b, i, 0, 1 },
		"record size large": func(b, i []byte) ([]byte, []byte, uint32, uint32) { return b, i, 1 << 31, 1 },
		"cut info":          func(b, i []byte) ([]byte, []byte, uint32, uint32) { return b, i[:15], 16, 1 },
	} {
		t.Run(name, func(t *testing.T) {
			b, i, rec, cnt := change(bytes.Clone(blob), bytes.Clone(info))
			lines, _ := sourceLines(whole(i), whole(b), rec, cnt)
			qt.Check(t, qt.IsTrue(len(lines) <= 1))
		})
	}
}

func whole(b []byte) *bytesOf {
	r := &bytesOf{total: uint64(len(b))}
	r.insert(segment{0, b})
	return r
}

func FuzzSourceLines(f *testing.F) {
	blob, off := btfWith("a.c", "text")
	f.Add(lineInfo(16, [4]uint32{0, off[0], off[1], 1 << 10}), blob, uint32(16), uint32(1))
	f.Fuzz(func(t *testing.T, info, btf []byte, rec, count uint32) {
		lines, _ := sourceLines(whole(info), whole(btf), rec, count)
		total := 0
		for _, l := range lines {
			total += len(l.File) + len(l.Text)
			if strings.ContainsAny(l.File+l.Text, "\x1b\n\x00") {
				t.Errorf("control character in %q %q", l.File, l.Text)
			}
		}
		if len(lines) > len(info)/16 {
			t.Errorf("%d lines of %d bytes", len(lines), len(info))
		}
	})
}

// Pieces in any order, with overlaps and holes, give what a plain buffer gives.
func TestJoin(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		const size = 64
		var want [size]int // 0: not there
		r := &bytesOf{total: size}
		for n := range rnd.IntN(12) {
			at := rnd.IntN(size)
			data := make([]byte, rnd.IntN(min(20, size-at)+1))
			for i := range data {
				data[i] = byte(n + 1)
				if want[at+i] == 0 {
					want[at+i] = n + 1
				}
			}
			r.insert(segment{uint64(at), data})
		}
		prefix := 0
		for prefix < size && want[prefix] != 0 {
			prefix++
		}
		held := 0
		for i, w := range want {
			got := r.slice(uint64(i), 1)
			switch {
			case w == 0 && len(got) != 0, w != 0 && (len(got) != 1 || int(got[0]) != w):
				t.Fatalf("byte %d is %v, want %d in %+v", i, got, w, r.segments)
			}
			if w != 0 {
				held++
			}
		}
		b, isWhole := r.prefix()
		qt.Assert(t, qt.Equals(len(b), prefix))
		qt.Assert(t, qt.Equals(isWhole, prefix == size))
		qt.Assert(t, qt.Equals(r.held(), uint64(held)))
		for i, got := range b {
			qt.Assert(t, qt.Equals(int(got), want[i]))
		}
		at, n := rnd.IntN(size), rnd.IntN(size)
		for i, got := range r.slice(uint64(at), n) {
			qt.Assert(t, qt.Equals(int(got), want[at+i]))
		}
	}
	r := &bytesOf{}
	ok := r.insert(segment{^uint64(0) - 1, []byte("wraps")})
	qt.Check(t, qt.IsFalse(ok))
}

func TestInstructions(t *testing.T) {
	prog := []insn.Instruction{{Code: insn.ClassALU64 | insn.OpMOV, Imm: 5}, {Code: insn.OpcodeExit}}
	code := insn.Encode(prog)
	tag := insn.TagSHA1(prog)
	for _, test := range []struct {
		name  string
		data  []byte
		total uint64
		tag   []byte
		cnt   uint32
		errno int
		state load.InsnsState
		len   int
		why   []string
		ret   int64
	}{
		{"verified", code, 16, tag[:], 2, 0, load.InsnsVerified, 2, nil, -22},
		{"no tag", code, 16, nil, 2, 0, load.InsnsUnverified, 2, nil, -22},
		{"tag not yet computed", code, 16, make([]byte, 8), 2, 0, load.InsnsUnverified, 2, nil, -22},
		{"changed behind our back", code, 16, []byte("12345678"), 2, 0, load.InsnsUnverified, 2, nil, -22},
		{"cut by the cap", code[:8], 16, tag[:], 2, 0, load.InsnsTruncated, 1, []string{"instructions: 8 of 16 bytes copied"}, -22},
		{"not readable", nil, 16, nil, 2, 14, load.InsnsNone, 0, []string{"instructions: 0 of 16 bytes copied: EFAULT"}, -22},
		{"half an instruction", code[:12], 12, tag[:], 2, 0, load.InsnsTruncated, 1, nil, -22},
		{"count lies", code, 16, tag[:], 1 << 20, 0, load.InsnsTruncated, 2, nil, -22},
		{"total lies", code, 1 << 62, tag[:], 2, 0, load.InsnsTruncated, 2, []string{"instructions: 16 of 4611686018427387904 bytes copied"}, -22},
		{"the call says so too", nil, 16, nil, 2, 14, load.InsnsNone, 0, nil, -14},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := loadCall(req{typ: 1, insnCnt: test.cnt}, test.ret)
			c.Tag = test.tag
			ch := trace.Record{Chunk: &trace.Chunk{ID: c.ID, What: trace.Insns, Total: test.total, Errno: test.errno, Data: test.data}}
			at := attempts(header("6.12", classicHooks), ch, trace.Record{Call: c})[0]
			qt.Check(t, qt.Equals(at.Evidence.InsnsState, test.state))
			qt.Check(t, qt.HasLen(at.Evidence.Insns, test.len))
			qt.Check(t, qt.DeepEquals(at.IncompleteWhy, test.why))
			qt.Check(t, qt.Equals(at.Incomplete, test.why != nil))
			qt.Check(t, qt.Equals(at.Program.Insns, int(test.cnt)))
		})
	}
}

func TestAttr(t *testing.T) {
	at := func(b []byte) *load.Program { return attr(b).program() }
	short := req{typ: 2, insnCnt: 9, name: "cut"}.attr()
	qt.Check(t, qt.DeepEquals(at(short[:6]), &load.Program{Type: "kprobe", Insns: 9}))
	qt.Check(t, qt.DeepEquals(at(short[:50]), &load.Program{Type: "kprobe", Insns: 9, Name: "cu"}))
	qt.Check(t, qt.DeepEquals(at(nil), &load.Program{Type: "unknown"}))
	qt.Check(t, qt.DeepEquals(at(req{typ: 99, name: "a\x1b[1mb", set: map[int]uint32{progAttachType: 200}}.attr()),
		&load.Program{Type: "type_99", Name: `a\x1b[1mb`, AttachType: "type_200"}))
	qt.Check(t, qt.Equals(at(req{typ: 8}.attr()).AttachType, "cgroup_inet_ingress"))
	qt.Check(t, qt.Equals(at(req{typ: 26, set: map[int]uint32{progAttachType: 24}}.attr()).AttachType, "trace_fentry"))
	qt.Check(t, qt.Equals(at(req{typ: 27, set: map[int]uint32{progAttachType: 3}}.attr()).AttachType, ""))
	qt.Check(t, qt.Equals(at(req{typ: 32}.attr()).Type, "netfilter"))
}

func TestProcess(t *testing.T) {
	const id = "3b1c9d6f0a2e4b58c7d1e0f9a8b7c6d5e4f3a2b1c0d9e8f7a6b5c4d3e2f1a0b9"
	c := loadCall(req{typ: 1}, 3)
	c.TGID, c.ID.TID, c.NSPID, c.UID, c.GID, c.Comm, c.Exe = 10, 11, 2, 3, 4, "a\nb", "/bin/\x1bx"
	c.Cgroup2 = &trace.Cgroup{ID: 5, Name: "docker-" + id + ".scope"}
	c.Cgroup1 = &trace.Cgroup{ID: 6, Name: "/"}
	at := attempts(header("6.12", classicHooks), trace.Record{Call: c})[0]
	qt.Check(t, qt.DeepEquals(at.Process, load.Process{
		PID: 10, TID: 11, PIDInNS: 2, UID: 3, GID: 4, Comm: `a\x0ab`, Exe: `/bin/\x1bx`, Container: "docker://" + id,
		Cgroups: []load.Cgroup{{Version: 2, ID: 5, Name: "docker-" + id + ".scope"}, {Version: 1, ID: 6, Name: "/"}},
	}))
}

func TestErrnoName(t *testing.T) {
	for errno, want := range map[int]string{0: "", 1: "EPERM", 7: "E2BIG", 95: "EOPNOTSUPP", 524: "ENOTSUPP", 4000: "errno_4000"} {
		qt.Check(t, qt.Equals(errnoName(errno), want), qt.Commentf("%d", errno))
	}
}
