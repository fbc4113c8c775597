// SPDX-License-Identifier: Apache-2.0

//go:build linux

package reading

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/test/cputime"
)

// endless is a log of many megabytes, made while it is read. It looks at the memory in use.
type endless struct {
	line   func(n int) string
	left   int // bytes
	n      int
	reads  int
	buffer bytes.Buffer
	peak   uint64
}

func (e *endless) Read(p []byte) (int, error) {
	if e.reads++; e.reads%64 == 0 { // 8 MiB
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		e.peak = max(e.peak, m.HeapAlloc)
	}
	for e.buffer.Len() < len(p) && e.left > 0 {
		l := e.line(e.n)
		e.n++
		e.left -= len(l)
		e.buffer.WriteString(l)
	}
	n, err := e.buffer.Read(p)
	if n == 0 {
		return 0, io.EOF
	}
	return n, err
}

// Whatever is in many megabytes, they take a bounded time and a bounded memory, and a failure in
// their middle is found.
func TestLinesOfMuch(t *testing.T) {
	const needle = "libbpf: map 'needle': failed to create: -EPERM\n"
	for name, line := range map[string]func(int) string{
		"a healthy server": func(n int) string {
			return fmt.Sprintf("2026-01-02T03:04:05.%06dZ level=info msg=\"request served\" path=/x/%d took=%dms bytes=%d\n", n%1e6, n, n%77, n*3)
		},
		"an agent that fails again and again": func(n int) string {
			return fmt.Sprintf("2026-01-02T03:04:05.%06dZ level=error msg=\"program p: load program: permission denied: R%d !read_ok\"\n", n%1e6, n%10)
		},
		"a verifier's log": func(n int) string {
			return fmt.Sprintf("%d: (bf) r1 = r2                     ; R1_w=scalar(id=%d) R2=scalar(id=%d)\n", n%4096, n, n)
		},
		"lines that all matter": func(n int) string { return fmt.Sprintf("bpf %d%c failed\n", n, 'a'+rune(n%26)) },
		"one line":              func(n int) string { return fmt.Sprintf("bpf failed: %d ", n) },
		"empty lines":           func(int) string { return strings.Repeat("\n", 4096) },
	} {
		t.Run(name, func(t *testing.T) {
			size := 16 << 20
			if name == "a healthy server" {
				size = 100 << 20
			}
			at := 0
			in := &endless{left: size, line: func(n int) string {
				l := line(n)
				if at += len(l); at > size/2 && at-len(l) <= size/2 && name != "one line" {
					return needle
				}
				return l
			}}
			runtime.GC()
			var before runtime.MemStats
			runtime.ReadMemStats(&before)
			var lines []string
			var err error
			took := cputime.Of(func() { lines, err = Lines(in) })
			qt.Assert(t, qt.IsNil(err))
			kept := 0
			for _, l := range lines {
				kept += len(l) + 1
			}
			t.Logf("%v, %d lines, %d KiB kept, %d MiB at most", took, len(lines), kept>>10, (in.peak-min(in.peak, before.HeapAlloc))>>20)
			qt.Check(t, qt.IsTrue(took < 3*time.Second), qt.Commentf("%v", took)) // making them is in it
			qt.Check(t, qt.IsTrue(in.peak < before.HeapAlloc+24<<20), qt.Commentf("%d MiB", in.peak>>20))
			qt.Check(t, qt.IsTrue(kept <= 2*maxText), qt.Commentf("%d", kept))
			if name != "one line" && name != "lines that all matter" {
				qt.Check(t, qt.IsTrue(slices.Contains(lines, strings.TrimSpace(needle))))
			}
			var read Text
			took = cputime.Of(func() { read = Read(lines, noMore) })
			t.Logf("%d failures in %v", len(read.Failures), took)
			qt.Check(t, qt.IsTrue(took < 2*time.Second), qt.Commentf("%v", took))
		})
	}
}

func TestLines(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want []string
	}{
		{"", nil},
		{"a\r\nb", []string{"a", "b"}},
		{"a\n\n", []string{"a", ""}},
	} {
		got, err := Lines(strings.NewReader(tt.in))
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.DeepEquals(got, tt.want))
	}
	_, err := Lines(strings.NewReader("\x7fELF\x00\x00"))
	qt.Check(t, qt.ErrorIs(err, ErrNotText))
	_, err = Lines(io.MultiReader(strings.NewReader("a\nb"), errorReader{}))
	qt.Check(t, qt.ErrorIs(err, io.ErrClosedPipe))
}

type errorReader struct{}

func (errorReader) Read([]byte) (int, error) { return 0, io.ErrClosedPipe }

// The end of what matters is kept as it is, and of what repeats itself before that a few.
func TestSieve(t *testing.T) {
	var b strings.Builder
	for n := range 40_000 {
		fmt.Fprintf(&b, "healthy %d\nbpf: load program failed: %d times so far\n%s", n, n, strings.Repeat("x\n", 40))
	}
	b.WriteString("libbpf: map 'm': failed to create: -EPERM\nthe end\n")
	lines := Split(b.String())
	qt.Check(t, qt.Equals(lines[len(lines)-2], "the end"))
	qt.Check(t, qt.Equals(lines[len(lines)-1], gap))
	qt.Check(t, qt.IsTrue(slices.Contains(lines, "bpf: load program failed: 0 times so far")))
	qt.Check(t, qt.IsTrue(slices.Contains(lines, "healthy 0")))
	qt.Check(t, qt.IsTrue(len(lines) <= maxLines+1))
}

// Texts of megabytes would leave a fuzzer a hundred executions a second.
var few = bounds{text: maxText >> 8, lines: maxLines >> 8, line: maxLine >> 8, last: lastBytes >> 8, block: maxBlock >> 8}

func FuzzLines(f *testing.F) {
	f.Add("a\nbpf failed\r\n", 3)
	f.Add("libbpf: x failed: -22\n\x00", 70_000)
	f.Add("libbpf: x failed: -22\n.", 69_939)
	f.Fuzz(func(t *testing.T, s string, times int) {
		times = 1 + int(uint(times)%uint(3*few.text/(len(s)+1)+1))
		text := strings.Repeat(s, times)
		list, err := lines(strings.NewReader(text), few)
		if err != nil {
			return
		}
		kept := 0
		for _, l := range list {
			if kept += len(l) + 1; l != gap && l != lost && !strings.Contains(text, l) {
				t.Fatalf("%q is not in the text", l)
			}
		}
		if kept > 2*few.text || len(list) > few.lines+2 {
			t.Fatalf("%d bytes in %d lines", kept, len(list))
		}
	})
}
