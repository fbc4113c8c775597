// SPDX-License-Identifier: Apache-2.0

package tracefs

import (
	"os"
	"path/filepath"
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

// The child's pid moved when 6.17 gave the names lengths of their own.
func TestReadEvent(t *testing.T) {
	const before = "name: sched_process_fork\nID: 298\nformat:\n\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n" +
		"\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\tfield:char parent_comm[16];\toffset:8;\tsize:16;\tsigned:0;\n" +
		"\tfield:pid_t parent_pid;\toffset:24;\tsize:4;\tsigned:1;\n\tfield:char child_comm[16];\toffset:28;\tsize:16;\tsigned:0;\n" +
		"\tfield:pid_t child_pid;\toffset:44;\tsize:4;\tsigned:1;\n\nprint fmt: \"comm=%s pid=%d child_comm=%s child_pid=%d\", REC->parent_comm\n"
	const after = "ID: 300\nformat:\n\tfield:__data_loc char[] parent_comm;\toffset:8;\tsize:4;\tsigned:0;\n\tfield:pid_t parent_pid;\toffset:12;\tsize:4;\tsigned:1;\n" +
		"\tfield:__data_loc char[] child_comm;\toffset:16;\tsize:4;\tsigned:0;\n\tfield:pid_t child_pid;\toffset:20;\tsize:4;\tsigned:1;\n"
	dir := t.TempDir()
	event := filepath.Join(dir, "events/sched/sched_process_fork")
	qt.Assert(t, qt.IsNil(os.MkdirAll(event, 0o755)))
	root, err := os.OpenRoot(dir)
	qt.Assert(t, qt.IsNil(err))
	defer root.Close()
	for text, want := range map[string]uint32{before: 44, after: 20} {
		qt.Assert(t, qt.IsNil(os.WriteFile(event+"/format", []byte(text), 0o644)))
		e, err := ReadEvent(root, "sched", "sched_process_fork")
		qt.Assert(t, qt.IsNil(err))
		at, err := e.Offset("child_pid")
		qt.Check(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(at, want))
	}
	e, err := ReadEvent(root, "sched", "sched_process_fork")
	qt.Assert(t, qt.IsNil(err))
	_, err = e.Offset("pid")
	qt.Check(t, qt.ErrorMatches(err, "read event sched/sched_process_fork: it has no field pid"))
	_, err = ReadEvent(root, "sched", "sched_process_exec")
	qt.Check(t, qt.ErrorIs(err, os.ErrNotExist))
}

func TestEventByID(t *testing.T) {
	dir := t.TempDir()
	event := filepath.Join(dir, "events/syscalls/sys_enter_read")
	qt.Assert(t, qt.IsNil(os.MkdirAll(event, 0o755)))
	qt.Assert(t, qt.IsNil(os.WriteFile(event+"/id", []byte("842\n"), 0o644)))
	qt.Assert(t, qt.IsNil(os.WriteFile(event+"/format", []byte(format), 0o644)))
	root, err := os.OpenRoot(dir)
	qt.Assert(t, qt.IsNil(err))
	defer root.Close()
	for _, group := range []string{"", "syscalls"} {
		e, size, err := EventByID(root, group, 842)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(e.Group+"/"+e.Name, "syscalls/sys_enter_read"))
		qt.Check(t, qt.Equals(size, 44))
	}
	_, _, err = EventByID(root, "", 84)
	qt.Check(t, qt.ErrorIs(err, os.ErrNotExist))
	_, _, err = EventByID(root, "sched", 842)
	qt.Check(t, qt.ErrorIs(err, os.ErrNotExist))
}
