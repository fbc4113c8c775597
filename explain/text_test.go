// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
)

// What programs print, and what it means.
var pastedTexts = []struct {
	name   string
	text   string
	rule   string // "" when there is nothing to say
	others []string
	says   string // substring of cause or evidence
}{
	{
		name:   "runc and containerd: the next container",
		text:   `Error: failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: error loading seccomp filter into kernel: error loading seccomp filter: errno 524: unknown`,
		rule:   "JIT001",
		others: []string{"JIT002"},
		says:   "The process that installs the filter is not the cause",
	},
	{
		name:   "kubelet event with docker",
		text:   `Warning  FailedCreatePodSandBox  kubelet  Failed to create pod sandbox: rpc error: code = Unknown desc = failed to start sandbox container: Error response from daemon: OCI runtime create failed: container_linux.go:380: starting container process caused: error loading seccomp filter into kernel: loading seccomp filter: errno 524`,
		rule:   "JIT001",
		others: []string{"JIT002"},
	},
	{
		name:   "OpenSSH's sandbox",
		text:   `fatal: ssh_sandbox_child: prctl(PR_SET_SECCOMP): Unknown error 524 [preauth]`,
		rule:   "JIT001",
		others: []string{"JIT002"},
	},
	{
		name:   "cilium/ebpf: 524 prints as operation not supported",
		text:   `field TracepointSyscalls: program tracepoint_syscalls: load program: operation not supported`,
		rule:   Unknown,
		others: []string{"FEAT007", "BLIND001", "JIT001", "JIT002"},
		says:   "in Go programs for ENOTSUPP (524) as well",
	},
	{
		name:   "libbpf, 524",
		text:   "libbpf: prog 'handle': BPF program load failed: unknown error (-524)\nlibbpf: prog 'handle': failed to load: -524\n",
		rule:   Unknown,
		others: []string{"FEAT007", "BLIND001", "JIT001", "JIT002"},
	},
	{
		name: "libbpf with the verifier's log, and noise before it",
		text: `libbpf: failed (-95) to create BPF token from '/sys/fs/bpf', skipping optional step...
libbpf: prog 'drop': BPF program load failed: Permission denied
libbpf: prog 'drop': -- BEGIN PROG LOAD LOG --
0: R1=ctx() R10=fp0
5: (85) call bpf_map_lookup_elem#1    ; R0=map_value_or_null(id=1,map=m,ks=4,vs=8)
6: (79) r0 = *(u64 *)(r0 +0)
R0 invalid mem access 'map_value_or_null'
processed 7 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
-- END PROG LOAD LOG --
libbpf: prog 'drop': failed to load: -13
libbpf: failed to load object 'x.bpf.o'`,
		rule: "VER001",
		says: "the verifier stopped at instruction 6",
	},
	{
		name: "cilium/ebpf, VerifierError in one line",
		text: `loading objects: field Filter: program filter: load program: permission denied: 6: (79) r0 = *(u64 *)(r0 +0): R0 invalid mem access 'map_value_or_null' (12 line(s) omitted)`,
		rule: "VER001",
		says: "uses R0",
	},
	{
		name: "cilium/ebpf, VerifierError in full",
		text: "program filter: load program: permission denied:\n\t0: R1=ctx() R10=fp0\n\t; int x;\n\t0: (bf) r0 = r7\n\tR7 !read_ok\n\tprocessed 1 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0",
		rule: "VER002",
		says: "reads R7",
	},
	{
		name: "a log on one line of JSON",
		text: `{"level":"fatal","error":"load program: permission denied:\n\t0: R1=ctx() R10=fp0\n\t0: (bf) r0 = r7\n\tR7 !read_ok\n\tprocessed 1 insns (limit 1000000)"}`,
		rule: "VER002",
	},
	{
		name: "CO-RE poison by the kernel",
		text: "12: (85) call unknown#195896080\ninvalid func unknown#195896080\nprocessed 13 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0",
		rule: "BTF001",
	},
	{
		name: "CO-RE poison by libbpf, with struct and field",
		text: "libbpf: prog 'probe': -- BEGIN PROG LOAD LOG --\n11: (b7) r1 = 0\n12: <invalid CO-RE relocation>\nfailed to resolve CO-RE relocation <byte_off> [7] struct task_struct.nope (0:1 @ offset 4)\nprocessed 13 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0\n-- END PROG LOAD LOG --",
		rule: "BTF001",
		says: "struct task_struct.nope",
	},
	{
		name: "cilium/ebpf, CO-RE",
		text: `program p: load program: invalid argument: program probe: bad CO-RE relocation: invalid func unknown#195896080`,
		rule: "BTF001",
	},
	{
		name:   "the hint about MEMLOCK",
		text:   `failed to create map: operation not permitted (MEMLOCK may be too low, consider rlimit.RemoveMemlock)`,
		rule:   "PERM001",
		others: []string{"PERM002", "PERM005", "PERM006", "PERM007"},
		says:   "right before 5.11 only",
	},
	{
		name:   "EPERM without a hint",
		text:   `libbpf: Error in bpf_object__probe_loading(): Operation not permitted(1). Couldn't load trivial BPF program.`,
		rule:   Unknown,
		others: []string{"PERM001", "PERM002", "PERM005", "PERM006", "PERM007"},
	},
	{
		name:   "bpftrace",
		text:   "stdin:1:1-20: ERROR: helper bpf_probe_read_kernel not supported\nERROR: Error loading BPF program for kprobe_vfs_read_1.\nKernel error log:\n0: R1=ctx() R10=fp0\n3: (85) call bpf_probe_read_kernel#113\nunknown func bpf_probe_read_kernel#113\nprocessed 4 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0\n\nERROR: Loading BPF object(s) failed.",
		rule:   "PERM003",
		others: []string{"FEAT002"},
	},
	{
		name: "the kernel's log under lockdown",
		text: "Lockdown: bpftrace: use of bpf to read kernel RAM is restricted; see man kernel_lockdown.7",
		rule: "PERM003",
	},
	{
		name: "SELinux's audit log",
		text: `type=AVC msg=audit(1700000000.1:2): avc:  denied  { prog_load } for  pid=1 comm="agent" scontext=system_u:system_r:container_t:s0 tcontext=system_u:system_r:container_t:s0 tclass=bpf permissive=0`,
		rule: "PERM005",
	},
	{
		name: "too complex",
		text: "BPF program is too large. Processed 1000001 insn\nprocessed 1000001 insns (limit 1000000) max_states_per_insn 4 total_states 9 peak_states 9 mark_read 1\nlibbpf: prog 'x': failed to load: -7",
		rule: "VER101",
	},
	{
		name:   "too complex, perhaps",
		text:   "load program: argument list too long",
		rule:   Unknown,
		others: []string{"VER099", "VER101", "REQ001", "VER102", "VER016", "REQ003"},
	},
	{
		name: "no BTF",
		text: "libbpf: failed to find valid kernel BTF\nlibbpf: Error loading vmlinux BTF: -3\nlibbpf: failed to load object",
		rule: "BTF003",
	},
	{
		name: "old library",
		text: "libbpf: Unsupported BTF_KIND:19",
		rule: "BTF002",
	},
	{
		name: "missing kfunc, libbpf",
		text: "libbpf: extern (func ksym) 'bpf_nope': not found in kernel or module BTFs\nlibbpf: failed to load object 'x'\n",
		rule: "FEAT006",
	},
	{
		name: "systemd",
		text: `Attaching device control BPF program to cgroup /system.slice/foo.service failed: Too many open files`,
		rule: "INST001",
	},
	{
		name: "LRU",
		text: `libbpf: map 'conns': failed to create: unknown error (-524)`,
		rule: Unknown,
	},
	{
		name: "noise alone",
		text: `libbpf: failed (-95) to create BPF token from '/sys/fs/bpf', skipping optional step...`,
		rule: "PERM010",
		says: "noise",
	},
	{
		name:   "a trampoline",
		text:   `attach fentry/tcp_connect: create tracing link: not supported (errno 524)`,
		rule:   "ATT115",
		others: []string{"ATT114"},
	},
	{
		name:   "a perf event, refused: no command of bpf(2)",
		text:   `attach kprobe: perf_event_open: permission denied`,
		rule:   "PERM011",
		others: []string{"PERM005"},
		says:   "The loader lacks the capability that the event needs",
	},
	{
		name:   "a uprobe by cilium/ebpf, without CAP_SYS_ADMIN",
		text:   `attach uprobe: creating perf_uprobe PMU: token SSL_read: opening perf event: permission denied`,
		rule:   "PERM012",
		says:   "needs CAP_SYS_ADMIN on kernels from 6.16 on",
		others: []string{"PERM005", "PERM011"},
	},
	{
		name:   "a uprobe by libbpf",
		text:   "libbpf: prog 'ssl_read': failed to create uprobe '/usr/lib/libssl.so.3:0x36b30' perf event: Permission denied\nlibbpf: prog 'ssl_read': failed to auto-attach: -13",
		rule:   "PERM012",
		others: []string{"PERM005", "PERM011"},
	},
	{
		name: "near miss: a kprobe, which needs no CAP_SYS_ADMIN",
		text: "libbpf: prog 'x': failed to create kprobe 'do_unlinkat+0x0' perf event: Permission denied",
		rule: "PERM011", others: []string{"PERM005"},
	},
	{
		name: "near miss: a uprobe, and another errno",
		text: "libbpf: prog 'x': failed to create uprobe '/bin/y:0x1234' perf event: Operation not permitted",
		rule: Unknown, others: []string{"PERM005", "PERM006", "PERM011"},
	},
	{
		name: "package loader does not load what would be compiled wrongly",
		text: `load program: program http: constant blinding may make a jump of the program go to the wrong place [BLIND004]`,
		rule: "BLIND004",
		says: "did not load it",
	},
	{
		name: "a kprobe's function is not there",
		text: `opening kprobe perf event: no such file or directory`,
		rule: "ATT105", others: []string{"ATT103", "ATT109"},
		says: "can be probed",
	},
	{
		name: "a perf event, and nothing more is known",
		text: `libbpf: prog 'x': failed to create kprobe 'y' perf event: Invalid argument`,
		rule: "ATT107",
		says: "may not be probed",
	},
	{
		name:   "words of a helper, on their own",
		text:   "ERROR: Error loading BPF program for kprobe_vfs_read_1.\nKernel error log:\n0: (85) call bpf_probe_read#4\nunknown func bpf_probe_read#4\n",
		rule:   "PERM003",
		others: []string{"FEAT002"},
		says:   "since it knows the name",
	},
	{
		name: "an errno next to a line about a load, on one that is not about BPF",
		text: "bpftool: loading program from x.o\nsomething happened: permission denied\n",
		rule: Unknown,
	},
	{
		name: "BPF by name, and an errno of nobody knows what",
		text: `ebpf-agent: permission denied`,
		rule: Unknown,
	},
	{name: "an agent by name, and a file", text: `time=1 msg="starting ebpf-agent"` + "\nopen /etc/agent/config.yaml: permission denied"},
	{name: "an agent by name, and a file, on one line", text: `ebpf-agent: open /etc/agent/config.yaml: permission denied`},
	{name: "an agent that loaded, and a fork", text: "loaded 12 eBPF programs\nexec: fork: cannot allocate memory"},
	{name: "a program was loaded, and then a file", text: "libbpf: loading program from x.o\nopen /etc/agent/config.yaml: permission denied"},
	{name: "524 of something", text: "GET /x took 524 ms: invalid argument"},
	{name: "nothing about BPF", text: "cat: /etc/shadow: Permission denied"},
	{name: "nothing at all", text: ""},
	{name: "BPF, and no failure", text: "libbpf: loading object 'x' from buffer"},
}

func TestText(t *testing.T) {
	for _, test := range pastedTexts {
		t.Run(test.name, func(t *testing.T) {
			ds := Text(test.text)
			if test.rule == "" {
				qt.Assert(t, qt.HasLen(ds, 0), qt.Commentf("%+v", ds))
				return
			}
			qt.Assert(t, qt.Not(qt.HasLen(ds, 0)))
			d := ds[0]
			dump := strings.Join(append([]string{d.Cause}, d.Evidence...), "\n")
			qt.Check(t, qt.Equals(d.Rule, test.rule), qt.Commentf("%s\n%+v", dump, d.Alternatives))
			var others []string
			for _, o := range d.Alternatives {
				others = append(others, o.Rule)
			}
			if test.others != nil || test.rule != Unknown {
				qt.Check(t, qt.DeepEquals(others, test.others))
			}
			qt.Check(t, qt.StringContains(dump, test.says))
			qt.Check(t, qt.Not(qt.HasLen(d.Remedies, 0)))
			qt.Check(t, qt.Equals(d.HowKnown, load.Inferred))
			qt.Check(t, qt.HasLen(slices.Compact(slices.Sorted(slices.Values(d.Evidence))), len(d.Evidence)), qt.Commentf("said twice: %q", d.Evidence))
			// Text is no kernel that was watched.
			qt.Check(t, qt.IsFalse(strings.Contains(dump, "returned -")), qt.Commentf("%s", dump))
		})
	}
}

// Beside a failure noise only distracts. Alone it is told, as what it is.
func TestTextNoise(t *testing.T) {
	ds := Text("libbpf: failed (-95) to create BPF token from '/sys/fs/bpf'\nlibbpf: prog 'x': BPF program load failed: Bad file descriptor\nfd 9 is not pointing to valid bpf_map\n")
	var ids []string
	for _, d := range ds {
		ids = append(ids, d.Rule)
	}
	qt.Assert(t, qt.DeepEquals(ids, []string{"REQ002"}))
	alone := Text("libbpf: failed (-95) to create BPF token from '/sys/fs/bpf'\n")
	qt.Assert(t, qt.HasLen(alone, 1))
	qt.Assert(t, qt.Equals(alone[0].Rule, "PERM010"))
	qt.Assert(t, qt.StringContains(alone[0].Cause, "This message is noise."))
}

func TestTextSeveralPrograms(t *testing.T) {
	block := func(message string) string {
		return "libbpf: prog 'x': BPF program load failed: Permission denied\n-- BEGIN PROG LOAD LOG --\n" + reject(message) + "-- END PROG LOAD LOG --\n"
	}
	ds := Text(block("R7 !read_ok") + block("R0 invalid mem access 'map_value_or_null'"))
	qt.Assert(t, qt.HasLen(ds, 2))
	qt.Check(t, qt.Equals(ds[0].Rule, "VER002"))
	qt.Check(t, qt.Equals(ds[1].Rule, "VER001"))
}

// A process that explains its own error knows more than the error says.
func TestOwnError(t *testing.T) {
	const perfmon = 1<<abi.CapBPF | 1<<abi.CapPerfmon
	refused := "creating perf_uprobe PMU: token SSL_read: opening perf event: permission denied"
	own := func(kind load.Kind, errno int, caps uint64) *load.Attempt {
		return &load.Attempt{Kind: kind, Errno: errno, Evidence: load.Evidence{
			FailedInsn: -1, UserNSLevel: 0, SeccompMode: -1, Harden: -1, EnterSeen: true, Caps: caps, CapsKnown: true}}
	}
	for _, tt := range []struct {
		name, text string
		known      *load.Attempt
		rule, says string
	}{
		{"it lacks CAP_SYS_ADMIN", refused, own("", 13, perfmon), "PERM012", "the loader's effective capabilities were"},
		{"it has CAP_SYS_ADMIN", refused, own("", 13, perfmon|1<<abi.CapSysAdmin), Unknown, "the error says: " + refused},
		// The words stand for 95 as well; the process knows which it was.
		{"the errno is known", "create tracing link: not supported", own("", 524, perfmon), "ATT114", "the kernel is 6.18.1"},
		{"a load without words", "what nobody knows", own(load.ProgLoad, 13, perfmon), "VER099", "the error says: what nobody knows"},
		{"nothing about BPF", "what nobody knows", own("", 13, perfmon), "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := OwnError(tt.text, tt.known, lab("6.18.1"))
			if tt.rule == "" {
				qt.Assert(t, qt.IsNil(d))
				return
			}
			dump := strings.Join(append([]string{d.Cause}, d.Evidence...), "\n")
			qt.Check(t, qt.Equals(d.Rule, tt.rule), qt.Commentf("%s", dump))
			qt.Check(t, qt.StringContains(dump, tt.says))
			qt.Check(t, qt.Equals(d.HowKnown, load.Inferred))
			qt.Check(t, qt.IsFalse(strings.Contains(dump, "the text")), qt.Commentf("%s", dump))
		})
	}
}

func FuzzText(f *testing.F) {
	for _, test := range pastedTexts {
		f.Add(test.text)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ds := Text(s)
		if len(ds) > maxFindings {
			t.Fatalf("%d diagnoses", len(ds))
		}
		for _, d := range ds {
			if _, ok := ByID(d.Rule); !ok && d.Rule != Unknown {
				t.Fatalf("no rule %q", d.Rule)
			}
			for _, s := range append([]string{d.Cause}, d.Evidence...) {
				if strings.ContainsAny(s, "\x1b\x00\x07\r\u202e") || len(s) > 4096 {
					t.Fatalf("unprintable or endless: %q", s)
				}
			}
		}
	})
}

// Whatever stands in an attempt, there is a diagnosis, and no panic.
func FuzzExplain(f *testing.F) {
	f.Add(uint16(524), uint8(0), "R0 !read_ok", []byte{1, 2, 3, 4, 5, 6, 7, 8}, int64(-1), "6.1.0")
	f.Fuzz(func(t *testing.T, errno uint16, kind uint8, text string, raw []byte, arg int64, release string) {
		kinds := []load.Kind{load.ProgLoad, load.MapCreate, load.BTFLoad, load.Seccomp, load.SocketFilter, load.TokenCreate, load.OtherCommand,
			load.LinkCreate, load.ProgAttach, load.PerfEventOpen, load.PerfEventSetBPF, load.XDPAttach, load.MapUpdate, load.ObjPin, ""}
		a := attempt(kinds[int(kind)%len(kinds)], int(errno), log(text))
		a.Attach = &load.Attach{Message: text, Flags: uint64(arg), Target: &load.AttachTarget{Name: text}}
		a.Evidence.Attr = raw
		a.Evidence.Filter = raw
		a.Evidence.FailedInsn = int(arg)
		a.Evidence.Caps = uint64(arg)
		a.Evidence.Insns = decode(raw)
		a.Evidence.InsnsState = load.InsnsUnverified
		for i, fn := range []load.Function{load.FnPatch, load.FnBlind, load.FnCapable, load.FnModmem, load.FnDoCheck, load.FnCheck} {
			if kind>>uint(i)&1 == 1 {
				a.Evidence.Spans = append(a.Evidence.Spans, load.Span{Function: fn, Ret: -int(errno), Arg: arg, Cause: i%2 == 0})
			}
		}
		n := lab(release)
		if Explain(a, n) == nil {
			t.Fatal("no diagnosis")
		}
	})
}

// A log of any length is one log: what is left out of its middle does not make two failures of one.
func TestLongLog(t *testing.T) {
	var log strings.Builder
	for i := range 25_000 {
		fmt.Fprintf(&log, "%d: (bf) r%d = r1 ; R1=ctx() R%d_w=ctx()\n", i, i%9, i%9)
	}
	log.WriteString("R7 invalid mem access 'scalar'\nprocessed 25000 insns (limit 1000000) max_states_per_insn 4 total_states 99 peak_states 9 mark_read 3\n")
	for name, text := range map[string]string{
		"marked": "libbpf: prog 'big': BPF program load failed: Permission denied\nlibbpf: prog 'big': -- BEGIN PROG LOAD LOG --\n" + log.String() +
			"-- END PROG LOAD LOG --\nlibbpf: prog 'big': failed to load: -13\nlibbpf: failed to load object 'x'\n",
		"bcc":      "bpf: Failed to load program: Permission denied\n" + log.String() + "\nTraceback (most recent call last):\nException: Failed to load BPF program b'big': Permission denied\n",
		"indented": "load program: permission denied:\n\t" + strings.ReplaceAll(log.String(), "\n", "\n\t"),
	} {
		ds := Text(text)
		qt.Assert(t, qt.HasLen(ds, 1), qt.Commentf("%s", name))
		qt.Check(t, qt.Equals(ds[0].Rule, "VER007"), qt.Commentf("%s", name))
	}
}
