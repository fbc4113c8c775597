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
