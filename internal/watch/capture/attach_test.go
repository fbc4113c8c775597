// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/sys/tracefs"
	"github.com/bpfwhy/bpfwhy/internal/test/rtnetlink"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/wire"
	"github.com/bpfwhy/bpfwhy/internal/watch/diagnose"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// An attempt to attach that fails, and what every backend must say of it.
type attachment struct {
	name  string
	play  func(t *testing.T, s *stage) int // a negative errno, or a descriptor
	since []string                         // kernels that have no such thing
	// seen says who sees it; nil: everybody.
	seen  func(story) bool
	group bool // in a control group, which is made only in the lab
	kind  load.Kind
	errno unix.Errno
	want  load.Attach
	// outside changes what is wanted of a backend that does not read the kernel.
	outside func(*load.Attach)
}

func byFunctions(v story) bool { return inside(v.backend) }
func bySyscalls(v story) bool  { return v.backend == tpBTF || v.followed }
func byFollowing(v story) bool { return v.followed }

// stage is where attachments are tried: a control group, a folder that is none.
type stage struct {
	t       *testing.T
	pin     runtime.Pinner
	group   int    // a descriptor
	groupID uint64 // of version 2
	path    string
	folder  int
}

const (
	kprobeReason = "(Failed to register probe event|Invalid probed address or symbol)"
	attachGroup  = "attach-scene"
	attachFolder = "/tmp/attach-scene"
)

func newStage(t *testing.T) *stage {
	s := &stage{t: t, path: "/sys/fs/cgroup/" + attachGroup}
	t.Cleanup(s.pin.Unpin)
	open := func(path string) int {
		qt.Assert(t, qt.IsNil(os.MkdirAll(path, 0o755)))
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		qt.Assert(t, qt.IsNil(err))
		t.Cleanup(func() { unix.Close(fd); os.Remove(path) })
		return fd
	}
	s.folder = open(attachFolder)
	if os.Getenv(wire.KernelEnv) == "" {
		return s
	}
	s.group = open(s.path)
	var st unix.Stat_t
	qt.Assert(t, qt.IsNil(unix.Fstat(s.group, &st)))
	s.groupID = st.Ino
	return s
}

// load is the descriptor of a program that returns 0. It lives as long as the test.
func (s *stage) load(name string, progType, attachType uint32) int {
	return s.loadCode(name, progType, attachType, smallProgram)
}

func (s *stage) loadCode(name string, progType, attachType uint32, code []byte) int {
	s.t.Helper()
	license := []byte("GPL\x00")
	s.pin.Pin(&code[0])
	s.pin.Pin(&license[0])
	a := abi.ProgLoad{
		ProgType: progType, InsnCnt: uint32(len(code) / 8), Insns: addr(code), License: addr(license), ProgName: abi.NameOf(name),
		ExpectedAttachType: attachType,
	}
	fd := call(abi.CmdProgLoad, &a)
	qt.Assert(s.t, qt.IsTrue(fd >= 0), qt.Commentf("%s: %d", name, fd))
	s.t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func (s *stage) text(text string) uint64 {
	b := append([]byte(text), 0)
	s.pin.Pin(&b[0])
	return addr(b)
}

// keep closes a descriptor with the test.
func (s *stage) keep(fd int) int {
	s.t.Helper()
	qt.Assert(s.t, qt.IsTrue(fd >= 0), qt.Commentf("%d", fd))
	s.t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// must is a descriptor, or a negative errno.
func must(fd int, err error) int {
	if err != nil {
		return number(err)
	}
	return fd
}

// number is the negative errno of an error, 0 for none.
func number(err error) int {
	var errno unix.Errno
	errors.As(err, &errno)
	return -int(errno)
}

func (s *stage) openEvent(attr *unix.PerfEventAttr) int {
	attr.Size = unix.PERF_ATTR_SIZE_VER1
	return must(unix.PerfEventOpen(attr, -1, 0, -1, unix.PERF_FLAG_FD_CLOEXEC))
}

// event is the number of a tracepoint, 0 outside of the lab.
func (s *stage) event(group, name string) uint64 {
	if os.Getenv(wire.KernelEnv) == "" {
		return 0
	}
	dir, err := tracefs.Root()
	qt.Assert(s.t, qt.IsNil(err))
	defer dir.Close()
	e, err := tracefs.ReadEvent(dir, group, name)
	qt.Assert(s.t, qt.IsNil(err))
	return e.ID
}

// pmu is the type of the events that a PMU makes.
func (s *stage) pmu(name string) uint32 {
	b, err := os.ReadFile("/sys/bus/event_source/devices/" + name + "/type")
	qt.Assert(s.t, qt.IsNil(err))
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	qt.Assert(s.t, qt.IsNil(err))
	return uint32(n)
}

// define writes a line to a file of tracefs.
func (s *stage) define(file, line string) int {
	dir, err := tracefs.Root()
	qt.Assert(s.t, qt.IsNil(err))
	defer dir.Close()
	f, err := dir.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	qt.Assert(s.t, qt.IsNil(err))
	defer f.Close()
	_, err = f.WriteString(line + "\n")
	return number(err)
}

func (s *stage) answer(errno int, err error) int {
	qt.Assert(s.t, qt.IsNil(err))
	return errno
}

func ioctl(fd int, request uint, arg int) int {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(arg)); errno != 0 {
		return -int(errno)
	}
	return 0
}

func call[T abi.Attr](cmd int, attr *T) int {
	return bpf(cmd, unsafe.Pointer(attr), unsafe.Sizeof(*attr))
}

func (s *stage) attachments() []attachment {
	prog := func(name, typ, attachType string) *load.AttachProgram {
		return &load.AttachProgram{Name: name, Type: typ, AttachType: attachType}
	}
	return []attachment{
		{
			name: "no control group", kind: load.ProgAttach, errno: unix.EBADF,
			play: func(t *testing.T, s *stage) int {
				return call(abi.CmdProgAttach, &abi.ProgAttach{
					TargetFD: uint32(s.folder), AttachBPFFD: uint32(s.load("att_folder", abi.ProgTypeCgroupSKB, abi.AttachCgroupInetEgress)),
					AttachType: abi.AttachCgroupInetEgress,
				})
			},
			want: load.Attach{
				Type: "cgroup_inet_egress", Program: prog("att_folder", "cgroup_skb", "cgroup_inet_egress"),
				Target: &load.AttachTarget{Kind: "cgroup", Name: "directory of FS", Path: attachFolder},
			},
		},
		{
			name: "attach type that does not fit", group: true, kind: load.ProgAttach, errno: unix.EINVAL,
			play: func(t *testing.T, s *stage) int {
				return call(abi.CmdProgAttach, &abi.ProgAttach{
					TargetFD: uint32(s.group), AttachBPFFD: uint32(s.load("att_type", abi.ProgTypeCgroupSockAddr, abi.AttachCgroupInet4Connect)),
					AttachType: abi.AttachCgroupInet6Connect,
				})
			},
			want: load.Attach{
				Type: "cgroup_inet6_connect", Program: prog("att_type", "cgroup_sock_addr", "cgroup_inet4_connect"),
				Target: &load.AttachTarget{Kind: "cgroup", ID: s.groupID, Path: s.path},
			},
		},
		{
			name: "flags of the other call", group: true, kind: load.LinkCreate, errno: unix.EINVAL,
			play: func(t *testing.T, s *stage) int {
				const allowMulti = 2
				return call(abi.CmdLinkCreate, &abi.LinkCreate{
					ProgFD: uint32(s.load("att_flags", abi.ProgTypeCgroupSKB, abi.AttachCgroupInetIngress)), TargetFD: uint32(s.group),
					AttachType: abi.AttachCgroupInetIngress, Flags: allowMulti,
				})
			},
			want: load.Attach{
				Type: "cgroup_inet_ingress", Flags: 2, Program: prog("att_flags", "cgroup_skb", "cgroup_inet_ingress"),
				Target: &load.AttachTarget{Kind: "cgroup", ID: s.groupID, Path: s.path},
			},
		},
		{
			name: "update of a link", group: true, kind: load.LinkUpdate, errno: unix.EINVAL,
			play: func(t *testing.T, s *stage) int {
				link := s.keep(call(abi.CmdLinkCreate, &abi.LinkCreate{
					ProgFD: uint32(s.load("att_linked", abi.ProgTypeCgroupSKB, abi.AttachCgroupInetEgress)), TargetFD: uint32(s.group),
					AttachType: abi.AttachCgroupInetEgress,
				}))
				return call(abi.CmdLinkUpdate, &abi.LinkUpdate{LinkFD: uint32(link), NewProgFD: uint32(s.load("att_update", abi.ProgTypeSocketFilter, 0))})
			},
			want: load.Attach{Program: prog("att_update", "socket_filter", ""), Target: &load.AttachTarget{Kind: "link", ID: 1}},
		},
		{
			name: "no such raw tracepoint", kind: load.RawTPOpen, errno: unix.ENOENT,
			play: func(t *testing.T, s *stage) int {
				return call(abi.CmdRawTracepointOpen, &abi.RawTracepointOpen{
					Name: s.text("no_such\x1btracepoint"), ProgFD: uint32(s.load("att_raw", abi.ProgTypeRawTracepoint, 0)),
				})
			},
			want: load.Attach{
				Program: prog("att_raw", "raw_tracepoint", ""), Target: &load.AttachTarget{Kind: "tracepoint", Name: `no_such\x1btracepoint`},
			},
		},
		{
			name: "no native XDP", kind: load.LinkCreate, errno: unix.EOPNOTSUPP,
			play: func(t *testing.T, s *stage) int {
				const lo, drvMode = 1, 4
				return call(abi.CmdLinkCreate, &abi.LinkCreate{
					ProgFD: uint32(s.load("att_xdp", abi.ProgTypeXDP, abi.AttachXDP)), TargetFD: lo, AttachType: abi.AttachXDP, Flags: drvMode,
				})
			},
			want: load.Attach{
				Type: "xdp", Flags: 4, Program: prog("att_xdp", "xdp", "xdp"), Target: &load.AttachTarget{Kind: "netdev", ID: 1, Name: "lo"},
			},
		},
		{
			name: "no such device", kind: load.LinkCreate, errno: unix.EINVAL,
			play: func(t *testing.T, s *stage) int {
				return call(abi.CmdLinkCreate, &abi.LinkCreate{
					ProgFD: uint32(s.load("att_no_dev", abi.ProgTypeXDP, abi.AttachXDP)), TargetFD: 4242, AttachType: abi.AttachXDP,
				})
			},
			want: load.Attach{Type: "xdp", Program: prog("att_no_dev", "xdp", "xdp"), Target: &load.AttachTarget{Kind: "netdev", ID: 4242}},
		},
		{
			name: "functions that do not exist", kind: load.LinkCreate, since: []string{"5.10"},
			play: func(t *testing.T, s *stage) int {
				names := []uint64{s.text("no_such_function"), s.text("nor_this"), s.text("c"), s.text("d"), s.text("e")}
				s.pin.Pin(&names[0])
				return call(abi.CmdLinkCreate, &abi.LinkCreateKprobeMulti{
					LinkCreate: abi.LinkCreate{
						ProgFD:     uint32(s.load("att_multi", abi.ProgTypeKprobe, abi.AttachTraceKprobeMulti)),
						AttachType: abi.AttachTraceKprobeMulti,
					},
					Cnt: uint32(len(names)), Syms: uint64(uintptr(unsafe.Pointer(&names[0]))),
				})
			},
			want: load.Attach{
				Type: "trace_kprobe_multi", Program: prog("att_multi", "kprobe", "trace_kprobe_multi"),
				Target: &load.AttachTarget{Kind: "function", Name: "no_such_function, nor_this, c, d and 1 more"},
			},
		},
		{
			name: "context beyond the tracepoint", seen: bySyscalls, kind: load.PerfEventSetBPF, errno: unix.EACCES,
			play: func(t *testing.T, s *stage) int {
				code := slices.Concat(mustHex("7910400000000000"), smallProgram) // r0 = *(u64 *)(r1 + 64)
				fd := s.keep(s.openEvent(&unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Config: s.event("syscalls", "sys_enter_setsid")}))
				return ioctl(fd, unix.PERF_EVENT_IOC_SET_BPF, s.loadCode("att_context", abi.ProgTypeTracepoint, 0, code))
			},
			want: load.Attach{
				Program: &load.AttachProgram{Name: "att_context", Type: "tracepoint", MaxCtxOffset: 72},
				Target:  &load.AttachTarget{Kind: "tracepoint", Name: "syscalls/sys_enter_setsid", ID: s.event("syscalls", "sys_enter_setsid"), Size: 12},
			},
			outside: func(a *load.Attach) {
				a.Program = prog("att_context", "tracepoint", "")
				a.Target = &load.AttachTarget{Kind: "perf_event", Name: "[perf_event]"}
			},
		},
		{
			name: "no function of that name", seen: bySyscalls, kind: load.PerfEventOpen, errno: unix.ENOENT,
			play: func(t *testing.T, s *stage) int {
				return s.openEvent(&unix.PerfEventAttr{Type: s.pmu("kprobe"), Ext1: s.text("no_such_function"), Ext2: 0})
			},
			want: load.Attach{Target: &load.AttachTarget{Kind: "function", Name: "no_such_function"}},
		},
		{
			name: "no file of that name", seen: bySyscalls, kind: load.PerfEventOpen, errno: unix.ENOENT,
			play: func(t *testing.T, s *stage) int {
				return s.openEvent(&unix.PerfEventAttr{Type: s.pmu("uprobe"), Ext1: s.text("/no/such/file"), Ext2: 0x123})
			},
			want: load.Attach{Target: &load.AttachTarget{Kind: "uprobe", Path: "/no/such/file", Offset: 0x123}},
		},
		{
			name: "no native XDP, by netlink", seen: byFunctions, kind: load.XDPAttach, errno: unix.EOPNOTSUPP,
			play: func(t *testing.T, s *stage) int {
				return s.answer(rtnetlink.SetXDP(1, s.load("att_netlink", abi.ProgTypeXDP, 0), 4))
			},
			want: load.Attach{
				Type: "xdp", Flags: 4, Program: prog("att_netlink", "xdp", ""), Target: &load.AttachTarget{Kind: "netdev", ID: 1, Name: "lo"},
				Message: "Underlying driver does not support XDP in native mode",
			},
		},
		{
			name: "no such device, by netlink", seen: byFunctions, kind: load.XDPAttach, errno: unix.ENODEV,
			play: func(t *testing.T, s *stage) int {
				return s.answer(rtnetlink.SetXDP(4242, s.load("att_net_gone", abi.ProgTypeXDP, 0), 4))
			},
			want: load.Attach{
				Type: "xdp", Flags: 4, Program: prog("att_net_gone", "xdp", ""), Target: &load.AttachTarget{Kind: "netdev", ID: 4242},
			},
		},
		{
			name: "filter of tc without clsact", seen: byFunctions, kind: load.TCAttach, errno: unix.EINVAL,
			play: func(t *testing.T, s *stage) int {
				return s.answer(rtnetlink.AddFilter(1, s.load("att_filter", abi.ProgTypeSchedCLS, 0)))
			},
			want: load.Attach{
				Program: prog("att_filter", "sched_cls", ""), Target: &load.AttachTarget{Kind: "netdev", ID: 1, Name: "lo", Parent: "ffff:fff2"},
				Message: "Parent Qdisc doesn't exists",
			},
		},
		{
			name: "no socket filter", seen: byFunctions, kind: load.SocketAttach, errno: unix.EINVAL,
			play: func(t *testing.T, s *stage) int {
				sock := s.keep(must(unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)))
				return number(unix.SetsockoptInt(sock, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, s.load("att_socket", abi.ProgTypeXDP, 0)))
			},
			want: load.Attach{Program: prog("att_socket", "xdp", ""), Target: &load.AttachTarget{Kind: "socket", Name: "SO_ATTACH_BPF"}},
		},
		{
			name: "no program of reuseport", seen: byFunctions, kind: load.SocketAttach, errno: unix.EINVAL,
			play: func(t *testing.T, s *stage) int {
				sock := s.keep(must(unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)))
				return number(unix.SetsockoptInt(sock, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_EBPF, s.load("att_reuse", abi.ProgTypeXDP, 0)))
			},
			want: load.Attach{Program: prog("att_reuse", "xdp", ""), Target: &load.AttachTarget{Kind: "socket", Name: "SO_ATTACH_REUSEPORT_EBPF"}},
		},
		{
			name: "definition of a kprobe", seen: byFollowing, kind: load.ProbeDefine, // 7: EINVAL
			play: func(t *testing.T, s *stage) int {
				return s.define("kprobe_events", "p:attach_scene/k no_such_function+0x8")
			},
			want: load.Attach{
				Target:  &load.AttachTarget{Kind: "function", Name: "no_such_function", Offset: 8},
				Message: kprobeReason,
			},
		},
		{
			name: "definition of a uprobe", seen: byFollowing, kind: load.ProbeDefine, errno: unix.ENOENT,
			play: func(t *testing.T, s *stage) int {
				return s.define("uprobe_events", "p:attach_scene/u /no/such/file:0x123")
			},
			want: load.Attach{
				Target:  &load.AttachTarget{Kind: "uprobe", Path: "/no/such/file", Offset: 0x123},
				Message: "trace_uprobe: error: Failed to find the given file",
			},
		},
		{
			name: "pin outside of bpffs", kind: load.ObjPin, errno: unix.EPERM,
			play: func(t *testing.T, s *stage) int {
				return call(abi.CmdObjPin, &abi.ObjPin{
					Pathname: s.text(attachFolder + "/pin"), BPFFD: uint32(s.load("att_pin", abi.ProgTypeSocketFilter, 0)),
				})
			},
			want: load.Attach{
				Program: prog("att_pin", "socket_filter", ""),
				Target:  &load.AttachTarget{Kind: "pin", Path: attachFolder + "/pin", Name: "program att_pin"},
			},
		},
		{
			name: "map that is full", kind: load.MapUpdate, errno: unix.E2BIG,
			play: func(t *testing.T, s *stage) int {
				fd := s.keep(call(abi.CmdMapCreate, &abi.MapCreate{
					MapType: abi.MapTypeArray, KeySize: 4, ValueSize: 4, MaxEntries: 1, MapName: abi.NameOf("att_full"),
				}))
				keys, value := []uint32{0, 1}, uint32(7)
				s.pin.Pin(&keys[0])
				s.pin.Pin(&value)
				update := func(key *uint32, flags uint64) int {
					return call(abi.CmdMapUpdateElem, &abi.MapElem{
						MapFD: uint32(fd), Key: uint64(uintptr(unsafe.Pointer(key))), Value: uint64(uintptr(unsafe.Pointer(&value))), Flags: flags,
					})
				}
				const noExist = 1
				qt.Assert(t, qt.Equals(update(&keys[0], 0), 0))
				qt.Assert(t, qt.Equals(update(&keys[0], noExist), -int(unix.EEXIST))) // an answer, which is not told
				return update(&keys[1], 0)
			},
			want: load.Attach{Target: &load.AttachTarget{Kind: "map", ID: 1, Name: "att_full"}},
		},
	}
}

// attachScene is one scene of all of them.
func attachScene(playing *testing.T) scene {
	var s *stage
	var all []attachment
	errnos := map[string]int{}
	return scene{"attachments", func(t *testing.T) {
		s = newStage(playing)
		all = s.attachments()
		kernel := os.Getenv(wire.KernelEnv)
		all = slices.DeleteFunc(all, func(a attachment) bool {
			return slices.Contains(a.since, kernel) || (a.group || a.seen != nil) && kernel == ""
		})
		for _, a := range all {
			got := a.play(t, s)
			qt.Check(t, qt.IsTrue(got < 0), qt.Commentf("%s: %d", a.name, got))
			errnos[a.name] = -got
			if a.errno != 0 {
				qt.Check(t, qt.Equals(unix.Errno(-got), a.errno), qt.Commentf("%s", a.name))
			}
		}
	}, func(t *testing.T, v story) {
		told := map[string]*load.Attempt{}
		for a, err := range diagnose.Attempts(v.header, diagnose.Of(v.seen)) {
			qt.Assert(t, qt.IsNil(err))
			if a.Attach == nil || a.Outcome != load.Failed || a.Process.PID != os.Getpid() {
				continue
			}
			for _, w := range all {
				if w.kind == a.Kind && same(w.want.Program, a.Attach.Program) && w.want.Type == a.Attach.Type &&
					(w.want.Program != nil || a.Attach.Target.Name == w.want.Target.Name && a.Attach.Target.Path == w.want.Target.Path) {
					qt.Check(t, qt.IsNil(told[w.name]), qt.Commentf("%s twice", w.name))
					told[w.name] = a
				}
			}
		}
		for _, w := range all {
			if w.seen != nil && !w.seen(v) {
				continue // its header says so
			}
			t.Run(w.name, func(t *testing.T) {
				if told[w.name] == nil && v.lostEnds(w.kind) {
					t.Skip("lost, and counted")
				}
				w.check(t, v, told[w.name], errnos[w.name])
			})
		}
	}}
}

// lostEnds reports whether ends of system calls were counted as lost, which alone tell of calls of
// a kind. Where the kernel preempts programs, both of them may be interrupted at a time: about one
// end in fifty beside a process that makes system calls all the time, and else hardly ever.
func (v story) lostEnds(k load.Kind) bool {
	if k != load.PerfEventOpen && k != load.PerfEventSetBPF && k != load.ProbeDefine {
		return false
	}
	return slices.ContainsFunc(v.seen, func(r trace.Record) bool {
		return r.Loss != nil && r.Loss.Count > 0 && (r.Loss.Mechanism == trace.LostSyscalls || r.Loss.Mechanism == "recursion in btf_sys_exit")
	})
}

func same(want, got *load.AttachProgram) bool {
	return want == nil || got != nil && want.Name == got.Name
}

func (w attachment) check(t *testing.T, v story, a *load.Attempt, errno int) {
	qt.Assert(t, qt.IsNotNil(a))
	qt.Check(t, qt.Equals(a.Errno, errno))
	got, want := *a.Attach, w.want
	if p := got.Program; p != nil {
		qt.Check(t, qt.IsTrue(p.ID > 0))
		qt.Check(t, qt.HasLen(p.Tag, 16))
		known := *p
		known.ID, known.Tag = 0, ""
		if v.backend != tpBTF {
			qt.Check(t, qt.IsTrue(p.Insns > 0))
			known.Insns = 0
		}
		got.Program = &known
	}
	wanted, target := *want.Target, *got.Target
	want.Target, got.Target = &wanted, &target
	if wanted.Kind == "link" || wanted.Kind == "map" { // some number
		qt.Check(t, qt.IsTrue(target.ID > 0))
		target.ID = wanted.ID
	}
	if wanted.Name == "directory of FS" { // of whatever the folder is on
		qt.Check(t, qt.Matches(target.Name, "directory of (rootfs|tmpfs|ext4|overlay|ramfs|xfs|btrfs)"))
		target.Name = wanted.Name
	}
	// Links pass their extack on since 6.6.
	if w.name == "no native XDP" && inside(v.backend) && v.kernel != "5.10" && v.kernel != "6.1" && v.kernel != "hardened" {
		want.Message = "Underlying driver does not support XDP in native mode"
	}
	if want.Message == kprobeReason { // as the release has it
		qt.Check(t, qt.Matches(got.Message, "trace_kprobe: error: "+kprobeReason))
		got.Message = kprobeReason
	}
	if w.outside != nil && v.backend == tpBTF {
		w.outside(&want)
	}
	qt.Check(t, qt.DeepEquals(got, want))
}

// While single processes are watched the ends of their system calls are, and so what attaches where
// nothing can be hooked.
func TestGuestFollowedAttachments(t *testing.T) {
	kernel := vmtest.Guest(t)
	w := watch(t, place{Options: Options{Backend: "fentry", PIDs: []int{os.Getpid()}}})
	sc := attachScene(t)
	if !t.Run("play", sc.play) {
		return
	}
	made := openEventsBesideOthers(t)
	seen := w.stop()
	sc.check(t, story{kernel, fentry, w.header, seen, true})
	checkEvents(t, seen, made)
}

// The same without reading the kernel.
func TestGuestFollowedEvents(t *testing.T) {
	vmtest.Sampled(t)
	w := watch(t, place{Options: Options{Backend: "tp_btf", PIDs: []int{os.Getpid()}}})
	made := openEventsBesideOthers(t)
	checkEvents(t, w.stop(), made)
}

const busyFunction = "no_such_busy_function"

// openEventsBesideOthers makes events that cannot be, where the kernel preempts programs beside a
// process that makes system calls all the time. It returns how many.
func openEventsBesideOthers(t *testing.T) int {
	t.Helper()
	s := newStage(t)
	attr := unix.PerfEventAttr{Type: s.pmu("kprobe"), Ext1: s.text(busyFunction)}
	many := 10
	if preempts() {
		many = 300
		other := exec.Command("/proc/self/exe")
		other.Args = []string{hogArgv0}
		qt.Assert(t, qt.IsNil(other.Start()))
		defer func() { other.Process.Kill(); other.Wait() }()
	}
	for range many {
		qt.Assert(t, qt.Equals(s.openEvent(&attr), -int(unix.ENOENT)))
		// The other has the processor, wherever it is interrupted.
		unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	}
	return many
}

// checkEvents expects each of them once. Where the kernel preempts programs, a few may be counted
// as lost.
func checkEvents(t *testing.T, s seen, made int) {
	t.Helper()
	told := len(s.calls(func(c *trace.Call) bool {
		return c.Kind == load.PerfEventOpen && c.Attach != nil && c.Attach.Function == busyFunction
	}))
	lost := slices.DeleteFunc(slices.Clone(s), func(r trace.Record) bool { return r.Loss == nil })
	t.Logf("%d of %d told; lost: %s", told, made, describe(lost))
	qt.Check(t, qt.IsTrue(told <= made && uint64(told)+s.lost() >= uint64(made)))
	qt.Check(t, qt.IsTrue(told >= made*9/10))
}

// hogMain makes system calls until it is killed.
func hogMain([]string) error {
	for {
		unix.Getppid()
	}
}
