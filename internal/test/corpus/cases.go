// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"maps"
	"slices"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/demo/failing"
	"github.com/bpfwhy/bpfwhy/load"
)

// Cases returns the corpus. Each fate is that of the kernel's sources and was checked against what
// the loader itself met.
func Cases() []Case {
	return slices.Concat(failingLoads(), rawC(), libbpfCases(), ciliumCases(), otherLoaders(), attachCases())
}

// on gives the same fate to several kernels.
func on(w Want, kernels ...string) map[string]Want {
	m := map[string]Want{}
	for _, k := range kernels {
		m[k] = w
	}
	return m
}

func merge[V any](a, b map[string]V) map[string]V {
	m := maps.Clone(a)
	maps.Copy(m, b)
	return m
}

// A jump that blinding stretches: where the kernel has an interpreter it takes over, silently.
// 6.1.192 lets it do so only for programs with functions of their own.
var (
	farJump  = on(fails(abi.ENOTSUPP, load.Blinding, "BLIND001"), "6.1", "hardened", Host)
	farCalls = on(fails(abi.ENOTSUPP, load.Blinding, "BLIND002"), "hardened", Host)
	blinded  = unjited(load.Blinding, "BLIND003")

	// Per-CPU data is more than an interpreter can reach, says 7.2: there the load fails.
	farPerCPU      = merge(farJump, on(fails(abi.ENOTSUPP, load.Blinding, "BLIND001"), "7"))
	farCallsPerCPU = merge(farCalls, on(fails(abi.EINVAL, load.Blinding, "BLIND002"), "7"))

	hardened2 = map[string]string{harden: "2"}

	// Where nothing but the system call's own arguments can be read, a load that the interpreter
	// took over looks like any other.
	invisibleBefore7 = map[string]string{"5.10/tp_btf": unseen, "6.12/tp_btf": unseen}
	invisible        = merge(invisibleBefore7, map[string]string{"7/tp_btf": unseen})
	// ... and on 6.1 too, for a program with functions of its own or when the JIT is off.
	invisible61    = map[string]string{"6.1/tp_btf": unseen}
	invisibleCalls = merge(invisible, invisible61)
)

// Why a case is left out somewhere.
const noFentry = "a kernel of its kind refuses every fentry program before it looks at the id"

const unseenPolicy = "the call never begins, and while the whole machine is watched a kretprobe at its end would slow every system call of confined tasks"

const unseenClassic = "seccomp(2) and setsockopt(2) succeed, and only hooks inside the kernel see that the filter was not compiled"

const unseen = "bpf(2) succeeds, and tp_btf may not read the kernel's memory, where the program says that it was not compiled"

//revive:disable-next-line:function-length a table, a line for each case
func failingLoads() []Case {
	fail := func(name string, errno int, stage load.Stage, rule string) Case {
		return Case{Name: name, Loader: Failing, Args: []string{name}, Want: fails(errno, stage, rule)}
	}
	verifier := func(name string, errno int, rule, says string) Case {
		c := fail(name, errno, load.Verifier, rule)
		c.Says = says
		return c
	}
	quiet := func(c Case) Case { c.Quiet = true; return c }
	again := func(c Case) Case { c.Again = true; return c }
	hardened := func(name string, on map[string]Want, except map[string]string) Case {
		return Case{Name: name, Loader: Failing, Args: []string{name}, Sysctls: hardened2, Want: blinded, On: on, Except: except}
	}
	jumps := func(c Case, start int) Case {
		c.Jump = [2]int{start + failing.FarFrom, start + failing.FarTo}
		return c
	}
	works := func(name string) Case { return Case{Name: name, Loader: Failing, Args: []string{name}, Want: Loads} }
	with := func(c Case, on map[string]Want) Case { c.On = on; return c }
	except := func(c Case, why string, where ...string) Case {
		c.Except = map[string]string{}
		for _, w := range where {
			c.Except[w] = why
		}
		return c
	}
	open := func(c Case, more map[string]string) Case {
		c.Sysctls = merge(map[string]string{"kernel.unprivileged_bpf_disabled": "0"}, more)
		return c
	}
	locked := func(c Case, mode string) Case { c.Lockdown = mode; return c }
	tight := map[string]string{"net.core.bpf_jit_limit": failing.JITLimit}

	classic := func(name string, kind load.Kind) Case {
		return open(Case{Name: name, Loader: Failing, Args: []string{name}, Quiet: true, Want: unjited(load.JIT, "JIT001").of(kind),
			On: on(fails(abi.ENOTSUPP, load.JIT, "JIT001").of(kind), "6.1", "hardened"), Except: map[string]string{
				"5.10/tracepoint": unseenClassic, "6.12/tracepoint": unseenClassic, "7/tracepoint": unseenClassic,
				"5.10/tp_btf": unseenClassic, "6.12/tp_btf": unseenClassic, "7/tp_btf": unseenClassic,
			}}, tight)
	}

	return []Case{
		works("ok"), works("ok-calls"), works("ok-map"), works("ok-big"),
		jumps(hardened("far-jump", farJump, invisible), 0), jumps(hardened("far-jump-nolog", farJump, invisible), 0),
		jumps(hardened("far-calls", farCalls, invisibleCalls), failing.FarSub), jumps(hardened("far-calls-nolog", farCalls, invisibleCalls), failing.FarSub),
		hardened("far-calls-percpu", farCallsPerCPU, merge(invisibleBefore7, invisible61)), hardened("far-percpu", farPerCPU, invisibleBefore7),
		hardened("far-jump-elf", farJump, invisible), hardened("far-calls-elf", farCalls, invisibleCalls),

		verifier("null-map-value", abi.EACCES, "VER001", "R0 invalid mem access 'map_value_or_null'"),
		quiet(verifier("null-map-value-nolog", abi.EACCES, "VER001", "R0 invalid mem access 'map_value_or_null'")),
		again(verifier("null-map-value-cilium", abi.EACCES, "VER001", "R0 invalid mem access 'map_value_or_null'")),
		verifier("uninit-register", abi.EACCES, "VER002", "R2 !read_ok"),
		quiet(verifier("uninit-register-nolog", abi.EACCES, "VER002", "R2 !read_ok")),
		verifier("out-of-bounds", abi.EACCES, "VER003", "invalid access to map value, value_size=8 off=8 size=8"),
		quiet(verifier("out-of-bounds-nolog", abi.EACCES, "VER003", "invalid access to map value, value_size=8 off=8 size=8")),
		// The errno was mended after 6.18, and in 6.12's stable releases.
		with(verifier("too-many-jumps", abi.EFAULT, "VER102", "The sequence of 8193 jumps is too complex"),
			on(fails(abi.E2BIG, load.Verifier, "VER102"), "6.12", "7")),
		verifier("wrong-helper", abi.EINVAL, "FEAT002", "bpf_xdp_adjust_head#44"),
		quiet(verifier("wrong-helper-nolog", abi.EINVAL, "FEAT002", "bpf_xdp_adjust_head#44")),
		verifier("unknown-helper", abi.EINVAL, "FEAT001", "invalid func unknown#9999"),
		verifier("bad-map-fd", abi.EBADF, "REQ002", "fd 9999 is not pointing to valid bpf_map"),
		quiet(verifier("bad-map-fd-nolog", abi.EBADF, "REQ002", "fd 9999 is not pointing to valid bpf_map")),
		verifier("not-a-map-fd", abi.EINVAL, "REQ002", "is not pointing to valid bpf_map"),
		// 5.10 has no calls of kernel functions at all, and says that the field is reserved.
		with(verifier("missing-kfunc", abi.EINVAL, "FEAT006", ""), nil),
		quiet(verifier("missing-kfunc-nolog", abi.EINVAL, "FEAT006", "")),
		{Name: "co-re-poison", Loader: Failing, Args: []string{"co-re-poison"}, Want: fails(abi.EINVAL, load.BTF, "BTF001"), Says: "invalid func unknown#195896080"},
		verifier("bad-opcode", abi.EINVAL, "REQ006", "unknown opcode ff"),
		verifier("no-exit", abi.EINVAL, "VER013", "last insn is not an exit or jmp"),
		verifier("no-return-value", abi.EACCES, "VER002", "R0 !read_ok"),
		verifier("unreachable", abi.EINVAL, "VER013", "unreachable insn 2"),
		verifier("jump-out-of-program", abi.EINVAL, "VER013", "jump out of range from insn 1 to 102"),
		verifier("bad-ctx-access", abi.EACCES, "VER011", "invalid bpf_context access off=400 size=4"),
		verifier("stack-overflow", abi.EACCES, "VER008", "stack"),
		except(verifier("gpl-only", abi.EINVAL, "FEAT003", "cannot call GPL"), "where lockdown hides the helper, its licence is not looked at", Host),
		verifier("packet-unchecked", abi.EACCES, "VER006", "invalid access to packet, off=0 size=1"),
		verifier("leaked-reference", abi.EINVAL, "VER005", "Unreleased reference"),
		// Sign-extending moves came with 6.6.
		with(verifier("movsx", abi.EINVAL, "FEAT008", "reserved fields"), on(Loads, "6.12", "7", Host)),

		fail("log-too-small", abi.ENOSPC, load.Verifier, "REQ004"),
		fail("emfile", abi.EMFILE, load.Install, "INST001"),
		except(quiet(fail("seccomp", abi.EPERM, load.Request, "PERM006")), unseenPolicy, "*/kprobe"),
		quiet(fail("no-capability", abi.EPERM, load.Permission, "PERM001")),
		quiet(fail("only-cap-bpf-kprobe", abi.EPERM, load.Permission, "PERM001")),
		quiet(fail("only-cap-bpf-xdp", abi.EPERM, load.Permission, "PERM001")),
		quiet(fail("unprivileged", abi.EPERM, load.Permission, "PERM002")),
		quiet(fail("user-namespace", abi.EPERM, load.Permission, "PERM001")),
		fail("too-many-insns", abi.E2BIG, load.Request, "REQ001"),
		quiet(fail("bad-prog-type", abi.EINVAL, load.Request, "FEAT004")),
		quiet(fail("bad-flags", abi.EINVAL, load.Request, "REQ007")),
		fail("no-insns", abi.E2BIG, load.Request, "REQ001"),
		quiet(fail("bad-insns-pointer", abi.EFAULT, load.Request, "REQ005")),
		// Since 6.4 a level without a buffer only counts how large the log would be.
		with(fail("bad-log-level", abi.EINVAL, load.Request, "REQ008"), on(Loads, "6.12", "7", Host)),
		quiet(fail("bad-btf-fd", abi.EBADF, load.BTF, "BTF004")),
		// Larger than any id of BTF may be: the verifier is not asked.
		except(quiet(fail("bad-attach-btf-id", abi.EINVAL, load.BTF, "BTF005")), noFentry, Host),

		except(with(quiet(fail("memlock", abi.EPERM, load.Resources, "PERM007")), on(Loads, "6.1", "6.12", "7", "hardened")),
			"for a machine of the lab", Host),
		locked(fail("lockdown", abi.EINVAL, load.Permission, "PERM003"), "confidentiality"),
		locked(fail("lockdown-integrity", abi.EINVAL, load.Permission, "PERM004"), "integrity"),

		open(Case{Name: "jit-limit", Loader: Failing, Args: []string{"jit-limit"}, Program: "jit_limit", Want: unjited(load.JIT, "JIT001"),
			On: on(fails(abi.ENOTSUPP, load.JIT, "JIT001"), "6.1", "hardened"), Except: invisible, Quiet: true}, tight),
		// Without an interpreter to fall back to the filter fails, and a container does not start.
		classic("jit-limit-seccomp", load.Seccomp), classic("jit-limit-socket", load.SocketFilter),
		open(quiet(fail("unprivileged-long", abi.E2BIG, load.Request, "VER103")), nil),
		{Name: "jit-off", Loader: Failing, Args: []string{"ok"}, Sysctls: map[string]string{"net.core.bpf_jit_enable": "0"},
			Want:   unjited(load.JIT, "JIT003"),
			Except: merge(invisibleCalls, map[string]string{"hardened": "without an interpreter the JIT cannot be switched off"})},
	}
}

func rawC() []Case {
	fail := func(name string, errno int, stage load.Stage, rule string) Case {
		return Case{Name: "c-" + name, Loader: C, Args: []string{name}, Want: fails(errno, stage, rule)}
	}
	verifier := func(name string, errno int, rule, says string) Case {
		c := fail(name, errno, load.Verifier, rule)
		c.Says = says
		return c
	}
	kind := func(k load.Kind, c Case) Case { c.Want = c.Want.of(k); return c }
	quiet := func(c Case) Case { c.Quiet = true; return c }
	with := func(c Case, on map[string]Want) Case { c.On = on; return c }

	compat := quiet(verifier("compat", abi.EACCES, "VER001", "R0 invalid mem access 'map_value_or_null'"))
	compat.Except = map[string]string{
		"*/tracepoint": "classic syscall tracepoints leave 32-bit calls out",
		"*/tp_btf":     "tells calls by their 64-bit number",
		"hardened":     "built without 32-bit calls",
		Host:           "not every backend sees 32-bit calls, and not every kernel has them",
	}
	attachID := fail("attach-id", abi.EINVAL, load.BTF, "BTF005")
	attachID.Says = "attach_btf_id 1048560 is invalid"
	attachID.Except = map[string]string{Host: noFentry}
	return []Case{
		attachID,
		{Name: "c-ok", Loader: C, Args: []string{"ok"}, Want: Loads},
		verifier("null-map", abi.EACCES, "VER001", "R0 invalid mem access 'map_value_or_null'"),
		quiet(verifier("null-map-nolog", abi.EACCES, "VER001", "R0 invalid mem access 'map_value_or_null'")),
		verifier("no-value", abi.EACCES, "VER002", "R0 !read_ok"),
		quiet(verifier("nameless", abi.EACCES, "VER002", "R5 !read_ok")),
		// From 6.3 on, and in 6.1's stable releases, a privileged program may hand over stack that
		// it never wrote.
		with(verifier("uninit-key", abi.EACCES, "VER004", "invalid indirect read from stack"), on(Loads, "6.1", "6.12", "7", "hardened", Host)),
		verifier("endless", abi.EINVAL, "VER012", "infinite loop detected at insn 1"),
		quiet(verifier("endless-nolog", abi.EINVAL, "VER012", "infinite loop detected at insn 1")),
		quiet(verifier("too-complex", abi.E2BIG, "VER101", "BPF program is too large. Processed 1000001 insn")),
		verifier("return-range", abi.EINVAL, "VER014", "At program exit the register R0 has"),
		verifier("pointer-arithmetic", abi.EACCES, "VER009", "R1 pointer arithmetic with *= operator prohibited"),
		verifier("read-only-map", abi.EACCES, "VER021", "write into map forbidden"),
		verifier("unbounded-size", abi.EACCES, "VER023", ""),
		verifier("argument-type", abi.EACCES, "VER010", "R2 type="),
		verifier("not-a-pointer", abi.EACCES, "VER007", "R1 invalid mem access '"),
		quiet(verifier("not-a-pointer-nolog", abi.EACCES, "VER007", "R1 invalid mem access '")),
		verifier("deep-stack", abi.EACCES, "VER016", "combined stack size of 2 calls is 640"),
		quiet(fail("bad-name", abi.EINVAL, load.Request, "REQ007")),
		quiet(fail("bad-attach-type", abi.EINVAL, load.Request, "REQ007")),
		quiet(fail("license-fault", abi.EFAULT, load.Request, "REQ005")),
		compat,
		fail("attr-too-large", abi.E2BIG, load.Request, "REQ003"),
		fail("attr-tail", abi.E2BIG, load.Request, "REQ003"),
		fail("attr-fault", abi.EFAULT, load.Request, "REQ005"),
		kind(load.MapCreate, fail("lru-no-prealloc", abi.ENOTSUPP, load.Request, "MAP002")),
		kind(load.MapCreate, fail("map-bad-type", abi.EINVAL, load.Request, "FEAT005")),
		kind(load.MapCreate, fail("map-no-key", abi.EINVAL, load.Request, "MAP001")),
		kind(load.MapCreate, quiet(fail("map-as-nobody", abi.EPERM, load.Permission, "PERM002"))),
		kind(load.BTFLoad, fail("btf-garbage", abi.EINVAL, load.BTF, "BTF002")),
		kind(load.Seccomp, fail("seccomp-bad", abi.EINVAL, load.Verifier, "CBPF001")),
		kind(load.Seccomp, fail("prctl-bad", abi.EINVAL, load.Verifier, "CBPF001")),
		kind(load.SocketFilter, fail("socket-bad", abi.EINVAL, load.Verifier, "CBPF001")),
		kind(load.SocketFilter, fail("socket-fault", abi.EFAULT, load.Request, "CBPF003")),
		// net.core.optmem_max is 128 KiB from 6.8 on.
		with(kind(load.SocketFilter, fail("socket-optmem", abi.ENOMEM, load.Resources, "RES002")), on(Loads.of(load.SocketFilter), "6.12", "7", Host)),
	}
}

// objects are cases that libbpf and cilium/ebpf share. Both load without a log first, and again
// with one.
func objects(l Loader) []Case {
	fail := func(object, program string, errno int, stage load.Stage, rule, says string) Case {
		return Case{Name: string(l) + "-" + program, Loader: l, Args: []string{object, program}, Want: fails(errno, stage, rule), Says: says, Again: true}
	}
	const programs = "programs.o"
	newHelper := fail(programs, "new_helper", abi.EINVAL, load.Verifier, "FEAT001", "invalid func unknown#160")
	newHelper.On = on(Loads, "6.1", "6.12", "7", "hardened", Host)
	// Addresses of functions came with 5.13: 5.10 does not know the instruction, and complains of
	// func_info first.
	callback := fail(programs, "callback", abi.EINVAL, load.Verifier, "FEAT008", "")
	callback.On = newHelper.On
	return []Case{
		{Name: string(l) + "-ok", Loader: l, Args: []string{programs, "ok"}, Want: Loads},
		fail(programs, "null_value", abi.EACCES, load.Verifier, "VER001", "R0 invalid mem access 'map_value_or_null'"),
		fail(programs, "free_index", abi.EACCES, load.Verifier, "VER003", "R0 unbounded memory access, make sure to bounds check"),
		fail(programs, "packet", abi.EACCES, load.Verifier, "VER006", "invalid access to packet"),
		fail(programs, "lost_event", abi.EINVAL, load.Verifier, "VER005", "Unreleased reference"),
		fail(programs, "missing_field", abi.EINVAL, load.BTF, "BTF001", ""),
		newHelper,
		callback,
		fail(programs, "wrong_helper", abi.EINVAL, load.Verifier, "FEAT002", "bpf_skb_change_tail#38"),
		fail(programs, "far_argument", abi.EACCES, load.Verifier, "VER011", "invalid bpf_context access off=4096 size=8"),
		fail(programs, "verdict", abi.EINVAL, load.Verifier, "VER014", "At program exit the register R0 has"),
		fail(programs, "endless", abi.EINVAL, load.Verifier, "VER012", "infinite loop detected"),
		fail("gpl.o", "prints", abi.EINVAL, load.Verifier, "FEAT003", "cannot call GPL"),
		{Name: string(l) + "-uses_recent", Loader: l, Args: []string{"maps.o", "uses_recent"},
			Want: fails(abi.ENOTSUPP, load.Request, "MAP002").of(load.MapCreate)},
		// Both give up over something small and nameless, before they come to the program.
		{Name: string(l) + "-nobody", Loader: l, Args: []string{programs, "packet", "nobody"},
			Want: fails(abi.EPERM, load.Permission, "PERM001"), Several: []string{"PERM001", "PERM002"}, Quiet: true},
	}
}

func libbpfCases() []Case {
	hardened := func(object, program string, on map[string]Want, except map[string]string) Case {
		return Case{Name: "libbpf-" + program, Loader: Libbpf, Args: []string{object, program}, Sysctls: hardened2, Want: blinded, On: on, Except: except}
	}
	return append(objects(Libbpf),
		// cilium/ebpf finds out by itself that the function is not there, and calls nothing.
		Case{Name: "libbpf-missing_function", Loader: Libbpf, Args: []string{"programs.o", "missing_function"},
			Want: fails(abi.EINVAL, load.Verifier, "FEAT006")},
		Case{Name: "libbpf-probes", Loader: Libbpf, Args: []string{"probes"}, Want: Loads},
		hardened("far_jump.o", "far_jump_elf", farJump, invisible),
		hardened("far_calls.o", "far_calls_elf", farCalls, invisibleCalls),
	)
}

func ciliumCases() []Case {
	return append(objects(Cilium),
		Case{Name: "cilium-features", Loader: Cilium, Args: []string{"features"}, Want: Loads},
	)
}

func otherLoaders() []Case {
	return []Case{
		{Name: "python-no-value", Loader: Python, Want: fails(abi.EACCES, load.Verifier, "VER002"), Says: "R0 !read_ok"},
		// What is left under confidentiality is enough for these.
		{Name: "locked-ok", Loader: C, Args: []string{"ok"}, Lockdown: "confidentiality", Want: Loads},
		{Name: "locked-null-map", Loader: C, Args: []string{"null-map"}, Lockdown: "confidentiality",
			Want: fails(abi.EACCES, load.Verifier, "VER001"), Says: "R0 invalid mem access 'map_value_or_null'"},
		{Name: "locked-null_value", Loader: Libbpf, Args: []string{"programs.o", "null_value"}, Lockdown: "confidentiality", Again: true,
			Want: fails(abi.EACCES, load.Verifier, "VER001"), Says: "R0 invalid mem access 'map_value_or_null'"},
		{Name: "locked-missing_field", Loader: Libbpf, Args: []string{"programs.o", "missing_field"}, Lockdown: "confidentiality", Again: true,
			Want: fails(abi.EINVAL, load.BTF, "BTF001")},
		{Name: "locked-lru-no-prealloc", Loader: C, Args: []string{"lru-no-prealloc"}, Lockdown: "confidentiality",
			Want: fails(abi.ENOTSUPP, load.Request, "MAP002").of(load.MapCreate)},
		{Name: "bpftrace-endless", Loader: Bpftrace, Args: []string{"-e", "BEGIN { while (1) { } }"}, Program: "BEGIN",
			Want: fails(abi.EINVAL, load.Verifier, "VER012"), Says: "infinite loop detected at insn 0"},
		// The same library's probes as libbpf-probes, and 5,000 of them.
		{Name: "bpftool-probes", Loader: Bpftool, Args: []string{"feature", "probe", "kernel"}, Want: Loads, HostOnly: true},
	}
}
