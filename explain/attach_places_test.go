// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
)

func toPath(kind, path, name string) option {
	return func(a *load.Attempt) {
		a.Attach.Target = &load.AttachTarget{Kind: kind, Path: path, Name: name}
	}
}

func toDevice(name string, index uint64) option {
	return func(a *load.Attempt) {
		a.Attach.Target = &load.AttachTarget{Kind: "netdev", Name: name, ID: index}
	}
}

// toGroup is a control group of version 2.
func toGroup(path string) option {
	return func(a *load.Attempt) {
		a.Attach.Target = &load.AttachTarget{Kind: "cgroup", Path: path, ID: 42}
	}
}

var cgroupFixtures = []fixture{
	{
		name:    "a folder of a controller of version 1",
		attempt: attaching(load.ProgAttach, 9, of("cgroup_skb", ""), as("cgroup_inet_egress"), toPath("cgroup", "/sys/fs/cgroup/net_cls/app", "directory of cgroup")),
		node:    lab("6.12.117"),
		rule:    "ATT201", how: load.Inferred, stage: load.Request,
		evidence: []string{"the descriptor was of /sys/fs/cgroup/net_cls/app", "directory of cgroup"},
	},
	{
		name:    "a file in a control group, by link",
		attempt: attaching(load.LinkCreate, 9, of("cgroup_skb", ""), as("cgroup_inet_egress"), toPath("cgroup", "/sys/fs/cgroup/a/cgroup.procs", "file of cgroup2")),
		node:    lab("6.12.117"),
		rule:    "ATT201", how: load.Inferred, stage: load.Request,
	},
	{
		name:    "nobody saw what the descriptor was, but the program's was good",
		attempt: attaching(load.LinkCreate, 9, of("cgroup_skb", ""), as("cgroup_inet_egress"), to("cgroup", "")),
		node:    lab("6.12.117"),
		rule:    "ATT201", how: load.Inferred, stage: load.Request,
	},
	{
		name:    "near miss: the control group's descriptor is not open",
		attempt: attaching(load.LinkCreate, 9, of("cgroup_skb", ""), as("cgroup_inet_egress"), to("cgroup", load.NotOpen)),
		node:    lab("6.12.117"),
		rule:    "ATT005", how: load.Inferred, stage: load.Request,
		evidence: []string{"the target is not open"},
	},
	{
		name: "the control group's descriptor is not open when it is looked at afterwards",
		attempt: attaching(load.LinkCreate, 9, of("cgroup_skb", ""), as("cgroup_inet_egress"), to("cgroup", load.NotOpen),
			func(a *load.Attempt) { a.Backend = "tp_btf" }),
		node: lab("6.12.117"),
		rule: "ATT201", how: load.Inferred, stage: load.Request, others: []string{"ATT005"},
	},
	{
		name:    "flags of BPF_PROG_ATTACH for a link",
		attempt: attaching(load.LinkCreate, 22, of("cgroup_skb", "cgroup_inet_egress"), as("cgroup_inet_egress"), toGroup("/a"), flagged(abi.AttachFlagMulti)),
		node:    lab("6.12.117"),
		rule:    "ATT202", how: load.Inferred, stage: load.Request,
		evidence: []string{"the flags of the call were 0x2"},
	},
	{
		name:    "near miss: a link without flags",
		attempt: attaching(load.LinkCreate, 22, of("cgroup_skb", "cgroup_inet_egress"), as("cgroup_inet_egress"), toGroup("/a")),
		node:    lab("6.12.117"),
		rule:    Unknown, how: load.Inferred, stage: load.Request,
	},
	{
		name: "no CAP_NET_ADMIN, which BPF_PROG_ATTACH calls EINVAL",
		attempt: attaching(load.ProgAttach, 22, of("cgroup_skb", "cgroup_inet_egress"), as("cgroup_inet_egress"), toGroup("/a"), caps(bpfCap),
			spans(spanArg(load.FnCapable, -1, abi.CapNetAdmin), spanArg(load.FnCapable, -1, abi.CapSysAdmin))),
		node: lab("6.12.117"),
		rule: "ATT203", how: load.Observed, stage: load.Permission,
		evidence: []string{"the kernel checked whether the loader has CAP_NET_ADMIN"},
	},
	{
		name:    "no CAP_NET_ADMIN, by link and without hooks",
		attempt: attaching(load.LinkCreate, 1, of("cgroup_skb", "cgroup_inet_egress"), as("cgroup_inet_egress"), toGroup("/a"), caps(bpfCap)),
		node:    lab("6.12.117"),
		rule:    "ATT203", how: load.Inferred, stage: load.Permission,
	},
	{
		name:    "near miss: another program excludes this one",
		attempt: attaching(load.LinkCreate, 1, of("cgroup_skb", "cgroup_inet_egress"), as("cgroup_inet_egress"), toGroup("/a")),
		node:    lab("6.12.117"),
		rule:    "ATT204", how: load.Inferred, stage: load.Install,
	},
	{
		name:    "another program excludes one of another type, whatever the capabilities",
		attempt: attaching(load.ProgAttach, 1, of("cgroup_device", ""), as("cgroup_device"), toGroup("/a"), flagged(abi.AttachFlagMulti), caps(bpfCap)),
		node:    lab("6.12.117"),
		rule:    "ATT204", how: load.Inferred, stage: load.Install,
		evidence: []string{"with BPF_F_ALLOW_MULTI"},
	},
	{
		name:    "EPERM of an old kernel, which closes all of bpf(2) to who may not load",
		attempt: attaching(load.ProgAttach, 1, of("cgroup_device", ""), as("cgroup_device"), toGroup("/a"), caps(0)),
		node:    lab("5.10.0-30-cloud-amd64", "kernel.unprivileged_bpf_disabled", "2"),
		rule:    "PERM001", how: load.Inferred, stage: load.Permission,
		others: []string{"ATT204"},
	},
	{
		name:    "near miss: root, whose capabilities were not to be seen",
		attempt: attaching(load.ProgAttach, 1, of("cgroup_device", ""), as("cgroup_device"), toGroup("/a"), capsUnknown()),
		node:    lab("5.10.0-30-cloud-amd64", "kernel.unprivileged_bpf_disabled", "2"),
		rule:    "ATT204", how: load.Inferred, stage: load.Install,
		others: []string{"PERM001"},
	},
	{
		name:    "the control group is gone",
		attempt: attaching(load.LinkCreate, 2, of("cgroup_device", ""), as("cgroup_device"), toGroup("/a")),
		node:    lab("6.12.117"),
		rule:    Unknown, how: load.Inferred, stage: load.Request,
		others:   []string{"ATT007"},
		evidence: []string{"What else ENOENT can mean for this call: The control group has been removed."},
	},
}

var xdpFixtures = []fixture{
	{
		name:    "no native XDP",
		attempt: attaching(load.XDPAttach, 95, of("xdp", "xdp"), toDevice("wlan0", 3), flagged(abi.XDPFlagDRVMode), message("Underlying driver does not support XDP in native mode")),
		node:    lab("6.12.117"),
		rule:    "ATT301", how: load.Observed, stage: load.Install,
		evidence: []string{"the device is wlan0"},
	},
	{
		name:    "no native XDP, by a kernel that says no more",
		attempt: attaching(load.LinkCreate, 95, of("xdp", "xdp"), as("xdp"), toDevice("wlan0", 3), flagged(abi.XDPFlagDRVMode)),
		node:    lab("6.1.0-49-cloud-amd64"),
		rule:    "ATT301", how: load.Inferred, stage: load.Install,
		others: []string{"ATT302", "ATT303"},
	},
	{
		name:    "near miss: no mode was named, so that the driver has XDP",
		attempt: attaching(load.LinkCreate, 95, of("xdp", "xdp"), as("xdp"), toDevice("eth0", 3)),
		node:    lab("6.1.0-49-cloud-amd64"),
		rule:    Unknown, how: load.Inferred, stage: load.Request,
		others: []string{"ATT301", "ATT302", "ATT303"},
	},
	{
		name:    "an offload in the way",
		attempt: attaching(load.XDPAttach, 95, of("xdp", "xdp"), toDevice("ens3", 2), message("virtio_net: Can't set XDP while host is implementing GRO_HW/CSUM, disable GRO_HW/CSUM first")),
		node:    lab("6.12.117"),
		rule:    "ATT302", how: load.Observed, stage: load.Install,
	},
	{
		name:    "too few queues",
		attempt: attaching(load.LinkCreate, 28, of("xdp", "xdp"), as("xdp"), toDevice("veth1", 2), message("veth: XDP expects number of rx queues not less than peer tx queues")),
		node:    lab("6.12.117"),
		rule:    "ATT302", how: load.Observed, stage: load.Install,
	},
	{
		name:    "an MTU of 9000 on a veth",
		attempt: attaching(load.XDPAttach, 34, of("xdp", "xdp"), toDevice("veth1", 2)),
		node:    lab("5.10.0-30-cloud-amd64"),
		rule:    "ATT303", how: load.Inferred, stage: load.Install,
	},
	{
		name:    "an MTU of 9000 elsewhere",
		attempt: attaching(load.XDPAttach, 22, of("xdp", "xdp"), toDevice("ens3", 2), message("virtio_net: MTU too large to enable XDP without frags")),
		node:    lab("6.12.117"),
		rule:    "ATT303", how: load.Observed, stage: load.Install,
	},
	{
		name:    "a link is on the device",
		attempt: attaching(load.XDPAttach, 16, of("xdp", "xdp"), toDevice("eth0", 2), message("Can't replace active BPF XDP link")),
		node:    lab("6.12.117"),
		rule:    "ATT304", how: load.Observed, stage: load.Install,
	},
	{
		name:    "a program in the other mode",
		attempt: attaching(load.XDPAttach, 17, of("xdp", "xdp"), toDevice("eth0", 2)),
		node:    lab("6.12.117"),
		rule:    "ATT304", how: load.Inferred, stage: load.Install,
	},
	{
		name:    "near miss: busy with header split",
		attempt: attaching(load.XDPAttach, 16, of("xdp", "xdp"), toDevice("eth0", 2), message("unable to install XDP to device using memory provider")),
		node:    lab("7.2.13"),
		rule:    "ATT302", how: load.Observed, stage: load.Install,
	},
	{
		name:    "no such device, by netlink",
		attempt: attaching(load.XDPAttach, 19, of("xdp", "xdp"), toDevice("", 99)),
		node:    lab("6.12.117"),
		rule:    "ATT305", how: load.Inferred, stage: load.Request,
	},
	{
		name:    "no such device, by link",
		attempt: attaching(load.LinkCreate, 22, of("xdp", "xdp"), as("xdp"), toDevice("", 99)),
		node:    lab("6.12.117"),
		rule:    "ATT305", how: load.Inferred, stage: load.Request,
		others:   []string{"ATT302", "ATT303"},
		evidence: []string{"the device had the number 99"},
	},
	{
		name:    "near miss: the device is there, and nobody says why",
		attempt: attaching(load.LinkCreate, 22, of("xdp", "xdp"), as("xdp"), toDevice("eth0", 2)),
		node:    lab("6.12.117"),
		rule:    Unknown, how: load.Inferred, stage: load.Request,
		others: []string{"ATT302", "ATT303"},
	},
	{
		name:    "XDP without CAP_NET_ADMIN",
		attempt: attaching(load.XDPAttach, 1, of("xdp", "xdp"), toDevice("eth0", 2), caps(bpfCap)),
		node:    lab("6.12.117"),
		rule:    "PERM001", how: load.Inferred, stage: load.Permission,
		evidence: []string{"needs CAP_NET_ADMIN"},
	},
}

var tcFixtures = []fixture{
	{
		name:    "no clsact",
		attempt: attaching(load.TCAttach, 22, of("sched_cls", ""), toDevice("eth0", 2), message("Parent Qdisc doesn't exists")),
		node:    lab("6.12.117"),
		rule:    "ATT306", how: load.Observed, stage: load.Request,
	},
	{
		name:    "no clsact, and no word of it",
		attempt: attaching(load.TCAttach, 22, of("sched_cls", ""), toDevice("eth0", 2)),
		node:    lab("6.12.117"),
		rule:    "ATT306", how: load.Inferred, stage: load.Request,
	},
	{
		name:    "near miss: an XDP program",
		attempt: attaching(load.TCAttach, 22, of("xdp", "xdp"), toDevice("eth0", 2)),
		node:    lab("6.12.117"),
		rule:    "ATT001", how: load.Inferred, stage: load.Request,
		others: []string{"ATT306"},
	},
	{
		name:    "no classifier",
		attempt: attaching(load.TCAttach, 2, of("sched_cls", ""), toDevice("eth0", 2), message("TC classifier not found")),
		node:    lab("6.12.117"),
		rule:    "ATT307", how: load.Observed, stage: load.Request,
	},
	{
		name:    "a filter that is there already",
		attempt: attaching(load.TCAttach, 17, of("sched_cls", ""), toDevice("eth0", 2), message("Filter already exists")),
		node:    lab("6.12.117"),
		rule:    "ATT304", how: load.Observed, stage: load.Install,
	},
	{
		name:    "tcx on a device that is not there",
		attempt: attaching(load.LinkCreate, 19, of("sched_cls", ""), as("tcx_ingress"), toDevice("", 99)),
		node:    lab("6.12.117"),
		rule:    "ATT305", how: load.Inferred, stage: load.Request,
	},
}

var socketFixtures = []fixture{
	{
		name:    "a program that is more than optmem_max",
		attempt: attaching(load.SocketAttach, 12, of("socket_filter", ""), to("socket", "")),
		node:    lab("5.10.0-30-cloud-amd64", "net.core.optmem_max", "20480"),
		rule:    "RES002", how: load.Inferred, stage: load.Resources,
		others:   []string{"RES001"},
		evidence: []string{"net.core.optmem_max was 20480 bytes, room for about 2560 instructions"},
	},
	{
		name:    "near miss: a filter that is locked",
		attempt: attaching(load.SocketAttach, 1, of("socket_filter", ""), to("socket", "")),
		node:    lab("6.12.117"),
		rule:    "ATT401", how: load.Inferred, stage: load.Permission,
	},
	{
		name:    "a socket without SO_REUSEPORT",
		attempt: attaching(load.SocketAttach, 22, of("sk_reuseport", ""), to("socket", "")),
		node:    lab("6.12.117"),
		rule:    "ATT001", how: load.Inferred, stage: load.Request,
		others: []string{"ATT402"},
	},
	{
		name:    "a program that is larger than the option memory of sockets",
		attempt: attaching(load.SocketAttach, 12, of("socket_filter", ""), to("socket", "SO_ATTACH_BPF"), length(3000)),
		node:    lab("6.1.0-49-cloud-amd64", "net.core.optmem_max", "20480"),
		rule:    "RES002", how: load.Inferred, stage: load.Resources,
		evidence: []string{"the program has 3000 instructions after the verifier: 24072 bytes"},
	},
	{
		name:    "near miss: a small program",
		attempt: attaching(load.SocketAttach, 12, of("socket_filter", ""), to("socket", "SO_ATTACH_BPF"), length(30)),
		node:    lab("6.1.0-49-cloud-amd64", "net.core.optmem_max", "20480"),
		rule:    Unknown, how: load.Inferred, stage: load.Resources,
		others: []string{"RES001", "RES002"},
	},
	{
		name:    "a socket without SO_REUSEPORT, by the option",
		attempt: attaching(load.SocketAttach, 22, of("socket_filter", ""), to("socket", "SO_ATTACH_REUSEPORT_EBPF")),
		node:    lab("6.12.117"),
		rule:    "ATT402", how: load.Inferred, stage: load.Request,
	},
	{
		name:    "near: another option of the socket",
		attempt: attaching(load.SocketAttach, 22, of("socket_filter", ""), to("socket", "SO_ATTACH_BPF")),
		node:    lab("6.12.117"),
		rule:    Unknown, how: load.Inferred, stage: load.Request,
	},
	{
		name:    "a Unix socket in a group of ports",
		attempt: attaching(load.SocketAttach, 524, of("sk_reuseport", ""), to("socket", "")),
		node:    lab("6.12.117"),
		rule:    "ATT402", how: load.Inferred, stage: load.Request,
	},
	{
		name:    "near miss: a map of which nothing was to be seen, or a value",
		attempt: attaching(load.MapUpdate, 9, ofMap("unspec")),
		node:    lab("6.1.0-49-cloud-amd64"),
		rule:    Unknown, how: load.Inferred, stage: load.Request,
		others: []string{"MAP007", "ATT005", "ATT403"},
	},
	{
		name:    "a socket that is not connected yet",
		attempt: attaching(load.MapUpdate, 95, ofMap("sockhash")),
		node:    lab("6.12.117"),
		rule:    "ATT403", how: load.Inferred, stage: load.Request,
	},
	{
		name:    "near miss: a map that knows no such write",
		attempt: attaching(load.MapUpdate, 95, ofMap("bloom_filter")),
		node:    lab("6.12.117"),
		rule:    Unknown, how: load.Inferred, stage: load.Request,
		evidence: []string{"The elements of this type of map cannot be written in this way"},
	},
}

var mapFixtures = []fixture{
	{
		name:    "a hash that is full",
		attempt: attaching(load.MapUpdate, 7, ofMap("hash")),
		node:    lab("6.12.117"),
		rule:    "MAP004", how: load.Inferred, stage: load.Resources,
		evidence: []string{"The map is full: it takes 4 entries", "of the type hash"},
	},
	{
		name:    "an index beyond the end",
		attempt: attaching(load.MapUpdate, 7, ofMap("array")),
		node:    lab("6.12.117"),
		rule:    "MAP004", how: load.Inferred, stage: load.Resources,
		evidence: []string{"beyond the end of the map, whose last one is 3"},
	},
	{
		name:    "near miss: E2BIG of a scheduler",
		attempt: attaching(load.MapUpdate, 7, ofMap("struct_ops")),
		node:    sched6_12,
		rule:    "ATT502", how: load.Inferred, stage: load.Request,
	},
	{
		name:    "a frozen map",
		attempt: attaching(load.MapUpdate, 1, ofMap("array")),
		node:    lab("6.12.117"),
		rule:    "MAP006", how: load.Inferred, stage: load.Request,
	},
	{
		name:    "near miss: a program of another kind in a prog array",
		attempt: attaching(load.MapUpdate, 22, ofMap("prog_array")),
		node:    lab("6.12.117"),
		rule:    "MAP007", how: load.Inferred, stage: load.Request,
		others:   []string{"MAP006"},
		evidence: []string{"its programs are of another kind"},
	},
	{
		name:    "a value of 40 KiB for each CPU, 6.12",
		attempt: mapCreate(7, abi.MapTypePercpuArray, 4, 40960, 1, 0),
		node:    lab("6.12.117"),
		rule:    "MAP005", how: load.Inferred, stage: load.Request,
		evidence: []string{"value_size was 40960, the limit is 32768"},
	},
	{
		name:    "a value of 40 KiB for each CPU, before",
		attempt: mapCreate(12, abi.MapTypePercpuArray, 4, 40960, 1, 0),
		node:    lab("5.10.0-30-cloud-amd64"),
		rule:    "MAP005", how: load.Inferred, stage: load.Request,
		others: []string{"RES001"},
	},
	{
		name:    "near miss: a value of 32 KiB for each CPU, and no memory",
		attempt: mapCreate(12, abi.MapTypePercpuArray, 4, 32768, 1<<20, 0),
		node:    lab("5.10.0-30-cloud-amd64"),
		rule:    "RES001", how: load.Inferred, stage: load.Resources,
	},
	{
		name:    "a ring buffer of one small page where pages are large",
		attempt: mapCreate(22, abi.MapTypeRingbuf, 0, 0, 4096, 0),
		node:    machine(lab("6.12.117+deb13-arm64-16k"), "aarch64"),
		rule:    "MAP001", how: load.Inferred, stage: load.Request,
		others:   []string{"FEAT005"},
		evidence: []string{"where pages have 16 or 64 KiB"},
	},
	{
		name:    "stacks that are deeper than the kernel allows",
		attempt: mapCreate(22, abi.MapTypeStackTrace, 4, 8*200, 1024, 0),
		node:    lab("6.12.117", "kernel.perf_event_max_stack", "127"),
		rule:    "MAP001", how: load.Inferred, stage: load.Request,
		others:   []string{"FEAT005"},
		evidence: []string{"200 frames, and kernel.perf_event_max_stack allows 127"},
	},
}

var pinFixtures = []fixture{
	{
		name:    "a pin on a disk",
		attempt: attaching(load.ObjPin, 1, toPath("pin", "/tmp/pin", "map m")),
		node:    lab("6.12.117"),
		rule:    "ATT601", how: load.Inferred, stage: load.Request,
		evidence: []string{"the path was /tmp/pin"},
	},
	{
		name:    "a pin with a dot",
		attempt: attaching(load.ObjPin, 1, toPath("pin", "/sys/fs/bpf/map.v2", "map m")),
		node:    lab("6.12.117"),
		rule:    "ATT601", how: load.Inferred, stage: load.Request,
		evidence: []string{"The name map.v2 has a dot"},
	},
	{
		name:    "near miss: no folder",
		attempt: attaching(load.ObjPin, 2, toPath("pin", "/sys/fs/bpf/agent/m", "map m")),
		node:    lab("6.12.117"),
		rule:    "ATT602", how: load.Inferred, stage: load.Permission,
	},
	{
		name:    "a pin that is there",
		attempt: attaching(load.ObjPin, 17, toPath("pin", "/sys/fs/bpf/m", "map m")),
		node:    lab("6.12.117"),
		rule:    "ATT603", how: load.Inferred, stage: load.Install,
	},
}

// Each type of map has rules of its own, and a definition that keeps them has no defect.
func TestMapDefects(t *testing.T) {
	good := map[uint32]abi.MapCreate{
		abi.MapTypeHash: {KeySize: 4, ValueSize: 8, MaxEntries: 1}, abi.MapTypeArray: {KeySize: 4, ValueSize: 8, MaxEntries: 1, MapFlags: abi.MapFlagMmapable},
		abi.MapTypeProgArray: {KeySize: 4, ValueSize: 4, MaxEntries: 1}, abi.MapTypeStackTrace: {KeySize: 4, ValueSize: 1016, MaxEntries: 1},
		abi.MapTypeLPMTrie: {KeySize: 8, ValueSize: 1, MaxEntries: 1, MapFlags: abi.MapFlagNoPrealloc}, abi.MapTypeDevmap: {KeySize: 4, ValueSize: 8, MaxEntries: 1},
		abi.MapTypeQueue: {ValueSize: 4, MaxEntries: 1}, abi.MapTypeBloomFilter: {ValueSize: 4, MaxEntries: 1, MapExtra: 3},
		abi.MapTypeRingbuf: {MaxEntries: 4096}, abi.MapTypeArena: {MaxEntries: 1, MapFlags: abi.MapFlagMmapable, MapExtra: 1 << 44},
		abi.MapTypeTaskStorage: {KeySize: 4, ValueSize: 8, MapFlags: abi.MapFlagNoPrealloc, BTFKeyTypeID: 1, BTFValueTypeID: 2},
		abi.MapTypeStructOps:   {KeySize: 4, ValueSize: 256, MaxEntries: 1}, abi.MapTypeArrayOfMaps: {KeySize: 4, ValueSize: 4, MaxEntries: 1, InnerMapFD: 3},
		abi.MapTypeCgroupStorage: {KeySize: 8, ValueSize: 8},
	}
	for typ, m := range good {
		m.MapType = typ
		qt.Check(t, qt.Equals(mapDefect(m), ""), qt.Commentf("%s", abi.MapTypeName(typ)))
	}
	for _, tt := range []struct {
		typ  uint32
		mend func(*abi.MapCreate)
		want string
	}{
		{abi.MapTypeHash, func(m *abi.MapCreate) { m.KeySize = 0 }, "key_size is 0"},
		{abi.MapTypeHash, func(m *abi.MapCreate) { m.MaxEntries = 0 }, "max_entries is 0"},
		{abi.MapTypeHash, func(m *abi.MapCreate) { m.MapFlags = abi.MapFlagMmapable }, "a map of type hash takes no BPF_F_MMAPABLE"},
		{abi.MapTypeHash, func(m *abi.MapCreate) { m.MapExtra = 1 }, "a map of type hash takes no map_extra, which is 1"},
		{abi.MapTypeArray, func(m *abi.MapCreate) { m.KeySize = 8 }, "keys of a map of type array have 4 bytes, key_size is 8"},
		{abi.MapTypeArray, func(m *abi.MapCreate) { m.MapFlags = abi.MapFlagNoPrealloc }, "a map of type array takes no BPF_F_NO_PREALLOC"},
		{abi.MapTypeProgArray, func(m *abi.MapCreate) { m.ValueSize = 8 }, "values of a map of type prog_array have 4 bytes, value_size is 8"},
		{abi.MapTypeStackTrace, func(m *abi.MapCreate) { m.ValueSize = 12 }, "a stack is of 8 bytes for each frame, value_size is 12"},
		{abi.MapTypeLPMTrie, func(m *abi.MapCreate) { m.KeySize = 4 }, "keys of a map of type lpm_trie have 5 to 260 bytes, key_size is 4"},
		{abi.MapTypeLPMTrie, func(m *abi.MapCreate) { m.MapFlags = 0 }, "a map of type lpm_trie needs BPF_F_NO_PREALLOC"},
		{abi.MapTypeDevmap, func(m *abi.MapCreate) { m.ValueSize = 16 }, "values of a map of type devmap have 4 or 8 bytes, value_size is 16"},
		{abi.MapTypeQueue, func(m *abi.MapCreate) { m.KeySize = 4 }, "a map of type queue has no keys, key_size is 4 and not 0"},
		{abi.MapTypeBloomFilter, func(m *abi.MapCreate) { m.MapExtra = 16 }, "map_extra of a bloom filter is the number of hash functions, 0 to 15, not 16"},
		{abi.MapTypeRingbuf, func(m *abi.MapCreate) { m.MaxEntries = 12288 }, "max_entries of a ring buffer is a power of two and a multiple of the page size, not 12288"},
		{abi.MapTypeArena, func(m *abi.MapCreate) { m.MapFlags = 0 }, "a map of type arena needs BPF_F_MMAPABLE"},
		{abi.MapTypeArena, func(m *abi.MapCreate) { m.MapExtra = 1 }, "map_extra of an arena is an address at the beginning of a page, not 0x1"},
		{abi.MapTypeTaskStorage, func(m *abi.MapCreate) { m.BTFKeyTypeID = 0 }, "a map of type task_storage needs the BTF of its key and value"},
		{abi.MapTypeTaskStorage, func(m *abi.MapCreate) { m.MaxEntries = 1 }, "max_entries of a map of type task_storage is 0 (it grows with what it belongs to), not 1"},
		{abi.MapTypeStructOps, func(m *abi.MapCreate) { m.MaxEntries = 2 }, "max_entries of a map of type struct_ops is 1, not 2"},
	} {
		m := good[tt.typ]
		m.MapType = tt.typ
		tt.mend(&m)
		qt.Check(t, qt.Equals(mapDefect(m), tt.want))
	}
	qt.Check(t, qt.Equals(mapDefect(abi.MapCreate{MapType: 99}), ""))
}
