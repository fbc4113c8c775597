// SPDX-License-Identifier: Apache-2.0

package abi

import "fmt"

// Program types: enum bpf_prog_type.
const (
	ProgTypeUnspec = iota
	ProgTypeSocketFilter
	ProgTypeKprobe
	ProgTypeSchedCLS
	ProgTypeSchedACT
	ProgTypeTracepoint
	ProgTypeXDP
	ProgTypePerfEvent
	ProgTypeCgroupSKB
	ProgTypeCgroupSock
	ProgTypeLWTIn
	ProgTypeLWTOut
	ProgTypeLWTXmit
	ProgTypeSockOps
	ProgTypeSkSKB
	ProgTypeCgroupDevice
	ProgTypeSkMsg
	ProgTypeRawTracepoint
	ProgTypeCgroupSockAddr
	ProgTypeLWTSeg6local
	ProgTypeLircMode2
	ProgTypeSkReuseport
	ProgTypeFlowDissector
	ProgTypeCgroupSysctl
	ProgTypeRawTracepointWritable
	ProgTypeCgroupSockopt
	ProgTypeTracing
	ProgTypeStructOps
	ProgTypeExt
	ProgTypeLSM
	ProgTypeSkLookup
	ProgTypeSyscall
	ProgTypeNetfilter
)

var progTypes = [...]string{
	ProgTypeUnspec:                "unspec",
	ProgTypeSocketFilter:          "socket_filter",
	ProgTypeKprobe:                "kprobe",
	ProgTypeSchedCLS:              "sched_cls",
	ProgTypeSchedACT:              "sched_act",
	ProgTypeTracepoint:            "tracepoint",
	ProgTypeXDP:                   "xdp",
	ProgTypePerfEvent:             "perf_event",
	ProgTypeCgroupSKB:             "cgroup_skb",
	ProgTypeCgroupSock:            "cgroup_sock",
	ProgTypeLWTIn:                 "lwt_in",
	ProgTypeLWTOut:                "lwt_out",
	ProgTypeLWTXmit:               "lwt_xmit",
	ProgTypeSockOps:               "sock_ops",
	ProgTypeSkSKB:                 "sk_skb",
	ProgTypeCgroupDevice:          "cgroup_device",
	ProgTypeSkMsg:                 "sk_msg",
	ProgTypeRawTracepoint:         "raw_tracepoint",
	ProgTypeCgroupSockAddr:        "cgroup_sock_addr",
	ProgTypeLWTSeg6local:          "lwt_seg6local",
	ProgTypeLircMode2:             "lirc_mode2",
	ProgTypeSkReuseport:           "sk_reuseport",
	ProgTypeFlowDissector:         "flow_dissector",
	ProgTypeCgroupSysctl:          "cgroup_sysctl",
	ProgTypeRawTracepointWritable: "raw_tracepoint_writable",
	ProgTypeCgroupSockopt:         "cgroup_sockopt",
	ProgTypeTracing:               "tracing",
	ProgTypeStructOps:             "struct_ops",
	ProgTypeExt:                   "ext",
	ProgTypeLSM:                   "lsm",
	ProgTypeSkLookup:              "sk_lookup",
	ProgTypeSyscall:               "syscall",
	ProgTypeNetfilter:             "netfilter",
}

// Map types: enum bpf_map_type.
const (
	MapTypeUnspec = iota
	MapTypeHash
	MapTypeArray
	MapTypeProgArray
	MapTypePerfEventArray
	MapTypePercpuHash
	MapTypePercpuArray
	MapTypeStackTrace
	MapTypeCgroupArray
	MapTypeLRUHash
	MapTypeLRUPercpuHash
	MapTypeLPMTrie
	MapTypeArrayOfMaps
	MapTypeHashOfMaps
	MapTypeDevmap
	MapTypeSockmap
	MapTypeCpumap
	MapTypeXskmap
	MapTypeSockhash
	MapTypeCgroupStorage
	MapTypeReuseportSockarray
	MapTypePercpuCgroupStorage
	MapTypeQueue
	MapTypeStack
	MapTypeSkStorage
	MapTypeDevmapHash
	MapTypeStructOps
	MapTypeRingbuf
	MapTypeInodeStorage
	MapTypeTaskStorage
	MapTypeBloomFilter
	MapTypeUserRingbuf
	MapTypeCgrpStorage
	MapTypeArena
	MapTypeInsnArray
	MapTypeRhash
)

var mapTypes = [...]string{
	MapTypeUnspec:              "unspec",
	MapTypeHash:                "hash",
	MapTypeArray:               "array",
	MapTypeProgArray:           "prog_array",
	MapTypePerfEventArray:      "perf_event_array",
	MapTypePercpuHash:          "percpu_hash",
	MapTypePercpuArray:         "percpu_array",
	MapTypeStackTrace:          "stack_trace",
	MapTypeCgroupArray:         "cgroup_array",
	MapTypeLRUHash:             "lru_hash",
	MapTypeLRUPercpuHash:       "lru_percpu_hash",
	MapTypeLPMTrie:             "lpm_trie",
	MapTypeArrayOfMaps:         "array_of_maps",
	MapTypeHashOfMaps:          "hash_of_maps",
	MapTypeDevmap:              "devmap",
	MapTypeSockmap:             "sockmap",
	MapTypeCpumap:              "cpumap",
	MapTypeXskmap:              "xskmap",
	MapTypeSockhash:            "sockhash",
	MapTypeCgroupStorage:       "cgroup_storage",
	MapTypeReuseportSockarray:  "reuseport_sockarray",
	MapTypePercpuCgroupStorage: "percpu_cgroup_storage",
	MapTypeQueue:               "queue",
	MapTypeStack:               "stack",
	MapTypeSkStorage:           "sk_storage",
	MapTypeDevmapHash:          "devmap_hash",
	MapTypeStructOps:           "struct_ops",
	MapTypeRingbuf:             "ringbuf",
	MapTypeInodeStorage:        "inode_storage",
	MapTypeTaskStorage:         "task_storage",
	MapTypeBloomFilter:         "bloom_filter",
	MapTypeUserRingbuf:         "user_ringbuf",
	MapTypeCgrpStorage:         "cgrp_storage",
	MapTypeArena:               "arena",
	MapTypeRhash:               "rhash",
	MapTypeInsnArray:           "insn_array",
}

// Attach types: enum bpf_attach_type.
const (
	AttachCgroupInetIngress = iota
	AttachCgroupInetEgress
	AttachCgroupInetSockCreate
	AttachCgroupSockOps
	AttachSkSKBStreamParser
	AttachSkSKBStreamVerdict
	AttachCgroupDevice
	AttachSkMsgVerdict
	AttachCgroupInet4Bind
	AttachCgroupInet6Bind
	AttachCgroupInet4Connect
	AttachCgroupInet6Connect
	AttachCgroupInet4PostBind
	AttachCgroupInet6PostBind
	AttachCgroupUDP4Sendmsg
	AttachCgroupUDP6Sendmsg
	AttachLircMode2
	AttachFlowDissector
	AttachCgroupSysctl
	AttachCgroupUDP4Recvmsg
	AttachCgroupUDP6Recvmsg
	AttachCgroupGetsockopt
	AttachCgroupSetsockopt
	AttachTraceRawTP
	AttachTraceFentry
	AttachTraceFexit
	AttachModifyReturn
	AttachLSMMac
	AttachTraceIter
	AttachCgroupInet4Getpeername
	AttachCgroupInet6Getpeername
	AttachCgroupInet4Getsockname
	AttachCgroupInet6Getsockname
	AttachXDPDevmap
	AttachCgroupInetSockRelease
	AttachXDPCpumap
	AttachSkLookup
	AttachXDP
	AttachSkSKBVerdict
	AttachSkReuseportSelect
	AttachSkReuseportSelectOrMigrate
	AttachPerfEvent
	AttachTraceKprobeMulti
	AttachLSMCgroup
	AttachStructOps
	AttachNetfilter
	AttachTCXIngress
	AttachTCXEgress
	AttachTraceUprobeMulti
	AttachCgroupUnixConnect
	AttachCgroupUnixSendmsg
	AttachCgroupUnixRecvmsg
	AttachCgroupUnixGetpeername
	AttachCgroupUnixGetsockname
	AttachNetkitPrimary
	AttachNetkitPeer
	AttachTraceKprobeSession
	AttachTraceUprobeSession
	AttachTraceFsession
	AttachTraceFentryMulti
	AttachTraceFexitMulti
	AttachTraceFsessionMulti
)

var attachTypes = [...]string{
	AttachCgroupInetIngress:          "cgroup_inet_ingress",
	AttachCgroupInetEgress:           "cgroup_inet_egress",
	AttachCgroupInetSockCreate:       "cgroup_inet_sock_create",
	AttachCgroupSockOps:              "cgroup_sock_ops",
	AttachSkSKBStreamParser:          "sk_skb_stream_parser",
	AttachSkSKBStreamVerdict:         "sk_skb_stream_verdict",
	AttachCgroupDevice:               "cgroup_device",
	AttachSkMsgVerdict:               "sk_msg_verdict",
	AttachCgroupInet4Bind:            "cgroup_inet4_bind",
	AttachCgroupInet6Bind:            "cgroup_inet6_bind",
	AttachCgroupInet4Connect:         "cgroup_inet4_connect",
	AttachCgroupInet6Connect:         "cgroup_inet6_connect",
	AttachCgroupInet4PostBind:        "cgroup_inet4_post_bind",
	AttachCgroupInet6PostBind:        "cgroup_inet6_post_bind",
	AttachCgroupUDP4Sendmsg:          "cgroup_udp4_sendmsg",
	AttachCgroupUDP6Sendmsg:          "cgroup_udp6_sendmsg",
	AttachLircMode2:                  "lirc_mode2",
	AttachFlowDissector:              "flow_dissector",
	AttachCgroupSysctl:               "cgroup_sysctl",
	AttachCgroupUDP4Recvmsg:          "cgroup_udp4_recvmsg",
	AttachCgroupUDP6Recvmsg:          "cgroup_udp6_recvmsg",
	AttachCgroupGetsockopt:           "cgroup_getsockopt",
	AttachCgroupSetsockopt:           "cgroup_setsockopt",
	AttachTraceRawTP:                 "trace_raw_tp",
	AttachTraceFentry:                "trace_fentry",
	AttachTraceFexit:                 "trace_fexit",
	AttachModifyReturn:               "modify_return",
	AttachLSMMac:                     "lsm_mac",
	AttachTraceIter:                  "trace_iter",
	AttachCgroupInet4Getpeername:     "cgroup_inet4_getpeername",
	AttachCgroupInet6Getpeername:     "cgroup_inet6_getpeername",
	AttachCgroupInet4Getsockname:     "cgroup_inet4_getsockname",
	AttachCgroupInet6Getsockname:     "cgroup_inet6_getsockname",
	AttachXDPDevmap:                  "xdp_devmap",
	AttachCgroupInetSockRelease:      "cgroup_inet_sock_release",
	AttachXDPCpumap:                  "xdp_cpumap",
	AttachSkLookup:                   "sk_lookup",
	AttachXDP:                        "xdp",
	AttachSkSKBVerdict:               "sk_skb_verdict",
	AttachSkReuseportSelect:          "sk_reuseport_select",
	AttachSkReuseportSelectOrMigrate: "sk_reuseport_select_or_migrate",
	AttachPerfEvent:                  "perf_event",
	AttachTraceKprobeMulti:           "trace_kprobe_multi",
	AttachLSMCgroup:                  "lsm_cgroup",
	AttachStructOps:                  "struct_ops",
	AttachNetfilter:                  "netfilter",
	AttachTCXIngress:                 "tcx_ingress",
	AttachTCXEgress:                  "tcx_egress",
	AttachTraceUprobeMulti:           "trace_uprobe_multi",
	AttachCgroupUnixConnect:          "cgroup_unix_connect",
	AttachCgroupUnixSendmsg:          "cgroup_unix_sendmsg",
	AttachCgroupUnixRecvmsg:          "cgroup_unix_recvmsg",
	AttachCgroupUnixGetpeername:      "cgroup_unix_getpeername",
	AttachCgroupUnixGetsockname:      "cgroup_unix_getsockname",
	AttachNetkitPrimary:              "netkit_primary",
	AttachNetkitPeer:                 "netkit_peer",
	AttachTraceKprobeSession:         "trace_kprobe_session",
	AttachTraceUprobeSession:         "trace_uprobe_session",
	AttachTraceFsession:              "trace_fsession",
	AttachTraceFentryMulti:           "trace_fentry_multi",
	AttachTraceFexitMulti:            "trace_fexit_multi",
	AttachTraceFsessionMulti:         "trace_fsession_multi",
}

// Link types: enum bpf_link_type.
const (
	LinkTypeUnspec = iota
	LinkTypeRawTracepoint
	LinkTypeTracing
	LinkTypeCgroup
	LinkTypeIter
	LinkTypeNetns
	LinkTypeXDP
	LinkTypePerfEvent
	LinkTypeKprobeMulti
	LinkTypeStructOps
	LinkTypeNetfilter
	LinkTypeTCX
	LinkTypeUprobeMulti
	LinkTypeNetkit
	LinkTypeSockmap
	LinkTypeTracingMulti
)

var linkTypes = [...]string{
	LinkTypeUnspec:        "unspec",
	LinkTypeRawTracepoint: "raw_tracepoint",
	LinkTypeTracing:       "tracing",
	LinkTypeCgroup:        "cgroup",
	LinkTypeIter:          "iter",
	LinkTypeNetns:         "netns",
	LinkTypeXDP:           "xdp",
	LinkTypePerfEvent:     "perf_event",
	LinkTypeKprobeMulti:   "kprobe_multi",
	LinkTypeStructOps:     "struct_ops",
	LinkTypeNetfilter:     "netfilter",
	LinkTypeTCX:           "tcx",
	LinkTypeUprobeMulti:   "uprobe_multi",
	LinkTypeNetkit:        "netkit",
	LinkTypeSockmap:       "sockmap",
	LinkTypeTracingMulti:  "tracing_multi",
}

// How many types are known. Types have the numbers from 1 on.
const (
	ProgTypes = len(progTypes) - 1
	MapTypes  = len(mapTypes) - 1
)

// ProgTypeName names a program type as the kernel's enum does, in lower case and without its
// prefix: "socket_filter".
func ProgTypeName(n uint32) string { return name(progTypes[:], n) }

// MapTypeName names a map type: "hash".
func MapTypeName(n uint32) string { return name(mapTypes[:], n) }

// AttachTypeName names an attach type: "cgroup_inet_ingress".
func AttachTypeName(n uint32) string { return name(attachTypes[:], n) }

// LinkTypeName names a link type: "tracing".
func LinkTypeName(n uint32) string { return name(linkTypes[:], n) }

func name(table []string, n uint32) string {
	if n < uint32(len(table)) {
		return table[n]
	}
	return fmt.Sprintf("type_%d", n)
}

// Types of perf events: enum perf_type_id. Probes have dynamic types, from PerfTypeMax on.
const (
	PerfTypeHardware = iota
	PerfTypeSoftware
	PerfTypeTracepoint
	PerfTypeHWCache
	PerfTypeRaw
	PerfTypeBreakpoint
	PerfTypeMax
)

var perfTypes = [...]string{
	PerfTypeHardware: "hardware", PerfTypeSoftware: "software", PerfTypeTracepoint: "tracepoint",
	PerfTypeHWCache: "hw_cache", PerfTypeRaw: "raw", PerfTypeBreakpoint: "breakpoint",
}

// PerfTypeName names a type of perf events: "software".
func PerfTypeName(n uint32) string { return name(perfTypes[:], n) }
