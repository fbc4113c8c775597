// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/bpfwhy/bpfwhy/load"
)

// A backend is a way to see kernel functions and system calls.
type backend string

const (
	fentry     backend = "fentry"
	kprobe     backend = "kprobe"
	tracepoint backend = "tracepoint"
	tpBTF      backend = "tp_btf"
)

// shape says which programs a hook has.
type shape int

const (
	span   shape = iota // entry and exit
	check               // fexit alone sees arguments and result; kprobes need both ends
	say                 // kprobe alone: the function is variadic
	denial              // the end alone; a kretprobe only where few processes are watched, and briefly
)

// hook is one watched function.
type hook struct {
	function load.Function
	id       coreHook
	shape    shape
	// program is the suffix of the programs' names: fentry_x, fexit_x, kprobe_x, kretprobe_x.
	program string
	// symbols are the kernel's names for the function, the preferred one first; the first that exists is used.
	symbols []string
	// arg finds the argument that the programs look at; nil when they look at none.
	arg func(*btf.FuncProto) (slot uint32, ok bool)
}

// hooks are the watched functions inside a load. The system call itself comes first: attached last, detached first, so that no attempt
// is seen by halves.
func hooks() []hook {
	return []hook{
		{load.FnSyscall, coreHookH_SYSCALL, span, "sys_bpf", []string{"__sys_bpf"}, nil},
		{load.FnSyscall, coreHookH_SYSCALL, span, "x64_sys_bpf", []string{"__x64_sys_bpf"}, nil},   // 5.10
		{load.FnSyscall, coreHookH_SYSCALL, span, "ia32_sys_bpf", []string{"__ia32_sys_bpf"}, nil}, // and loaders of 32 bits there
		{load.FnLoad, coreHookH_LOAD, span, "bpf_prog_load", []string{"bpf_prog_load"}, nil},
		{load.FnCheck, coreHookH_CHECK, span, "bpf_check", []string{"bpf_check"}, pointerTo("bpf_prog", 2)},
		{load.FnDoCheck, coreHookH_DOCHECK, span, "do_check_common", []string{"do_check_common"}, pointerTo("bpf_verifier_env", 1)},
		{load.FnJITSubprogs, coreHookH_JITSUBS, span, "jit_subprogs", []string{"bpf_jit_subprogs", "jit_subprogs"}, nil},
		{load.FnSelect, coreHookH_SELECT, span, "bpf_prog_select_runtime", []string{"__bpf_prog_select_runtime", "bpf_prog_select_runtime"}, nil},
		{load.FnJIT, coreHookH_JIT, span, "bpf_int_jit_compile", []string{"bpf_int_jit_compile"}, nil},
		{load.FnBlind, coreHookH_BLIND, span, "bpf_jit_blind_constants", []string{"bpf_jit_blind_constants"}, pointerTo("bpf_prog", 1)},
		{load.FnPatch, coreHookH_PATCH, check, "bpf_patch_insn_single", []string{"bpf_patch_insn_single"}, named("off")},
		{load.FnModmem, coreHookH_MODMEM, check, "bpf_jit_charge_modmem", []string{"bpf_jit_charge_modmem"}, first},
		{load.FnCapable, coreHookH_CAPABLE, check, "security_capable", []string{"security_capable"}, named("cap")},
		{load.FnLockdown, coreHookH_LOCKDOWN, check, "security_locked_down", []string{"security_locked_down"}, named("what")},
		{load.FnLSM, coreHookH_LSM, check, "security_bpf", []string{"security_bpf"}, named("cmd")},
		{load.FnLSMLoad, coreHookH_LSMLOAD, check, "security_bpf_prog_load", []string{"security_bpf_prog_load"}, first},
		{load.FnNewFD, coreHookH_NEWFD, span, "bpf_prog_new_fd", []string{"bpf_prog_new_fd"}, nil},
		{load.FnSeccomp, coreHookH_SECCOMP, span, "bpf_prog_create_from_user", []string{"bpf_prog_create_from_user"}, pointerTo("sock_fprog", 1)},
		{load.FnSockFilter, coreHookH_SOCKFILTER, span, "sk_attach_filter", []string{"sk_attach_filter"}, pointerTo("sock_fprog", 1)},
		{load.FnVerbose, 0, say, "verbose", []string{"verbose"}, nil},
		{load.FnVerbose, 0, say, "bpf_verifier_log_write", []string{"bpf_verifier_log_write"}, nil},
		{load.FnDenied, 0, denial, "secure_computing", []string{"__secure_computing"}, nil},
	}
}

// programs are the names of a hook's programs under a backend, nil when it has none.
func (h *hook) programs(b backend) []string {
	switch {
	case b == fentry && h.program == "sys_bpf":
		return []string{"fentry_sys_bpf", "fentry_sys_bpf_twin", "fexit_sys_bpf", "fexit_sys_bpf_twin"}
	case b == fentry && h.shape == span:
		return []string{"fentry_" + h.program, "fexit_" + h.program}
	case b == fentry && (h.shape == check || h.shape == denial):
		return []string{"fexit_" + h.program}
	case b == kprobe && (h.shape == span || h.shape == check):
		return []string{"kprobe_" + h.program, "kretprobe_" + h.program}
	case b == kprobe && h.shape == denial:
		return []string{"kretprobe_" + h.program}
	case b == kprobe && h.shape == say:
		return []string{"kprobe_" + h.program}
	}
	return nil
}

// target is a hook found in the running kernel.
type target struct {
	hook
	symbol string
	slot   uint32 // of the argument, in 8-byte slots
	ret    uint32 // slot of the return value at fexit
	size   uint32 // slot of an argument named "size" (__sys_bpf)
	// byValue says that a struct travels by value: kernels from 5.14 to 6.0 refuse fentry on such a function.
	byValue bool
}

var errNoFunction = errors.New("this kernel has no such function")

// verifierIsSplit: from 7.1 on the verifier is several files, and those but the first say what is wrong through
// bpf_verifier_log_write. Before, only the state at log level 2 is written through it: a million calls for a program of 30,000
// instructions, which watching made half as expensive again.
func verifierIsSplit(spec *btf.Spec) bool {
	var fn *btf.Func
	return spec.TypeByName("bpf_jit_subprogs", &fn) == nil
}

// resolve finds a hook in the kernel's BTF. Positions come from there and never from the version: 7.1 put an argument
// before another, and stable kernels backport.
func (h hook) resolve(spec *btf.Spec) (*target, error) {
	var fn *btf.Func
	symbol := ""
	for _, symbol = range h.symbols {
		if err := spec.TypeByName(symbol, &fn); err == nil {
			break
		}
		fn = nil
	}
	if fn == nil {
		if h.shape == say { // not in BTF on every kernel, and nothing is asked of it
			return &target{hook: h, symbol: h.symbols[0]}, nil
		}
		return nil, errNoFunction
	}
	proto, ok := fn.Type.(*btf.FuncProto)
	if !ok {
		return nil, fmt.Errorf("function %s: no prototype in BTF", symbol)
	}
	t := &target{hook: h, symbol: symbol}
	if h.arg != nil {
		if t.slot, ok = h.arg(proto); !ok {
			return nil, fmt.Errorf("function %s: the argument to look at is not in its prototype", symbol)
		}
	}
	t.size, _ = named("size")(proto)
	for _, p := range proto.Params {
		n := slots(p.Type)
		t.ret += n
		if n > 1 {
			t.byValue = true
		}
	}
	return t, nil
}

// slots is the number of 8-byte argument slots of a type: structs up to 16 bytes travel by value in two.
func slots(t btf.Type) uint32 {
	n, err := btf.Sizeof(t)
	if err != nil || n <= 8 {
		return 1
	}
	return uint32(n+7) / 8
}

func position(proto *btf.FuncProto, match func(btf.FuncParam) bool) (uint32, bool) {
	at := uint32(0)
	for _, p := range proto.Params {
		if match(p) {
			return at, true
		}
		at += slots(p.Type)
	}
	return 0, false
}

func first(*btf.FuncProto) (uint32, bool) { return 0, true }

func named(name string) func(*btf.FuncProto) (uint32, bool) {
	return func(proto *btf.FuncProto) (uint32, bool) {
		return position(proto, func(p btf.FuncParam) bool { return p.Name == name })
	}
}

// pointerTo matches a parameter that is a pointer, depth deep, to a struct of that name.
func pointerTo(name string, depth int) func(*btf.FuncProto) (uint32, bool) {
	return func(proto *btf.FuncProto) (uint32, bool) {
		return position(proto, func(p btf.FuncParam) bool {
			t := p.Type
			for range depth {
				ptr, ok := btf.UnderlyingType(t).(*btf.Pointer)
				if !ok {
					return false
				}
				t = ptr.Target
			}
			s, ok := btf.UnderlyingType(t).(*btf.Struct)
			return ok && s.Name == name
		})
	}
}

// configure puts what was found into the programs' read-only configuration.
func (t *target) configure(spec *ebpf.CollectionSpec) error {
	if t.function == load.FnDenied {
		return spec.Variables["cfg_seccomp_ret"].Set(t.ret)
	}
	if t.shape == say {
		return nil
	}
	if err := setElement(spec, "cfg_slot", int(t.id), t.slot); err != nil {
		return err
	}
	if t.program == "sys_bpf" {
		if err := spec.Variables["cfg_size_slot"].Set(t.size); err != nil {
			return err
		}
	}
	return setElement(spec, "cfg_ret", int(t.id), t.ret)
}

func setElement(spec *ebpf.CollectionSpec, variable string, i int, v uint32) error {
	var all [coreHookH_MAX]uint32
	if err := spec.Variables[variable].Get(&all); err != nil {
		return fmt.Errorf("read %s: %w", variable, err)
	}
	all[i] = v
	return spec.Variables[variable].Set(all)
}
