// SPDX-License-Identifier: Apache-2.0

package fdinfo

import (
	"os"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

func TestNumber(t *testing.T) {
	f, err := os.Open("fdinfo.go")
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	_, err = f.Seek(7, 0)
	qt.Assert(t, qt.IsNil(err))
	n, err := Number(int(f.Fd()), "pos")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(n, 7))
	_, err = Number(int(f.Fd()), "po")
	qt.Check(t, qt.ErrorMatches(err, "file descriptor .* has no po: no such field"))
	qt.Check(t, qt.ErrorIs(err, ErrNoField))
	_, err = Number(1<<20, "pos")
	qt.Check(t, qt.ErrorIs(err, os.ErrNotExist))
}

func TestReadable(t *testing.T) {
	r, w, err := os.Pipe()
	qt.Assert(t, qt.IsNil(err))
	defer r.Close()
	qt.Check(t, qt.IsFalse(Readable(int(r.Fd()), time.Millisecond)))
	_, err = w.WriteString("x")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(Readable(int(r.Fd()), 0)))
	_, err = r.Read(make([]byte, 1))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsFalse(Readable(int(r.Fd()), 0)))
	w.Close()
	qt.Check(t, qt.IsTrue(Readable(int(r.Fd()), 0)), qt.Commentf("its end"))
}
