// SPDX-License-Identifier: Apache-2.0

package tracefs

import (
	"strings"
	"testing"
)

// Formats are the kernel's, and those of whoever defines events of his own.
func FuzzFormat(f *testing.F) {
	f.Add(format)
	f.Add("ID: 18446744073709551615\n\tfield:a b[;\toffset:65535;\n")
	f.Fuzz(func(t *testing.T, text string) {
		_, offsets, err := parseFormat(text)
		if err != nil {
			return
		}
		for name, at := range offsets {
			if at > 1<<16 || strings.ContainsAny(name, " ;[\n") {
				t.Fatalf("%q at %d", name, at)
			}
		}
	})
}
