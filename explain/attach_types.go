// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"slices"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// attachType is what the kernel asks of a program that is attached with one of the attach types.
type attachType struct {
	at       place
	programs []string     // the types of programs that it takes
	since    insn.Version // zero: older than every kernel that matters
	// link is since when BPF_LINK_CREATE takes it, where that is later.
	link insn.Version
	// same: the program must have been loaded for this very attach type.
	same bool
}

func (t attachType) takes(program string) bool { return slices.Contains(t.programs, program) }

// The types of programs of the rows below.
var (
	ofSockAddr = []string{"cgroup_sock_addr"}
	ofSock     = []string{"cgroup_sock"}
	ofSkSKB    = []string{"sk_skb"}
	ofTracing  = []string{"tracing"}
	ofKprobe   = []string{"kprobe"}
	ofClassify = []string{"sched_cls"}
	ofXDP      = []string{"xdp"}
)

func sockAddr(major, minor int) attachType {
	return attachType{at: atCgroup, programs: ofSockAddr, since: release(major, minor), same: true}
}

// attachTypes are those of load.Attach.Type, which has the kernel's names.
var attachTypes = map[string]attachType{
	"cgroup_inet_ingress":      {at: atCgroup, programs: []string{"cgroup_skb"}},
	"cgroup_inet_egress":       {at: atCgroup, programs: []string{"cgroup_skb"}},
	"cgroup_inet_sock_create":  {at: atCgroup, programs: ofSock, same: true},
	"cgroup_inet4_post_bind":   {at: atCgroup, programs: ofSock, same: true},
	"cgroup_inet6_post_bind":   {at: atCgroup, programs: ofSock, same: true},
	"cgroup_inet_sock_release": {at: atCgroup, programs: ofSock, same: true, since: release(5, 9)},
	"cgroup_sock_ops":          {at: atCgroup, programs: []string{"sock_ops"}},
	"cgroup_device":            {at: atCgroup, programs: []string{"cgroup_device"}},
	"cgroup_sysctl":            {at: atCgroup, programs: []string{"cgroup_sysctl"}},
	"cgroup_getsockopt":        {at: atCgroup, programs: []string{"cgroup_sockopt"}, same: true, since: release(5, 3)},
	"cgroup_setsockopt":        {at: atCgroup, programs: []string{"cgroup_sockopt"}, same: true, since: release(5, 3)},
	"lsm_cgroup":               {at: atCgroup, programs: []string{"lsm"}, same: true, since: release(6, 0)},

	"cgroup_inet4_bind":        sockAddr(4, 17),
	"cgroup_inet6_bind":        sockAddr(4, 17),
	"cgroup_inet4_connect":     sockAddr(4, 17),
	"cgroup_inet6_connect":     sockAddr(4, 17),
	"cgroup_udp4_sendmsg":      sockAddr(4, 18),
	"cgroup_udp6_sendmsg":      sockAddr(4, 18),
	"cgroup_udp4_recvmsg":      sockAddr(5, 2),
	"cgroup_udp6_recvmsg":      sockAddr(5, 2),
	"cgroup_inet4_getpeername": sockAddr(5, 8),
	"cgroup_inet6_getpeername": sockAddr(5, 8),
	"cgroup_inet4_getsockname": sockAddr(5, 8),
	"cgroup_inet6_getsockname": sockAddr(5, 8),
	"cgroup_unix_connect":      sockAddr(6, 7),
	"cgroup_unix_sendmsg":      sockAddr(6, 7),
	"cgroup_unix_recvmsg":      sockAddr(6, 7),
	"cgroup_unix_getpeername":  sockAddr(6, 7),
	"cgroup_unix_getsockname":  sockAddr(6, 7),

	"xdp":                   {at: atXDP, programs: ofXDP, since: release(5, 9)},
	"tcx_ingress":           {at: atTCX, programs: ofClassify, since: node.TCX.Since()},
	"tcx_egress":            {at: atTCX, programs: ofClassify, since: node.TCX.Since()},
	"netkit_primary":        {at: atTCX, programs: ofClassify, since: node.Netkit.Since()},
	"netkit_peer":           {at: atTCX, programs: ofClassify, since: node.Netkit.Since()},
	"flow_dissector":        {at: atNetns, programs: []string{"flow_dissector"}, link: release(5, 8)},
	"sk_lookup":             {at: atNetns, programs: []string{"sk_lookup"}, same: true, since: release(5, 9)},
	"netfilter":             {at: atNetfilter, programs: []string{"netfilter"}, since: release(6, 4)},
	"lirc_mode2":            {at: atLIRC, programs: []string{"lirc_mode2"}},
	"sk_msg_verdict":        {at: atSockmap, programs: []string{"sk_msg"}, link: release(6, 10)},
	"sk_skb_verdict":        {at: atSockmap, programs: ofSkSKB, since: release(5, 13), link: release(6, 10)},
	"struct_ops":            {at: atStructOps, programs: []string{"struct_ops"}, since: release(6, 4)},
	"perf_event":            {at: byEvent, programs: []string{"kprobe", "tracepoint", "perf_event"}, since: release(5, 15)},
	"trace_raw_tp":          {at: atRawTP, programs: ofTracing, same: true, since: release(5, 5), link: release(5, 19)},
	"trace_fentry":          {at: atTrampoline, programs: ofTracing, same: true, since: release(5, 5), link: release(5, 19)},
	"trace_fexit":           {at: atTrampoline, programs: ofTracing, same: true, since: release(5, 5), link: release(5, 19)},
	"modify_return":         {at: atTrampoline, programs: ofTracing, same: true, since: release(5, 7), link: release(5, 19)},
	"lsm_mac":               {at: atTrampoline, programs: []string{"lsm"}, same: true, since: release(5, 7), link: release(5, 19)},
	"trace_fsession":        {at: atTrampoline, programs: ofTracing, same: true, since: release(7, 0)},
	"trace_iter":            {at: atIter, programs: ofTracing, same: true, since: release(5, 8)},
	"sk_skb_stream_parser":  {at: atSockmap, programs: ofSkSKB, link: release(6, 10)},
	"sk_skb_stream_verdict": {at: atSockmap, programs: ofSkSKB, link: release(6, 10)},

	"trace_kprobe_multi":   {at: atKprobeMulti, programs: ofKprobe, same: true, since: node.KprobeMulti.Since()},
	"trace_kprobe_session": {at: atKprobeMulti, programs: ofKprobe, same: true, since: release(6, 10)},
	"trace_uprobe_multi":   {at: atUprobeMulti, programs: ofKprobe, same: true, since: node.UprobeMulti.Since()},
	"trace_uprobe_session": {at: atUprobeMulti, programs: ofKprobe, same: true, since: release(6, 13)},
}

// fits says whether the program is of the kind that the place takes.
func (f *Facts) fits() node.Answer {
	p := f.attached()
	if p.Type == "" || p.Type == "sk_reuseport" { // which goes to one of two options of a socket
		return node.Unknown
	}
	switch f.kind() {
	case load.LinkCreate, load.ProgAttach:
		return f.fitsType(p)
	case load.PerfEventSetBPF, load.RawTPOpen, load.XDPAttach, load.TCAttach, load.SocketAttach:
		at := callPlaces[f.kind()]
		if t := targetPlaces[f.target().Kind]; at&t != 0 {
			at &= t
		}
		if f.target().Kind == "perf_event" && at&programPlaces[p.Type] != 0 {
			return node.Unknown // of which kind it is was not to be seen
		}
		return node.Known(at&programPlaces[p.Type] != 0)
	}
	return node.Unknown
}

func (f *Facts) fitsType(p load.AttachProgram) node.Answer {
	asked := f.attach().Type
	t, known := attachTypes[asked]
	at, expected := targetPlaces[f.target().Kind], attachTypes[p.AttachType].at
	switch {
	case p.Type == "ext" || !known:
		return node.Unknown
	case !t.takes(p.Type), t.at&at != 0 && t.at&at&programPlaces[p.Type] == 0:
		return node.No
	case p.Type == "xdp":
		return node.Known(p.AttachType != "xdp_devmap" && p.AttachType != "xdp_cpumap")
	case p.Type == "kprobe" && !t.same:
		return node.Known(expected&(atKprobeMulti|atUprobeMulti) == 0)
	case t.same && p.AttachType == "", p.Type == "cgroup_skb" && p.AttachType != asked:
		return node.Unknown
	}
	return node.Known(!t.same || p.AttachType == asked)
}
