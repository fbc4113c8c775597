// SPDX-License-Identifier: Apache-2.0

package reading

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
)

// Bounds of what is kept of a text. One that is larger than maxText is sifted: what cannot be about
// BPF is left out, and of what repeats itself most.
const (
	maxText   = 1 << 20   // bytes
	maxLines  = 20_000    // of what is read further
	maxLine   = 128 << 10 // bytes; of a longer line the two ends
	lastBytes = 512 << 10 // of the end of what matters, whatever it is
	before    = 16        // lines in front of one that matters
	beforeLog = 256       // lines in front of the end of a verifier's log
	behind    = 12        // lines behind one that matters
	maxBlock  = 64 << 10  // bytes of lines that lie together
	maxShape  = 3         // blocks that look alike, besides those at the end
)

// gap stands where lines were left out, lost where lines that matter are among them.
const (
	gap  = "\x00"
	lost = "\x00\x00"
)

// ErrNotText is returned for what is no text.
var ErrNotText = errors.New("this is neither a trace nor text")

// Lines reads a text of any length and returns the lines of it that may matter, with a gap where
// some are left out. It takes memory for a few megabytes, whatever the length.
func Lines(r io.Reader) ([]string, error) {
	return lines(r, bounds{maxText, maxLines, maxLine, lastBytes, maxBlock})
}

// bounds are those of above. A fuzzer takes smaller ones: what is about texts that are too large is
// then about small ones.
type bounds struct{ text, lines, line, last, block int }

func lines(r io.Reader, most bounds) ([]string, error) {
	in := bufio.NewReaderSize(r, most.line)
	if head, _ := in.Peek(8 << 10); bytes.IndexByte(head, 0) >= 0 {
		return nil, ErrNotText
	}
	s := sieve{most: most}
	for {
		head, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			// What follows overwrites the buffer.
			err = s.long(bytes.Clone(head[:most.line/2]), in)
		} else if len(head) > 0 {
			s.line(head)
		}
		if errors.Is(err, io.EOF) {
			return s.lines(), nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// long takes the two ends of a line that is longer than the buffer.
func (s *sieve) long(head []byte, in *bufio.Reader) error {
	s.line(head)
	var tail []byte
	for {
		part, err := in.ReadSlice('\n')
		tail = append(tail, part...)
		if over := len(tail) - s.most.line/2; over > 0 {
			tail = append(tail[:0], tail[over:]...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			if len(tail) > 0 {
				s.line(tail)
			}
			return err
		}
	}
}

// sieve holds a small text whole, and of a large one what matters.
type sieve struct {
	most bounds

	whole []string
	size  int
	large bool

	recent [beforeLog][]byte // the lines before this one that are in no block, a ring
	count  int               // of lines in it so far
	used   int               // of those, how many may still be taken
	left   int               // lines that are still kept behind the last that mattered
	block  block
	last   []block // of at most lastBytes
	closed int     // blocks so far
	held   int     // bytes of last
	kept   []block
	bytes  int // of kept
	shapes map[uint64]int
}

// block are lines that lie together.
type block struct {
	lines []string
	size  int
	order int    // among all, those included that were not kept
	shape uint64 // of the lines that matter, without their numbers
}

func (s *sieve) line(line []byte) {
	line = bytes.TrimRight(line, "\r\n")
	if s.large {
		s.sift(line)
		return
	}
	s.whole = append(s.whole, string(line))
	s.size += len(line) + 1
	if s.size <= s.most.text && len(s.whole) <= s.most.lines {
		return
	}
	s.large, s.shapes = true, map[uint64]int{}
	for _, l := range s.whole {
		s.sift([]byte(l))
	}
	s.whole = nil
}

// sift keeps a line that matters, with its neighbours.
func (s *sieve) sift(line []byte) {
	if len(line) == 0 && s.left == 0 {
		return
	}
	switch m := matter(line); {
	case m.any():
		n := before
		if m.endsLog {
			n = beforeLog
		}
		s.takeRecent(n)
		s.keep(string(line))
		s.block.shape = s.block.shape*31 + shape(line)
		s.left = behind
	case s.left > 0:
		s.left--
		s.keep(string(line))
		if s.left == 0 {
			s.close()
		}
	default:
		at := &s.recent[s.count%beforeLog]
		*at = append((*at)[:0], line[:min(len(line), 4<<10)]...)
		s.count++
		s.used = min(s.used+1, beforeLog)
	}
}

// takeRecent puts the last lines that were passed over in front of one that matters.
func (s *sieve) takeRecent(n int) {
	n = min(n, s.used)
	for i := s.count - n; i < s.count; i++ {
		s.keep(string(s.recent[i%beforeLog]))
	}
	s.used = 0
}

func (s *sieve) keep(line string) {
	s.block.lines = append(s.block.lines, line)
	if s.block.size += len(line) + 1; s.block.size > s.most.block {
		s.close()
	}
}

// close ends a block. The oldest of those at the end make room for it, and are kept unless enough
// of them look alike.
func (s *sieve) close() {
	if len(s.block.lines) == 0 {
		return
	}
	s.block.order = s.closed
	s.closed++
	s.last, s.held = append(s.last, s.block), s.held+s.block.size
	s.block = block{}
	for s.held > s.most.last {
		old := s.last[0]
		s.last[0] = block{}
		s.last, s.held = s.last[1:], s.held-old.size
		if s.bytes+old.size > s.most.text-s.most.last || s.shapes[old.shape] >= maxShape {
			continue
		}
		s.shapes[old.shape]++
		s.kept, s.bytes = append(s.kept, old), s.bytes+old.size
	}
}

func (s *sieve) lines() []string {
	if !s.large {
		return s.whole
	}
	s.close()
	var out []string
	blocks := append(s.kept, s.last...)
	for i, b := range blocks {
		behind := gap
		if i+1 < len(blocks) && blocks[i+1].order != b.order+1 {
			behind = lost
		}
		out = append(append(out, b.lines...), behind)
	}
	if n := s.most.lines; len(out) > n {
		out = append(append(out[:n/4:n/4], lost), out[len(out)-n*3/4:]...)
	}
	return out
}

// shape is the same for lines that differ in numbers alone, but for those that may be an errno.
func shape(line []byte) uint64 {
	h := uint64(14695981039346656037)
	errno := false
	for _, c := range line {
		digit := c >= '0' && c <= '9'
		if errno = digit && errno || c == '-' || c == '('; digit && !errno {
			continue
		}
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

// Split cuts a text that is at hand into lines, as Lines does.
func Split(text string) []string {
	lines, err := Lines(strings.NewReader(strings.ReplaceAll(text, "\x00", "")))
	if err != nil {
		return nil
	}
	return lines
}
