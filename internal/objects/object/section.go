// SPDX-License-Identifier: Apache-2.0

package object

import "strings"

// Type returns the program type that libbpf derives from the section's name, as BPF_PROG_TYPE_x
// without the prefix, in lower case ("sched_cls"). It is "" for a name that says nothing, where the
// loader knows.
func (p Program) Type() string {
	name := strings.TrimPrefix(p.Section, "?") // not loaded by default
	if t, ok := strings.CutPrefix(name, "cgroup/"); ok {
		return cgroupType(t)
	}
	head, _, _ := strings.Cut(name, "/")
	head, _, _ = strings.Cut(head, ".") // kprobe.multi, fentry.s, xdp.frags
	switch head {
	case "raw_tp", "raw_tracepoint":
		if strings.HasPrefix(name, head+".w") {
			return "raw_tracepoint_writable"
		}
	}
	return sectionTypes[head]
}

// sectionTypes is for the names up to the first slash or dot. Source: libbpf's documentation of
// program types.
var sectionTypes = map[string]string{
	"socket": "socket_filter", "sk_reuseport": "sk_reuseport", "sk_lookup": "sk_lookup", "flow_dissector": "flow_dissector",
	"kprobe": "kprobe", "kretprobe": "kprobe", "uprobe": "kprobe", "uretprobe": "kprobe", "ksyscall": "kprobe",
	"kretsyscall": "kprobe", "usdt": "kprobe",
	"tc": "sched_cls", "tcx": "sched_cls", "classifier": "sched_cls", "netkit": "sched_cls", "action": "sched_act",
	"tracepoint": "tracepoint", "tp": "tracepoint", "raw_tracepoint": "raw_tracepoint", "raw_tp": "raw_tracepoint",
	"tp_btf": "tracing", "fentry": "tracing", "fexit": "tracing", "fmod_ret": "tracing", "fsession": "tracing", "iter": "tracing",
	"freplace": "ext", "lsm": "lsm", "lsm_cgroup": "lsm", "syscall": "syscall", "struct_ops": "struct_ops",
	"xdp": "xdp", "perf_event": "perf_event", "netfilter": "netfilter", "lirc_mode2": "lirc_mode2",
	"lwt_in": "lwt_in", "lwt_out": "lwt_out", "lwt_xmit": "lwt_xmit", "lwt_seg6local": "lwt_seg6local",
	"sockops": "sock_ops", "sk_skb": "sk_skb", "sk_msg": "sk_msg", "cgroup_skb": "cgroup_skb",
}

// cgroupType is for what follows "cgroup/".
func cgroupType(hook string) string {
	switch {
	case hook == "skb":
		return "cgroup_skb"
	case hook == "dev":
		return "cgroup_device"
	case hook == "sysctl":
		return "cgroup_sysctl"
	case hook == "getsockopt" || hook == "setsockopt":
		return "cgroup_sockopt"
	case strings.HasPrefix(hook, "sock") || strings.HasPrefix(hook, "post_bind"):
		return "cgroup_sock"
	}
	for _, verb := range []string{"bind", "connect", "sendmsg", "recvmsg", "getpeername", "getsockname"} {
		if strings.HasPrefix(hook, verb) {
			return "cgroup_sock_addr"
		}
	}
	return ""
}
