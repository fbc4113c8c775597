// SPDX-License-Identifier: Apache-2.0

package redact

import (
	"bytes"
	"strconv"

	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
)

// bounds end in front of a number that the verifier works out.
var bounds = lazyregexp.New(`(?:min|max)(?:32)?(?:_value)?=$|var_off=?\(?$|var_off=?\(\S+ $|\(0x[0-9a-f]+; $`)

// Log is Text for a verifier's log, or a stretch of one, which may end in the middle of a number.
// One that is cut begins somewhere in the log, and so perhaps in the middle of a number too. So
// does a log whose beginning the kernel has overwritten, which does not say so.
func (l *Load) Log(b []byte, cut bool) {
	l.Text(b)
	if at := max(0, len(b)-32); len(b) > 0 {
		if m := end.FindSubmatchIndex(b[at:]); m != nil {
			star(b[at+m[2] : at+m[3]])
		}
	}
	if !cut {
		if m := rolled.FindIndex(b); m != nil && !number0.Match(b) && !word0.Match(b) {
			star(b[m[0]:m[1]])
		}
		return
	}
	if m := head.FindSubmatchIndex(b); m != nil {
		star(b[m[2]:m[3]])
	}
	// The rest of the line may be about an address that an instruction before the cut loads.
	line := b
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		line = b[:i]
	}
	for from, to := token(line, 0); from < to; from, to = token(line, to) {
		if v, ok := number(line[from:to]); ok && l.levels.address(v) {
			star(line[from:to])
		}
	}
}

var (
	// head is what is left of a number at the beginning of a stretch.
	head = lazyregexp.New(`^-?(?:0?x)?([0-9a-f]{1,20})`)
	// rolled is the same at the beginning of a log, where number0 and word0 are what logs begin
	// with: "0: R1=ctx", "func#0 @0", "fd 3 is not".
	rolled  = lazyregexp.New(`^[0-9a-f]{1,20}`)
	number0 = lazyregexp.New(`^[0-9]{1,7}: `)
	word0   = lazyregexp.New(`^[a-f]{1,4}[^0-9a-f]|^[0-9a-f]{1,4}[g-zA-Z_#]`)
	// end is what is there of a number at the end.
	end = lazyregexp.New(`(?:0xf|-|\bff)([0-9a-f]{1,20})$`)
)

// Text replaces the digits of addresses in text by stars, in place: everything stays where it is.
func (l *Load) Text(b []byte) {
	for rest := b; ; {
		i := bytes.Index(rest, loads)
		if i < 0 {
			break
		}
		rest = rest[i+len(loads):]
		if at := bytes.Index(rest[:min(len(rest), 8)], []byte(" = 0x")); at > 0 {
			if from, to := token(rest, at+3); from == at+3 {
				if v, ok := number(rest[from:to]); ok && l.levels.address(v) {
					l.know(v)
				}
			}
		}
	}
	for from, to := token(b, 0); from < to; from, to = token(b, to) {
		v, ok := number(b[from:to])
		if ok && (l.near(v) || l.levels.data(v) && !bounds.Match(b[max(0, from-32):from])) {
			star(b[from:to])
		}
	}
}

// Free replaces the digits of addresses by stars in a text that has nothing of a program in it:
// what may be an address of any kernel's is one there, that of its code included.
func Free(b []byte) {
	for from, to := token(b, 0); from < to; from, to = token(b, to) {
		if v, ok := number(b[from:to]); ok && v >= 0xff000000_00000000 && v < 0xffffffff_ffe00000 && !round(v) {
			star(b[from:to])
		}
	}
}

// loads begins the verifier's lines of instructions that load 64 bits.
var loads = []byte("(18) r")

// token finds the next number from a place on: with 0x in front, decimal with or without a sign, or
// the 16 digits that the kernel prints of an address. Those that are too short for an address are
// left out.
//
//revive:disable-next-line:cyclomatic a case for each form of a number
func token(b []byte, at int) (from, to int) {
	for i := at; i < len(b); i++ {
		switch c := b[i]; {
		case c == '0' && i+1 < len(b) && b[i+1] == 'x':
			to = i + 2
			for to < len(b) && isHex(b[to]) {
				to++
			}
			if to-i > 8 {
				return i, to
			}
			i = to - 1
		case (c == 'f' || c == 'F') && (i == 0 || !isWord(b[i-1])):
			to = i
			for to < len(b) && isHex(b[to]) {
				to++
			}
			if to-i == 16 && (to == len(b) || !isWord(b[to])) {
				return i, to
			}
			i = to - 1
		case isDigit(c):
			to = i
			for to < len(b) && isDigit(b[to]) {
				to++
			}
			if to-i >= 8 {
				if i > at && b[i-1] == '-' {
					i--
				}
				return i, to
			}
			i = to - 1
		}
	}
	return len(b), len(b)
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
func isHex(c byte) bool   { return isDigit(c) || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' }
func isWord(c byte) bool {
	return isDigit(c) || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
}

func number(token []byte) (uint64, bool) {
	s := string(token)
	switch {
	case len(s) > 2 && s[1] == 'x':
		v, err := strconv.ParseUint(s[2:], 16, 64)
		return v, err == nil
	case s[0] == '-':
		v, err := strconv.ParseInt(s, 10, 64)
		return uint64(v), err == nil
	case s[0] == 'f' || s[0] == 'F':
		v, err := strconv.ParseUint(s, 16, 64)
		return v, err == nil
	}
	v, err := strconv.ParseUint(s, 10, 64)
	return v, err == nil
}

func star(token []byte) {
	if len(token) > 2 && token[1] == 'x' {
		token = token[2:]
	}
	for i, c := range token {
		if c != '-' {
			token[i] = '*'
		}
	}
}

// directives of the kernel's formats: "*", length, what is printed.
var directives = lazyregexp.New(`%[-+ 0#]*(\*|\d*)(?:\.(\*|\d*))?(hh|h|ll|l|z|t|j|L|q)?([a-zA-Z%])`)

// Message takes addresses out of the arguments of a message of the verifier: pointers, what a
// number of 32 bits has above it, and what the format does not ask for. strings are what the
// arguments point to.
//
//revive:disable-next-line:cyclomatic a case for each of printk's verbs
func (l *Load) Message(format string, args *[4]uint64, strings *[4]string) {
	at := 0
	next := func(keep func(uint64) uint64, text bool) {
		if at < len(args) {
			args[at] = keep(args[at])
			if !text {
				strings[at] = ""
			}
			at++
		}
	}
	int32bit := func(v uint64) uint64 { return uint64(uint32(v)) }
	for _, m := range directives.Compiled().FindAllStringSubmatch(format, -1) {
		for _, star := range m[1:3] {
			if star == "*" {
				next(int32bit, false)
			}
		}
		switch verb := m[4]; {
		case verb == "%":
		case verb == "s", verb == "p":
			next(func(v uint64) uint64 {
				if v != 0 {
					return Placeholder
				}
				return 0
			}, verb == "s")
		case m[3] == "" || m[3][0] == 'h':
			next(int32bit, false)
		default:
			next(func(v uint64) uint64 {
				if l.levels.data(v) || verb != "d" && verb != "u" && verb != "i" && image(v) {
					return Placeholder
				}
				return v
			}, false)
		}
	}
	for ; at < len(args); at++ {
		args[at], strings[at] = 0, ""
	}
	for i, s := range strings {
		b := []byte(s)
		l.Text(b)
		strings[i] = string(b)
	}
}
