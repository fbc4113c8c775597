// SPDX-License-Identifier: Apache-2.0

package redact_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/watch/redact"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
)

// TestRealLogs: in what kernels from 5.10 to 7.2 said of real programs, nothing but addresses that
// instructions load is taken for one; and in the programs themselves nothing is.
func TestRealLogs(t *testing.T) {
	loads, others := 0, 0
	look := func(file string, log []byte) {
		out := bytes.Clone(log)
		redact.New(redact.Five).Log(out, false)
		was, is := strings.Split(string(log), "\n"), strings.Split(string(out), "\n")
		for i := range was {
			switch {
			case was[i] == is[i]:
				others++
			case strings.Contains(is[i], "(18) r") && strings.Count(is[i], "*") == 16:
				loads++
			default:
				t.Errorf("%s: %q became %q", file, was[i], is[i])
			}
		}
	}
	logs, err := filepath.Glob("../../../verifierlog/testdata/*.*")
	qt.Assert(t, qt.IsNil(err))
	for _, file := range logs {
		b, err := os.ReadFile(file)
		qt.Assert(t, qt.IsNil(err))
		look(file, b)
	}
	traces, err := filepath.Glob("../../demo/testdata/traces/*/*.trace")
	qt.Assert(t, qt.IsNil(err))
	programs := 0
	for _, file := range traces {
		f, err := os.Open(file)
		qt.Assert(t, qt.IsNil(err))
		r, err := trace.NewReader(f)
		qt.Assert(t, qt.IsNil(err))
		for {
			rec, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			qt.Assert(t, qt.IsNil(err))
			switch c := rec.Chunk; {
			case c == nil:
			case c.What == trace.Log:
				whole := c.Data // where it begins in the middle of a line, behind that
				if c.Offset > 0 {
					_, whole, _ = bytes.Cut(whole, []byte("\n"))
				}
				look(file, whole)
			case c.What == trace.Insns:
				programs++
				if redact.New(redact.Five).Hold(c.Data, c.Offset != 0) {
					t.Errorf("%s: a program was changed", file)
				}
			}
		}
		f.Close()
	}
	t.Logf("%d addresses in %d lines; %d pieces of programs", loads, loads+others, programs)
	qt.Check(t, qt.IsTrue(loads > 0 && others > 1000 && programs > 50))
}
