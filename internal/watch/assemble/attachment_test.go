// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// attachCall is a call that attaches, by thread 100, at ns 1000.
func attachCall(kind load.Kind, cmd uint32, attr []byte, ret int64, rec *trace.Attach, in ...ex) *trace.Call {
	c := &trace.Call{
		ID: trace.CallID{TID: 100, Start: 1000}, TGID: 100, Kind: kind, Cmd: cmd, Ret: ret, FailedInsn: -1, Comm: "loader",
		Flags: trace.CallFlags{EnterSeen: true, ExitSeen: true}, Attr: attr, Attach: rec, Creds: &trace.Creds{CapEffective: 1 << 38},
	}
	play(c, in)
	return c
}

func linkTo(attachType, target, flags uint32) []byte {
	return abi.Bytes(&abi.LinkCreate{ProgFD: 3, TargetFD: target, AttachType: attachType, Flags: flags})
}

func progTo(attachType, target, flags uint32) []byte {
	return abi.Bytes(&abi.ProgAttach{AttachBPFFD: 3, TargetFD: target, AttachType: attachType, AttachFlags: flags})
}

// What was recorded of the kernel's log is no more trusted than the rest, and bounded.
func TestKernelLog(t *testing.T) {
	lines := slices.Repeat([]string{"trace_kprobe: \x1b[2J" + strings.Repeat("x", 1000)}, 100)
	c := attachCall(load.PerfEventOpen, 0, nil, -abi.EINVAL, &trace.Attach{Event: &trace.Event{Type: 8, System: "kprobe"}, Lines: lines})
	got := attempts(header("6.12.117", allHooks), trace.Record{Call: c})[0].KernelLog
	qt.Assert(t, qt.HasLen(got, 16))
	qt.Check(t, qt.IsTrue(strings.HasPrefix(got[0], `trace_kprobe: \x1b[2Jxxx`) && len(got[0]) <= 260), qt.Commentf("%q", got[0]))
	none := attachCall(load.PerfEventOpen, 0, nil, -abi.EINVAL, nil)
	qt.Check(t, qt.HasLen(attempts(header("6.12.117", allHooks), trace.Record{Call: none})[0].KernelLog, 0))
}

func TestAttachments(t *testing.T) {
	skb := &trace.AttachProg{ID: 9, Type: abi.ProgTypeCgroupSKB, Name: "skb", Tag: []byte{1, 2, 3, 4, 5, 6, 7, 8}}
	wantSKB := &load.AttachProgram{ID: 9, Name: "skb", Type: "cgroup_skb", AttachType: "cgroup_inet_ingress", Tag: "0102030405060708"}
	tracing := &trace.AttachProg{Type: abi.ProgTypeTracing, AttachType: abi.AttachTraceFentry, Name: "on_open", AttachBTFID: 77}
	wantTracing := &load.AttachProgram{Name: "on_open", Type: "tracing", AttachType: "trace_fentry"}
	event := &trace.AttachProg{Type: abi.ProgTypeTracepoint, MaxCtxOffset: 72}
	for _, test := range []struct {
		name  string
		call  *trace.Call
		want  load.Attach
		stage load.Stage
	}{{
		name: "control group of version 1",
		call: attachCall(load.ProgAttach, abi.CmdProgAttach, progTo(abi.AttachCgroupInetIngress, 4, 2), -abi.EBADF,
			&trace.Attach{Prog: skb, Looked: true, File: &trace.File{FS: "cgroup", Path: "/sys/fs/cgroup/memory/a", Directory: true}}),
		want: load.Attach{Type: "cgroup_inet_ingress", Flags: 2, Program: wantSKB,
			Target: &load.AttachTarget{Kind: "cgroup", Path: "/sys/fs/cgroup/memory/a", Name: "directory of cgroup"}},
		stage: load.Request,
	}, {
		name: "a file of a control group",
		call: attachCall(load.ProgAttach, abi.CmdProgAttach, progTo(abi.AttachCgroupInetIngress, 4, 0), -abi.EBADF,
			&trace.Attach{Looked: true, File: &trace.File{FS: "cgroup2", Path: "/sys/fs/cgroup/a/cgroup.procs"}}),
		want: load.Attach{Type: "cgroup_inet_ingress",
			Target: &load.AttachTarget{Kind: "cgroup", Path: "/sys/fs/cgroup/a/cgroup.procs", Name: "file of cgroup2"}},
		stage: load.Request,
	}, {
		name:  "a descriptor that is not open",
		call:  attachCall(load.ProgAttach, abi.CmdProgAttach, progTo(abi.AttachCgroupInetIngress, 4, 0), -abi.EBADF, &trace.Attach{Looked: true}),
		want:  load.Attach{Type: "cgroup_inet_ingress", Target: &load.AttachTarget{Kind: "cgroup", Name: "no open file"}},
		stage: load.Request,
	}, {
		name:  "nobody looked",
		call:  attachCall(load.ProgAttach, abi.CmdProgAttach, progTo(abi.AttachCgroupInetIngress, 4, 0), -abi.EBADF, nil),
		want:  load.Attach{Type: "cgroup_inet_ingress", Target: &load.AttachTarget{Kind: "cgroup"}},
		stage: load.Request,
	}, {
		name: "EINVAL for want of CAP_NET_ADMIN",
		call: attachCall(load.ProgAttach, abi.CmdProgAttach, progTo(abi.AttachCgroupInetIngress, 4, 0), -abi.EINVAL,
			&trace.Attach{Prog: skb, File: &trace.File{FS: "cgroup2", Path: "/g", Directory: true, Cgroup: 5}}, capable(abi.CapNetAdmin), capable(abi.CapSysAdmin)),
		want:  load.Attach{Type: "cgroup_inet_ingress", Program: wantSKB, Target: &load.AttachTarget{Kind: "cgroup", Path: "/g", ID: 5}},
		stage: load.Permission,
	}, {
		name: "function of a program that is attached by a link",
		call: attachCall(load.LinkCreate, abi.CmdLinkCreate, linkTo(0, 0, 0), -abi.EBUSY, &trace.Attach{Prog: tracing, Function: "do_sys_openat2"}),
		want: load.Attach{Program: wantTracing, Target: &load.AttachTarget{Kind: "function", Name: "do_sys_openat2", ID: 77}}, stage: load.Request,
	}, {
		name: "function of a program that is attached without a name",
		call: attachCall(load.RawTPOpen, abi.CmdRawTracepointOpen, abi.Bytes(&abi.RawTracepointOpen{ProgFD: 3}), -abi.ENOTSUPP,
			&trace.Attach{Prog: tracing, Function: "do_sys_openat2"}),
		want: load.Attach{Program: wantTracing, Target: &load.AttachTarget{Kind: "function", Name: "do_sys_openat2", ID: 77}}, stage: load.Request,
	}, {
		name: "device",
		call: attachCall(load.LinkCreate, abi.CmdLinkCreate, linkTo(abi.AttachTCXIngress, 7, 0), -abi.ENODEV, &trace.Attach{NetNS: 1}),
		want: load.Attach{Type: "tcx_ingress", Target: &load.AttachTarget{Kind: "netdev", ID: 7}}, stage: load.Request,
	}, {
		name: "network namespace",
		call: attachCall(load.LinkCreate, abi.CmdLinkCreate, linkTo(abi.AttachSkLookup, 7, 0), -abi.EINVAL,
			&trace.Attach{File: &trace.File{FS: "nsfs", Path: "net:[4026531840]", Inode: 4026531840}}),
		want: load.Attach{Type: "sk_lookup", Target: &load.AttachTarget{Kind: "netns", ID: 4026531840}}, stage: load.Request,
	}, {
		name: "tracepoint, EACCES",
		call: attachCall(load.LinkCreate, abi.CmdLinkCreate, linkTo(abi.AttachPerfEvent, 7, 0), -abi.EACCES,
			&trace.Attach{Prog: event, Event: &trace.Event{Type: abi.PerfTypeTracepoint, Config: 611, System: "syscalls", Name: "sys_enter_openat", Size: 64}}),
		want: load.Attach{Type: "perf_event", Program: &load.AttachProgram{Type: "tracepoint", MaxCtxOffset: 72},
			Target: &load.AttachTarget{Kind: "tracepoint", Name: "syscalls/sys_enter_openat", ID: 611, Size: 64}},
		stage: load.Request,
	}, {
		name: "uprobe",
		call: attachCall(load.LinkCreate, abi.CmdLinkCreate, linkTo(abi.AttachPerfEvent, 7, 0), -abi.EINVAL,
			&trace.Attach{Text: "/usr/lib/libssl.so.3", Offset: 0x3a0, Event: &trace.Event{Type: 9, System: "uprobes"}}),
		want: load.Attach{Type: "perf_event", Target: &load.AttachTarget{Kind: "uprobe", Path: "/usr/lib/libssl.so.3", Offset: 0x3a0}}, stage: load.Request,
	}, {
		name: "kprobe.multi by addresses",
		call: attachCall(load.LinkCreate, abi.CmdLinkCreate, linkTo(abi.AttachTraceKprobeMulti, 0, 0), -abi.EINVAL, &trace.Attach{Addresses: true, Count: 3}),
		want: load.Attach{Type: "trace_kprobe_multi", Target: &load.AttachTarget{Kind: "function", Name: "3 addresses"}}, stage: load.Request,
	}, {
		name: "pin",
		call: attachCall(load.ObjPin, abi.CmdObjPin, abi.Bytes(&abi.ObjPin{BPFFD: 5}), -abi.EPERM, &trace.Attach{Text: "/tmp/pin", Map: &trace.Map{ID: 3, Name: "m"}}),
		want: load.Attach{Target: &load.AttachTarget{Kind: "pin", Path: "/tmp/pin", Name: "map m"}}, stage: load.Permission,
	}, {
		name: "link",
		call: attachCall(load.LinkUpdate, abi.CmdLinkUpdate, abi.Bytes(&abi.LinkUpdate{LinkFD: 5, NewProgFD: 3, Flags: 4}), -abi.EINVAL, &trace.Attach{Link: 12}),
		want: load.Attach{Flags: 4, Target: &load.AttachTarget{Kind: "link", ID: 12}}, stage: load.Request,
	}, {
		name: "map",
		call: attachCall(load.MapUpdate, abi.CmdMapUpdateElem, abi.Bytes(&abi.MapElem{MapFD: 5, Flags: 1}), -abi.E2BIG,
			&trace.Attach{Map: &trace.Map{ID: 3, Name: "flows", Type: abi.MapTypeHash, MaxEntries: 10}}),
		want: load.Attach{Flags: 1, Target: &load.AttachTarget{Kind: "map", ID: 3, Name: "flows"}}, stage: load.Request,
	}, {
		name: "XDP by netlink",
		call: attachCall(load.XDPAttach, 0, nil, -abi.EOPNOTSUPP, &trace.Attach{Device: "eth0\x07", Ifindex: 2, Flags: 4, Message: "no native\x1b XDP"}),
		want: load.Attach{Type: "xdp", Flags: 4, Target: &load.AttachTarget{Kind: "netdev", Name: `eth0\x07`, ID: 2}, Message: `no native\x1b XDP`}, stage: load.Request,
	}, {
		name: "filter of tc",
		call: attachCall(load.TCAttach, 0, nil, -abi.EINVAL, &trace.Attach{
			Device: "eth0\x07", Ifindex: 2, Parent: 0xfffffff2, Prog: event, Message: "Parent Qdisc doesn't exist\x1bs",
		}),
		want: load.Attach{
			Program: &load.AttachProgram{Type: "tracepoint", MaxCtxOffset: 72},
			Target:  &load.AttachTarget{Kind: "netdev", Name: `eth0\x07`, ID: 2, Parent: "ffff:fff2"}, Message: `Parent Qdisc doesn't exist\x1bs`,
		}, stage: load.Request,
	}, {
		name: "socket",
		call: attachCall(load.SocketAttach, 0, nil, -abi.ENOMEM, &trace.Attach{Prog: event}),
		want: load.Attach{Program: &load.AttachProgram{Type: "tracepoint", MaxCtxOffset: 72}, Target: &load.AttachTarget{Kind: "socket"}}, stage: load.Resources,
	}, {
		name: "event of a kprobe",
		call: attachCall(load.PerfEventOpen, 0, nil, -abi.ENOENT, &trace.Attach{Event: &trace.Event{Type: 8, System: "kprobe"}, Function: "vfs_gone", Offset: 4}),
		want: load.Attach{Target: &load.AttachTarget{Kind: "function", Name: "vfs_gone", Offset: 4}}, stage: load.Request,
	}, {
		name: "event of a kprobe, by address",
		call: attachCall(load.PerfEventOpen, 0, nil, -abi.EINVAL, &trace.Attach{Event: &trace.Event{Type: 8, System: "kprobe"}, Addresses: true, Count: 1}),
		want: load.Attach{Target: &load.AttachTarget{Kind: "function", Name: "1 addresses"}}, stage: load.Request,
	}, {
		name: "event of the processor",
		call: attachCall(load.PerfEventOpen, 0, nil, -abi.EACCES, &trace.Attach{Event: &trace.Event{Config: 1}}),
		want: load.Attach{Target: &load.AttachTarget{Kind: "perf_event", Name: "hardware", ID: 1}}, stage: load.Permission,
	}, {
		name:  "context beyond the record",
		call:  attachCall(load.PerfEventSetBPF, 0, nil, -abi.EACCES, &trace.Attach{Prog: event, Event: &trace.Event{Type: abi.PerfTypeTracepoint, Config: 7}}),
		want:  load.Attach{Program: &load.AttachProgram{Type: "tracepoint", MaxCtxOffset: 72}, Target: &load.AttachTarget{Kind: "tracepoint", ID: 7}},
		stage: load.Request,
	}, {
		name: "definition of a kprobe",
		call: attachCall(load.ProbeDefine, 0, nil, -abi.ENOENT, &trace.Attach{Text: "p:g/n vfs_gone+0x10 $arg1\nr:x y"}),
		want: load.Attach{Target: &load.AttachTarget{Kind: "function", Name: "vfs_gone", Offset: 16}}, stage: load.Request,
	}, {
		name: "definition of a uprobe",
		call: attachCall(load.ProbeDefine, 0, nil, -abi.EINVAL, &trace.Attach{Text: "r:g/n /lib/libc.so.6:0x20(0x30)"}),
		want: load.Attach{Target: &load.AttachTarget{Kind: "uprobe", Path: "/lib/libc.so.6", Offset: 32}}, stage: load.Request,
	}, {
		name: "definition of nothing",
		call: attachCall(load.ProbeDefine, 0, nil, -abi.EINVAL, &trace.Attach{Text: "nonsense"}),
		want: load.Attach{Target: &load.AttachTarget{Kind: "function", Name: "nonsense"}}, stage: load.Request,
	}} {
		t.Run(test.name, func(t *testing.T) {
			list := attempts(header("6.12.117", allHooks), trace.Record{Call: test.call})
			qt.Assert(t, qt.HasLen(list, 1))
			at := list[0]
			qt.Check(t, qt.Equals(at.Kind, test.call.Kind))
			qt.Check(t, qt.Equals(at.FailedStage, test.stage))
			qt.Assert(t, qt.IsNotNil(at.Attach))
			qt.Check(t, qt.DeepEquals(*at.Attach, test.want))
			qt.Check(t, qt.Equals(at.Map != nil, test.call.Kind == load.MapUpdate))
		})
	}
}

// A record is written by others: its texts are made harmless, and its lists are cut.
func TestHostileAttachment(t *testing.T) {
	long := strings.Repeat("\x1b[2J", 1<<12)
	many := make([]string, 1<<12)
	for i := range many {
		many[i] = long
	}
	rec := func() *trace.Attach {
		return &trace.Attach{
			Prog: &trace.AttachProg{Name: long, Type: 1 << 31, AttachType: 1 << 31, Tag: []byte(long), MaxCtxOffset: 1 << 31},
			File: &trace.File{FS: long, Path: long, Directory: true}, Device: long, Map: &trace.Map{Name: long, Type: 1 << 31},
			Event: &trace.Event{Type: 1 << 31, System: long, Name: long, Size: 1 << 31}, Function: long, Text: long, Symbols: many, Count: 1 << 31,
		}
	}
	for _, c := range []*trace.Call{
		attachCall(load.ProgAttach, abi.CmdProgAttach, progTo(abi.AttachCgroupInetIngress, 4, 0), -1, rec()),
		attachCall(load.LinkCreate, abi.CmdLinkCreate, linkTo(abi.AttachTraceKprobeMulti, 4, 0), -1, rec()),
		attachCall(load.LinkCreate, abi.CmdLinkCreate, linkTo(abi.AttachTraceUprobeMulti, 4, 0), -1, rec()),
		attachCall(load.LinkCreate, abi.CmdLinkCreate, linkTo(abi.AttachPerfEvent, 4, 0), -1, rec()),
		attachCall(load.LinkCreate, abi.CmdLinkCreate, linkTo(abi.AttachXDP, 4, 0), -1, rec()),
		attachCall(load.LinkCreate, abi.CmdLinkCreate, linkTo(1<<31, 4, 0), -1, rec()),
		attachCall(load.RawTPOpen, abi.CmdRawTracepointOpen, nil, -1, rec()),
		attachCall(load.ObjPin, abi.CmdObjPin, nil, -1, rec()),
		attachCall(load.MapUpdate, abi.CmdMapUpdateElem, nil, -1, rec()),
	} {
		list := attempts(header("6.12.117", allHooks), trace.Record{Call: c})
		qt.Assert(t, qt.HasLen(list, 1))
		a := list[0].Attach
		qt.Assert(t, qt.IsNotNil(a))
		for _, s := range []string{a.Program.Name, a.Program.Tag, a.Target.Name, a.Target.Path} {
			qt.Check(t, qt.IsTrue(len(s) <= 16<<10), qt.Commentf("%d", len(s)))
			qt.Check(t, qt.IsFalse(strings.ContainsAny(s, "\x1b\n")))
		}
	}
}
