// SPDX-License-Identifier: Apache-2.0

package reading

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// counted is what a test wants of one failure: what was attempted, the errno, and how many lines of
// log there are.
type counted struct {
	what  string
	errno int
	log   int
}

func TestSplit(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []counted
	}{
		{"one failure in libbpf's words", `libbpf: prog 'a': BPF program load failed: -EACCES
libbpf: prog 'a': -- BEGIN PROG LOAD LOG --
0: (bf) r0 = r7
R7 !read_ok
processed 1 insns (limit 1000000)
-- END PROG LOAD LOG --
libbpf: prog 'a': failed to load: -13
libbpf: failed to load object 'a_bpf'
libbpf: failed to load BPF skeleton 'a_bpf': -13
Failed to open and load BPF skeleton`, []counted{{"prog_load", 13, 3}}},
		{"two programs", `libbpf: prog 'a': BPF program load failed: -EACCES
libbpf: prog 'a': failed to load: -13
libbpf: prog 'b': BPF program load failed: -EACCES
libbpf: prog 'b': failed to load: -13`, []counted{{"prog_load", 13, 0}, {"prog_load", 13, 0}}},
		{"a map, and what follows from it", `libbpf: map 'm': failed to create: -EPERM
libbpf: failed to load object 'a_bpf'
agent: failed to load eBPF programs: operation not permitted`, []counted{{"map_create", 1, 0}}},
		{"the reason of the kernel stands in front", `libbpf: Kernel error message: Underlying driver does not support XDP in native mode
libxdp: Error attaching XDP program to ifindex 2: Operation not supported`, []counted{{"attach xdp", 95, 0}}},
		{"the reason of the kernel stands behind, in its log", `cannot attach uprobe, Invalid argument
[  120.1] trace_uprobe: error: Event name is too long`, []counted{{"attach uprobe", 22, 0}}},
		{"a log of the kernel is nobody's", `[  120.1] Lockdown: x: use of bpf to read kernel RAM is restricted; see man kernel_lockdown.7`, []counted{{"prog_load", 0, 0}}},
		{"two writers, each in the middle of the other", `[pod/a-b2c4d/x] libbpf: prog 'a': BPF program load failed: -EACCES
[pod/e-f5g6h/x] libbpf: prog 'b': BPF program load failed: -EINVAL
[pod/a-b2c4d/x] libbpf: prog 'a': failed to load: -13
[pod/e-f5g6h/x] libbpf: prog 'b': failed to load: -22`, []counted{{"prog_load", 13, 0}, {"prog_load", 22, 0}}},
		{"the same again is counted", strings.Repeat("2026-01-02T03:04:05Z level=x\nload program: permission denied\n\n", 3), []counted{{"prog_load", 13, 0}}},
		{"a log behind the loader's line", `load program: permission denied:
	0: R1=ctx() R10=fp0
	0: (bf) r0 = r7
	R7 !read_ok
	processed 1 insns (limit 1000000)`, []counted{{"prog_load", 13, 4}}},
		{"a complaint that is not known", `0: (bf) r0 = r7
something that no kernel said so far
processed 1 insns (limit 1000000)`, []counted{{"prog_load", 0, 3}}},
		{"a terminal's two lines", `load program: invalid argument: Unreleased
reference id=3 alloc_insn=10 (28 line(s) omitted)`, []counted{{"prog_load", 22, 1}}},
		{"the cause behind an empty line", `Error: failed to load BPF object

Caused by:
    0: the BPF_PROG_LOAD syscall failed
    1: Operation not permitted (os error 1)`, []counted{{"prog_load", 1, 0}}},
		{"another way was taken", `libbpf: prog 'xdp_pass': BPF program load failed: Invalid argument
libxdp: Falling back to loading single prog without dispatcher
Success: Loading XDP prog`, nil},
		{"it was done without", `libbpf: Error in bpf_create_map_xattr(m):ENOTSUPP(-524). Retrying without BTF.`, nil},
		{"a file of somebody else", `loaded 12 eBPF programs
open /etc/agent.yaml: permission denied`, nil},
		{"an answer by netlink about BPF", `+ tc filter add dev eth0 ingress bpf da obj x.o sec tc
RTNETLINK answers: Invalid argument`, []counted{{"attach tc", 22, 0}}},
		{"an answer by netlink about something else", `+ ip addr add 10.0.0.1/8 dev eth0
RTNETLINK answers: File exists`, nil},
		{"Python's trace", `    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, bp)
socket.error: [Errno 12] Cannot allocate memory`, []counted{{"socket filter", 12, 0}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []counted
			for _, f := range Read(strings.Split(tt.text, "\n"), noMore).Failures {
				log := 0
				if f.Log != "" {
					log = len(strings.Split(f.Log, "\n"))
				}
				got = append(got, counted{f.What(), f.Errno.Number, log})
			}
			qt.Check(t, qt.Equals(fmt.Sprint(got), fmt.Sprint(tt.want)))
		})
	}
}

// What one failure is told by is not told of another.
func TestSplitKeepsLinesApart(t *testing.T) {
	read := Read([]string{
		`level=error msg="program a: load program: permission denied: R7 !read_ok (9 line(s) omitted)"`,
		`level=error msg="map create: operation not permitted (MEMLOCK may be too low, consider rlimit.RemoveMemlock)"`,
		`level=error msg="error loading seccomp filter: errno 524"`,
	}, noMore)
	qt.Assert(t, qt.HasLen(read.Failures, 3))
	for _, f := range read.Failures {
		qt.Check(t, qt.HasLen(f.Lines, 1))
		qt.Check(t, qt.Equals(f.Times, 1))
	}
}

func TestSplitGap(t *testing.T) {
	read := Read([]string{"libbpf: map 'm': failed to create: -EPERM", gap, "libbpf: failed to load object 'x'"}, noMore)
	qt.Assert(t, qt.HasLen(read.Failures, 2))
}

func FuzzRead(f *testing.F) {
	f.Add("libbpf: prog 'a': BPF program load failed: -EACCES\n0: (bf) r0 = r7\nR7 !read_ok\nprocessed 1 insns\n[  1.0] trace_kprobe: error: x")
	f.Add("RTNETLINK answers: File exists\nfalling back to x\nattached\nCaused by:\n1: (os error 1)")
	f.Fuzz(func(t *testing.T, s string) {
		read := Read(Split(s), noMore)
		if len(read.Failures) > maxGroups {
			t.Fatalf("%d failures", len(read.Failures))
		}
		for _, f := range read.Failures {
			if f.Attempt == nil || f.Attempt.Kind == "" || f.Attempt.Kind == netlinkCall || f.Times < 1 || f.What() == "" {
				t.Fatalf("%+v", f)
			}
			if f.Attempt.Errno != f.Errno.Number || f.Errno.Number < 0 || f.Errno.Number > lastErrno {
				t.Fatalf("errno %+v", f.Errno)
			}
			if len(f.Lines) == 0 || len(f.Lines) > maxGroups+1 || len(f.Log) > 2*len(s)+64 {
				t.Fatalf("%d lines, %d bytes of log", len(f.Lines), len(f.Log))
			}
		}
	})
}
