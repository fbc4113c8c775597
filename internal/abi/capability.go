// SPDX-License-Identifier: Apache-2.0

package abi

import "fmt"

// Capabilities by number (include/uapi/linux/capability.h); 7.2 has no more. CapSet makes a set of
// them.
const (
	CapChown = iota
	CapDACOverride
	CapDACReadSearch
	CapFowner
	CapFsetID
	CapKill
	CapSetGID
	CapSetUID
	CapSetPCap
	CapLinuxImmutable
	CapNetBindService
	CapNetBroadcast
	CapNetAdmin
	CapNetRaw
	CapIPCLock
	CapIPCOwner
	CapSysModule
	CapSysRawio
	CapSysChroot
	CapSysPtrace
	CapSysPacct
	CapSysAdmin
	CapSysBoot
	CapSysNice
	CapSysResource
	CapSysTime
	CapSysTTYConfig
	CapMknod
	CapLease
	CapAuditWrite
	CapAuditControl
	CapSetFCap
	CapMACOverride
	CapMACAdmin
	CapSyslog
	CapWakeAlarm
	CapBlockSuspend
	CapAuditRead
	CapPerfmon
	CapBPF
	CapCheckpointRestore
)

var capabilities = [...]string{
	CapChown:             "CAP_CHOWN",
	CapDACOverride:       "CAP_DAC_OVERRIDE",
	CapDACReadSearch:     "CAP_DAC_READ_SEARCH",
	CapFowner:            "CAP_FOWNER",
	CapFsetID:            "CAP_FSETID",
	CapKill:              "CAP_KILL",
	CapSetGID:            "CAP_SETGID",
	CapSetUID:            "CAP_SETUID",
	CapSetPCap:           "CAP_SETPCAP",
	CapLinuxImmutable:    "CAP_LINUX_IMMUTABLE",
	CapNetBindService:    "CAP_NET_BIND_SERVICE",
	CapNetBroadcast:      "CAP_NET_BROADCAST",
	CapNetAdmin:          "CAP_NET_ADMIN",
	CapNetRaw:            "CAP_NET_RAW",
	CapIPCLock:           "CAP_IPC_LOCK",
	CapIPCOwner:          "CAP_IPC_OWNER",
	CapSysModule:         "CAP_SYS_MODULE",
	CapSysRawio:          "CAP_SYS_RAWIO",
	CapSysChroot:         "CAP_SYS_CHROOT",
	CapSysPtrace:         "CAP_SYS_PTRACE",
	CapSysPacct:          "CAP_SYS_PACCT",
	CapSysAdmin:          "CAP_SYS_ADMIN",
	CapSysBoot:           "CAP_SYS_BOOT",
	CapSysNice:           "CAP_SYS_NICE",
	CapSysResource:       "CAP_SYS_RESOURCE",
	CapSysTime:           "CAP_SYS_TIME",
	CapSysTTYConfig:      "CAP_SYS_TTY_CONFIG",
	CapMknod:             "CAP_MKNOD",
	CapLease:             "CAP_LEASE",
	CapAuditWrite:        "CAP_AUDIT_WRITE",
	CapAuditControl:      "CAP_AUDIT_CONTROL",
	CapSetFCap:           "CAP_SETFCAP",
	CapMACOverride:       "CAP_MAC_OVERRIDE",
	CapMACAdmin:          "CAP_MAC_ADMIN",
	CapSyslog:            "CAP_SYSLOG",
	CapWakeAlarm:         "CAP_WAKE_ALARM",
	CapBlockSuspend:      "CAP_BLOCK_SUSPEND",
	CapAuditRead:         "CAP_AUDIT_READ",
	CapPerfmon:           "CAP_PERFMON",
	CapBPF:               "CAP_BPF",
	CapCheckpointRestore: "CAP_CHECKPOINT_RESTORE",
}

// CapName names a capability: "CAP_BPF".
func CapName(c int) string {
	if c >= 0 && c < len(capabilities) {
		return capabilities[c]
	}
	return fmt.Sprintf("CAP_%d", c)
}

// CapSet is a set of capabilities, such as CapEff of /proc/PID/status.
func CapSet(list ...int) (set uint64) {
	for _, c := range list {
		set |= 1 << c
	}
	return set
}

// HasCap reports whether a capability is in a set.
func HasCap(set uint64, c int) bool { return set>>c&1 == 1 }
