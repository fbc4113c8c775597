// SPDX-License-Identifier: Apache-2.0

package kmsg

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// script is a log whose reads are given.
type script struct{ records []string }

func (s *script) Read(b []byte) (int, error) {
	if len(s.records) == 0 {
		return 0, unix.EAGAIN
	}
	r := s.records[0]
	s.records = s.records[1:]
	if r == "" {
		return 0, unix.EPIPE
	}
	return copy(b, r), nil
}

func (s *script) Close() error { return nil }

const ms = int64(1e6)

// at is a record of the kernel, whose clock is 7 s behind the monotonic one.
func at(t int64, text string) string {
	return fmt.Sprintf("4,99,%d,-;%s\n SUBSYSTEM=x\n", (t-7000*ms)/1000, text)
}

func TestBetween(t *testing.T) {
	var s script
	l := Log{file: &s}
	now := 100_000 * ms
	s.records = []string{at(now-3*ms, "long before"), "", at(now-1*ms, "before")}
	l.Read(now)
	now += 2000 * ms
	s.records = []string{at(now-30*ms, "just before"), at(now-9*ms, "during\x1b[2J"), "12,1,2,-;of user space", "nonsense", at(now, "the end")}
	l.Read(now)
	qt.Check(t, qt.DeepEquals(l.Between(now-10*ms, now), []string{"during\x1b[2J", "the end"}))
	qt.Check(t, qt.HasLen(l.Between(now-3000*ms, now-2500*ms), 0))
	now += 5000 * ms
	s.records = []string{at(now-400*ms, "later"), at(now, "much later")}
	l.Read(now)
	qt.Check(t, qt.DeepEquals(l.Between(now-500*ms, now-450*ms), []string{"later"}))
}

// The first line says the time as well as it can be known: that it was read.
func TestFirstLine(t *testing.T) {
	l := Log{file: &script{[]string{at(50*ms+7000*ms, "first")}}}
	l.Read(9000 * ms)
	qt.Check(t, qt.DeepEquals(l.Between(8800*ms, 8900*ms), []string{"first"}))
	qt.Check(t, qt.HasLen(l.Between(8000*ms, 8700*ms), 0))
}

func TestBounds(t *testing.T) {
	var s script
	l := Log{file: &s}
	now := 100_000 * ms
	for i := range 2 * maxKept {
		s.records = append(s.records, at(now, fmt.Sprintf("%d %s", i, strings.Repeat("x", 2*MaxLine))))
	}
	l.Read(now)
	l.Forget()
	qt.Check(t, qt.HasLen(l.lines, maxKept))
	told := l.Between(now-ms, now)
	qt.Assert(t, qt.HasLen(told, MaxLines))
	qt.Check(t, qt.HasLen(told[0], MaxLine))
	qt.Check(t, qt.IsTrue(strings.HasPrefix(told[MaxLines-1], fmt.Sprint(2*maxKept-1))))
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{at(7_500*ms, "text"), "6,1,2;t", "6,1,99999999999999999999,-;t", ";", "4,,0,-;"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, ok := parse(b); ok && (n.at < 0 || len(n.text) > MaxLine || strings.Contains(n.text, "\n")) {
			t.Errorf("%q: %d %q", b, n.at, n.text)
		}
	})
}
