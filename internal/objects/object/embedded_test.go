// SPDX-License-Identifier: Apache-2.0

package object

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-quicktest/qt"
)

// native is the header of an executable for x86-64.
func native() []byte {
	b := make([]byte, headerSize)
	copy(b, elfStart)
	b[16], b[18] = 2, 62
	return b
}

func found(t testing.TB, b []byte) (list []Embedded, last error) {
	for e, err := range embedded(bytes.NewReader(b), int64(len(b))) {
		if err != nil {
			return list, err
		}
		list = append(list, e)
	}
	return list, nil
}

// TestEmbedded: objects are found wherever they lie, on borders of what is read at a time too, and
// are what they were.
func TestEmbedded(t *testing.T) {
	small := read(t, "small.o")
	other := read(t, "http_200_v4.o")
	for _, at := range []int{headerSize, window - 3, window - headerSize, window, window + 1, 2*window - 6} {
		b := append(native(), bytes.Repeat([]byte("\x7fELF"), (at-headerSize)/4+1)...)[:at]
		second := len(b) + len(small) + 5
		b = append(append(append(append(b, small...), "\x7fELF\x02"...), other...), elfStart...)
		list, err := found(t, b)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(len(list), 2), qt.Commentf("at %d", at))
		for i, want := range []Embedded{{int64(at), small}, {int64(second), other}} {
			qt.Check(t, qt.Equals(list[i].Offset, want.Offset))
			qt.Check(t, qt.IsTrue(bytes.Equal(list[i].Bytes, want.Bytes)))
			_, err := Parse(list[i].Bytes)
			qt.Check(t, qt.IsNil(err))
		}
	}
}

// What is cut off, or not quite an object, is none.
func TestNotEmbedded(t *testing.T) {
	small := read(t, "small.o")
	for name, change := range map[string]func([]byte) []byte{
		"nothing":      func([]byte) []byte { return nil },
		"cut":          func(b []byte) []byte { return b[:len(b)-1] },
		"header alone": func(b []byte) []byte { return b[:headerSize] },
		"machine":      func(b []byte) []byte { b[18] = 62; return b },
		"executable":   func(b []byte) []byte { b[16] = 2; return b },
		"version":      func(b []byte) []byte { b[20] = 2; return b },
		"segments":     func(b []byte) []byte { b[56] = 1; return b },
		"no sections":  func(b []byte) []byte { b[60], b[61] = 0, 0; return b },
		"many":         func(b []byte) []byte { b[61] = 0xff; return b },
		"names":        func(b []byte) []byte { b[62], b[63] = 0xff, 0xff; return b },
		"not names":    func(b []byte) []byte { b[62] = 0; return b },
		"offset":       func(b []byte) []byte { b[47] = 0xff; return b },
	} {
		list, err := found(t, append(native(), change(bytes.Clone(small))...))
		qt.Check(t, qt.IsNil(err))
		qt.Check(t, qt.HasLen(list, 0), qt.Commentf("%s", name))
	}
}

// TestEmbeddedHostile: headers without number, each of which claims the largest table, and objects
// without number: both end with an error, and what was read is bounded.
func TestEmbeddedHostile(t *testing.T) {
	header := read(t, "small.o")[:headerSize]
	order.PutUint64(header[40:], headerSize)
	order.PutUint16(header[60:], maxEmbeddedSections)
	order.PutUint16(header[62:], 1)
	claims := counted{b: append(bytes.Repeat(header, 20_000), make([]byte, maxEmbeddedSections*sectionSize)...)}
	var last error
	for _, err := range embedded(&claims, int64(len(claims.b))) {
		last = err
	}
	qt.Assert(t, qt.ErrorMatches(last, "too much in it looks like an ELF object"))
	qt.Check(t, qt.IsTrue(claims.read < len(claims.b)+maxWasted+window), qt.Commentf("%d of %d", claims.read, len(claims.b)))

	starts := counted{b: bytes.Repeat(elfStart, 1<<20)}
	for _, err := range embedded(&starts, int64(len(starts.b))) {
		last = err
	}
	qt.Assert(t, qt.ErrorMatches(last, "too much in it looks like an ELF object"))
	qt.Check(t, qt.IsTrue(starts.read < len(starts.b)+maxWasted+window), qt.Commentf("%d of %d", starts.read, len(starts.b)))

	list, err := found(t, bytes.Repeat(read(t, "small.o"), maxEmbedded+1))
	qt.Assert(t, qt.ErrorMatches(err, "more than 1000 BPF objects in it"))
	qt.Assert(t, qt.HasLen(list, maxEmbedded))
}

// counted counts what is read of it.
type counted struct {
	b    []byte
	read int
}

func (c *counted) ReadAt(p []byte, off int64) (int, error) {
	n, err := bytes.NewReader(c.b).ReadAt(p, off)
	c.read += n
	return n, err
}

// This very executable has none, and one with an object behind it has that.
func TestReadEmbedded(t *testing.T) {
	self, err := os.Executable()
	qt.Assert(t, qt.IsNil(err))
	b, err := os.ReadFile(self)
	qt.Assert(t, qt.IsNil(err))
	with := filepath.Join(t.TempDir(), "with")
	qt.Assert(t, qt.IsNil(os.WriteFile(with, append(b, read(t, "small.o")...), 0o600)))
	for path, want := range map[string]int{self: 0, with: 1} {
		n := 0
		for e, err := range ReadEmbedded(path) {
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(e.Offset, int64(len(b))))
			n++
		}
		qt.Check(t, qt.Equals(n, want))
	}
	for _, err := range ReadEmbedded(filepath.Join(t.TempDir(), "none")) {
		qt.Check(t, qt.ErrorMatches(err, "no such file or directory"))
	}
}

// FuzzEmbedded: what is found lies in the file, apart from each other, and begins as an object.
func FuzzEmbedded(f *testing.F) {
	small := read(f, "small.o")
	f.Add(append(native(), small...))
	f.Add(append(small, small[:len(small)-1]...))
	f.Add(bytes.Repeat(small[:headerSize], 3))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := found(t, b)
		if err == nil && len(list) > maxEmbedded {
			t.Fatalf("%d objects", len(list))
		}
		end := int64(0)
		for _, e := range list {
			length := int64(len(e.Bytes))
			if e.Offset < end || length < headerSize || e.Offset+length > int64(len(b)) || !bytes.Equal(e.Bytes, b[e.Offset:e.Offset+length]) {
				t.Fatalf("%d bytes at %d of %d", length, e.Offset, len(b))
			}
			end = e.Offset + length
			if o, err := Parse(e.Bytes); err == nil && o == nil {
				t.Fatal("neither an object nor an error")
			}
		}
	})
}
