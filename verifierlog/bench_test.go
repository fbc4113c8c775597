// SPDX-License-Identifier: Apache-2.0

package verifierlog

import (
	"strings"
	"testing"
)

// A log of ten megabytes, as log level 2 makes of a large program.
func BenchmarkParse(b *testing.B) {
	line := "3: (07) r7 += 1                       ; R7=0x7a118\n"
	text := strings.Repeat(line, 10<<20/len(line)) + "R7 !read_ok\n"
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		Parse(text, Options{})
	}
}

func BenchmarkClassifyUnknown(b *testing.B) {
	for b.Loop() {
		Classify("something that no kernel has ever said about R1")
	}
}

func BenchmarkClassifyKnown(b *testing.B) {
	for b.Loop() {
		Classify("R0 invalid mem access 'map_value_or_null'")
	}
}
