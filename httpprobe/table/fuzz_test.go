// SPDX-License-Identifier: Apache-2.0

package table

import (
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/bpfwhy/bpfwhy/httpprobe/connection"
	"github.com/bpfwhy/bpfwhy/httpprobe/http1"
)

// Names are anything that processes like, times anything that a source says.
func FuzzTable(f *testing.F) {
	f.Add("nginx\x1b[2J", "docker://\u202e", 200, uint64(5), uint64(9), 80)
	f.Add("\xff界", "", -1, uint64(1<<63), uint64(1), 0)
	f.Fuzz(func(t *testing.T, comm, container string, status int, start, end uint64, width int) {
		comm, container = comm[:min(len(comm), 16)], container[:min(len(container), 256)] // as the kernel has them
		tb := New()
		e := http1.Exchange{Role: http1.Role(start % 3), Status: status, Start: start, End: end}
		tb.Add(&connection.Exchange{Exchange: e, Comm: comm, RemotePort: 8080}, container)
		rows := tb.Recent(time.Second)
		for _, r := range rows {
			for _, c := range r.Cells[6:9] {
				if d, err := time.ParseDuration(c); err != nil || d < 0 {
					t.Fatalf("%q: %v", c, err)
				}
			}
		}
		text := Text(rows, width, false)
		if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
			t.Fatalf("%q", text)
		}
	})
}
