// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/hostinfo/rights"
)

// rows of the table of rights, by source.
var rows = map[string]rights.Command{"syscalls": rights.Syscalls, "openssl": rights.OpenSSL, "packets": rights.Packets}

// missingError is a source that was not tried, because capabilities are missing without which it
// cannot be, or would see less without a word.
type missingError struct {
	have    uint64
	missing []string
}

func (e *missingError) Error() string { return "lacks " + strings.Join(e.missing, ", ") }

// mayOpen is nil or a *missingError. Where a kernel wants more, its refusal tells.
func mayOpen(name string) error {
	have, err := rights.Have()
	if err != nil {
		return nil
	}
	e := &missingError{have: have}
	for _, r := range rows[name].Missing(have) {
		e.missing = append(e.missing, r.Name())
	}
	if e.missing == nil {
		return nil
	}
	return e
}

// all is for when nothing can be watched: what each source needs.
func (e *missingError) all() error {
	var needs, missing []string
	for _, name := range sourceNames {
		row := rows[name]
		needs = append(needs, row.Needs()+" for "+name)
		for _, r := range row.Missing(e.have) {
			if !slices.Contains(missing, r.Name()) {
				missing = append(missing, r.Name())
			}
		}
	}
	return fmt.Errorf("needs %s (missing: %s)", strings.Join(needs, "; "), strings.Join(missing, ", "))
}
