// SPDX-License-Identifier: Apache-2.0

package reading

import (
	"slices"
	"strconv"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
)

// Errno is an errno that a line of text names.
type Errno struct {
	Number int
	// Words says that it was read from what strerror(3) and its kin print, and not from a number or
	// a name.
	Words bool
	// Either says that the words stand for ENOTSUPP (524) as well as for EOPNOTSUPP (95). Where
	// Number is 0 they are a library's own, which it has for both and for what it found out by
	// itself.
	Either bool
	// Nameless says that it was read from what musl prints for an errno without words of its own.
	Nameless bool
}

// ErrnoOf returns the errno that a line names, false if it names none. The last one on a line
// counts: a chain of errors ends with what the kernel said.
//
// It never takes numbers for an errno that count or name something else: the sections of an
// object, omitted lines, lines of source, descriptors, processes, statuses of commands.
func ErrnoOf(line string) (Errno, bool) {
	if notErrno.MatchString(line) {
		line = notErrno.Compiled().ReplaceAllString(line, " ")
	}
	if m := strerror.FindStringSubmatch(line); m != nil {
		// strerror_r failed for the number that it was asked for.
		if n := knownErrno(m[1]); n != 0 {
			return Errno{Number: n}, true
		}
	}
	if nameless.MatchString(line) {
		return Errno{Number: abi.ENOTSUPP, Words: true, Nameless: true}, true
	}
	words, at := errnoWords(line)
	if n := errnoNumber(line, at >= 0); n != 0 {
		return Errno{Number: n}, true
	}
	if at >= 0 {
		return words, true
	}
	return Errno{}, false
}

var (
	// nameless is musl's answer to an errno that it does not know. Of those that these calls end
	// with it is one only.
	nameless = lazyregexp.New(`(?i)(?:bpf|seccomp|SO_ATTACH|attach_filter|kernel filter|verifier|prog\w*)\b.*: No error information\b`)
	strerror = lazyregexp.New(`strerror(?:_r)?\((?:errno=)?-?(\d{1,4})\)\s*=\s*-?\d+`)
	// notErrno are numbers with a name of their own.
	notErrno = lazyregexp.New(`(?i)\((?:truncated, )?\d+ line\(s\) omitted\)|section ?\(\d+\)|` +
		`\b(?:exit|http|response|grpc)(?:ed)?(?: with)?[ _-]?(?:status|code)[ :=]*(?:code )?-?\d+|\bstatus(?: code)?[ :=]+\d+|` +
		`\b(?:pid|tid|fd|line|port|ifindex|insn|insns|cpu|uid|gid|prog_id|map_id|id|size|off|offset|len|#)[ :=]*-?\d+|\*\*\* \[.*\] Error \d+`)

	errnoName = lazyregexp.New(`\bE[A-Z0-9]{2,15}(?:_[A-Z]{2,15})?\b`)
	// Numbers that say of themselves that they are an errno.
	sureNumber = lazyregexp.New(`(?i)unknown error:?\s*\(?-?([2-9]|\d{2,4})\b|\[errno:? -?(\d{1,4})\]|\bos error:? -?(\d{1,4})\b|` +
		`\b(?:Os|Errno|Error|System|RawOsError|Sys)(?: ?[{(] ?|:)(?:code: )?-?(\d{1,4})\b|Error: \((\d{1,3}), '|\berrno\s*(?:is|was|[:=(])?\s*-?(\d{1,4})\b`)
	// Numbers that do so by what stands before them and by nothing behind them.
	// A pair of a logger, or of the kernel's audit log.
	keyedNumber  = lazyregexp.New(`(?i)\b(?:err|error|errno|ret|rc|res|errcode|error_code)=(-?\d{1,4})(?:[\s,;)\]]|$)|\bexit=(-\d{1,4})(?:\s|$)`)
	likelyNumber = lazyregexp.New(`(?i)\b(?:err|error|error code|errcode|err_code|errorcode|rc|ret|retval|res|result|ret_code|return code|returned|returns|return|failed|failed with|failure|fails with|got|code)` +
		`\s*[:=(]?\s*(-?\d{1,4})(?:$|\s*[\])"'.,;:!}]|\s*\(|\s*$)`)
	negative = lazyregexp.New(`(?:^|[:=]\s*|\()-(\d{1,4})(?:$|\s*[\])"'.,;:!}]|\s+\()`)
	// A positive number in brackets behind words of strerror.
	bracketed = lazyregexp.New(`(?i)[a-z]\s?\((\d{1,4})\)`)
)

// knownErrno is the errno of a number, 0 if it is none.
func knownErrno(digits string) int {
	n, err := strconv.Atoi(strings.TrimPrefix(digits, "-"))
	if err != nil || abi.ErrnoName(n) == "" {
		return 0
	}
	return n
}

// numberForm is a form in which lines give an errno as a number, and from which number on it
// counts: 1 is often something else.
type numberForm struct {
	says  *lazyregexp.Regexp
	least int
	// may decides about a match, nil: all.
	may func(line, match, digits string) bool
}

var numberForms = []numberForm{
	{says: sureNumber},
	{says: keyedNumber, least: 2},
	{says: likelyNumber, least: 2, may: func(_, match, digits string) bool {
		return digits[0] == '-' || !strings.HasPrefix(strings.ToLower(match), "code")
	}},
	{says: negative, least: 2},
	// -1 is what failed calls return. libbpf returns nothing but errnos.
	{says: negative, may: func(line, _, _ string) bool { return ofLibbpf.MatchString(line) }},
}

// errnoNumber is the errno that a line names by number or name, the last one if there are several.
func errnoNumber(line string, worded bool) int {
	n, at := 0, -1
	take := func(position, number int) {
		if number != 0 && position > at {
			n, at = number, position
		}
	}
	for _, m := range errnoName.Compiled().FindAllStringIndex(line, 16) {
		take(m[0], numberOf(line[m[0]:m[1]]))
	}
	forms := numberForms
	if worded {
		forms = append(slices.Clone(forms), numberForm{says: bracketed})
	}
	for _, form := range forms {
		for _, m := range form.says.Compiled().FindAllStringSubmatchIndex(line, 16) {
			g := 2
			for m[g] < 0 {
				g += 2
			}
			digits := line[m[g]:m[g+1]]
			if version.MatchString(line[m[g]:]) {
				continue
			}
			if number := knownErrno(digits); number >= form.least && (form.may == nil || form.may(line, line[m[0]:m[1]], digits)) {
				take(m[g], number)
			}
		}
	}
	return n
}

// version is one of a kernel or a program, and no number by itself.
var version = lazyregexp.New(`^\d+\.\d`)

var ofLibbpf = lazyregexp.New(`^libbpf: .*failed[^:]*: -1$`)

// numberOf is the number of an errno's name, 0 if it is none.
func numberOf(name string) int {
	switch name {
	case "ENOTSUP":
		return abi.EOPNOTSUPP
	case "EWOULDBLOCK":
		return abi.EAGAIN
	case "EDEADLOCK":
		return abi.EDEADLK
	}
	for _, n := range named {
		if abi.ErrnoName(n) == name {
			return n
		}
	}
	return 0
}

// named are the errnos that have a name.
var named = func() (all []int) {
	for n := 1; n <= lastErrno; n++ {
		if abi.ErrnoName(n) != "" {
			all = append(all, n)
		}
	}
	return all
}()

// lastErrno is MAX_ERRNO: the kernel returns no larger one.
const lastErrno = 4095

// phrase is what strerror(3) prints for an errno: glibc, musl, Go, Rust. Loose ones are plain words
// too, and count at the end of a chain of errors alone.
type phrase struct {
	says  string
	errno int
	loose bool
}

var phrases = []phrase{
	{"operation not permitted", abi.EPERM, false},
	{"permission denied", abi.EACCES, false},
	{"argument list too long", abi.E2BIG, false},
	{"invalid argument", abi.EINVAL, false},
	{"no space left on device", abi.ENOSPC, false},
	{"too many open files in system", abi.ENFILE, false},
	{"too many open files", abi.EMFILE, false},
	{"no file descriptors available", abi.EMFILE, false},
	{"cannot allocate memory", abi.ENOMEM, false},
	{"out of memory", abi.ENOMEM, true},
	{"bad file descriptor", abi.EBADF, false},
	{"bad address", abi.EFAULT, true},
	{"resource temporarily unavailable", abi.EAGAIN, false},
	{"try again", abi.EAGAIN, true},
	{"device or resource busy", abi.EBUSY, false},
	{"resource busy", abi.EBUSY, true},
	{"file exists", abi.EEXIST, true},
	{"no such process", abi.ESRCH, true},
	{"no such device or address", abi.ENXIO, false},
	{"no such device", abi.ENODEV, true},
	{"function not implemented", abi.ENOSYS, false},
	{"numerical result out of range", abi.ERANGE, false},
	{"result not representable", abi.ERANGE, false},
	{"invalid or incomplete multibyte or wide character", abi.EILSEQ, false},
	{"illegal byte sequence", abi.EILSEQ, false},
	{"cannot assign requested address", abi.EADDRNOTAVAIL, false},
	{"address not available", abi.EADDRNOTAVAIL, true},
	{"exec format error", abi.ENOEXEC, false},
	{"value too large for defined data type", abi.EOVERFLOW, false},
	{"value too large for data type", abi.EOVERFLOW, false},
	{"read-only file system", abi.EROFS, false},
	{"not a directory", abi.ENOTDIR, true},
	{"inappropriate ioctl for device", abi.ENOTTY, false},
	{"interrupted system call", abi.EINTR, false},
	{"input/output error", abi.EIO, false},
	{"no data available", abi.ENODATA, true},
	{"no buffer space available", abi.ENOBUFS, false},
	{"address family not supported by protocol", abi.EAFNOSUPPORT, false},
	{"socket operation on non-socket", abi.ENOTSOCK, false},
	{"protocol not supported", abi.EPROTONOSUPPORT, true},
	{"operation not supported", abi.EOPNOTSUPP, false},
	{"not supported", abi.EOPNOTSUPP, true},
	{"no such file or directory", abi.ENOENT, false},
}

// errnoWords is the errno that a line names in words, and where they begin: the last that it names,
// and of those that overlap the longest. The place is -1 if there is none.
func errnoWords(line string) (found Errno, at int) {
	lower := strings.ToLower(line)
	at = -1
	var what phrase
	for _, p := range phrases {
		i := strings.LastIndex(lower, p.says)
		if i < 0 || i < at || i+len(p.says) <= at+len(what.says) && at >= 0 {
			continue
		}
		if !wordsEnd(restOf(line, lower, i+len(p.says)), p.loose) || !wordsBegin(lower[:i], p.loose) {
			continue
		}
		if at >= 0 && i < at+len(what.says) && i > at {
			continue // inside of a longer one
		}
		found, what, at = Errno{Number: p.errno, Words: true}, p, i
	}
	// C's library has other words for 524, and begins with a capital; Go programs do not.
	if at >= 0 && found.Number == abi.EOPNOTSUPP && line[at] >= 'a' {
		found.Either = true
		if what.loose {
			found.Number = 0
		}
	}
	return found, at
}

// restOf is a line from a place on, that was found in the lower case of it.
func restOf(line, lower string, at int) string {
	if len(lower) != len(line) {
		return lower[at:] // of letters that are longer in one of the cases
	}
	return line[at:]
}

// wordsEnd reports whether nothing continues the words of an errno. A capital begins a sentence of
// its own: C programs forget the end of a line.
func wordsEnd(rest string, loose bool) bool {
	if rest == "" {
		return true
	}
	if !loose {
		return !letter(rest[0]) || 'A' <= rest[0] && rest[0] <= 'Z'
	}
	rest = strings.TrimLeft(rest, " \t")
	return rest == "" || strings.IndexByte(`:;,.()[]{}"'!|`, rest[0]) >= 0
}

// wordsBegin reports whether the words of an errno stand on their own.
func wordsBegin(before string, loose bool) bool {
	if before == "" {
		return true
	}
	if !loose {
		return !letter(before[len(before)-1])
	}
	before = strings.TrimRight(before, " \t")
	return before == "" || slices.Contains([]byte(`:;,.([{"'=-`), before[len(before)-1])
}

func letter(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '_'
}
