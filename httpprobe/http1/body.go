// SPDX-License-Identifier: Apache-2.0

package http1

import "math"

// framing says how the end of a body is told (RFC 9112, section 6.3).
type framing uint8

const (
	noBody framing = iota
	byLength
	byChunks
	untilClose
)

// progress is what became of a body.
type progress uint8

const (
	more   progress = iota // it goes on
	done                   // it has ended
	broken                 // its framing is not understood, or was not seen: where it ends is unknown
)

type chunkState uint8

const (
	chunkSize    chunkState = iota // before or within the hexadecimal digits
	chunkSpace                     // blanks after them
	chunkExt                       // an extension, skipped
	chunkSizeLF                    // the line's LF
	chunkData                      //
	chunkDataCR                    // the end of line that follows the data
	chunkDataLF                    //
	trailerStart                   // at the start of a line of the trailer section
	trailerLine                    // within one
	trailerLF                      // its LF
	endLF                          // the LF of the empty line that ends everything
)

// Longest line with a chunk's size, and longest trailer section, in bytes.
const (
	maxChunkLine = 4096
	maxTrailer   = 16 << 10
)

// body follows a message's body without keeping any of it.
type body struct {
	kind   framing
	state  chunkState
	digits uint8
	line   uint16 // bytes of the line of a chunk's size, or of the trailer section
	left   uint64 // of the body, or of this chunk's data
}

// feed reads on; it takes all of b unless it returns done or broken.
func (b *body) feed(p []byte) (n int, s progress) {
	switch b.kind {
	case untilClose:
		return len(p), more
	case byLength:
		n = int(min(b.left, uint64(len(p))))
		b.left -= uint64(n)
		if b.left == 0 {
			return n, done
		}
		return n, more
	case byChunks:
		for n < len(p) {
			if b.state == chunkData {
				take := min(b.left, uint64(len(p)-n))
				b.left -= take
				n += int(take)
				if b.left == 0 {
					b.state = chunkDataCR
				}
				continue
			}
			s := b.octet(p[n])
			n++
			if s != more {
				return n, s
			}
		}
		return n, more
	}
	return 0, done
}

// octet takes one octet of a chunked body's framing.
//
//revive:disable-next-line:cyclomatic a state machine, a case for each state
func (b *body) octet(c byte) progress {
	switch b.state {
	case chunkSize:
		if v, ok := hex(c); ok {
			if b.digits == 16 {
				return broken
			}
			b.digits++
			b.left = b.left<<4 | uint64(v)
			return more
		}
		if b.digits == 0 {
			return broken
		}
		return b.afterSize(c)
	case chunkSpace:
		return b.afterSize(c)
	case chunkExt:
		if b.line++; b.line > maxChunkLine || c == '\n' {
			return broken
		}
		if c == '\r' {
			b.state = chunkSizeLF
		}
	case chunkSizeLF:
		if c != '\n' || b.left > math.MaxInt64 {
			return broken
		}
		b.line = 0
		b.state = chunkData
		if b.left == 0 {
			b.state = trailerStart
		}
	case chunkDataCR:
		if c != '\r' {
			return broken
		}
		b.state = chunkDataLF
	case chunkDataLF:
		if c != '\n' {
			return broken
		}
		b.state, b.digits, b.left, b.line = chunkSize, 0, 0, 0
	case trailerStart:
		if c == '\r' {
			b.state = endLF
			return more
		}
		b.state = trailerLine
		return b.trailer(c)
	case trailerLine:
		return b.trailer(c)
	case trailerLF:
		if c != '\n' {
			return broken
		}
		b.state = trailerStart
	case endLF:
		if c != '\n' {
			return broken
		}
		return done
	}
	return more
}

func (b *body) afterSize(c byte) progress {
	if b.line++; b.line > maxChunkLine {
		return broken
	}
	switch c {
	case ' ', '\t':
		b.state = chunkSpace
	case ';':
		b.state = chunkExt
	case '\r':
		b.state = chunkSizeLF
	default:
		return broken
	}
	return more
}

func (b *body) trailer(c byte) progress {
	if b.line++; b.line > maxTrailer || c == '\n' {
		return broken
	}
	if c == '\r' {
		b.state = trailerLF
	}
	return more
}

// skip passes over bytes that were not seen. used is less than n only with done.
func (b *body) skip(n uint64) (used uint64, s progress) {
	switch b.kind {
	case untilClose:
		return n, more
	case byLength:
		used = min(b.left, n)
		b.left -= used
		if b.left == 0 {
			return used, done
		}
		return used, more
	case byChunks:
		for used < n {
			switch b.state {
			case chunkData:
				take := min(b.left, n-used)
				b.left -= take
				used += take
				if b.left == 0 {
					b.state = chunkDataCR
				}
			case chunkDataCR, chunkDataLF: // nothing else can stand here
				b.octet("\r\n"[b.state-chunkDataCR])
				used++
			default:
				return n, broken
			}
		}
		return used, more
	}
	return 0, done
}

func hex(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
