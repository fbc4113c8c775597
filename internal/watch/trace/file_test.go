// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/google/go-cmp/cmp"

	"github.com/bpfwhy/bpfwhy/load"
)

var asked = true

// sample has every field of every kind of record set, so that a field that is lost on the way
// shows.
func sample() []Record {
	id := CallID{TID: 7, Start: 1000}
	return []Record{
		{Begin: &Begin{ID: id, TGID: 6}},
		{Chunk: &Chunk{ID: id, What: Insns, Offset: 8, Total: 24, Errno: 14, Data: []byte{0, 1, 0xff}}},
		{Message: &Message{ID: id, Format: "R%d %s\x1b\n", Args: [4]uint64{1, 1 << 63}, Strings: [4]string{"", "\x00ü<&>"}}},
		{Call: &Call{
			ID: id, End: 2000, Kind: load.ProgLoad, Cmd: 5, Ret: -22,
			Flags: CallFlags{EnterSeen: true, FromKernel: true, ExitSeen: true, AttrFault: true},
			Attr:  []byte{1, 2}, Folded: 3,
			Stages: []Stage{{Function: load.FnCheck, Calls: 1, Failed: 1, First: 1001, Total: 5, LastRet: -22}},
			Failed: []Span{{Function: load.FnCheck, Start: 1001, End: 1006, Ret: -22, Arg: -1, Unjited: true}},
			TGID:   6, NSPID: 2, UID: 3, GID: 4, Comm: "a\x07b", Exe: "/x",
			Cgroup2: &Cgroup{ID: 1 << 60, Name: "g"}, Cgroup1: &Cgroup{ID: 2},
			Creds: &Creds{CapEffective: 1<<41 - 1, UserNSLevel: 1, SeccompMode: 2, Memlock: 1<<64 - 1, Nofile: 9},
			Prog: &Prog{ID: 1, Type: 2, Name: "n", Tag: []byte{1}, JITed: true, Blinded: true, BlindedUnknown: true, Asked: &asked,
				JITedLen: 3, Len: 4, VerifiedInsns: 5},
			Maps:       []Map{{ID: 1, Type: 2, KeySize: 3, ValueSize: 4, MaxEntries: 5, Flags: 6, Name: "m"}},
			FailedInsn: -1, Tag: []byte{1, 2, 3, 4, 5, 6, 7, 8},
		}},
		{Loss: &Loss{Mechanism: "ring", Count: 1, From: 2, To: 3}},
		{Sysctl: &Sysctl{Name: "net.core.bpf_jit_harden", Value: "2", At: 5}},
	}
}

func header() Header {
	return Header{Schema: Schema, Tool: "v1", Backend: "fentry", Epoch: 1 << 60,
		Hooks: []Hook{{Function: load.FnCheck, Symbol: "bpf_check", Via: "fentry"}, {Function: load.FnLSM, Why: "not in BTF"}}}
}

func record(t testing.TB, recs []Record) []byte {
	var buf bytes.Buffer
	w, err := NewWriter(&buf, header())
	qt.Assert(t, qt.IsNil(err))
	for _, r := range recs {
		qt.Assert(t, qt.IsNil(w.Write(r)))
	}
	qt.Assert(t, qt.IsNil(w.Close(End{Calls: 1, Lost: 1})))
	return buf.Bytes()
}

func readAll(r io.Reader) ([]Record, error) {
	tr, err := NewReader(r)
	if err != nil {
		return nil, err
	}
	var out []Record
	for {
		rec, err := tr.Next()
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			_, again := tr.Next()
			if again != err {
				return out, fmt.Errorf("error changed: %v, then %v", err, again)
			}
			return out, err
		}
		out = append(out, rec)
	}
}

func unpack(t testing.TB, b []byte) []byte {
	gz, err := gzip.NewReader(bytes.NewReader(b))
	qt.Assert(t, qt.IsNil(err))
	plain, err := io.ReadAll(gz)
	qt.Assert(t, qt.IsNil(err))
	return plain
}

func TestRoundTrip(t *testing.T) {
	want := append(sample(), Record{End: &End{Calls: 1, Lost: 1}})
	packed := record(t, sample())
	for name, file := range map[string][]byte{
		"gzip":       packed,
		"plain":      unpack(t, packed),
		"no newline": bytes.TrimRight(unpack(t, packed), "\n"),
		"blank line": append([]byte("\n"), unpack(t, packed)...),
	} {
		t.Run(name, func(t *testing.T) {
			tr, err := NewReader(bytes.NewReader(file))
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.CmpEquals(tr.Header(), header()))
			got, err := readAll(bytes.NewReader(file))
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.CmpEquals(got, want))
		})
	}
}

// A recorder that dies leaves every call that it had written, whatever bytes the kernel then cuts
// off.
func TestKilledRecorder(t *testing.T) {
	var buf bytes.Buffer
	w, err := NewWriter(&buf, header())
	qt.Assert(t, qt.IsNil(err))
	for _, r := range sample()[:4] {
		qt.Assert(t, qt.IsNil(w.Write(r)))
	}
	got, err := readAll(bytes.NewReader(buf.Bytes()))
	qt.Assert(t, qt.ErrorIs(err, ErrTruncated))
	qt.Assert(t, qt.ErrorMatches(err, `read trace: trace ends early after record 5: .*`))
	qt.Assert(t, qt.CmpEquals(got, sample()[:4]))

	plain := unpack(t, record(t, sample()))
	second := bytes.IndexByte(plain, '\n') + 1
	got, err = readAll(bytes.NewReader(plain[:second+20]))
	qt.Assert(t, qt.ErrorMatches(err, `read trace: trace ends early inside record 2: .*`))
	qt.Assert(t, qt.HasLen(got, 0))
}

// Wherever a file is cut, its reader gives a prefix of the records and one line of error.
func TestCutAnywhere(t *testing.T) {
	want := sample()
	for _, file := range [][]byte{record(t, sample()), unpack(t, record(t, sample()))} {
		last := 0
		for cut := range len(file) - 1 {
			got, err := readAll(bytes.NewReader(file[:cut]))
			if err == nil {
				// The end record without its newline is whole.
				qt.Assert(t, qt.Equals(cut, len(file)-1), qt.Commentf("cut at %d of %d", cut, len(file)))
				continue
			}
			qt.Assert(t, qt.Not(qt.StringContains(err.Error(), "\n")))
			for i, rec := range got {
				if i < len(want) && !cmp.Equal(rec, want[i]) {
					t.Fatalf("cut at %d: record %d differs: %s", cut, i, cmp.Diff(rec, want[i]))
				}
			}
			qt.Assert(t, qt.IsTrue(len(got) >= last))
			last = len(got)
		}
	}
}

func TestBadFiles(t *testing.T) {
	head := strings.SplitN(string(unpack(t, record(t, nil))), "\n", 2)[0] + "\n"
	for _, test := range []struct{ name, file, want string }{
		{"empty", "", `read trace: the file is empty`},
		{"blank", "\n \n", `read trace: the file is empty`},
		{"one byte", "x", `read trace: trace ends early inside record 1: .*`},
		{"text", "hello\nworld\n", `read trace: not a bpfwhy trace: record 1 is not a header`},
		{"other json", `{"call":{}}` + "\n", `read trace: not a bpfwhy trace: .*`},
		{"json of another tool", `{"a":1}` + "\n", `read trace: not a bpfwhy trace: .*`},
		{"version", `{"header":{"schema":"bpfwhy.trace/v9\u001b[31m"}}` + "\n",
			`read trace: schema is "bpfwhy.trace/v9\?\[31m", this version reads "bpfwhy.trace/v1"`},
		{"gzip header cut", "\x1f\x8b", `read trace: unexpected EOF`},
		{"garbage", head + "{\"call\":{}}\n\x00\xff\n", `read trace: record 3: not a JSON record: .*`},
		{"type", head + `{"call":{"end":-1}}` + "\n", `read trace: record 2: not a JSON record: .*`},
		{"none", head + "{}\n", `read trace: record 2: holds 0 kinds of record, not one`},
		{"null", head + "null\n", `read trace: record 2: holds 0 kinds of record, not one`},
		{"two", head + `{"call":{},"end":{}}` + "\n", `read trace: record 2: holds 2 kinds of record, not one`},
		{"blank lines", head + strings.Repeat(" \n", 1001), `read trace: record 2: more than 1000 blank lines`},
		{"second header", head + head, `read trace: record 2 is a second header`},
		{"after the end", head + `{"end":{}}` + "\n" + `{"call":{}}` + "\n", `read trace: record 3 comes after the end`},
		{"long line", head + `{"call":{"comm":"` + strings.Repeat("x", 1<<20) + `"}}` + "\n", `read trace: record 2: longer than 1048576 bytes`},
		{"long list", head + `{"call":{"failed":[` + strings.Repeat("{},", 5000) + `{}]}}` + "\n", `read trace: record 2: a list is too long`},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := readAll(strings.NewReader(test.file))
			qt.Assert(t, qt.ErrorMatches(err, test.want))
		})
	}
}

// A file of few bytes and many records ends in seconds.
func TestManyRecords(t *testing.T) {
	r := &Reader{lines: bufio.NewReader(strings.NewReader(`{"say":{}}` + "\n" + `{"say":{}}` + "\n")), n: maxRecords - 1}
	_, err := r.Next()
	qt.Assert(t, qt.IsNil(err))
	_, err = r.Next()
	qt.Check(t, qt.ErrorMatches(err, "read trace: more than 8388608 records"))
}

func TestCorruptGzip(t *testing.T) {
	file := record(t, sample())
	file[len(file)-6] ^= 0xff // the checksum
	got, err := readAll(bytes.NewReader(file))
	qt.Assert(t, qt.ErrorMatches(err, `read trace: record 9: gzip: invalid checksum`))
	qt.Assert(t, qt.HasLen(got, 7))
}

// A program of a million instructions travels whole.
func TestHugeChunk(t *testing.T) {
	data := bytes.Repeat([]byte{1, 2, 3, 4, 5, 6, 7, 8}, 1_000_000)
	file := record(t, []Record{{Chunk: &Chunk{What: Insns, Offset: 16, Total: 8_000_016, Data: data}}})
	got, err := readAll(bytes.NewReader(file))
	qt.Assert(t, qt.IsNil(err))
	var joined []byte
	for _, r := range got[:len(got)-1] {
		qt.Assert(t, qt.Equals(r.Chunk.Offset, uint64(16+len(joined))))
		qt.Assert(t, qt.Equals(r.Chunk.Total, 8_000_016))
		joined = append(joined, r.Chunk.Data...)
	}
	qt.Assert(t, qt.IsTrue(bytes.Equal(joined, data)))
}

type brokenDisk struct{ left int }

var errDisk = errors.New("no space left on device")

func (d *brokenDisk) Write(p []byte) (int, error) {
	d.left -= len(p)
	if d.left < 0 {
		return 0, errDisk
	}
	return len(p), nil
}

func TestWriteError(t *testing.T) {
	w, err := NewWriter(&brokenDisk{1000}, header())
	qt.Assert(t, qt.IsNil(err))
	for range 100 {
		if err = w.Write(sample()[3]); err != nil {
			break
		}
	}
	qt.Assert(t, qt.ErrorIs(err, errDisk))
	qt.Assert(t, qt.ErrorMatches(err, "write trace: .*"))
}
