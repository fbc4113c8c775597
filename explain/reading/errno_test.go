// SPDX-License-Identifier: Apache-2.0

package reading

import (
	"fmt"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/abi"
)

func TestErrnoOf(t *testing.T) {
	for _, tt := range []struct {
		line string
		want int
	}{
		{"libbpf: prog 'x': BPF program load failed: -EINVAL", abi.EINVAL},
		{"libbpf: prog 'x': failed to load: -22", abi.EINVAL},
		{"libbpf: prog 'x': failed to load: -1", abi.EPERM},
		{"libbpf: map 'x': failed to create: Invalid argument(-22)", abi.EINVAL},
		{"libbpf: prog 'x': failed to attach: ERROR: strerror_r(-524)=22", abi.ENOTSUPP},
		{"libbpf: prog 'x': failed to create BPF link for perf_event FD 17: -13 (Permission denied)", abi.EACCES},
		{"BPF program load failed: unknown error (-524)", abi.ENOTSUPP},
		{"prctl(PR_SET_SECCOMP): Unknown error 524 [preauth]", abi.ENOTSUPP},
		{"error loading seccomp filter: errno 524", abi.ENOTSUPP},
		{"failed to load program: -524", abi.ENOTSUPP},
		{"1: Operation not permitted (os error 1)", abi.EPERM},
		{`SyscallError { call: "bpf_prog_load", io_error: Os { code: 22, kind: InvalidInput, message: "Invalid argument" } }`, abi.EINVAL},
		{"PermissionError: [Errno 1] Operation not permitted", abi.EPERM},
		{"bpf(BPF_PROG_LOAD, {prog_type=BPF_PROG_TYPE_KPROBE, insn_cnt=2}, 148) = -1 EINVAL (Invalid argument)", abi.EINVAL},
		{"Prog section 'x' rejected: Permission denied (13)!", abi.EACCES},
		{"Couldn't attach XDP program on iface 'eth3': Operation not supported(-95)", abi.EOPNOTSUPP},
		{"bpf_load_program() err=28 event=filler/sys_autofill message=0", abi.ENOSPC},
		{"bpf failed with err = -22", abi.EINVAL},
		{"returned error: 7", abi.E2BIG},
		{"attach: create link: bad file descriptor", abi.EBADF},
		{"opening kprobe perf event: cannot assign requested address", abi.EADDRNOTAVAIL},
		{"a: device or resource busy: b", abi.EBUSY},
		{"load: try again", abi.EAGAIN},
		{"type=SYSCALL msg=audit(1.1:2): arch=c000003e syscall=321 success=no exit=-13 a0=0", abi.EACCES},
		{"seccomp filter failed: Invalid argument:22", abi.EINVAL},
		{"error (errno: 2 | message: No such file or directory)", abi.ENOENT},
		{"EWOULDBLOCK", abi.EAGAIN},
		{"a: invalid argument: b: operation not permitted", abi.EPERM},
		// The words of one are in those of another.
		{"open: no such device or address", abi.ENXIO},
		{"too many open files in system", abi.ENFILE},
		// Numbers and words that are none.
		{"libbpf: elf: skipping unrecognized data section(7) xdp_metadata", 0},
		{"permission: something (12 line(s) omitted)", 0},
		{"something (truncated, 22 line(s) omitted)", 0},
		{"main.c:22: failed", 0},
		{"failed in line 22", 0},
		{"process with pid 22 failed", 0},
		{"exited with code 1", 0},
		{"exit status 2", 0},
		{"make: *** [x.o] Error 2", 0},
		{"HTTP status code: 13", 0},
		{"failed for ifindex 2", 0},
		{"prog id 22", 0},
		{"invalid perf event FD -1", 0},
		{"Unknown error -1: couldn't set RLIMIT_MEMLOCK", 0},
		{"bpf() returned -1", 0},
		{"please try again later", 0},
		{"BPF is not supported on this kernel", 0},
		{"the file exists already", 0},
		{"error: 99999", 0},
		{"code = Unavailable desc = connection error", 0},
		{"5 errors", 0},
		{"", 0},
	} {
		got, ok := ErrnoOf(tt.line)
		qt.Check(t, qt.Equals(got.Number, tt.want), qt.Commentf("%s", tt.line))
		qt.Check(t, qt.Equals(ok, tt.want != 0), qt.Commentf("%s", tt.line))
	}
}

// Go programs have the same words for EOPNOTSUPP and ENOTSUPP, C programs have not.
func TestErrnoOfUnsupported(t *testing.T) {
	for line, want := range map[string]Errno{
		"load program: operation not supported":                         {Number: abi.EOPNOTSUPP, Words: true, Either: true},
		"create raw tracepoint: not supported":                          {Words: true, Either: true},
		"Error attaching: Operation not supported":                      {Number: abi.EOPNOTSUPP, Words: true},
		"create tracing link: not supported (errno 524)":                {Number: abi.ENOTSUPP},
		"bpf_link_create failed: Operation not supported (os error 95)": {Number: abi.EOPNOTSUPP},
	} {
		got, ok := ErrnoOf(line)
		qt.Check(t, qt.IsTrue(ok), qt.Commentf("%s", line))
		qt.Check(t, qt.Equals(got, want), qt.Commentf("%s", line))
	}
}

// Every errno that has a name is found by it and by its number.
func TestErrnoOfAll(t *testing.T) {
	for _, n := range named {
		for _, form := range []string{"prog 'x': failed to load: -%[1]s", "prog 'x': failed to load: -%[2]d", "failed: errno %[2]d", "x (os error %[2]d)", "= -1 %[1]s (words)"} {
			line := fmt.Sprintf(form, abi.ErrnoName(n), n)
			if n == abi.EPERM && form == "prog 'x': failed to load: -%[2]d" {
				continue // -1 is what failed calls return
			}
			got, _ := ErrnoOf(line)
			qt.Check(t, qt.Equals(got.Number, numberOf(abi.ErrnoName(n))), qt.Commentf("%s", line))
		}
	}
}

func FuzzErrno(f *testing.F) {
	f.Add("failed: -22 (Invalid argument) strerror_r(-524)=22 [Errno 1] err=99999999999999999999")
	f.Fuzz(func(t *testing.T, line string) {
		e, ok := ErrnoOf(line)
		if ok != (e != Errno{}) {
			t.Fatalf("%v, and %+v", ok, e)
		}
		if e.Number != 0 && abi.ErrnoName(e.Number) == "" {
			t.Fatalf("no errno: %+v", e)
		}
		if e.Either && e.Number != 0 && e.Number != abi.EOPNOTSUPP {
			t.Fatalf("%+v", e)
		}
	})
}
