// SPDX-License-Identifier: Apache-2.0

package node

import "fmt"

// capabilities by number (include/uapi/linux/capability.h); 7.2 has no more.
var capabilities = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
	"CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
	"CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
	"CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
	"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
	"CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// Capability names one capability.
func Capability(c int) string {
	if c >= 0 && c < len(capabilities) {
		return capabilities[c]
	}
	return fmt.Sprintf("CAP_%d", c)
}

// Capabilities names the capabilities of a mask such as CapEff of /proc/PID/status, in the order of their numbers. It is never
// nil.
func Capabilities(mask uint64) []string {
	names := []string{}
	for c := range 64 {
		if mask>>c&1 == 1 {
			names = append(names, Capability(c))
		}
	}
	return names
}
