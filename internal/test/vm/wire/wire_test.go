// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"io"
	"testing"

	"github.com/go-quicktest/qt"
)

func TestFrame(t *testing.T) {
	var stream bytes.Buffer
	qt.Assert(t, qt.IsNil(NewEncoder(&stream).Encode(Stdout, []byte("hi"))))
	qt.Check(t, qt.Equals(stream.String(), "\xb7O\x00\x00\x00\x02hi"))
}

func TestLongPayload(t *testing.T) {
	var stream bytes.Buffer
	long := bytes.Repeat([]byte("x"), MaxPayload+1)
	n, err := NewEncoder(&stream).Writer(Stderr).Write(long)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(n, len(long)))
	var sizes []int
	for {
		kind, payload, err := Decode(&stream)
		if err == io.EOF {
			break
		}
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(kind, Stderr))
		sizes = append(sizes, len(payload))
	}
	qt.Check(t, qt.DeepEquals(sizes, []int{65536, 1}))
}

func TestDecodeErrors(t *testing.T) {
	for stream, want := range map[string]string{
		"":                             "EOF",
		"\xb7O\x00":                    "unexpected EOF",
		"\xb7O\x00\x00\x00\x02h":       "unexpected EOF",
		"\xb7O\x00\x00\x00\x02":        "unexpected EOF",
		"O\x00\x00\x00\x02hi":          "read frame: starts with byte 0x4f, want 0xb7",
		"\xb7O\xff\xff\xff\xff":        "read frame: payload of 4294967295 bytes, at most 65536 allowed",
		"\xb7O\x00\x01\x00\x01" + "xx": "read frame: payload of 65537 bytes, at most 65536 allowed",
	} {
		_, _, err := Decode(bytes.NewReader([]byte(stream)))
		qt.Check(t, qt.ErrorMatches(err, want), qt.Commentf("%q", stream))
	}
}
