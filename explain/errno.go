// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The errnos that the rules speak of, as Linux numbers them on every
// architecture that matters here. ENOTSUPP is internal to the kernel: libc has
// no name for it.
const (
	errEPERM      = 1
	errENOENT     = 2
	errESRCH      = 3
	errEINTR      = 4
	errE2BIG      = 7
	errEBADF      = 9
	errEAGAIN     = 11
	errENOMEM     = 12
	errEACCES     = 13
	errEFAULT     = 14
	errEBUSY      = 16
	errEEXIST     = 17
	errENODEV     = 19
	errEINVAL     = 22
	errENFILE     = 23
	errEMFILE     = 24
	errENOSPC     = 28
	errERANGE     = 34
	errENOSYS     = 38
	errEOPNOTSUPP = 95
	errRESTARTSYS = 512
	errENOTSUPP   = 524
)

// Errno is one error number and everything that it means where BPF is loaded.
type Errno struct {
	Number int
	Name   string
	// Prints is what C programs and Go programs print for it.
	Prints   string
	Note     string // what to know about the number itself
	Meanings []Meaning
}

// Meaning is one reason for an errno.
type Meaning struct {
	Command string // BPF_PROG_LOAD, BPF_MAP_CREATE, seccomp(2), ...
	Text    string
	Rules   []string // ids of the rules that tell more
}

// ErrnoByNumber finds an errno; the sign does not matter.
func ErrnoByNumber(n int) (Errno, bool) {
	if n < 0 {
		n = -n
	}
	for _, e := range errnos {
		if e.Number == n {
			return e, true
		}
	}
	return Errno{}, false
}

// ErrnoByName understands "524", "-524", "ENOTSUPP" and "errno 524", in any
// case of letters.
func ErrnoByName(s string) (Errno, bool) {
	s = strings.ToUpper(strings.TrimSpace(s))
	for _, p := range []string{"ERRNO", "ERROR"} {
		s = strings.TrimSpace(strings.TrimPrefix(s, p))
	}
	s = strings.TrimSpace(strings.TrimLeft(s, "=:"))
	if n, err := strconv.Atoi(s); err == nil {
		return ErrnoByNumber(n)
	}
	for _, e := range errnos {
		if e.Name == s || e.Name == "EOPNOTSUPP" && s == "ENOTSUP" || e.Name == "EAGAIN" && s == "EWOULDBLOCK" {
			return e, true
		}
	}
	return Errno{}, false
}

// Errnos returns all errnos that have an entry, by number.
func Errnos() []Errno { return append([]Errno(nil), errnos...) }

// grouped puts the meanings of each errno together by command, in the order in
// which the commands first appear.
func grouped(list []Errno) []Errno {
	for i := range list {
		var order []string
		for _, m := range list[i].Meanings {
			if !slices.Contains(order, m.Command) {
				order = append(order, m.Command)
			}
		}
		slices.SortStableFunc(list[i].Meanings, func(a, b Meaning) int {
			return slices.Index(order, a.Command) - slices.Index(order, b.Command)
		})
	}
	return list
}

// errnoName gives a number its name, or says that it has none.
func errnoName(n int) string {
	if e, ok := ErrnoByNumber(n); ok {
		return e.Name
	}
	if s, ok := otherErrnos[n]; ok {
		return s
	}
	return fmt.Sprintf("errno %d", n)
}

var otherErrnos = map[int]string{
	5: "EIO", 6: "ENXIO", 8: "ENOEXEC", 10: "ECHILD", 15: "ENOTBLK", 18: "EXDEV", 20: "ENOTDIR", 21: "EISDIR", 25: "ENOTTY",
	27: "EFBIG", 29: "ESPIPE", 30: "EROFS", 31: "EMLINK", 32: "EPIPE", 33: "EDOM", 36: "ENAMETOOLONG", 39: "ENOTEMPTY",
	40: "ELOOP", 61: "ENODATA", 71: "EPROTO", 74: "EBADMSG", 75: "EOVERFLOW", 84: "EILSEQ", 90: "EMSGSIZE", 93: "EPROTONOSUPPORT",
	97: "EAFNOSUPPORT", 99: "EADDRNOTAVAIL", 100: "ENETDOWN", 105: "ENOBUFS", 110: "ETIMEDOUT", 126: "ENOKEY", 129: "EKEYREJECTED",
	512: "ERESTARTSYS", 513: "ERESTARTNOINTR", 514: "ERESTARTNOHAND", 516: "ERESTART_RESTARTBLOCK", 517: "EPROBE_DEFER",
}
