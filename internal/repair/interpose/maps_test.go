// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

func TestAllowed(t *testing.T) {
	const maps = `00400000-00401000 r-xp 00000000 08:01 1 /bin/x
00401000-00402000 rw-p 00001000 08:01 1 /bin/x
00402000-00404000 rw-s 00000000 00:01 2 /memfd:y (deleted)
00404000-00405000 ---p 00000000 00:00 0
7f0000000000-7f0000001000 -w-p 00000000 00:00 0
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]
`
	for _, tt := range []struct {
		what  byte
		spans []span
		want  error
	}{
		{'w', []span{{0x401ff0, 0x1010}}, nil}, // over the border of two
		{'w', []span{{0x401000, 0x1000}, {0x7f0000000ff0, 16}}, nil},
		{'r', []span{{0x400000, 0x4000}}, nil},
		{'w', nil, nil},
		{'w', []span{{0, 0}, {0x401000, 1}}, nil},
		{'w', []span{{0x400ff8, 16}}, unix.EFAULT},
		{'w', []span{{0x403ff8, 16}}, unix.EFAULT},
		{'w', []span{{0x401000, 8}, {0x400000, 8}}, unix.EFAULT},
		{'r', []span{{0x404000, 8}}, unix.EFAULT},
		{'w', []span{{0x405000, 8}}, unix.EFAULT},
		{'w', []span{{0x7f0000000ff8, 16}}, unix.EFAULT},
		{'r', []span{{^uint64(0) - 3, 8}}, unix.EFAULT},
	} {
		qt.Check(t, qt.Equals(allowed(strings.NewReader(maps), tt.what, tt.spans), tt.want), qt.Commentf("%c %x", tt.what, tt.spans))
	}
	qt.Check(t, qt.IsNotNil(allowed(strings.NewReader("no map\n"), 'w', []span{{1, 1}})))
}
