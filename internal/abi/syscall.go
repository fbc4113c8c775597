// SPDX-License-Identifier: Apache-2.0

package abi

// Syscalls are the numbers of the system calls that load or attach BPF, on one machine. -1: the
// machine has no such call.
type Syscalls struct {
	BPF, Seccomp, Prctl, Setsockopt int
	// In these the kernel loads programs itself.
	Mount, Fsconfig, InitModule, FinitModule int
	// Socketcall stands for setsockopt on old machines.
	Socketcall int
}

// SyscallsOf are the numbers on a machine as uname(2) names it. i386 is what 32-bit programs of an
// x86-64 machine call.
func SyscallsOf(machine string) (Syscalls, bool) {
	switch machine {
	case "x86_64":
		return Syscalls{BPF: 321, Seccomp: 317, Prctl: 157, Setsockopt: 54, Mount: 165, Fsconfig: 431, InitModule: 175, FinitModule: 313, Socketcall: -1}, true
	case "aarch64":
		return Syscalls{BPF: 280, Seccomp: 277, Prctl: 167, Setsockopt: 208, Mount: 40, Fsconfig: 431, InitModule: 105, FinitModule: 273, Socketcall: -1}, true
	case "i386":
		return Syscalls{BPF: 357, Seccomp: 354, Prctl: 172, Setsockopt: 366, Mount: 21, Fsconfig: 431, InitModule: 128, FinitModule: 350, Socketcall: 102}, true
	}
	return Syscalls{}, false
}

// AuditCalls are the numbers of two system calls on a machine as the records of the kernel's audit
// have them.
type AuditCalls struct {
	Arch               uint32 // AUDIT_ARCH_*
	BPF, PerfEventOpen int
}

// AllAuditCalls are those of the machines of 64 bits on which BPF is used: x86-64, arm64, riscv64,
// ppc64le and s390x.
func AllAuditCalls() []AuditCalls {
	return []AuditCalls{
		{0xc000003e, 321, 298},
		{0xc00000b7, 280, 241},
		{0xc00000f3, 280, 241},
		{0xc0000015, 361, 319},
		{0x80000016, 351, 331},
	}
}
