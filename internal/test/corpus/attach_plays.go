// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"errors"
	"os"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/abi"
)

// What each of the cases of attachCases does.
func plays() map[string]play {
	all := map[string]play{}
	for _, some := range []map[string]play{
		cgroupPlays(), netPlays(), tcPlays(), socketPlays(), probePlays(), tracepointPlays(), uprobePlays(), mapPlays(), createPlays(), pinPlays(),
	} {
		for name, p := range some {
			all[name] = p
		}
	}
	return all
}

const noSuchFD = 9999

func cgroupPlays() map[string]play {
	skb := func(s *stage, name string) int {
		return s.load(prog{name: name, typ: abi.ProgTypeCgroupSKB, attach: abi.AttachCgroupInetEgress})
	}
	const egress, multi = abi.AttachCgroupInetEgress, abi.AttachFlagMulti
	return map[string]play{
		"cgroup-folder": func(s *stage) int { return s.attach(s.folder(notCgroup), skb(s, "att_folder"), egress, 0) },
		"cgroup-v1": func(s *stage) int {
			fd, p := s.cgroupV1(), skb(s, "att_v1")
			return s.link(fd, p, egress, 0)
		},
		"cgroup-file": func(s *stage) int {
			s.group()
			return s.link(s.open(groupPath+"/cgroup.procs"), skb(s, "att_file"), egress, 0)
		},
		"cgroup-closed":     func(s *stage) int { return s.link(noSuchFD, skb(s, "att_closed"), egress, 0) },
		"cgroup-link-flags": func(s *stage) int { return s.link(s.group(), skb(s, "att_flags"), egress, multi) },
		"cgroup-type": func(s *stage) int {
			p := s.load(prog{name: "att_type", typ: abi.ProgTypeCgroupSockAddr, attach: abi.AttachCgroupInet4Connect})
			return s.attach(s.group(), p, abi.AttachCgroupInet6Connect, 0)
		},
		"cgroup-net-admin": func(s *stage) int {
			g, p := s.group(), skb(s, "att_admin")
			s.keepCaps(unix.CAP_BPF)
			return s.attach(g, p, egress, 0)
		},
		"cgroup-link-net-admin": func(s *stage) int {
			g, p := s.group(), skb(s, "att_admin_link")
			s.keepCaps(unix.CAP_BPF)
			return s.link(g, p, egress, 0)
		},
		"cgroup-exclusive": func(s *stage) int {
			g, p := s.group(), skb(s, "att_second")
			s.need("attach the first program", s.attach(g, skb(s, "att_first"), egress, 0))
			return s.attach(g, p, egress, multi)
		},
		"cgroup-twice": func(s *stage) int {
			g, p := s.group(), skb(s, "att_twice")
			s.need("attach it once", s.attach(g, p, egress, multi))
			return s.attach(g, p, egress, multi)
		},
		"link-update-type": func(s *stage) int {
			l := s.need("link", s.link(s.group(), skb(s, "att_linked"), egress, 0))
			p := s.load(prog{name: "att_update", typ: abi.ProgTypeSocketFilter})
			return call(abi.CmdLinkUpdate, &abi.LinkUpdate{LinkFD: uint32(l), NewProgFD: uint32(p)})
		},
		"link-update-old": func(s *stage) int {
			l := s.need("link", s.link(s.group(), skb(s, "att_linked"), egress, 0))
			return call(abi.CmdLinkUpdate, &abi.LinkUpdate{
				LinkFD: uint32(l), NewProgFD: uint32(skb(s, "att_new")), OldProgFD: uint32(skb(s, "att_old")), Flags: abi.AttachFlagReplace,
			})
		},
	}
}

// cgroupV1 is a folder of a hierarchy of version 1, without controllers.
func (s *stage) cgroupV1() int {
	const at = "/tmp/att-cgroup-v1"
	s.must("make "+at, os.MkdirAll(at, 0o755))
	s.must("mount", unix.Mount("none", at, "cgroup", 0, "none,name=att"))
	fd := s.open(at)
	s.later(func() { unix.Close(fd); unix.Unmount(at, 0); os.Remove(at) })
	return fd
}

const (
	lo       = 1
	pair     = 77 // one end of it
	noDevice = 4242
)

func netPlays() map[string]play {
	xdp := func(s *stage, name string) int {
		s.newNetns()
		return s.load(prog{name: name, typ: abi.ProgTypeXDP, attach: abi.AttachXDP})
	}
	// Programs that do not say where they go, as loaders before links load them.
	plain := func(s *stage, name string) int {
		s.newNetns()
		return s.load(prog{name: name, typ: abi.ProgTypeXDP})
	}
	dissector := func(s *stage, name string) int { return s.load(prog{name: name, typ: abi.ProgTypeFlowDissector}) }
	const skb, drv = abi.XDPFlagSKBMode, abi.XDPFlagDRVMode
	return map[string]play{
		"xdp-native":    func(s *stage) int { return s.link(lo, xdp(s, "att_native"), abi.AttachXDP, drv) },
		"xdp-no-device": func(s *stage) int { return s.link(noDevice, xdp(s, "att_no_device"), abi.AttachXDP, 0) },
		"xdp-twice": func(s *stage) int {
			p := xdp(s, "att_xdp_twice")
			s.need("link", s.link(lo, p, abi.AttachXDP, skb))
			return s.link(lo, p, abi.AttachXDP, skb)
		},
		"xdp-mtu": func(s *stage) int {
			p := xdp(s, "att_link_mtu")
			s.veth(pair, 9000)
			return s.link(pair, p, abi.AttachXDP, drv)
		},
		"xdp-modes": func(s *stage) int {
			p := xdp(s, "att_modes")
			s.veth(pair, 1500)
			s.need("link", s.link(pair, p, abi.AttachXDP, skb))
			return s.link(pair, p, abi.AttachXDP, drv)
		},
		"xdp-flags":             func(s *stage) int { return s.link(lo, xdp(s, "att_xdp_flags"), abi.AttachXDP, skb|drv) },
		"xdp-netlink-native":    func(s *stage) int { return s.netlinkXDP(lo, plain(s, "att_native"), drv) },
		"xdp-netlink-no-device": func(s *stage) int { return s.netlinkXDP(noDevice, plain(s, "att_no_device"), 0) },
		"xdp-netlink-twice": func(s *stage) int {
			p := plain(s, "att_xdp_twice")
			s.need("attach it once", s.netlinkXDP(lo, p, skb))
			return s.netlinkXDP(lo, s.load(prog{name: "att_other", typ: abi.ProgTypeXDP}), skb|abi.XDPFlagUnlessThere)
		},
		"xdp-netlink-mtu": func(s *stage) int {
			p := plain(s, "att_mtu")
			s.veth(pair, 9000)
			return s.netlinkXDP(pair, p, drv)
		},
		"tcx-no-device": func(s *stage) int { return s.link(noDevice, cls(s, "att_tcx"), abi.AttachTCXIngress, 0) },
		"tcx-twice": func(s *stage) int {
			p := cls(s, "att_tcx_twice")
			if got := s.attach(lo, p, abi.AttachTCXIngress, 0); got < 0 {
				return got // an older kernel
			}
			return s.attach(lo, p, abi.AttachTCXIngress, 0)
		},
		"tcx-type": func(s *stage) int { return s.link(lo, xdp(s, "att_tcx_type"), abi.AttachTCXIngress, 0) },
		"netns-link": func(s *stage) int {
			s.newNetns()
			ns := s.open("/proc/thread-self/ns/net")
			s.need("link", s.link(ns, dissector(s, "att_flow"), abi.AttachFlowDissector, 0))
			return s.link(ns, dissector(s, "att_flow_second"), abi.AttachFlowDissector, 0)
		},
		"netns-taken": func(s *stage) int {
			s.newNetns()
			ns := s.open("/proc/thread-self/ns/net")
			s.need("attach the first", s.attach(0, dissector(s, "att_flow"), abi.AttachFlowDissector, 0))
			return s.link(ns, dissector(s, "att_flow_second"), abi.AttachFlowDissector, 0)
		},
	}
}

// cls loads a classifier of tc, in a network namespace of its own.
func cls(s *stage, name string) int {
	s.newNetns()
	return s.load(prog{name: name, typ: abi.ProgTypeSchedCLS})
}

func tcPlays() map[string]play {
	return map[string]play{
		"tc-no-clsact": func(s *stage) int { return s.filter(lo, cls(s, "att_clsact")) },
		"tc-no-device": func(s *stage) int { return s.filter(noDevice, cls(s, "att_tc_device")) },
		"tc-no-qdisc":  func(s *stage) int { s.newNetns(); return s.clsact(lo) },
		"tc-taken": func(s *stage) int {
			p := cls(s, "att_tc_taken")
			s.need("make clsact", s.clsact(lo))
			s.need("attach it once", s.filter(lo, p))
			return s.filter(lo, p)
		},
		"tc-clsact-twice": func(s *stage) int { s.newNetns(); s.need("make clsact", s.clsact(lo)); return s.clsact(lo) },
		"tc-type": func(s *stage) int {
			s.newNetns()
			s.need("make clsact", s.clsact(lo))
			return s.filter(lo, s.load(prog{name: "att_tc_type", typ: abi.ProgTypeXDP}))
		},
	}
}

func socketPlays() map[string]play {
	udp := func(s *stage) int {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		s.must("open a socket", err)
		return fd
	}
	option := func(s *stage, fd, opt, v int) int { return s.failed(unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt, v)) }
	filter := func(s *stage, name string, code asm.Instructions) int {
		return s.load(prog{name: name, typ: abi.ProgTypeSocketFilter, code: code})
	}
	return map[string]play{
		"socket-type": func(s *stage) int {
			return option(s, udp(s), unix.SO_ATTACH_BPF, s.load(prog{name: "att_sock_type", typ: abi.ProgTypeXDP}))
		},
		"socket-optmem": func(s *stage) int { return option(s, udp(s), unix.SO_ATTACH_BPF, filter(s, "att_optmem", long(20000))) },
		"socket-locked": func(s *stage) int {
			fd := udp(s)
			s.need("lock", option(s, fd, unix.SO_LOCK_FILTER, 1))
			return option(s, fd, unix.SO_ATTACH_BPF, filter(s, "att_locked", nil))
		},
		"socket-reuseport": func(s *stage) int {
			return option(s, udp(s), unix.SO_ATTACH_REUSEPORT_EBPF, filter(s, "att_reuseport", nil))
		},
		"sockmap-unconnected": func(s *stage) int {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			s.must("open a socket", err)
			return s.put(s.newMap(abi.MapTypeSockmap, 4, 4, 1), 0, uint32(fd))
		},
	}
}

func kprobeProg(name string) prog { return prog{name: name, typ: abi.ProgTypeKprobe} }

// A function that every kernel has once, and which can be probed.
const traceable = "do_sys_openat2"

func probePlays() map[string]play {
	returns0 := asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}
	return map[string]play{
		"kprobe-no-function": func(s *stage) int { return s.kprobe("att_no_such_function", 0) },
		"kprobe-twins":       func(s *stage) int { return s.kprobe(s.twin(), 0) },
		"kprobe-forbidden":   func(s *stage) int { return s.kprobe("exc_int3", 0) },
		"kprobe-boundary":    func(s *stage) int { return s.kprobe(traceable, 1) },
		"kprobe-taken": func(s *stage) int {
			e := s.need("open a kprobe", s.kprobe(traceable, 0))
			s.need("attach it once", s.setBPF(e, s.load(kprobeProg("att_kprobe"))))
			return s.setBPF(e, s.load(kprobeProg("att_kprobe_2")))
		},
		"kprobe-type": func(s *stage) int {
			e := s.need("open a kprobe", s.kprobe(traceable, 0))
			return s.setBPF(e, s.load(prog{name: "att_kp_type", typ: abi.ProgTypeTracepoint}))
		},
		"kprobe-multi": func(s *stage) int {
			p := prog{name: "att_multi", typ: abi.ProgTypeKprobe, attach: abi.AttachTraceKprobeMulti}
			// Two names: with one it is a call that libraries probe with.
			two := []uint64{s.text("att_no_such_function"), s.text("att_nor_this")}
			s.pin.Pin(&two[0])
			return call(abi.CmdLinkCreate, &abi.LinkCreateKprobeMulti{
				LinkCreate: abi.LinkCreate{ProgFD: uint32(s.load(p)), AttachType: abi.AttachTraceKprobeMulti}, Cnt: 2, Syms: uint64(uintptr(unsafe.Pointer(&two[0]))),
			})
		},
		"tracefs-twice": func(s *stage) int {
			const definition = "p:att_corpus/once " + traceable
			s.need("define it once", s.define("kprobe_events", definition))
			s.later(func() { s.define("kprobe_events", "-:att_corpus/once") })
			return s.define("kprobe_events", definition)
		},
		"tracefs-no-function": func(s *stage) int { return s.define("kprobe_events", "p:att_corpus/none att_no_such_function") },
		"tracefs-long-name": func(s *stage) int {
			return s.define("kprobe_events", "p:att_corpus/"+strings.Repeat("x", 70)+" "+traceable)
		},
		"fentry-no-site": func(s *stage) int {
			const function = "ktime_get_boot_fast_ns"
			p := prog{name: "att_no_site", typ: abi.ProgTypeTracing, attach: abi.AttachTraceFentry, btfID: s.btfID(function), code: returns0}
			return call(abi.CmdRawTracepointOpen, &abi.RawTracepointOpen{ProgFD: uint32(s.load(p))})
		},
		"lsm-idle": func(s *stage) int {
			p := prog{name: "att_lsm", typ: abi.ProgTypeLSM, attach: abi.AttachLSMMac, btfID: s.btfID("bpf_lsm_file_open"), code: returns0}
			return call(abi.CmdRawTracepointOpen, &abi.RawTracepointOpen{ProgFD: uint32(s.load(p))})
		},
	}
}

// btfID is the number of a function of the kernel in its BTF.
func (s *stage) btfID(function string) uint32 {
	spec, err := btf.LoadKernelSpec()
	s.must("read the kernel's BTF", err)
	var f *btf.Func
	s.must("find "+function, spec.TypeByName(function, &f))
	id, err := spec.TypeID(f)
	s.must("find the id of "+function, err)
	return uint32(id)
}

// twin is the first name that stands for two functions of the kernel itself.
func (s *stage) twin() string {
	b, err := os.ReadFile("/proc/kallsyms")
	s.must("read the kernel's symbols", err)
	seen := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 3 || f[1] != "t" || strings.Contains(f[2], ".") {
			continue
		}
		if seen[f[2]] {
			return f[2]
		}
		seen[f[2]] = true
	}
	s.fatal("find a name of two functions", errors.New("there is none"))
	return ""
}

func tracepointPlays() map[string]play {
	// Its record has 16 bytes.
	const short = "syscalls/sys_enter_getpid"
	beyond := func(name string) prog { return prog{name: name, typ: abi.ProgTypeTracepoint, code: reads(24)} }
	raw := func(s *stage, name string, p prog) int {
		return call(abi.CmdRawTracepointOpen, &abi.RawTracepointOpen{Name: s.text(name), ProgFD: uint32(s.load(p))})
	}
	return map[string]play{
		"tracepoint-record": func(s *stage) int { return s.setBPF(s.tracepoint(short), s.load(beyond("att_record"))) },
		"tracepoint-record-link": func(s *stage) int {
			e := s.tracepoint(short)
			return s.link(e, s.load(beyond("att_record_link")), abi.AttachPerfEvent, 0)
		},
		"tracepoint-taken": func(s *stage) int {
			e := s.tracepoint(short)
			s.need("attach it once", s.setBPF(e, s.load(prog{name: "att_tp", typ: abi.ProgTypeTracepoint})))
			return s.setBPF(e, s.load(prog{name: "att_tp_2", typ: abi.ProgTypeTracepoint}))
		},
		"raw-missing": func(s *stage) int {
			return raw(s, "att_no_such", prog{name: "att_raw", typ: abi.ProgTypeRawTracepoint})
		},
		"raw-group": func(s *stage) int {
			return raw(s, "sched/sched_switch", prog{name: "att_raw_group", typ: abi.ProgTypeRawTracepoint})
		},
		"raw-arguments": func(s *stage) int {
			return raw(s, "sched_process_exit", prog{name: "att_raw_args", typ: abi.ProgTypeRawTracepoint, code: reads(80)})
		},
		"raw-type": func(s *stage) int {
			return raw(s, "sched_process_exit", prog{name: "att_raw_type", typ: abi.ProgTypeSocketFilter})
		},
		"perf-paranoid": func(s *stage) int {
			id := s.number("/sys/kernel/tracing/events/" + short + "/id")
			s.keepCaps()
			return s.event(unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Config: uint64(id)})
		},
	}
}

func uprobePlays() map[string]play {
	// A file of one page whose bytes a process has mapped: where nobody has, the kernel does not
	// look.
	mapped := func(s *stage, first ...byte) string {
		const path, page = "/tmp/att-corpus-code", 4096
		s.must("write code", os.WriteFile(path, append(first, make([]byte, page-len(first))...), 0o755))
		s.later(func() { os.Remove(path) })
		fd := s.open(path)
		_, err := unix.Mmap(fd, 0, page, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
		s.must("map code", err)
		return path
	}
	const nop, trap = 0x90, 0xcc
	noInstruction := []byte{0x0f, 0x38, 0xf5} // one of AVX without its prefix
	return map[string]play{
		"uprobe-no-file": func(s *stage) int { return s.uprobe("/tmp/att-no-such-file", 0) },
		"uprobe-offset":  func(s *stage) int { return s.uprobe(mapped(s, nop), 1<<20) },
		"uprobe-trap":    func(s *stage) int { return s.uprobe(mapped(s, trap), 0) },
		"uprobe-data":    func(s *stage) int { return s.uprobe(mapped(s, noInstruction...), 0) },
		"uprobe-sys-admin": func(s *stage) int {
			path := mapped(s, nop)
			s.keepCaps(unix.CAP_PERFMON)
			return s.uprobe(path, 0)
		},
	}
}

func mapPlays() map[string]play {
	return map[string]play{
		"map-index": func(s *stage) int { return s.put(s.newMap(abi.MapTypeArray, 4, 4, 1), 1, 7) },
		"map-full": func(s *stage) int {
			m := s.newMap(abi.MapTypeHash, 4, 4, 1)
			s.need("fill it", s.put(m, 0, 7))
			return s.put(m, 1, 7)
		},
		"map-frozen": func(s *stage) int {
			m := s.newMap(abi.MapTypeArray, 4, 4, 1)
			s.need("freeze", call(abi.CmdMapFreeze, &abi.MapElem{MapFD: uint32(m)}))
			return s.put(m, 0, 7)
		},
		"map-owner": func(s *stage) int {
			m := s.newMap(abi.MapTypeProgArray, 4, 4, 2)
			s.need("put the first", s.put(m, 0, uint32(s.load(prog{name: "att_owner", typ: abi.ProgTypeSocketFilter}))))
			return s.put(m, 1, uint32(s.load(prog{name: "att_not_owner", typ: abi.ProgTypeXDP})))
		},
		"map-no-program": func(s *stage) int { return s.put(s.newMap(abi.MapTypeProgArray, 4, 4, 2), 0, noSuchFD) },
	}
}

func createPlays() map[string]play {
	create := func(m abi.MapCreate) play { return func(s *stage) int { return s.createMap(m) } }
	return map[string]play{
		"create-ringbuf-size": create(abi.MapCreate{MapType: abi.MapTypeRingbuf, MaxEntries: 5000}),
		"create-ringbuf-key":  create(abi.MapCreate{MapType: abi.MapTypeRingbuf, KeySize: 4, ValueSize: 4, MaxEntries: 4096}),
		"create-array-key":    create(abi.MapCreate{MapType: abi.MapTypeArray, KeySize: 8, ValueSize: 8, MaxEntries: 1}),
		"create-queue-key":    create(abi.MapCreate{MapType: abi.MapTypeQueue, KeySize: 4, ValueSize: 4, MaxEntries: 1}),
		"create-lpm":          create(abi.MapCreate{MapType: abi.MapTypeLPMTrie, KeySize: 8, ValueSize: 8, MaxEntries: 1}),
		"create-stack-trace":  create(abi.MapCreate{MapType: abi.MapTypeStackTrace, KeySize: 4, ValueSize: 4, MaxEntries: 1}),
		"create-devmap":       create(abi.MapCreate{MapType: abi.MapTypeDevmap, KeySize: 4, ValueSize: 3, MaxEntries: 1}),
		"create-percpu-value": create(abi.MapCreate{MapType: abi.MapTypePercpuArray, KeySize: 4, ValueSize: 40000, MaxEntries: 1}),
		"create-no-inner":     create(abi.MapCreate{MapType: abi.MapTypeArrayOfMaps, KeySize: 4, ValueSize: 4, MaxEntries: 1, InnerMapFD: noSuchFD}),
	}
}

func pinPlays() map[string]play {
	program := func(s *stage, name string) int { return s.load(prog{name: name, typ: abi.ProgTypeSocketFilter}) }
	return map[string]play{
		"pin-outside":   func(s *stage) int { s.folder(notCgroup); return s.pinAt(program(s, "att_pin"), notCgroup+"/pin") },
		"pin-dot":       func(s *stage) int { return s.pinAt(program(s, "att_pin_dot"), "/sys/fs/bpf/att.pin") },
		"pin-no-folder": func(s *stage) int { return s.pinAt(program(s, "att_pin_folder"), "/sys/fs/bpf/att_none/pin") },
		"pin-taken": func(s *stage) int {
			const path = "/sys/fs/bpf/att_taken"
			p := program(s, "att_pin_taken")
			s.need("pin it once", s.pinAt(p, path))
			s.later(func() { os.Remove(path) })
			return s.pinAt(p, path)
		},
		"pin-file": func(s *stage) int { return s.pinAt(s.open(os.DevNull), "/sys/fs/bpf/att_file") },
	}
}
