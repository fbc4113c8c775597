// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"runtime/metrics"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/google/go-cmp/cmp"
)

// allocated is how many bytes this process has ever asked of its heap.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// maxMemory is what reading a record may cost, over what the text itself takes in its line, in
// pieces and in strings.
const maxMemory = 32 << 20

func checkRead(t *testing.T, recs []Record, err error) {
	if err != nil && (strings.ContainsAny(err.Error(), "\n\x1b") || len(err.Error()) > 1000) {
		t.Errorf("error is not one clean line: %q", err)
	}
	if err == nil && (len(recs) == 0 || recs[len(recs)-1].End == nil) {
		t.Errorf("no error and no end")
	}
	for _, r := range recs {
		if c := r.Call; c != nil && (len(c.Stages) > maxList || len(c.Failed) > maxList || len(c.Maps) > maxList) {
			t.Errorf("a list is too long")
		}
		if r.Header != nil {
			t.Errorf("a second header")
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add(record(f, sample()))
	f.Add(unpack(f, record(f, sample())))
	f.Add([]byte("{\"header\":{\"schema\":\"bpfwhy.trace/v1\"}}\n{\"call\":{}}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		recs, err := readAll(bytes.NewReader(data))
		checkRead(t, recs, err)
	})
}

// packer compresses as a hostile writer might: pieces of any size, flushed, or as a file of their
// own behind the one before.
type packer struct{ gz *gzip.Writer }

func (p *packer) pack(plain, how []byte) []byte {
	var out bytes.Buffer
	p.gz.Reset(&out)
	for i := 0; len(plain) > 0 && i < len(how) && i < 64; i++ {
		n := min(len(plain), 1+int(how[i]>>2)*4)
		_, _ = p.gz.Write(plain[:n])
		plain = plain[n:]
		switch how[i] & 3 {
		case 1:
			_ = p.gz.Flush()
		case 2:
			_ = p.gz.Close()
			p.gz.Reset(&out)
		case 3: // an empty one
			_ = p.gz.Close()
			p.gz.Reset(&out)
			_ = p.gz.Close()
			p.gz.Reset(&out)
		}
	}
	_, _ = p.gz.Write(plain)
	_ = p.gz.Close()
	return out.Bytes()
}

// FuzzRecords is about what lies inside the compression, where changed bytes of the file would
// never reach: however the same text is packed, the same comes out; cut or damaged, a beginning of
// it and an error.
func FuzzRecords(f *testing.F) {
	plain := unpack(f, record(f, sample()))
	f.Add(plain, []byte{}, uint32(0), uint8(0))
	f.Add(plain, []byte{255, 1, 2, 3, 130, 7, 9}, uint32(100), uint8(0))
	f.Add(plain[:len(plain)/2], []byte{5, 5, 5}, uint32(60), uint8(4))
	lines := bytes.SplitAfter(plain, []byte("\n"))
	head := string(lines[0])
	for _, rest := range []string{
		"", "{}\n", "null\n", "[]\n", "{\"future\":{}}\n", "{\"call\":{},\"end\":{}}\n", head, "\n\n \n",
		"{\"call\":{\"stages\":[{},{},{}],\"attr\":\"AAEC\",\"failed\":null}}\n{\"end\":{}}\n",
		"{\"chunk\":{\"offset\":18446744073709551615,\"total\":18446744073709551615,\"data\":\"AA==\"}}\n{\"end\":{\"calls\":18446744073709551615}}",
		"{\"say\":{\"args\":[1,2,3,4,5,6,7],\"strings\":[\"\\u001b[2J\",\"\\ud800\"]}}\n{\"end\":null}\n",
	} {
		f.Add([]byte(head+rest), []byte{1}, uint32(0), uint8(0))
	}
	f.Add(bytes.Replace(plain, []byte("trace/v1"), []byte("trace/v9"), 1), []byte{}, uint32(0), uint8(0))
	gz, err := gzip.NewWriterLevel(nil, gzip.HuffmanOnly)
	qt.Assert(f, qt.IsNil(err))
	p := packer{gz}
	f.Fuzz(func(t *testing.T, plain, how []byte, at uint32, damage uint8) {
		if len(plain) > 64<<10 || bytes.HasPrefix(plain, []byte{0x1f, 0x8b}) {
			return
		}
		before := allocated()
		want, wantErr := readAll(bytes.NewReader(plain))
		if cost := allocated() - before; cost > maxMemory {
			t.Fatalf("%d bytes for a text of %d", cost, len(plain))
		}
		checkRead(t, want, wantErr)
		packed := p.pack(plain, how)
		got, err := readAll(bytes.NewReader(packed))
		if len(got) != len(want) || (err == nil) != (wantErr == nil) || err != nil && err.Error() != wantErr.Error() {
			t.Fatalf("%d records and %v, packed %d and %v", len(want), wantErr, len(got), err)
		}

		broken := packed[:min(len(packed), int(at))]
		if damage != 0 {
			broken = bytes.Clone(packed)
			broken[int(at)%len(broken)] ^= damage
		}
		got, err = readAll(bytes.NewReader(broken))
		checkRead(t, got, err)
		if damage == 0 && len(broken) < len(packed) {
			if err == nil && wantErr != nil {
				t.Fatalf("cut at %d of %d: no error, but whole %v", at, len(packed), wantErr)
			}
			if len(got) > len(want) {
				t.Fatalf("cut: %d records of %d", len(got), len(want))
			}
			for i := range got {
				if !same(got[i], want[i]) {
					t.Fatalf("cut: record %d differs: %s", i, cmp.Diff(got[i], want[i]))
				}
			}
		}
	})
}

// same compares by what would be written again: quicker than looking at every field, and NaN does
// not occur.
func same(a, b Record) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// FuzzRecord: what a record says is what is written of it, and read again.
func FuzzRecord(f *testing.F) {
	for _, r := range append(sample(), Record{End: &End{Calls: 1}}, Record{Header: &Header{Schema: Schema, Hooks: header().Hooks}}) {
		b, err := json.Marshal(r)
		qt.Assert(f, qt.IsNil(err))
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		rec, err := parse(line)
		if err != nil {
			return
		}
		again, err := json.Marshal(rec)
		if err != nil {
			t.Fatal(err)
		}
		back, err := parse(again)
		if err != nil || !same(rec, back) {
			t.Fatalf("%s comes back as %v: %v", again, back, err)
		}
	})
}

// bomb repeats a line without end.
type bomb struct{ head, line []byte }

func (b *bomb) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if len(b.head) == 0 {
			b.head = b.line
		}
		k := copy(p[n:], b.head)
		n, b.head = n+k, b.head[k:]
	}
	return n, nil
}

// A file of few bytes takes no more memory than one line and its record, whatever it unpacks to.
func TestBombs(t *testing.T) {
	head := string(bytes.SplitAfter(unpack(t, record(t, nil)), []byte("\n"))[0])
	for _, test := range []struct{ name, open, many, close, want string }{
		{"maps", `{"call":{"maps":[`, `{},`, `{}]}}`, "read trace: record 2: more than 65536 values"},
		{"hooks", `{"header":{"hooks":[`, `{},`, `{}]}}`, "read trace: record 2: more than 65536 values"},
		{"null hooks", `{"header":{"hooks":[`, `null,`, `{}]}}`, "read trace: record 2: more than 65536 values"},
		{"unknown", `{"call":{"future":[`, `0,`, `0]}}`, "read trace: record 2: more than 65536 values"},
		{"sysctls", `{"header":{"node":{"sysctls":{`, `"a":"",`, `"b":""}}}}`, "read trace: record 2: more than 65536 values"},
		{"deep", `{"call":{"future":`, `[`, `}}`, "read trace: record 2: not a JSON record: .*"},
		// The most that gets as far as being decoded.
		{"most hooks", `{"header":{"hooks":[`, `{"fn":"` + strings.Repeat(" ", 7) + `"},`, `{}]}}`, "read trace: record 2: a list is too long"},
		{"one string", `{"say":{"format":"`, `x`, `"}}`, "read trace: record 3: longer than 1048576 bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			// As long as a line may be; and one more, that is too long.
			n := (maxLine - 100 - len(test.open) - len(test.close)) / len(test.many)
			if strings.HasPrefix(test.name, "most") {
				n = min(n, maxValues-2)
			}
			line := test.open + strings.Repeat(test.many, n) + test.close + "\n"
			plain := head + line + strings.Repeat("x", 2*maxLine)
			gz := gzip.NewWriter(io.Discard)
			var packed bytes.Buffer
			gz.Reset(&packed)
			_, err := gz.Write([]byte(plain))
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsNil(gz.Close()))
			for name, file := range map[string][]byte{"plain": []byte(plain), "packed": packed.Bytes()} {
				before := allocated()
				_, err = readAll(bytes.NewReader(file))
				cost := allocated() - before
				qt.Check(t, qt.ErrorMatches(err, test.want), qt.Commentf("%s", name))
				qt.Check(t, qt.IsTrue(cost < maxMemory), qt.Commentf("%s: %d bytes for a file of %d", name, cost, len(file)))
				t.Logf("%s: %d bytes for a file of %d", name, cost, len(file))
			}
		})
	}
}

// Text without end, in one line or in many, is refused after one line, or the most that a file may
// hold.
func TestEndless(t *testing.T) {
	head := bytes.SplitAfter(unpack(t, record(t, nil)), []byte("\n"))[0]
	for name, test := range map[string]struct {
		line, want string
	}{
		"no line":  {"x", "read trace: record 2: longer than 1048576 bytes"},
		"no space": {" ", "read trace: record 2: longer than 1048576 bytes"},
		"no text":  {"\n", "read trace: record 2: more than 1000 blank lines"},
	} {
		before := allocated()
		_, err := readAll(&bomb{head, []byte(test.line)})
		qt.Check(t, qt.ErrorMatches(err, test.want), qt.Commentf("%s", name))
		qt.Check(t, qt.IsTrue(allocated()-before < maxMemory), qt.Commentf("%s", name))
	}
}
