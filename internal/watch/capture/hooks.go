// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/bpfwhy/bpfwhy/internal/watch/hook"
)

// A backend is a way to see kernel functions and system calls.
type backend string

const (
	fentry     backend = "fentry"
	kprobe     backend = "kprobe"
	tracepoint backend = "tracepoint"
	tpBTF      backend = "tp_btf"
)

// site is one point of a hook.
type site struct {
	*hook.Hook
	hook.Point
}

// sites are those of all hooks, in their order.
func sites() []site {
	var list []site
	for i := range hook.All() {
		h := &hook.All()[i]
		for _, p := range h.Points {
			list = append(list, site{h, p})
		}
	}
	return list
}

// sysBPF is the one entry point of the system call, where there is one.
const sysBPF = "sys_bpf"

// programs are the names of a site's programs under a backend, nil when it has none.
func (s *site) programs(b backend) []string {
	switch {
	case b == fentry && s.Program == sysBPF:
		return []string{"fentry_sys_bpf", "fentry_sys_bpf_reentrant", "fexit_sys_bpf", "fexit_sys_bpf_reentrant"}
	case b == fentry && s.Shape == hook.Span:
		return []string{"fentry_" + s.Program, "fexit_" + s.Program}
	case b == fentry && (s.Shape == hook.Check || s.Shape == hook.Denial):
		return []string{"fexit_" + s.Program}
	case b == kprobe && (s.Shape == hook.Span || s.Shape == hook.Check):
		return []string{"kprobe_" + s.Program, "kretprobe_" + s.Program}
	case b == kprobe && s.Shape == hook.Denial:
		return []string{"kretprobe_" + s.Program}
	case b == kprobe && s.Shape == hook.Message:
		return []string{"kprobe_" + s.Program}
	}
	return nil
}

// maxArgs is ARGS_MAX of bpf/wire.h, and noArg stands where a kernel's function has not that
// argument (bpf/attacher.h).
const (
	maxArgs = 4
	noArg   = 255
)

// target is a site found in the running kernel.
type target struct {
	site
	symbol string
	slot   uint32 // of the argument, in 8-byte slots
	args   [maxArgs]uint32
	ret    uint32 // slot of the return value at fexit
	size   uint32 // slot of an argument named "size" (__sys_bpf)
	// byValue says that a struct travels by value: kernels from 5.14 to 6.0 refuse fentry on such a
	// function.
	byValue bool
}

var errNoFunction = errors.New("this kernel has no such function")

// verifierIsSplit: from 7.1 on the verifier is several files, and those but the first say what is
// wrong through bpf_verifier_log_write. Before, only the state at log level 2 is written through
// it: a million calls for a program of 30,000 instructions, which watching made half as expensive
// again.
func verifierIsSplit(spec *btf.Spec) bool {
	var fn *btf.Func
	return spec.TypeByName("bpf_jit_subprogs", &fn) == nil
}

// resolve finds a site in the kernel's BTF. Positions come from there and never from the version:
// 7.1 put an argument before another, and stable kernels backport.
func (s site) resolve(spec *btf.Spec) (*target, error) {
	var fn *btf.Func
	symbol := ""
	for _, symbol = range s.Symbols {
		if err := spec.TypeByName(symbol, &fn); err == nil {
			break
		}
		fn = nil
	}
	if fn == nil {
		if s.Shape == hook.Message { // not in BTF on every kernel, and nothing is asked of it
			return &target{site: s, symbol: s.Symbols[0]}, nil
		}
		return nil, errNoFunction
	}
	proto, ok := fn.Type.(*btf.FuncProto)
	if !ok {
		return nil, fmt.Errorf("function %s: no prototype in BTF", symbol)
	}
	t := &target{site: s, symbol: symbol}
	if t.slot, ok = argument(proto, s.Arg); !ok {
		return nil, fmt.Errorf("function %s: the argument to look at is not in its prototype", symbol)
	}
	for i := range t.args {
		t.args[i] = noArg
	}
	for i, a := range s.Args {
		if n, ok := argument(proto, a); ok {
			t.args[i] = n
		} else {
			return nil, fmt.Errorf("function %s: the argument %s%s is not in its prototype", symbol, a.Name, a.Struct)
		}
	}
	t.size, _ = argument(proto, hook.Arg{Name: "size"})
	for _, p := range proto.Params {
		n := slots(p.Type)
		t.ret += n
		if n > 1 {
			t.byValue = true
		}
	}
	return t, nil
}

// slots is the number of 8-byte argument slots of a type: structs up to 16 bytes travel by value in
// two.
func slots(t btf.Type) uint32 {
	n, err := btf.Sizeof(t)
	if err != nil || n <= 8 {
		return 1
	}
	return uint32(n+7) / 8
}

// argument finds an argument's slot. The first is it where none is asked for.
func argument(proto *btf.FuncProto, a hook.Arg) (uint32, bool) {
	if a.First || a == (hook.Arg{}) {
		return 0, true
	}
	at := uint32(0)
	for _, p := range proto.Params {
		if a.Name != "" && p.Name == a.Name || a.Struct != "" && pointsTo(p.Type, a.Struct, a.Pointers) {
			return at, true
		}
		at += slots(p.Type)
	}
	return 0, false
}

// pointsTo reports a pointer, depth deep, to a struct of that name.
func pointsTo(t btf.Type, name string, depth int) bool {
	for range depth {
		ptr, ok := btf.UnderlyingType(t).(*btf.Pointer)
		if !ok {
			return false
		}
		t = ptr.Target
	}
	s, ok := btf.UnderlyingType(t).(*btf.Struct)
	return ok && s.Name == name
}

// configure puts what was found into the programs' read-only configuration.
func (t *target) configure(spec *ebpf.CollectionSpec) error {
	switch {
	case t.Shape == hook.Denial:
		return spec.Variables["cfg_seccomp_ret"].Set(t.ret)
	case t.Shape == hook.Message:
		return nil
	case t.Program == sysBPF:
		if err := spec.Variables["cfg_size_slot"].Set(t.size); err != nil {
			return err
		}
	}
	if err := setElement(spec, "cfg_slot", t.Number, t.slot); err != nil {
		return err
	}
	if err := setElement(spec, "cfg_args", t.Number, t.args); err != nil {
		return err
	}
	return setElement(spec, "cfg_ret", t.Number, t.ret)
}

func setElement[T any](spec *ebpf.CollectionSpec, variable string, i uint32, v T) error {
	var all [coreHookH_MAX]T
	if err := spec.Variables[variable].Get(&all); err != nil {
		return fmt.Errorf("read %s: %w", variable, err)
	}
	all[i] = v
	return spec.Variables[variable].Set(all)
}
