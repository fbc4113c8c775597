// SPDX-License-Identifier: Apache-2.0

// Package kmsg reads what the kernel writes to its log while something else happens. The log has a
// clock of its own (the scheduler's), so how far it is from the monotonic one is learnt from when
// lines arrive.
package kmsg

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// MaxLines bounds what is told of one moment: the last lines.
	MaxLines = 8
	// MaxLine bounds a line in bytes.
	MaxLine = 256

	maxKept = 256 // lines that are remembered
	// record is more than the kernel puts into one.
	record = 8 << 10
	// maxRead bounds the records that are read at once: the log of a kernel that panics is long.
	maxRead = 4096
)

// Nanoseconds.
const (
	before = 2e6   // a line is dated too late rather than too early, but clocks drift
	after  = 250e6 // lines are read when something else comes
	// drift is how much the clocks may part in a second, by NTP.
	drift = 500e3
)

// Log are the lines of the kernel's log from now on.
type Log struct {
	file  io.ReadCloser
	buf   []byte // of reads, which come many times a second
	clock clock
	lines []line
}

type line struct {
	at   int64 // of the log's clock
	text string
}

// clock is the distance from the log's clock to the monotonic one: at most offset, as was known at
// read.
type clock struct {
	known        bool
	offset, read int64
}

// Open begins behind what is there. It needs CAP_SYSLOG where kernel.dmesg_restrict is set.
func Open() (*Log, error) {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if _, err := unix.Seek(fd, 0, unix.SEEK_END); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &Log{file: file(fd)}, nil
}

// file reads without waiting, which os.File does not.
type file int

func (f file) Read(b []byte) (int, error) { return unix.Read(int(f), b) }
func (f file) Close() error               { return unix.Close(int(f)) }

// Close lets go of the log.
func (l *Log) Close() error { return l.file.Close() }

// Read takes what has come, at a moment of the monotonic clock.
func (l *Log) Read(now int64) {
	if l.buf == nil {
		l.buf = make([]byte, record)
	}
	b := l.buf
	for range maxRead {
		n, err := l.file.Read(b)
		switch {
		case errors.Is(err, unix.EPIPE): // lines were overwritten before they were read
			continue
		case err != nil || n <= 0:
			return
		}
		if read, ok := parse(b[:n]); ok {
			l.clock.learn(read.at, now)
			l.lines = append(l.lines, read)
		}
	}
}

// learn: a line that is there now was not written later.
func (c *clock) learn(at, now int64) {
	latest := now - at
	if c.known {
		latest = min(latest, c.offset+(now-c.read)/1e9*drift)
	}
	c.known, c.offset, c.read = true, latest, now
}

// Between are the lines that were written from start to end, as well as the clocks are known.
func (l *Log) Between(start, end int64) (lines []string) {
	for _, n := range l.lines {
		if at := n.at + l.clock.offset; start-before <= at && at <= end+after {
			lines = append(lines, n.text)
		}
	}
	return lines[max(0, len(lines)-MaxLines):]
}

// Forget bounds what is remembered. What was asked for has been by then.
func (l *Log) Forget() {
	if n := len(l.lines) - maxKept; n > 0 {
		l.lines = append([]line(nil), l.lines[n:]...)
	}
}

// parse reads one record: "6,1234,56789012,-;text", with further lines of fields behind. Records of
// user space (its facilities are not 0) are none of the kernel's words.
func parse(b []byte) (line, bool) {
	head, text, ok := bytes.Cut(b, []byte(";"))
	fields := strings.Split(string(head), ",")
	if !ok || len(fields) < 3 {
		return line{}, false
	}
	priority, err := strconv.ParseUint(fields[0], 10, 32)
	if err != nil || priority>>3 != 0 {
		return line{}, false
	}
	us, err := strconv.ParseInt(fields[2], 10, 64)
	if err != nil || us < 0 || us > 1<<62/1000 {
		return line{}, false
	}
	text, _, _ = bytes.Cut(text, []byte("\n"))
	return line{us * 1000, string(text[:min(len(text), MaxLine)])}, true
}
