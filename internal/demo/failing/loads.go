// SPDX-License-Identifier: Apache-2.0

// Package failing provokes real failures of BPF loads: each Load is one load whose fate is known
// beforehand.
//
// A load may cripple the process it runs in (capabilities, limits, seccomp), so it runs in a
// process of its own: see Start. It never changes the machine: one that needs a sysctl or a
// lockdown checks that the machine was started so, and refuses otherwise. The loads are made with
// raw bpf(2) unless the name says otherwise: one call, no retry, no probe.
package failing

import (
	"fmt"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/abi"
)

// Needs says where a load can run.
type Needs struct {
	Harden int  // least net.core.bpf_jit_harden at which it fails as it should
	VM     bool // a machine that was started for it: Sysctls and KernelArgs say how

	Sysctls    map[string]string
	KernelArgs []string
}

// Load is one load that ends in a known way.
type Load struct {
	Name  string // "null-map-value"
	About string
	Needs Needs
	// Program is the name the kernel sees.
	Program string

	run func(name string) (Result, error)
}

// Run makes the load in this process. An error means that the load could not be attempted; the
// load's own failure is in the Result.
func (p Load) Run() (Result, error) {
	// Capabilities, and what a load takes away, belong to a thread.
	runtime.LockOSThread()
	// Else every load is called "exe", after /proc/self/exe.
	if name, err := unix.BytePtrFromString(p.Name); err == nil {
		_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(name)), 0, 0, 0)
	}
	res, err := p.run(p.Program)
	if err != nil {
		return res, fmt.Errorf("prepare %s: %w", p.Name, err)
	}
	return res, nil
}

// Find returns the load of a name.
func Find(name string) (Load, error) {
	for _, p := range All() {
		if p.Name == name {
			return p, nil
		}
	}
	return Load{}, fmt.Errorf("no load %q", name)
}

// raw makes a load of one program that needs nothing prepared.
func raw(name, about string, p program) Load {
	return Load{Name: name, About: about, Program: progName(name), run: func(prog string) (Result, error) {
		p.name = prog
		return p.load(), nil
	}}
}

// big is raw for a program that is worth building only when it is loaded.
func big(name, about string, build func() program) Load {
	return Load{Name: name, About: about, Program: progName(name), run: func(prog string) (Result, error) {
		p := build()
		p.name = prog
		return p.load(), nil
	}}
}

// rawMap is raw for a program that uses one hash map of 8-byte values. Not an array: from 6.14 the
// verifier knows that a constant key within its bounds is found.
func rawMap(name, about string, insns func(fd int) []ins, logLevel uint32) Load {
	return Load{Name: name, About: about, Program: progName(name), run: func(prog string) (Result, error) {
		fd, err := newMap("values", abi.MapTypeHash, 4, 8, 1)
		if err != nil {
			return Result{}, err
		}
		return program{name: prog, typ: abi.ProgTypeSocketFilter, insns: insns(fd), logLevel: logLevel}.load(), nil
	}}
}

// progName makes a load's name fit the kernel's rules: 15 characters, letters, digits,
// underscore. What tells variants apart survives the cut.
func progName(name string) string {
	suffix := ""
	for long, short := range map[string]string{"-nolog": "_nl", "-cilium": "_ce"} {
		if base, ok := strings.CutSuffix(name, long); ok {
			name, suffix = base, short
			break
		}
	}
	s := strings.ReplaceAll(name, "-", "_")
	return s[:min(len(s), 15-len(suffix))] + suffix
}

// All returns every load, in the order in which they are worth showing.
//
//revive:disable-next-line:function-length a table, a line for each case
func All() []Load {
	sock := func(insns []ins) program { return program{typ: abi.ProgTypeSocketFilter, insns: insns, logLevel: 1} }
	// Level 4 logs the error and the statistics, not each of many instructions.
	brief := func(insns []ins) program { return program{typ: abi.ProgTypeSocketFilter, insns: insns, logLevel: 4} }
	quiet := func(insns []ins) program { return program{typ: abi.ProgTypeSocketFilter, insns: insns} }
	tweak := func(f func(*abi.ProgLoad)) program {
		return program{typ: abi.ProgTypeSocketFilter, insns: small(), tweak: f}
	}
	hardened := func(p Load) Load { p.Needs.Harden = 2; return p }
	inVM := func(p Load) Load { p.Needs.VM = true; return p }
	booted := func(arg string, p Load) Load { p.Needs.KernelArgs = []string{arg}; return inVM(p) }
	open := func(p Load) Load {
		p.Needs.Sysctls = map[string]string{"kernel.unprivileged_bpf_disabled": "0"}
		return inVM(p)
	}
	tight := func(p Load) Load { p = open(p); p.Needs.Sysctls["net.core.bpf_jit_limit"] = JITLimit; return p }

	list := []Load{
		raw("ok", "a small socket filter that loads", sock(small())),
		raw("ok-calls", "a filter of two functions that loads", sock(smallCalls())),
		rawMap("ok-map", "a filter with a map that loads", withMap, 1),
		big("ok-big", "30,000 instructions in one function that load at harden=0", func() program { return quiet(longFilter(30000)) }),

		hardened(big("far-jump", "one function, a jump that blinding stretches out of range", func() program { return brief(farJump()) })),
		hardened(big("far-jump-nolog", "the same from a loader that asks for no log", func() program { return quiet(farJump()) })),
		hardened(big("far-calls", "the far jump in a function that another one calls", func() program { return brief(farJumpCalls()) })),
		hardened(big("far-calls-nolog", "the same from a loader that asks for no log", func() program { return quiet(farJumpCalls()) })),
		hardened(big("far-percpu", "a far jump behind a call that becomes per-CPU data, which an interpreter cannot reach", func() program { return brief(farPerCPU(false)) })),
		hardened(big("far-calls-percpu", "the same in a function that another one calls", func() program { return brief(farPerCPU(true)) })),
		hardened(cilium("far-jump-elf", "far jump in C with source lines, loaded by cilium/ebpf", farJumpObject, "far_jump_elf")),
		hardened(cilium("far-calls-elf", "far jump in a noinline C function, loaded by cilium/ebpf", farCallsObject, "far_calls_elf")),

		rawMap("null-map-value", "a map value used without a null check", nullMapValue, 1),
		rawMap("null-map-value-nolog", "the same from a loader that asks for no log", nullMapValue, 0),
		ciliumMap("null-map-value-cilium", "the same with cilium/ebpf, which loads again for a log", nullMapValue),
		raw("uninit-register", "a register read before it is written", sock([]ins{movX(0, 2), exit()})),
		raw("uninit-register-nolog", "the same without a log", quiet([]ins{movX(0, 2), exit()})),
		rawMap("out-of-bounds", "a read behind the end of a map value", outOfBounds, 1),
		rawMap("out-of-bounds-nolog", "the same without a log", outOfBounds, 0),
		raw("too-complex", "a bounded loop of four million steps", brief(countTo(2000))),
		raw("too-complex-nolog", "the same without a log", quiet(countTo(2000))),
		big("too-many-jumps", "9000 jumps that the verifier must keep in mind at once", func() program { return brief(manyJumps(9000)) }),
		raw("wrong-helper", "bpf_xdp_adjust_head in a socket filter",
			sock([]ins{movK(2, 0), call(fnXDPAdjustHead), movK(0, 0), exit()})),
		raw("wrong-helper-nolog", "the same without a log",
			quiet([]ins{movK(2, 0), call(fnXDPAdjustHead), movK(0, 0), exit()})),
		raw("unknown-helper", "a helper number that no kernel has",
			sock([]ins{call(9999), movK(0, 0), exit()})),
		raw("bad-map-fd", "a map file descriptor that is not open",
			sock(join(mapFD(1, 9999), movK(0, 0), exit()))),
		raw("bad-map-fd-nolog", "the same without a log",
			quiet(join(mapFD(1, 9999), movK(0, 0), exit()))),
		{Name: "not-a-map-fd", About: "a map file descriptor that is another kind of file", Program: "not_a_map_fd", run: notAMap},
		raw("missing-kfunc", "a call of a kernel function whose BTF id does not exist", sock([]ins{
			{op: opCall, src: pseudoKfunc, imm: 0x7ffffff}, movK(0, 0), exit()})),
		raw("missing-kfunc-nolog", "the same without a log", quiet([]ins{
			{op: opCall, src: pseudoKfunc, imm: 0x7ffffff}, movK(0, 0), exit()})),
		raw("co-re-poison", "the call that libbpf puts where a CO-RE relocation failed",
			sock([]ins{call(0xbad2310), movK(0, 0), exit()})),
		raw("bad-opcode", "an instruction that does not exist", sock([]ins{{op: 0xff}, exit()})),
		raw("no-exit", "a program that runs off its end", sock([]ins{movK(0, 0)})),
		raw("no-return-value", "an exit without a return value", sock([]ins{exit()})),
		raw("unreachable", "an instruction that nothing reaches", sock([]ins{movK(0, 0), exit(), movK(0, 1), exit()})),
		raw("jump-out-of-program", "a jump behind the last instruction",
			sock([]ins{movK(0, 0), {op: opJA, off: 100}, exit()})),
		raw("endless-loop", "a loop that does not end", sock([]ins{movK(0, 0), {op: opJA, off: -2}, exit()})),
		raw("bad-ctx-access", "a field of the context that does not exist", sock([]ins{ldW(0, 1, 400), exit()})),
		raw("stack-overflow", "a write below the 512 bytes of stack",
			sock([]ins{movK(0, 0), {op: opStxDW, dst: 10, src: 0, off: -520}, exit()})),
		raw("gpl-only", "a GPL-only helper from a program that is not",
			program{typ: abi.ProgTypeKprobe, logLevel: 1, license: "Proprietary", insns: []ins{
				movX(3, 1), movX(1, 10), addK(1, -8), movK(2, 8), call(fnProbeRead), movK(0, 0), exit()}}),
		raw("packet-unchecked", "packet bytes read without a bounds check", program{typ: abi.ProgTypeXDP, logLevel: 1,
			insns: []ins{ldW(2, 1, 0), {op: 0x71, dst: 0, src: 2}, exit()}}),
		raw("leaked-reference", "a socket looked up and not released", program{typ: abi.ProgTypeSchedCLS, logLevel: 1, insns: leakSocket()}),
		raw("movsx", "a sign-extending move, which kernels before 6.6 do not know",
			sock([]ins{movK(1, 1), {op: opMovsx, dst: 0, src: 1, off: 8}, exit()})),

		{Name: "log-too-small", About: "a good program and a log buffer of 128 bytes", Program: "log_too_small",
			run: func(name string) (Result, error) {
				return program{name: name, typ: abi.ProgTypeSocketFilter, insns: longFilter(100), logLevel: 2, logSize: 128}.load(), nil
			}},
		{Name: "emfile", About: "a good program when no file descriptor is left", Program: "emfile", run: withoutFDs},
		{Name: "seccomp", About: "a good program under a seccomp policy that forbids bpf(2)", Program: "seccomp", run: underSeccomp},
		{Name: "interrupted", About: "a good program whose load is held by a listener when another thread executes a program", Program: "interrupted", run: interrupted},
		{Name: "no-capability", About: "a kprobe program from a process without capabilities", Program: "no_capability",
			run: func(name string) (Result, error) {
				if err := keepCaps(); err != nil {
					return Result{}, err
				}
				return program{name: name, typ: abi.ProgTypeKprobe, insns: small()}.load(), nil
			}},
		{Name: "only-cap-bpf-kprobe", About: "a kprobe program from a process with CAP_BPF but not CAP_PERFMON", Program: "no_perfmon",
			run: func(name string) (Result, error) {
				if err := keepCaps(capBPF); err != nil {
					return Result{}, err
				}
				return program{name: name, typ: abi.ProgTypeKprobe, insns: small()}.load(), nil
			}},
		{Name: "only-cap-bpf-xdp", About: "an XDP program from a process with CAP_BPF but not CAP_NET_ADMIN", Program: "no_net_admin",
			run: func(name string) (Result, error) {
				if err := keepCaps(capBPF); err != nil {
					return Result{}, err
				}
				return program{name: name, typ: abi.ProgTypeXDP, insns: small()}.load(), nil
			}},
		{Name: "unprivileged", About: "a socket filter from an ordinary user while unprivileged_bpf_disabled is set", Program: "unprivileged",
			run: func(name string) (Result, error) {
				if err := becomeNobody(); err != nil {
					return Result{}, err
				}
				return program{name: name, typ: abi.ProgTypeSocketFilter, insns: small()}.load(), nil
			}},
		{Name: "user-namespace", About: "root of a user namespace, with all capabilities there and none here", Program: "user_namespace", run: inUserNamespace},

		big("too-many-insns", "1,000,001 instructions", func() program { return quiet(longFilter(1000001)) }),
		raw("bad-prog-type", "a program type that no kernel has", tweak(func(a *abi.ProgLoad) { a.ProgType = 9999 })),
		raw("bad-flags", "a program flag that no kernel has", tweak(func(a *abi.ProgLoad) { a.ProgFlags = 1 << 30 })),
		raw("no-insns", "a program of no instructions", tweak(func(a *abi.ProgLoad) { a.InsnCnt = 0 })),
		raw("bad-insns-pointer", "instructions at an address that is not mapped", tweak(func(a *abi.ProgLoad) { a.Insns = 1 << 12 })),
		raw("bad-log-level", "a log level with no buffer", tweak(func(a *abi.ProgLoad) { a.LogLevel = 1 })),
		raw("bad-btf-fd", "a BTF file descriptor that is not open", tweak(func(a *abi.ProgLoad) {
			a.ProgBTFFD, a.FuncInfoRecSize, a.FuncInfoCnt, a.FuncInfo = 9999, 8, 1, a.Insns
		})),
		raw("bad-attach-btf-id", "a tracing program for a BTF id that does not exist", program{typ: abi.ProgTypeTracing, logLevel: 1,
			insns: small(), attach: 24, tweak: func(a *abi.ProgLoad) { a.AttachBTFID = 0x7ffffff }}),

		inVM(Load{Name: "memlock", About: "RLIMIT_MEMLOCK of one page (a reason to fail before 5.11 only)", Program: "memlock", run: withoutMemlock}),
		booted("lockdown=confidentiality", Load{Name: "lockdown", About: "bpf_probe_read_kernel under lockdown=confidentiality", Program: "lockdown", run: underLockdown("confidentiality")}),
		booted("lockdown=integrity", Load{Name: "lockdown-integrity", About: "bpf_probe_write_user under lockdown=integrity", Program: "lockdown_write", run: underLockdown("integrity")}),
		tight(Load{Name: "jit-limit", About: "an unprivileged load when net.core.bpf_jit_limit is used up", Program: "jit_limit", run: overJITLimit}),
		tight(Load{Name: "jit-limit-seccomp", About: "a seccomp filter when net.core.bpf_jit_limit is used up", Program: "", run: seccompOverJITLimit}),
		tight(Load{Name: "jit-limit-socket", About: "SO_ATTACH_FILTER when net.core.bpf_jit_limit is used up", Program: "", run: socketOverJITLimit}),
		open(Load{Name: "unprivileged-long", About: "more than 4096 instructions from an ordinary user", Program: "unpriv_long", run: unprivilegedLong}),
	}
	return list
}

func leakSocket() []ins {
	insns := []ins{movX(6, 1), movK(1, 0)}
	for off := int16(-8); off >= -16; off -= 8 {
		insns = append(insns, ins{op: opStxDW, dst: 10, src: 1, off: off})
	}
	return append(insns,
		movX(1, 6), movX(2, 10), addK(2, -16), // 12 bytes: struct bpf_sock_tuple of IPv4
		movK(3, 12), movK(4, -1), movK(5, 0),
		call(fnSkLookupTCP), movK(0, 0), exit())
}
