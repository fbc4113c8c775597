// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

var (
	registerCopy = lazyregexp.New(`\b(r\d) = (r\d)$`)
	registerSet  = lazyregexp.New(`^(?:\([0-9a-f]{2}\) )?(r\d) [^\w\s]?=|\bcall\b`)
	nullCheck    = lazyregexp.New(`\bif (r\d) [=!]= (?:0x)?0 goto`)
)

// refineNull tells a pointer that was not checked from a copy of one that was. Verifiers before
// 4.10 do not carry a check over to copies. Newer ones print an id with such a pointer.
func refineNull(f *Facts, m *Match) {
	reg := f.words.arg("reg")
	state := f.words.log.Registers[reg]
	if !strings.HasPrefix(state, "map_value_or_null(") || strings.Contains(state, "id=") {
		return
	}
	checked := checkedSource(f.words.log.Path, strings.ToLower(reg))
	if checked == "" {
		return
	}
	checked = strings.ToUpper(checked)
	m.Cause = fmt.Sprintf("%s is a copy of %s, and the program compared %s with NULL. Verifiers before 4.10, as this one seems to be, do not carry such a check over to copies: they are too weak for what the compiler made of the program.", reg, checked, checked)
}

// checkedSource is the register that another one was copied from and that was then compared with
// NULL, "" if there is none.
func checkedSource(path []verifierlog.Step, reg string) (checked string) {
	source := ""
	for _, s := range path {
		text := strings.TrimSpace(s.Text)
		if c := nullCheck.FindStringSubmatch(text); c != nil {
			if source != "" && c[1] == source {
				checked = source
			}
			continue
		}
		set := registerSet.FindStringSubmatch(text)
		if set == nil {
			continue
		}
		switch c := registerCopy.FindStringSubmatch(text); {
		case c != nil && c[1] == reg:
			source, checked = c[2], ""
		case set[1] == reg:
			source, checked = "", ""
		case set[1] == source || set[1] == "" && source != "" && source <= "r5":
			source = ""
		}
	}
	return checked
}

var (
	indirectAt = lazyregexp.New(`indirect (?:read from|access to)(?: variable offset)? stack(?: R\d+)? off (-\d+)\+0 size`)
	storeAt    = lazyregexp.New(`\*\(u64 \*\)\(r10 (-\d+)\) = (r\d)$`)
)

// refineUninit tells a pointer that was put on the stack from stack that was not written: older
// verifiers have the same words for both.
func refineUninit(f *Facts, m *Match) {
	at := indirectAt.FindStringSubmatch(f.words.message)
	if at == nil {
		return
	}
	pointer := func(reg string) bool { return pointerState.MatchString(f.words.log.Registers[strings.ToUpper(reg)]) }
	for i, s := range f.words.log.Path {
		store := storeAt.FindStringSubmatch(strings.TrimSpace(s.Text))
		if store == nil || store[1] != at[1] || !pointer(store[2]) && (i == 0 || store[2] != "r0" || !strings.Contains(f.words.log.Path[i-1].Text, "call")) {
			continue
		}
		m.Cause = fmt.Sprintf("The program stores %s at offset %s of its stack, and passes that place to a helper: it seems to be a pointer, whose value is an address of the kernel. The verifier lets no address into a map or out of the kernel.", store[2], at[1])
		m.First = []load.Remedy{{ID: "copy-value", Title: "Copy what the pointer points to (after the check for NULL), and pass the copy", Price: "A few instructions."}}
		m.Without = append(m.Without, "zero-struct")
	}
}

var pointerState = lazyregexp.New(`^(?:map_value|map_ptr|ptr_|ctx|pkt|sock|fp|trusted_ptr|untrusted_ptr)`)
