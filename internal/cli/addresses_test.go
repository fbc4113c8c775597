// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/output/render"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// where the kernel has its data, with four and five levels of page tables, and its code. No
// recording here is of a program with such a number of its own.
func isAddress(v uint64) bool {
	return v >= 0xffff8880_00000000 && v < 0xfffffe80_00000000 || v >= 0xff100000_00000000 && v < 0xffe00000_00000000 ||
		v > 0xffffffff_80000000 && v < 0xffffffff_f0000000
}

var (
	hexNumber     = regexp.MustCompile(`\b(?:0x)?([0-9a-f]{16})\b`)
	decimalNumber = regexp.MustCompile(`(-?)\b([0-9]{12,20})\b`)
)

func addressesIn(text string) (found []string) {
	for _, m := range hexNumber.FindAllStringSubmatch(text, -1) {
		if v, err := strconv.ParseUint(m[1], 16, 64); err == nil && isAddress(v) {
			found = append(found, m[0])
		}
	}
	for _, m := range decimalNumber.FindAllStringSubmatch(text, -1) {
		v, err := strconv.ParseUint(m[2], 10, 64)
		if m[1] == "-" {
			v = -v
		}
		if err == nil && isAddress(v) {
			found = append(found, m[0])
		}
	}
	return found
}

// TestOldRecordings: what earlier versions recorded holds addresses; what is shown of it does not,
// as text and as JSON.
func TestOldRecordings(t *testing.T) {
	files, err := filepath.Glob(traces + "*/*.trace")
	qt.Assert(t, qt.IsNil(err))
	raw, attempts := 0, 0
	for _, file := range files {
		records := func() *trace.Reader {
			f, err := os.Open(file)
			qt.Assert(t, qt.IsNil(err))
			t.Cleanup(func() { f.Close() })
			r, err := trace.NewReader(f)
			qt.Assert(t, qt.IsNil(err))
			return r
		}
		var log strings.Builder
		for r := records(); ; {
			rec, err := r.Next()
			if err != nil {
				break
			}
			if c := rec.Chunk; c != nil && c.What == trace.Log {
				log.Write(c.Data)
			}
		}
		if len(addressesIn(log.String())) > 0 {
			raw++
		}
		var text, lines bytes.Buffer
		both := twoSinks{&textSink{text: render.NewText(&text, 300, false)}, jsonSink{&lines}}
		r := records()
		s, err := newSession(r.Header(), &selection{}, both)
		qt.Assert(t, qt.IsNil(err))
		s.Shows = func(*load.Attempt) bool { attempts++; return true }
		qt.Assert(t, qt.IsNil(s.replay(r)))
		qt.Check(t, qt.HasLen(addressesIn(text.String()), 0), qt.Commentf("%s: text", file))
		qt.Check(t, qt.HasLen(addressesIn(lines.String()), 0), qt.Commentf("%s: JSON", file))
	}
	t.Logf("%d recordings, %d with addresses, %d attempts", len(files), raw, attempts)
	qt.Check(t, qt.IsTrue(raw >= 10 && attempts > len(files)/2))
}

type twoSinks struct{ one, other sink }

func (s twoSinks) attempt(a *load.Attempt) error {
	if err := s.one.attempt(a); err != nil {
		return err
	}
	return s.other.attempt(a)
}

// TestPastedAddresses: what is quoted from a text is JSON without the addresses in it, and is still
// JSON. Numbers that are none stay.
func TestPastedAddresses(t *testing.T) {
	const text = `0: R1=ctx() R10=fp0
0: (18) r1 = 0xffff888103c5ec00
R1 pointer arithmetic on map_ptr prohibited 0xffff888103c5ec00, -131391453184000 and 0xff110001000300c0
processed 1 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
libbpf: prog 'a': failed to load at ffffffff81234567: -13
`
	qt.Assert(t, qt.HasLen(addressesIn(text), 5))
	out := filepath.Join(t.TempDir(), "out")
	f, err := os.Create(out)
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	qt.Assert(t, qt.IsNil(explainText(std{out: f, err: f}, "-", strings.NewReader(text), true)))
	b, err := os.ReadFile(out)
	qt.Assert(t, qt.IsNil(err))
	var d load.Diagnosis
	qt.Assert(t, qt.IsNil(json.Unmarshal(b, &d)), qt.Commentf("%s", b))
	qt.Check(t, qt.Equals(d.Rule, "VER009"))
	qt.Check(t, qt.HasLen(addressesIn(string(b)), 0))
	qt.Check(t, qt.StringContains(string(b), "prohibited 0x****************, -*************** and"))
	qt.Check(t, qt.StringContains(string(b), ": -13"))
}
