// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"slices"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

const (
	ok     = "request+ permission+ resources+ btf+ verifier+"
	before = "request+ permission+ resources+ btf+"
)

var (
	jitted  = &trace.Prog{ID: 7, Type: 1, Tag: []byte{1, 2, 3, 4, 5, 6, 7, 8}, JITed: true, JITedLen: 99, Len: 3}
	blinded = &trace.Prog{ID: 7, Type: 1, Tag: []byte{1, 2, 3, 4, 5, 6, 7, 8}, JITed: true, Blinded: true, JITedLen: 99, Len: 3}
	slow    = &trace.Prog{ID: 7, Type: 1, Tag: []byte{1, 2, 3, 4, 5, 6, 7, 8}, Len: 3}
)

// The rows of what happens in the kernel, on each kernel, with every hook in place. The executions
// are what was measured there.
func TestRows(t *testing.T) {
	const (
		fnP  = load.FnLoad
		fnC  = load.FnCheck
		fnD  = load.FnDoCheck
		fnS  = load.FnSelect
		fnJ  = load.FnJIT
		fnB  = load.FnBlind
		fnJS = load.FnJITSubprogs
		sys  = load.FnSyscall
	)
	old := []string{"5.10.0-33-cloud-amd64", "6.1.0-49-cloud-amd64", "6.12.117"}
	all := append(slices.Clone(old), "7.2.13")
	harden2 := "net.core.bpf_jit_harden=2"
	call := func(ret int64, in ...ex) ex { return run(sys, int32(min(ret, 0)), run(fnP, int32(min(ret, 0)), in...)) }
	for _, test := range []struct {
		name    string
		kernels []string
		hooks   []load.Function // all but these
		sysctls []string
		ret     int64
		run     ex
		prog    *trace.Prog
		log     string
		change  func(*trace.Call)

		outcome load.Outcome
		stage   load.Stage
		stages  string
		cause   string
	}{{
		name: "success", kernels: old, ret: 3, prog: jitted,
		run:     call(3, run(fnC, 0, run(fnD, 0)), run(fnS, 0, run(fnJ, 0, run(fnB, 0)))),
		outcome: load.Loaded, stages: ok + " blinding+ jit+ install+",
	}, {
		name: "success without hardening", kernels: old, ret: 3, prog: jitted, sysctls: []string{"net.core.bpf_jit_harden=0"},
		run:     call(3, run(fnC, 0, run(fnD, 0)), run(fnS, 0, run(fnJ, 0, run(fnB, 0)))),
		outcome: load.Loaded, stages: ok + " jit+ install+",
	}, {
		name: "success blinded", kernels: []string{"7.2.13"}, ret: 3, prog: blinded, sysctls: []string{harden2},
		run:     call(3, run(fnC, 0, run(fnD, 0), run(fnS, 0, run(fnB, 0), run(fnJ, 0)))),
		outcome: load.Loaded, stages: ok + " blinding+ jit+ install+",
	}, {
		name: "success with calls", kernels: old, ret: 3, prog: jitted, sysctls: []string{harden2},
		run: call(3, run(fnC, 0, run(fnD, 0), run(fnJS, 0, run(fnJ, 0, run(fnB, 0)), run(fnJ, 0, run(fnB, 0)), run(fnJ, 0), run(fnJ, 0))),
			run(fnS, 0)),
		outcome: load.Loaded, stages: ok + " blinding+ jit+ install+",
	}, {
		name: "verifier", kernels: all, ret: -13,
		run:     call(-13, run(fnC, -13, run(fnD, -13))),
		outcome: load.Failed, stage: load.Verifier, stages: before + " verifier-13",
		cause: "bpf_prog_load > bpf_check > do_check_common",
	}, {
		name: "bad opcode", kernels: all, ret: -22, log: "unknown opcode ff\n",
		run:     call(-22, run(fnC, -22)),
		outcome: load.Failed, stage: load.Verifier, stages: "request+ permission+ resources+ btf? verifier-22",
		cause: "bpf_prog_load > bpf_check",
	}, {
		name: "func_info", kernels: all, ret: -22, log: "number of funcs in func_info doesn't match number of subprogs\n",
		run:     call(-22, run(fnC, -22)),
		outcome: load.Failed, stage: load.BTF, stages: "request+ permission+ resources+ btf-22",
		cause: "bpf_prog_load > bpf_check",
	}, {
		name: "attach target", kernels: all, ret: -22,
		run:     call(-22, run(fnC, -22, run(load.FnAttach, -22))),
		outcome: load.Failed, stage: load.BTF, stages: "request+ permission+ resources+ btf-22",
		cause: "bpf_prog_load > bpf_check > bpf_check_attach_target",
	}, {
		name: "attach target, and a log that is too small", kernels: all, ret: -28,
		run:     call(-28, run(fnC, -28, run(load.FnAttach, -22))),
		outcome: load.Failed, stage: load.BTF, stages: "request+ permission+ resources+ btf-22",
		cause: "bpf_prog_load > bpf_check > bpf_check_attach_target",
	}, {
		name: "blinding, one function, interpreter takes over", kernels: []string{"5.10.0", "6.12.117"}, ret: 3, prog: slow, sysctls: []string{harden2},
		run:     call(3, run(fnC, 0, run(fnD, 0)), run(fnS, 0, unjited(run(fnB, -34, patch(40))))),
		outcome: load.LoadedNotJITed, stage: load.Blinding, stages: ok + " blinding-34 install+",
		cause: "bpf_int_jit_compile > bpf_jit_blind_constants > bpf_patch_insn_single",
	}, {
		name: "blinding, one function, no interpreter", kernels: []string{"6.1.192"}, ret: -524, sysctls: []string{harden2},
		run:     call(-524, run(fnC, 0, run(fnD, 0)), run(fnS, 0, unjited(run(fnB, -34, patch(40))))),
		outcome: load.Failed, stage: load.Blinding, stages: ok + " blinding-34",
		cause: "bpf_prog_load > bpf_int_jit_compile > bpf_jit_blind_constants > bpf_patch_insn_single",
	}, {
		name: "blinding on 7.2", kernels: []string{"7.2.13"}, ret: 3, prog: slow, sysctls: []string{harden2},
		run:     call(3, run(fnC, 0, run(fnD, 0), run(fnS, 0, run(fnB, -12, patch(40))))),
		outcome: load.LoadedNotJITed, stage: load.Blinding, stages: ok + " blinding-34 install+",
		cause: "bpf_jit_blind_constants > bpf_patch_insn_single",
	}, {
		name: "blinding on 7.2, JIT required", kernels: []string{"7.2.13"}, ret: -524, sysctls: []string{harden2},
		run:     call(-524, run(fnC, -524, run(fnD, 0), run(fnS, 0, run(fnB, -12, patch(40))))),
		outcome: load.Failed, stage: load.Blinding, stages: ok + " blinding-34",
		cause: "bpf_prog_load > bpf_check > bpf_jit_blind_constants > bpf_patch_insn_single",
	}, {
		name: "blinding on 7.2, range check of the kernel", kernels: []string{"7.2.13"}, ret: 3, prog: slow, sysctls: []string{harden2},
		run:     call(3, run(fnC, 0, run(fnD, 0), run(fnS, 0, run(fnB, -12)))),
		outcome: load.LoadedNotJITed, stage: load.Blinding, stages: ok + " blinding-12 install+",
		cause: "bpf_jit_blind_constants",
	}, {
		name: "blinding with calls", kernels: []string{"6.1.192", "6.12.117"}, ret: 3, prog: slow, sysctls: []string{harden2},
		run: call(3, run(fnC, 0, run(fnD, 0), run(fnJS, -524, run(fnJ, 0, run(fnB, 0)), unjited(run(fnB, -34, patch(40))))),
			run(fnS, 0, unjited())),
		outcome: load.LoadedNotJITed, stage: load.Blinding, stages: ok + " blinding-34 install+",
		cause: "jit_subprogs > bpf_int_jit_compile > bpf_jit_blind_constants > bpf_patch_insn_single",
	}, {
		name: "blinding with calls, jit_subprogs inlined", kernels: []string{"5.10.223"}, ret: 3, prog: slow, sysctls: []string{harden2},
		hooks:   []load.Function{fnJS},
		run:     call(3, run(fnC, 0, run(fnD, 0), run(fnJ, 0, run(fnB, 0)), unjited(run(fnB, -34, patch(40)))), run(fnS, 0, unjited())),
		outcome: load.LoadedNotJITed, stage: load.Blinding, stages: ok + " blinding-34 install+",
		cause: "bpf_int_jit_compile > bpf_jit_blind_constants > bpf_patch_insn_single",
	}, {
		name: "blinding with calls on 7.2", kernels: []string{"7.2.13"}, ret: 3, prog: slow, sysctls: []string{harden2},
		run:     call(3, run(fnC, 0, run(fnD, 0), run(fnJS, -12, run(fnB, -12, patch(40))), run(fnS, 0, unjited()))),
		outcome: load.LoadedNotJITed, stage: load.Blinding, stages: ok + " blinding-34 install+",
		cause: "jit_subprogs > bpf_jit_blind_constants > bpf_patch_insn_single",
	}, {
		name: "blinding with calls, no interpreter", kernels: []string{"6.1.192", "6.12.117"}, ret: -524, sysctls: []string{harden2},
		run: call(-524, run(fnC, -524, run(fnD, 0), run(fnJS, -524, run(fnJ, 0, run(fnB, 0)), unjited(run(fnB, -34, patch(40)))))),

		outcome: load.Failed, stage: load.Blinding, stages: ok + " blinding-34",
		cause: "bpf_prog_load > bpf_check > jit_subprogs > bpf_int_jit_compile > bpf_jit_blind_constants > bpf_patch_insn_single",
	}, {
		// The interpreter cannot run kfunc calls, callbacks, or tail calls below bpf-to-bpf calls.
		name: "blinding with calls that an interpreter cannot run", kernels: all, ret: -22, sysctls: []string{harden2},
		log:     "callbacks are not allowed in non-JITed programs\n",
		run:     call(-22, run(fnC, -22, run(fnD, 0), run(fnJS, -524, unjited(run(fnB, -34, patch(40)))))),
		outcome: load.Failed, stage: load.Blinding, stages: ok + " blinding-34",
		cause: "bpf_prog_load > bpf_check > jit_subprogs > bpf_int_jit_compile > bpf_jit_blind_constants > bpf_patch_insn_single",
	}, {
		name: "the verifier's own patch runs out of range", kernels: all, ret: -12, log: "insn 7 cannot be patched due to 16-bit range\n",
		run:     call(-12, run(fnC, -12, run(fnD, 0), patch(7))),
		outcome: load.Failed, stage: load.Verifier, stages: before + " verifier-34",
		cause: "bpf_prog_load > bpf_check > bpf_patch_insn_single",
	}, {
		name: "JIT memory limit", kernels: []string{"5.10.0", "6.12.117"}, ret: 3, prog: slow,
		change:  func(c *trace.Call) { c.Creds.CapEffective = 0 },
		run:     call(3, run(fnC, 0, run(fnD, 0)), run(fnS, 0, unjited(run(fnB, 0), run(load.FnModmem, -1)))),
		outcome: load.LoadedNotJITed, stage: load.JIT, stages: ok + " blinding+ jit-1 install+",
		cause: "bpf_int_jit_compile > bpf_jit_charge_modmem",
	}, {
		name: "JIT memory limit with calls", kernels: []string{"6.12.117"}, ret: 3, prog: slow,
		run: call(3, run(fnC, 0, run(fnD, 0), run(fnJS, -524, run(fnJ, 0, run(fnB, 0)), unjited(run(fnB, 0), run(load.FnModmem, -1)))),
			run(fnS, 0, unjited(run(fnB, 0)))),
		outcome: load.LoadedNotJITed, stage: load.JIT, stages: ok + " blinding+ jit-1 install+",
		cause: "jit_subprogs > bpf_int_jit_compile > bpf_jit_charge_modmem",
	}, {
		name: "JIT memory limit, no interpreter", kernels: []string{"6.1.192"}, ret: -524,
		run:     call(-524, run(fnC, 0, run(fnD, 0)), run(fnS, 0, unjited(run(fnB, 0), run(load.FnModmem, -1)))),
		outcome: load.Failed, stage: load.JIT, stages: ok + " blinding+ jit-1",
		cause: "bpf_prog_load > bpf_int_jit_compile > bpf_jit_charge_modmem",
	}, {
		name: "JIT memory limit on 7.2", kernels: []string{"7.2.13"}, ret: 3, prog: slow, sysctls: []string{"net.core.bpf_jit_harden=0"},
		run:     call(3, run(fnC, 0, run(fnD, 0), run(fnS, 0, unjited(run(load.FnModmem, -1))))),
		outcome: load.LoadedNotJITed, stage: load.JIT, stages: ok + " jit-1 install+",
		cause: "bpf_int_jit_compile > bpf_jit_charge_modmem",
	}, {
		name: "JIT refuses", kernels: []string{"6.1.192"}, ret: -524, sysctls: []string{"net.core.bpf_jit_harden=0"},
		run:     call(-524, run(fnC, 0, run(fnD, 0)), run(fnS, 0, unjited(run(fnB, 0)))),
		outcome: load.Failed, stage: load.JIT, stages: ok + " jit-524",
		cause: "bpf_prog_load > bpf_int_jit_compile",
	}, {
		name: "no capability", kernels: all, ret: -1,
		run:     call(-1, capable(39), capable(21)),
		outcome: load.Failed, stage: load.Permission, stages: "request+ permission-1",
		cause: "bpf_prog_load > security_capable",
	}, {
		name: "unprivileged_bpf_disabled before 6.12", kernels: []string{"5.10.0", "6.1.192"}, ret: -1,
		run:     run(sys, -1, capable(39), capable(21)),
		outcome: load.Failed, stage: load.Permission, stages: "request? permission-1",
		cause: "security_capable",
	}, {
		name: "LSM", kernels: all, ret: -13,
		run:     run(sys, -13, capable(39), run(load.FnLSM, -13)),
		outcome: load.Failed, stage: load.Permission, stages: "request? permission-13",
		cause: "security_bpf",
	}, {
		name: "LSM after allocation", kernels: []string{"6.12.117", "7.2.13"}, ret: -13,
		run:     call(-13, capable(38), run(load.FnLSMLoad, -13)),
		outcome: load.Failed, stage: load.Permission, stages: "request+ permission-13",
		cause: "bpf_prog_load > security_bpf_prog_load",
	}, {
		name: "a capability that was refused on the way does no harm", kernels: all, ret: -13,
		run:     call(-13, capable(39), run(fnC, -13, capable(38), run(fnD, -13))),
		outcome: load.Failed, stage: load.Verifier, stages: before + " verifier-13",
		cause: "bpf_prog_load > bpf_check > do_check_common",
	}, {
		name: "lockdown", kernels: all, ret: -22, log: "unknown func bpf_probe_read_kernel#113\n",
		run:     call(-22, run(fnC, -22, run(fnD, -22, run(load.FnLockdown, -1)))),
		outcome: load.Failed, stage: load.Verifier, stages: before + " verifier-22",
		cause: "bpf_prog_load > bpf_check > do_check_common",
	}, {
		name: "memlock", kernels: []string{"5.10.223"}, ret: -1,
		run:     call(-1),
		outcome: load.Failed, stage: load.Permission, stages: "request+ permission-1",
		cause: "bpf_prog_load",
	}, {
		// An unprivileged socket filter is asked for CAP_BPF too, and may load without it.
		name: "memlock of an unprivileged loader", kernels: []string{"5.10.223"}, ret: -1, sysctls: []string{"kernel.unprivileged_bpf_disabled=0"},
		run:     call(-1, capable(39), capable(21)),
		outcome: load.Failed, stage: load.Permission, stages: "request+ permission-1",
		cause: "bpf_prog_load",
	}, {
		name: "too many instructions", kernels: all, ret: -7,
		run:     call(-7),
		outcome: load.Failed, stage: load.Request, stages: "request-7",
		cause: "bpf_prog_load",
	}, {
		name: "attach_btf_id", kernels: all, ret: -22,
		change:  func(c *trace.Call) { c.Attr[progAttachBTF+3] = 0x7f },
		run:     call(-22),
		outcome: load.Failed, stage: load.BTF, stages: "request+ permission? resources? btf-22",
		cause: "bpf_prog_load",
	}, {
		name: "attr too large", kernels: all, ret: -7,
		run:     run(sys, -7),
		outcome: load.Failed, stage: load.Request, stages: "request-7",
		cause: "",
	}, {
		name: "no memory for the program", kernels: all, ret: -12,
		run:     call(-12),
		outcome: load.Failed, stage: load.Resources, stages: "request+ permission? resources-12",
		cause: "bpf_prog_load",
	}, {
		name: "too many files", kernels: []string{"6.12.117"}, ret: -24, sysctls: []string{harden2},
		run:     call(-24, run(fnC, 0, run(fnD, 0)), run(fnS, 0, run(fnJ, 0, run(fnB, 0))), run(load.FnNewFD, -24)),
		outcome: load.Failed, stage: load.Install, stages: ok + " blinding+ jit+ install-24",
		cause: "bpf_prog_load > bpf_prog_new_fd",
	}, {
		name: "too many files on 7.2", kernels: []string{"7.2.13"}, ret: -24, sysctls: []string{harden2},
		run:     call(-24, run(fnC, 0, run(fnD, 0), run(fnS, 0, run(fnB, 0), run(fnJ, 0))), run(load.FnNewFD, -24)),
		outcome: load.Failed, stage: load.Install, stages: ok + " blinding+ jit+ install-24",
		cause: "bpf_prog_load > bpf_prog_new_fd",
	}, {
		name: "too many files, bpf_prog_new_fd inlined", kernels: []string{"5.10.0", "6.1.192"}, ret: -24, sysctls: []string{harden2},
		hooks:   []load.Function{load.FnNewFD},
		run:     call(-24, run(fnC, 0, run(fnD, 0)), run(fnS, 0, run(fnJ, 0, run(fnB, 0)))),
		outcome: load.Failed, stage: load.Install, stages: ok + " blinding+ jit+ install-24",
		cause: "bpf_prog_load",
	}, {
		// The last failing child is the blinding pass, but the interpreter took over and nothing
		// came of it.
		name: "too many files after a failed blinding", kernels: []string{"5.10.0"}, ret: -24, sysctls: []string{harden2},
		hooks:   []load.Function{load.FnNewFD},
		run:     call(-24, run(fnC, 0, run(fnD, 0)), run(fnS, 0, unjited(run(fnB, -34, patch(40))))),
		outcome: load.Failed, stage: load.Install, stages: ok + " blinding? jit? install-24",
		cause: "bpf_prog_load",
	}, {
		name: "log buffer too small", kernels: all, ret: -28, log: "processed 9 insns",
		run:     call(-28, run(fnC, -28, run(fnD, 0))),
		outcome: load.Failed, stage: load.Verifier, stages: before + " verifier-28",
		cause: "bpf_prog_load > bpf_check",
	}, {
		name: "log buffer too small for a refusal", kernels: all, ret: -28, log: "0: R1=ctx",
		run:     call(-28, run(fnC, -28, run(fnD, -13))),
		outcome: load.Failed, stage: load.Verifier, stages: before + " verifier-13",
		cause: "bpf_prog_load > bpf_check > do_check_common",
	}, {
		name: "log buffer too small after a blinding that did no harm", kernels: []string{"6.12.117"}, ret: -28, sysctls: []string{harden2},
		run:     call(-28, run(fnC, -28, run(fnD, 0), run(fnJS, -524, unjited(run(fnB, -34, patch(40)))))),
		outcome: load.Failed, stage: load.Verifier, stages: before + " verifier-28",
		cause: "bpf_prog_load > bpf_check",
	}, {
		name: "signal", kernels: all, ret: -11,
		run:     call(-11, run(fnC, -11, run(fnD, -11))),
		outcome: load.Failed, stage: load.Verifier, stages: before + " verifier-11",
		cause: "bpf_prog_load > bpf_check > do_check_common",
	}, {
		name: "mcpu v4", kernels: []string{"5.10.0", "6.1.192"}, ret: -22, log: "BPF_MOV uses reserved fields\n",
		run:     call(-22, run(fnC, -22, run(fnD, -22))),
		outcome: load.Failed, stage: load.Verifier, stages: before + " verifier-22",
		cause: "bpf_prog_load > bpf_check > do_check_common",
	}} {
		for _, kernel := range test.kernels {
			t.Run(test.name+"/"+kernel, func(t *testing.T) {
				hooks := slices.DeleteFunc(slices.Clone(allHooks), func(fn load.Function) bool { return slices.Contains(test.hooks, fn) })
				r := req{typ: 1, name: "p", insns: make([]insn.Instruction, 3), logLevel: 1, logSize: 100}
				c := loadCall(r, test.ret, filter([]ex{test.run}, hooks)...)
				c.Prog = test.prog
				if test.change != nil {
					test.change(c)
				}
				recs := []trace.Record{{Call: c}}
				if test.log != "" {
					recs = slices.Insert(recs, 0, logChunk(c, test.log))
				}
				got := attempts(header(kernel, hooks, test.sysctls...), recs...)
				qt.Assert(t, qt.HasLen(got, 1))
				at := got[0]
				qt.Check(t, qt.Equals(at.Outcome, test.outcome))
				qt.Check(t, qt.Equals(at.Errno, int(max(0, -test.ret))))
				qt.Check(t, qt.Equals(at.FailedStage, test.stage))
				qt.Check(t, qt.Equals(stageLine(at), test.stages))
				qt.Check(t, qt.Equals(causeLine(at), test.cause))
				qt.Check(t, qt.Equals(at.Program.Type, "socket_filter"))
				qt.Check(t, qt.Equals(at.Program.Insns, 3))
				qt.Check(t, qt.IsFalse(at.Incomplete), qt.Commentf("%q", at.IncompleteWhy))
			})
		}
	}
}
