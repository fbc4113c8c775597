// SPDX-License-Identifier: Apache-2.0

package guardian

import (
	"bufio"
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// The state file outlives its guardian, and its disk can be full or broken. Nothing but what a
// guardian wrote makes anybody write the sysctl: from 0 up to 2, or back to 2.
func FuzzState(f *testing.F) {
	f.Add([]byte(`{"old":2,"set":1,"boot_id":"x"}` + strings.Repeat(" ", 90)))
	f.Add([]byte(`{"old":0,"set":2,"boot_id":"x"}{"old":2,"set":1}`))
	f.Add([]byte(`{"old":-1,"set":9223372036854775808}`))
	f.Add(bytes.Repeat([]byte{' '}, 8192))
	name := filepath.Join(f.TempDir(), "state")
	r, err := openRecord(name)
	qt.Assert(f, qt.IsNil(err))
	f.Cleanup(r.close)
	f.Fuzz(func(t *testing.T, b []byte) {
		qt.Assert(t, qt.IsNil(r.f.Truncate(0)))
		_, err := r.f.WriteAt(b, 0)
		qt.Assert(t, qt.IsNil(err))
		s, err := r.read()
		if err == nil && s != nothing && (s.Old < 0 || s.Old > 2 || s.Set < 1 || s.Set > 2 || s.Old == s.Set) {
			t.Fatalf("%+v", s)
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Fatalf("%q", err)
		}
		// Whatever was there, what is written over it is read.
		want := state{Old: 2, Set: 1, BootID: "b"}
		qt.Assert(t, qt.IsNil(r.write(want)))
		if len(b) <= recordSize {
			got, err := r.read()
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.Equals(got, want))
		}
		_, _ = readMessage(bufio.NewReader(bytes.NewReader(b)))
	})
}
