// SPDX-License-Identifier: Apache-2.0

// Package probe finds out by trying what the running kernel lets programs be made of. Each try is a
// load of a few instructions, or the creation of a small map, and is closed at once; nothing is
// attached.
package probe

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/sys/freeing"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
)

// Merely asking for these changes the machine or writes a warning into the kernel's log:
// bpf_get_trace_printk_proto enables a trace event, and bpf_probe_write_user is announced
// (kernel/trace/bpf_trace.c).
var loud = []string{"bpf_trace_printk", "bpf_trace_vprintk", "bpf_probe_write_user"}

// Add tries everything and writes what it found into p: Features and Blinding, and into Unknown
// what could not be tried. It needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (CAP_SYS_ADMIN before
// 5.8), and takes half a second for some thousands of loads; it stops early with the context.
// Results belong to this process: they include what its capabilities and the node's lockdown allow.
func Add(ctx context.Context, p *node.Profile) { add(ctx, p, nil, new(freeing.Bound).Closed) }

// AddFor is Add with the helpers of some types of programs only, which takes fewer loads.
func AddFor(ctx context.Context, p *node.Profile, types []string) {
	if types == nil {
		types = []string{}
	}
	add(ctx, p, types, new(freeing.Bound).Closed)
}

// add asks for the helpers of some types of programs only, or of all. closed is told of each
// program that was tried, and may stop it.
func add(ctx context.Context, p *node.Profile, only []string, closed func() error) {
	if p.Unknown == nil {
		p.Unknown = map[string]string{}
	}
	Blinding(p)
	if err := features.HaveProgramType(ebpf.SocketFilter); err != nil {
		p.Unknown["features"] = "the simplest program does not load: " + err.Error()
		return
	}
	f := &node.Features{Programs: map[string]bool{}, Maps: map[string]bool{}, Helpers: map[string][]string{}, Instructions: map[string]bool{}}
	p.Features = f
	note := func(into map[string]bool, kind, name string, err error) {
		switch {
		case err == nil:
			into[name] = true
		case errors.Is(err, ebpf.ErrNotSupported):
			into[name] = false
		default:
			p.Unknown[kind+" "+name] = err.Error()
		}
	}
	for name, try := range map[string]func() error{
		"v2": features.HaveV2ISA, "v3": features.HaveV3ISA, "v4": movsx, "gotol": gotol,
		"bounded_loops": loops, "large_programs": features.HaveLargeInstructions,
	} {
		note(f.Instructions, "instructions", name, try())
	}
	const last = abi.MapTypeInsnArray // cilium/ebpf asks for none that came later
	for n := 1; n <= last; n++ {
		note(f.Maps, "map type", abi.MapTypeName(uint32(n)), features.HaveMapType(ebpf.MapType(n)))
	}
	for n := 1; n <= abi.ProgTypes; n++ {
		note(f.Programs, "program type", abi.ProgTypeName(uint32(n)), features.HaveProgramType(ebpf.ProgramType(n)))
	}
	helpers(ctx, p, only, closed)
	lockdown(p)
}

// lockdown is concluded where securityfs does not show it: nothing else takes this helper from
// kprobes alone of all that they may call (5.5 and later).
func lockdown(p *node.Profile) {
	may, tried := p.Features.Helpers["kprobe"]
	if p.Lockdown != "" || !tried || !slices.Contains(may, "bpf_probe_read_user") || slices.Contains(may, "bpf_probe_read_kernel") {
		return
	}
	p.Lockdown = "confidentiality"
	p.Unknown["lockdown"] += "; concluded, because programs may call bpf_probe_read_user and not bpf_probe_read_kernel"
}

// helpers tries every helper with every type of program that there is, or with those of a list.
func helpers(ctx context.Context, p *node.Profile, only []string, closed func() error) {
	unclearOf := map[string][]string{} // what was said, with the helper: the types
	log := make([]byte, 16<<10)
	for n := uint32(1); int(n) <= abi.ProgTypes; n++ {
		name := abi.ProgTypeName(n)
		if !p.Features.Programs[name] || only != nil && !slices.Contains(only, name) {
			continue
		}
		if target(n) {
			p.Unknown["helpers of "+name] = "they depend on the function that such a program is attached to"
			continue
		}
		found := []string{}
		for id := 1; ; id++ {
			h, ok := insn.HelperByID(id)
			if !ok {
				break
			}
			if ctx.Err() != nil {
				p.Unknown["helpers"] = ctx.Err().Error()
				return
			}
			if slices.Contains(loud, h.Name) {
				continue
			}
			may, why := helper(n, int32(id), log)
			if err := closed(); err != nil {
				p.Unknown["helpers"] = err.Error()
				return
			}
			switch may {
			case yes:
				found = append(found, h.Name)
			case unclear:
				key := h.Name + ": " + why
				unclearOf[key] = append(unclearOf[key], name)
			}
		}
		slices.Sort(found)
		p.Features.Helpers[name] = found
	}
	for key, types := range unclearOf {
		h, why, _ := strings.Cut(key, ": ")
		p.Unknown["helper "+h] = "unclear for " + strings.Join(types, ", ") + ": " + why
	}
	for _, h := range loud {
		p.Unknown["helper "+h] = "not tried: merely asking for it changes the machine, or writes a warning into the kernel's log"
	}
}

// interpreter reads whether the kernel keeps what only compiled code can run from its interpreter:
// 9a6df65d5c6a gave programs a flag for that, and f1c27922576e, right after it, sets it for what
// the verifier writes out. A release does not tell, for both are backported.
func interpreter(p *node.Profile, spec *btf.Spec) {
	var prog *btf.Struct
	if err := spec.TypeByName("bpf_prog", &prog); err != nil {
		p.Unknown["interpreter"] = "the kernel's BTF does not say: " + err.Error()
		return
	}
	const flag = "jit_required"
	i := &node.Interpreter{From: "the kernel's BTF: struct bpf_prog has no " + flag}
	if i.Refuses = slices.ContainsFunc(prog.Members, func(m btf.Member) bool { return m.Name == flag }); i.Refuses {
		i.From = "the kernel's BTF: struct bpf_prog has " + flag
	}
	p.Interpreter = i
}

// Blinding reads from the kernel's own types how it blinds, and what it interprets, and loads
// nothing: from 7.1 on the pass takes the verifier's environment, and with it the whole program.
func Blinding(p *node.Profile) {
	if p.Unknown == nil {
		p.Unknown = map[string]string{}
	}
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		p.Unknown["blinding"], p.Unknown["interpreter"] = err.Error(), err.Error()
		return
	}
	interpreter(p, spec)
	var fn *btf.Func
	if err := spec.TypeByName("bpf_jit_blind_constants", &fn); err != nil {
		p.Unknown["blinding"] = "the kernel's BTF does not say: " + err.Error()
		return
	}
	proto, ok := fn.Type.(*btf.FuncProto)
	if !ok || len(proto.Params) == 0 || len(proto.Params) > 2 {
		p.Unknown["blinding"] = "bpf_jit_blind_constants has a form in the kernel's BTF that is not known"
		return
	}
	b := &node.Blinding{WholeProgram: len(proto.Params) == 2, From: "the kernel's BTF: bpf_jit_blind_constants("}
	for i, a := range proto.Params {
		if i > 0 {
			b.From += ", "
		}
		b.From += a.Name
	}
	b.From += ")"
	p.Blinding = b
}
