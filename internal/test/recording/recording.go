// SPDX-License-Identifier: Apache-2.0

// Package recording is for tests that commit what they record.
package recording

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"testing"

	"github.com/go-quicktest/qt"
)

// Squeeze compresses a trace as well as gzip can: they are recorded with speed in mind.
func Squeeze(t testing.TB, data []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(data))
	qt.Assert(t, qt.IsNil(err))
	plain, err := io.ReadAll(r)
	qt.Assert(t, qt.IsNil(err))
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	qt.Assert(t, qt.IsNil(err))
	_, err = w.Write(plain)
	qt.Assert(t, qt.IsNil(errors.Join(err, w.Close())))
	return b.Bytes()
}
