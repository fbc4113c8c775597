// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// raw decodes instructions as strace shows them: code, registers, off, imm.
func raw(in ...[4]int64) (prog []insn.Instruction) {
	for _, x := range in {
		prog = append(prog, insn.Instruction{Code: uint8(x[0]), Dst: uint8(x[1] & 15), Src: uint8(x[1] >> 4), Off: int16(x[2]), Imm: int32(x[3])})
	}
	return prog
}

// The loads that strace saw of cilium/ebpf v0.22, libbpf 1.1 (bpftool feature probe, bpftrace
// --info) on a 6.18 kernel, those that fail on older ones, and programs of one's own that look a
// little like them.
func TestProgramProbes(t *testing.T) {
	ret := [4]int64{0x95}
	zero := [4]int64{0xb7}
	ld := [][4]int64{{0x18}, {}}
	call := func(n int64) [4]int64 { return [4]int64{0x85, 0, 0, n} }
	cilium := map[int]uint32{progFuncRec: 8, progLineRec: 16}
	with := func(more map[int]uint32) map[int]uint32 {
		m := map[int]uint32{progFuncRec: 8, progLineRec: 16}
		for k, v := range more {
			m[k] = v
		}
		return m
	}
	for _, test := range []struct {
		name    string
		typ     uint32
		prog    string
		insns   []insn.Instruction
		set     map[int]uint32
		level   uint32
		size    uint32
		ret     int64
		license string
		want    string
	}{
		{"cilium ext_infos", 1, "", raw(zero, ret), map[int]uint32{progBTFFD: 1<<32 - 1, 88: 1}, 0, 0, -9, "MIT", "cilium/ebpf: func_info and line_info"},
		{"cilium probe_read_kernel under lockdown", 2, "", raw([4]int64{0xbf, 0xa1}, [4]int64{0x07, 1, 0, -8}, [4]int64{0xb7, 2, 0, 8}, [4]int64{0xb7, 3}, call(113), ret),
			nil, 0, 0, -22, "GPL", "libbpf or cilium/ebpf: bpf_probe_read_kernel"},
		{"the same with another register", 2, "", raw([4]int64{0xbf, 0xa1}, [4]int64{0x07, 1, 0, -16}, [4]int64{0xb7, 2, 0, 8}, [4]int64{0xb7, 3}, call(113), ret),
			nil, 0, 0, -22, "GPL", ""},
		{"cilium program type", 32, "", raw(append(ld, ret)...), with(map[int]uint32{progAttachType: 45}), 0, 0, -22, "", "cilium/ebpf: program type"},
		{"cilium struct_ops", 27, "", raw(append(ld, ret)...), cilium, 0, 0, -524, "GPL", "cilium/ebpf: program type"},
		{"cilium, without rights", 2, "", raw(append(ld, ret)...), cilium, 0, 0, -1, "", "cilium/ebpf: program type"},
		{"one's own, without rights", 2, "", raw(append(ld, ret)...), cilium, 1, 65536, -1, "GPL", ""},
		{"cilium helper", 6, "", raw(append([][4]int64{call(4)}, append(ld, ret)...)...), cilium, 1, 65536, -22, "GPL", "cilium/ebpf: helper"},
		{"cilium bpf-to-bpf", 1, "", raw([4]int64{0x85, 0x10, 0, 1}, ret, zero, ret), nil, 0, 0, -22, "MIT", "cilium/ebpf: bpf-to-bpf calls"},
		{"cilium ISA v4", 1, "", raw(zero, [4]int64{0x15, 0, 1, 1}, [4]int64{0x06, 0, 0, 1}, [4]int64{0xb7, 0, 0, 1}, ret), cilium, 0, 0, -22, "", "cilium/ebpf or bpftool: ISA v4"},
		{"cilium ISA v3", 1, "", raw(zero, [4]int64{0xa6, 0, 1}, [4]int64{0xb7, 0, 0, 1}, ret), cilium, 0, 0, -22, "", "cilium/ebpf or bpftool: ISA v3"},
		{"cilium ISA v2", 1, "", raw(zero, [4]int64{0xa5, 0, 1}, [4]int64{0xb7, 0, 0, 1}, ret), cilium, 0, 0, -22, "", "cilium/ebpf or bpftool: ISA v2"},
		{"cilium loops", 1, "", raw([4]int64{0xb7, 0, 0, 10}, [4]int64{0x17, 0, 0, 1}, [4]int64{0x55, 0, -2}, ret), cilium, 0, 0, -22, "", "cilium/ebpf or bpftool: bounded loops"},
		{"cilium uprobe.multi", 2, "probe_upm_link", raw(zero, ret), with(map[int]uint32{progAttachType: 48}), 0, 0, -22, "MIT", "cilium/ebpf: uprobe.multi link"},
		{"cilium cgroup without rights", 8, "", raw(zero, ret), cilium, 1, 65536, -1, "MIT", "cilium/ebpf: BPF_PROG_ATTACH, tcx, netkit"},
		{"cilium lsm", 29, "", raw(append(ld, ret)...), with(map[int]uint32{progAttachBTF: 77, progAttachType: 27}), 0, 0, -1, "GPL", "cilium/ebpf: program type"},
		{"cilium ext", 28, "", raw(zero, ret), with(map[int]uint32{progFuncRec + 12: 1, progBTFFD: 7, progAttachFD: 8, progAttachBTF: 2}), 0, 0, -1, "", "cilium/ebpf: program type"},
		{"bpftool helper", 6, "", raw(call(0x8a), ret), nil, 1, 4096, -13, "GPL", "libbpf: helper"},
		{"bpftrace helper", 2, "", raw(call(4), ret), map[int]uint32{progVersion: 0x061229}, 1, 4096, -22, "GPL", "libbpf: helper"},
		{"bpftool ext", 28, "", raw(zero, ret), map[int]uint32{progAttachBTF: 1}, 1, 4096, -1, "GPL", "libbpf: program type"},
		{"bpftool struct_ops", 27, "", raw(zero, ret), nil, 0, 0, -524, "GPL", "libbpf: program type"},
		{"bpftool lirc_mode2 where it is not built in", 20, "", raw(zero, ret), map[int]uint32{progAttachType: 16}, 0, 0, -22, "GPL", "libbpf: program type"},
		{"cilium lirc_mode2 where it is not built in", 20, "", raw(append(ld, ret)...), cilium, 1, 65536, -22, "", "cilium/ebpf: program type"},
		{"bpftool netfilter on an old kernel", 32, "", raw(zero, ret), map[int]uint32{progAttachType: 45}, 0, 0, -22, "GPL", "libbpf: program type"},
		{"bpftool empty", 0, "", nil, nil, 0, 0, -7, "", "bpftool: bpf(2)"},
		{"libbpf memory accounting on 5.10", 1, "", raw(call(160), ret), nil, 0, 0, -22, "GPL", "libbpf: memory accounting"},
		{"libbpf cookie on 5.10", 5, "", raw(call(174), ret), nil, 0, 0, -22, "GPL", "libbpf: attach cookie"},
		{"libbpf name", 1, "libbpf_nametest", raw(zero, ret), nil, 0, 0, -1, "GPL", "libbpf: program name"},
		{"libbpf name, works", 1, "libbpf_nametest", nil, map[int]uint32{progInsnCnt: 2}, 0, 0, 3, "", "libbpf: program name"},
		{"libbpf global data", 1, "", raw([4]int64{0x18, 0x21, 0, 7}, [4]int64{0, 0, 0, 16}, [4]int64{0x7a, 1, 0, 42}, zero, ret), nil, 0, 0, -22, "GPL", "libbpf: global data"},
		{"libbpf arg:ctx", 2, "det_arg_ctx", raw([4]int64{0x85, 0x10, 0, 1}, ret, call(173), ret), nil, 0, 0, -22, "GPL", "libbpf: context argument tag"},
		{"libbpf expected_attach_type", 9, "", raw(zero, ret), map[int]uint32{progAttachType: 2}, 0, 0, -7, "GPL", "libbpf: expected_attach_type"},

		{"trivial, works", 1, "", raw(zero, ret), nil, 0, 0, 3, "GPL", ""},
		{"trivial, no rights", 1, "", raw(zero, ret), nil, 0, 0, -1, "GPL", ""},
		{"trivial kprobe, no rights", 2, "", raw(zero, ret), nil, 0, 0, -1, "GPL", ""},
		{"trivial, no descriptors", 6, "", raw(zero, ret), nil, 0, 0, -24, "GPL", ""},
		{"trivial, JIT limit", 6, "", raw(zero, ret), nil, 0, 0, -524, "GPL", ""},
		{"trivial, wrong attach type", 6, "", raw(zero, ret), map[int]uint32{progAttachType: 99}, 0, 0, -22, "GPL", ""},
		{"trivial, unknown flag", 6, "", raw(zero, ret), map[int]uint32{progFlags: 1 << 31}, 0, 0, -22, "GPL", ""},
		{"trivial, type from the future", 200, "", raw(zero, ret), nil, 0, 0, -22, "GPL", ""},
		{"nameless, uninitialised register", 1, "", raw(ret), nil, 0, 0, -13, "GPL", ""},
		{"nameless, helper of another type", 6, "", raw(call(4), ret), nil, 1, 65536, -22, "GPL", ""},
		{"named like one's own", 6, "mine", raw(call(4), ret), nil, 1, 4096, -22, "GPL", ""},
		{"test, refused for what it does", 1, "test", raw(ret), nil, 0, 0, -13, "GPL", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := loadCall(req{typ: test.typ, name: test.prog, insns: test.insns, logLevel: test.level, logSize: test.size, set: test.set}, test.ret)
			if test.want == "bpftool: bpf(2)" {
				clear(c.Attr)
			}
			recs := []trace.Record{chunk(c, trace.License, append([]byte(test.license), 0))}
			if test.insns != nil {
				recs = append(recs, chunk(c, trace.Insns, insn.Encode(test.insns)))
			}
			got := attempts(header("6.18", classicHooks), append(recs, trace.Record{Call: c})...)
			qt.Assert(t, qt.HasLen(got, 1))
			qt.Check(t, qt.Equals(got[0].FeatureProbe, test.want))
			qt.Check(t, qt.Equals(got[0].Finding(), test.want == "" && test.ret < 0))
		})
	}
}

// An attr that could not be read is not an empty one.
func TestUnreadableAttrIsNoProbe(t *testing.T) {
	c := loadCall(req{}, -14)
	c.Attr, c.Flags.AttrFault = nil, true
	got := attempts(header("6.18", classicHooks), trace.Record{Call: c})
	qt.Assert(t, qt.HasLen(got, 1))
	qt.Check(t, qt.Equals(got[0].FeatureProbe, ""))
	qt.Check(t, qt.IsTrue(got[0].Finding()))
}

// Of a load that works only the tag is known.
func TestProbesThatWork(t *testing.T) {
	probeRead := raw([4]int64{0xbf, 0xa1}, [4]int64{0x07, 1, 0, -8}, [4]int64{0xb7, 2, 0, 8}, [4]int64{0xb7, 3}, [4]int64{0x85, 0, 0, 113}, [4]int64{0x95})
	own := raw([4]int64{0xbf, 0xa1}, [4]int64{0x07, 1, 0, -8}, [4]int64{0xb7, 2, 0, 8}, [4]int64{0xb7, 3}, [4]int64{0x85, 0, 0, 112}, [4]int64{0x95})
	sha1, sha256, other := insn.TagSHA1(probeRead), insn.TagSHA256(probeRead), insn.TagSHA1(own)
	for _, test := range []struct {
		tag  []byte
		want string
	}{
		{sha1[:], "libbpf or cilium/ebpf: bpf_probe_read_kernel"},
		{sha256[:], "libbpf or cilium/ebpf: bpf_probe_read_kernel"},
		{other[:], ""},
		{nil, ""},
	} {
		c := loadCall(req{typ: 2, insnCnt: 6}, 3)
		c.Prog = &trace.Prog{JITed: true, Tag: test.tag}
		got := attempts(header("6.18", classicHooks), trace.Record{Call: c})
		qt.Assert(t, qt.HasLen(got, 1))
		qt.Check(t, qt.Equals(got[0].FeatureProbe, test.want))
	}
}

// Kernels without a kind of link say EINVAL, as they do to a bad request: the program tells the
// question.
func TestLinkProbes(t *testing.T) {
	link := func(fd uint32) trace.Record {
		b := make([]byte, 48)
		binary.LittleEndian.PutUint32(b, fd)
		b[8], b[20] = 42, 1
		return trace.Record{Call: &trace.Call{ID: trace.CallID{TID: 1, Start: 5000}, End: 5100, TGID: 100, Kind: load.LinkCreate, Cmd: 28, Ret: -22, Attr: b,
			Flags: trace.CallFlags{EnterSeen: true}, FailedInsn: -1}}
	}
	tag := insn.TagSHA1(trivial)
	for _, test := range []struct {
		name string
		prog req
		tag  []byte
		fd   uint32
		want string
	}{
		{"cilium kprobe.multi", req{typ: 2, name: "probe_kpm_link", insnCnt: 2}, nil, 9, "libbpf or cilium/ebpf: link"},
		{"libbpf uprobe.multi", req{typ: 2, insnCnt: 2, set: map[int]uint32{progAttachType: 48}}, tag[:], 9, "libbpf or cilium/ebpf: link"},
		{"the same length, another program", req{typ: 2, insnCnt: 2, set: map[int]uint32{progAttachType: 48}}, []byte("12345678"), 9, ""},
		{"another descriptor", req{typ: 2, name: "probe_kpm_link", insnCnt: 2}, nil, 8, ""},
		{"one's own program", req{typ: 2, name: "mine", insnCnt: 2}, nil, 9, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := loadCall(test.prog, 9)
			c.Prog = &trace.Prog{JITed: true, Tag: test.tag}
			got := attempts(header("5.10", classicHooks), trace.Record{Call: c}, link(test.fd))
			qt.Assert(t, qt.HasLen(got, 2))
			qt.Check(t, qt.Equals(got[1].FeatureProbe, test.want))
		})
	}
}

// cilium/ebpf asks at every start whether RLIMIT_MEMLOCK counts, with a limit of 0.
func TestAccountingProbe(t *testing.T) {
	small := make([]byte, 72)
	for off, v := range map[int]byte{0: 2, 4: 4, 8: 4, 12: 1} {
		small[off] = v
	}
	for _, test := range []struct {
		name, release string
		creds         *trace.Creds
		errno         int64
		probe         bool
	}{
		{"limit 0", "5.10.0", &trace.Creds{}, -1, true},
		{"limit of a page", "5.10.0", &trace.Creds{Memlock: 4096}, -1, false},
		{"limit unknown", "5.10.0", nil, -1, true},
		{"limit unknown, and does not count", "6.1.0", nil, -1, false},
		{"no memory", "5.10.0", &trace.Creds{}, -12, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := header(test.release, classicHooks)
			h.Node.Release = test.release
			c := &trace.Call{ID: trace.CallID{TID: 1, Start: 1}, End: 2, TGID: 1, Kind: load.MapCreate, Ret: test.errno, Attr: slices.Clone(small),
				Flags: trace.CallFlags{EnterSeen: true}, Creds: test.creds, FailedInsn: -1}
			got := attempts(h, trace.Record{Call: c})
			qt.Assert(t, qt.HasLen(got, 1))
			qt.Check(t, qt.Equals(got[0].FeatureProbe != "", test.probe), qt.Commentf("%q", got[0].FeatureProbe))
		})
	}
}

func TestOtherProbes(t *testing.T) {
	u32s := func(size int, set map[int]uint32) []byte {
		b := make([]byte, size)
		for off, v := range set {
			binary.LittleEndian.PutUint32(b[off:], v)
		}
		return b
	}
	named := func(name string) []byte {
		b := u32s(72, map[int]uint32{0: 2, 4: 4, 8: 4, 12: 1})
		copy(b[mapName:], name)
		return b
	}
	const none = 1<<32 - 1
	for _, test := range []struct {
		name string
		kind load.Kind
		cmd  uint32
		attr []byte
		ret  int64
		want string
	}{
		{"cilium object name", load.MapCreate, 0, named("feature_test"), -22, "cilium/ebpf: object names"},
		{"cilium dots, work", load.MapCreate, 0, named(".test"), 5, "cilium/ebpf: dots in object names"},
		{"libbpf global", load.MapCreate, 0, named("libbpf_global"), -1, "libbpf: global data"},
		{"one's own map", load.MapCreate, 0, named("mine"), -22, ""},
		{"nested", load.MapCreate, 0, u32s(96, map[int]uint32{0: 12, 4: 4, 8: 4, 12: 1, 20: none}), -9, "cilium/ebpf: nested maps"},
		{"storage", load.MapCreate, 0, u32s(96, map[int]uint32{0: 29, 4: 4, 8: 4, 16: 1, 48: none, 52: 1, 56: 1}), -9, "cilium/ebpf: map type"},
		{"struct_ops", load.MapCreate, 0, u32s(72, map[int]uint32{0: 26, 4: 4, 8: 4, 12: 1, 60: 1}), -524, "libbpf or cilium/ebpf: map type"},
		{"type of a newer kernel", load.MapCreate, 0, u32s(72, map[int]uint32{0: 25, 4: 4, 8: 4, 12: 1}), -22, "libbpf or cilium/ebpf: map type"},
		{"libbpf task_storage before 5.11", load.MapCreate, 0, u32s(72, map[int]uint32{0: 29, 4: 4, 8: 8, 16: 1, 48: 3, 52: 1, 56: 3}), -22, "libbpf or cilium/ebpf: map type"},
		{"libbpf bloom_filter before 5.16", load.MapCreate, 0, u32s(72, map[int]uint32{0: 30, 8: 4, 12: 1}), -22, "libbpf or cilium/ebpf: map type"},
		{"user_ringbuf before 6.1", load.MapCreate, 0, u32s(72, map[int]uint32{0: 31, 12: 4096}), -22, "libbpf or cilium/ebpf: map type"},
		{"arena before 6.9", load.MapCreate, 0, u32s(72, map[int]uint32{0: 33, 12: 1, 16: 1024}), -7, "libbpf or cilium/ebpf: map type"},
		{"mmapable array before 5.5", load.MapCreate, 0, u32s(72, map[int]uint32{0: 2, 4: 4, 8: 4, 12: 1, 16: 1024}), -22, "cilium/ebpf: map flag"},
		{"a ring buffer that is not a power of two", load.MapCreate, 0, u32s(72, map[int]uint32{0: 27, 12: 5000}), -22, ""},
		{"a flag of one's own", load.MapCreate, 0, u32s(72, map[int]uint32{0: 2, 4: 4, 8: 4, 12: 1, 16: 1 << 31}), -22, ""},
		{"a type of one's own", load.MapCreate, 0, u32s(72, map[int]uint32{0: 200, 4: 4, 8: 4, 12: 1}), -22, ""},
		{"nameless map without rights", load.MapCreate, 0, u32s(72, map[int]uint32{0: 1, 4: 4, 8: 4, 12: 1}), -1, ""},
		{"nameless map of size", load.MapCreate, 0, u32s(72, map[int]uint32{0: 1, 4: 8, 8: 4, 12: 100}), -22, ""},
		{"LRU without preallocation", load.MapCreate, 0, u32s(72, map[int]uint32{0: 9, 4: 4, 8: 4, 12: 1, 16: 1}), -524, ""},
		{"BTF", load.BTFLoad, 18, u32s(28, map[int]uint32{16: 81}), -22, "libbpf: BTF functions"},
		{"one's own BTF", load.BTFLoad, 18, u32s(28, map[int]uint32{16: 2416}), -22, ""},
		{"token", load.TokenCreate, 36, u32s(8, nil), -95, "libbpf or cilium/ebpf: BPF token"},
		{"token, refused", load.TokenCreate, 36, u32s(8, nil), -1, "libbpf or cilium/ebpf: BPF token"},
		{"enum64 before 6.0", load.BTFLoad, 18, u32s(28, map[int]uint32{16: 44}), -22, "libbpf: BTF enum64"},
		{"empty, from a kernel to come", load.ProgLoad, 5, u32s(256, nil), -7, ""},
		{"empty, not read", load.ProgLoad, 5, nil, -14, ""},
		{"link", load.LinkCreate, 28, u32s(48, map[int]uint32{0: none, 4: none}), -9, "cilium/ebpf: bpf_link"},
		{"perf link", load.LinkCreate, 28, u32s(48, map[int]uint32{0: 5, 4: none, 8: 41}), -9, "libbpf or cilium/ebpf: perf_event link"},
		{"uprobe.multi", load.LinkCreate, 28, u32s(64, map[int]uint32{0: 5, 8: 48}), -9, "libbpf or cilium/ebpf: uprobe.multi link"},
		{"uprobe.multi with pid", load.LinkCreate, 28, u32s(64, map[int]uint32{0: 5, 4: none, 8: 48, 56: none}), -22, "libbpf or cilium/ebpf: uprobe.multi link"},
		{"tcx", load.LinkCreate, 28, u32s(64, map[int]uint32{0: 5, 4: none, 8: 46}), -19, "cilium/ebpf: tcx or netkit"},
		{"bpftrace kprobe.multi", load.LinkCreate, 28, u32s(48, map[int]uint32{0: 7, 8: 42, 20: 1}), -95, "bpftrace or cilium/ebpf: kprobe.multi link"},
		{"one's own link", load.LinkCreate, 28, u32s(48, map[int]uint32{0: 7, 8: 42, 20: 5}), -22, ""},
		{"attach with replacement", load.ProgAttach, 8, u32s(24, map[int]uint32{0: none, 4: 5, 12: 4}), -9, "cilium/ebpf: BPF_PROG_ATTACH with replacement"},
		{"one's own attach", load.ProgAttach, 8, u32s(24, map[int]uint32{0: 3, 4: 5}), -22, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := &trace.Call{ID: trace.CallID{TID: 1, Start: 1}, End: 2, TGID: 1, Kind: test.kind, Cmd: test.cmd, Ret: test.ret, Attr: test.attr,
				Flags: trace.CallFlags{EnterSeen: true}, FailedInsn: -1}
			got := attempts(header("6.18", classicHooks), trace.Record{Call: c})
			qt.Assert(t, qt.HasLen(got, 1))
			qt.Check(t, qt.Equals(got[0].FeatureProbe, test.want))
		})
	}
}

// TestUprobeOfNothing: httpprobe's question whether uprobes need CAP_SYS_ADMIN is no failure of
// anybody's; a uprobe of a file that is refused is.
func TestUprobeOfNothing(t *testing.T) {
	for text, want := range map[string]string{"": "bpfwhy: uprobes without CAP_SYS_ADMIN", "/usr/lib/libssl.so.3": ""} {
		c := attachCall(load.PerfEventOpen, 0, nil, -abi.EACCES, &trace.Attach{Event: &trace.Event{Type: 9, System: "uprobe"}, Text: text})
		got := attempts(header("6.1", classicHooks), trace.Record{Call: c})
		qt.Assert(t, qt.HasLen(got, 1))
		qt.Check(t, qt.Equals(got[0].FeatureProbe, want), qt.Commentf("%q", text))
	}
}
