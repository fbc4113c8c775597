// SPDX-License-Identifier: Apache-2.0

package tracefs

import (
	"testing"

	"github.com/go-quicktest/qt"
)

// As real-time kernels have it: one common field more.
const format = `name: sys_enter_read
ID: 842
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;
	field:unsigned char common_preempt_lazy_count;	offset:8;	size:1;	signed:0;

	field:int __syscall_nr;	offset:12;	size:4;	signed:1;
	field:unsigned int fd;	offset:24;	size:8;	signed:0;
	field:char * buf;	offset:32;	size:8;	signed:0;
	field:__u8 saddr[4];	offset:40;	size:4;	signed:0;

print fmt: "fd: 0x%08lx, buf: 0x%08lx;", ((unsigned long)(REC->fd)), ((unsigned long)(REC->buf))
`

func TestParseFormat(t *testing.T) {
	id, offsets, err := parseFormat(format)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(id, 842))
	qt.Check(t, qt.DeepEquals(offsets, map[string]uint32{
		"common_type": 0, "common_pid": 4, "common_preempt_lazy_count": 8, "__syscall_nr": 12, "fd": 24, "buf": 32, "saddr": 40,
	}))
	for _, text := range []string{"", "ID: x\n", "field:int fd;\toffset:16;\n", "ID: 1\n\tfield:int fd;\toffset:x;\n"} {
		_, _, err := parseFormat(text)
		qt.Check(t, qt.IsNotNil(err), qt.Commentf("%q", text))
	}
}
