// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
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

// notReturned is the note of an errno that has a name and no meanings.
const notReturned = "As far as is known, bpf(2) does not return this error by itself."

// The kernel returns no larger errno (MAX_ERRNO).
const maxErrno = 4095

// bareErrno finds an errno that has a name and no entry here.
func bareErrno(n int) (Errno, bool) {
	name := abi.ErrnoName(max(n, -n))
	return Errno{Number: max(n, -n), Name: name, Note: notReturned}, name != ""
}

// ErrnoByName understands "524", "-524", "ENOTSUPP" and "errno 524", in any case of letters. An
// errno without an entry has its name and a note.
func ErrnoByName(s string) (Errno, bool) {
	s = strings.ToUpper(strings.TrimSpace(s))
	for _, p := range []string{"ERRNO", "ERROR"} {
		s = strings.TrimSpace(strings.TrimPrefix(s, p))
	}
	s = strings.TrimSpace(strings.TrimLeft(s, "=:"))
	if n, err := strconv.Atoi(s); err == nil {
		if e, ok := ErrnoByNumber(n); ok {
			return e, true
		}
		return bareErrno(n)
	}
	for _, e := range errnos {
		if e.Name == s || e.Name == "EOPNOTSUPP" && s == "ENOTSUP" || e.Name == "EAGAIN" && s == "EWOULDBLOCK" {
			return e, true
		}
	}
	for n := 1; n <= maxErrno; n++ {
		if s != "" && abi.ErrnoName(n) == s {
			return bareErrno(n)
		}
	}
	return Errno{}, false
}

// Errnos returns all errnos that have an entry, by number.
func Errnos() []Errno { return append([]Errno(nil), errnos...) }

// grouped names the errnos, and puts the meanings of each together by command,
// in the order in which the commands first appear.
func grouped(list []Errno) []Errno {
	for i := range list {
		list[i].Name = abi.ErrnoName(list[i].Number)
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

// withReasons adds what errnos mean after a load.
func withReasons(list []Errno) []Errno {
	for _, r := range allReasons {
		for _, n := range r.errno {
			i := slices.IndexFunc(list, func(e Errno) bool { return e.Number == n })
			m := Meaning{Command: r.command(), Text: r.text}
			if r.rule != "" {
				m.Rules = []string{r.rule}
			}
			same := func(o Meaning) bool { return o.Command == m.Command && o.Text == m.Text }
			if !slices.ContainsFunc(list[i].Meanings, same) {
				list[i].Meanings = append(list[i].Meanings, m)
			}
		}
	}
	return list
}

// meanings are what the attempt's errno means for its command, where this is a load, comes before
// one, or asks for something.
func (f *Facts) meanings() (list []Meaning) {
	e, _ := ErrnoByNumber(f.errno())
	for _, m := range e.Meanings {
		if m.Command == f.command() || m.Command == cmdAny && f.ofAny() {
			list = append(list, m)
		}
	}
	return list
}

// ofAny reports an errno that any command of bpf(2) may end with, where rules say nothing of it.
func (f *Facts) ofAny() bool {
	switch f.errno() {
	case abi.ENOSYS:
		return strings.HasPrefix(cmp.Or(f.call, callName(f.kind())), "bpf(")
	case abi.E2BIG: // the rule asks the attributes, which a text does not have
		return strings.HasPrefix(f.call, "bpf(") || f.call == "" && len(f.ev.Attr) == 0 && f.kind() == load.ProgLoad
	case abi.EPERM, abi.EFAULT:
		return strings.HasPrefix(f.call, "bpf(")
	}
	return false
}

// tabled adds to what was found the rules that tell more of the other meanings of the errno.
func (f *Facts) tabled(found []finding) []finding {
	isFound := func(id string) bool {
		return slices.ContainsFunc(found, func(o finding) bool { return o.rule.ID == id })
	}
	meanings := f.meanings()
	for _, m := range meanings {
		if m.Rules != nil && m.Rules[0] == "PERM007" && f.neverCharged() {
			continue // the limit is known
		}
		if len(m.Rules) > 0 && !slices.ContainsFunc(m.Rules, isFound) {
			r, _ := ByID(m.Rules[0])
			found = append(found, finding{r, &Match{Strength: Possible, Cause: m.Text, Without: []string{"older-way"}}})
		}
	}
	if len(meanings) == 1 && len(found) == 1 && f.call != "" {
		found[0].match.Strength = Likely
	}
	return found
}

// command is what the errno table calls the call.
func (f *Facts) command() string {
	for _, c := range callCommands {
		if strings.Contains(f.call, c.part) && f.call != "" {
			return c.command
		}
	}
	return commandOf[f.kind()]
}

// callCommands are by a part of the call's name.
var callCommands = []struct{ part, command string }{
	{"BPF_PROG_QUERY", cmdQuery}, {"BPF_PROG_DETACH", cmdDetach}, {"_GET_NEXT_ID", cmdObjByID}, {"_BY_ID", cmdObjByID}, {"_INFO_BY_FD", cmdInfo},
	{"setrlimit", cmdLimit}, {"TEST_RUN", cmdTestRun}, {"BPF_MAP_", cmdMapElem}, {"TOKEN_CREATE", cmdToken}, {"bind(AF_XDP)", cmdBind},
}

var commandOf = map[load.Kind]string{
	load.ProgLoad: cmdLoad, load.MapCreate: cmdMap, load.BTFLoad: cmdBTF, load.TokenCreate: cmdToken,
	load.Seccomp: cmdSeccomp, load.SocketFilter: cmdSeccomp,
}

// errnoName gives a number its name, or says that it has none.
func errnoName(n int) string { return cmp.Or(abi.ErrnoName(n), fmt.Sprintf("errno %d", n)) }
