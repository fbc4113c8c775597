// SPDX-License-Identifier: Apache-2.0

package reading

import (
	"testing"

	"github.com/go-quicktest/qt"
)

func TestNodeOf(t *testing.T) {
	n := nodeOf(Unwrap([]string{
		"$ zcat /proc/config.gz | grep BPF",
		"CONFIG_BPF_SYSCALL=y",
		"# CONFIG_BPF_EVENTS is not set",
		"Make sure that CONFIG_DEBUG_INFO_BTF=y is set.",
		"$ cat /proc/sys/kernel/perf_event_paranoid",
		"3",
		"kernel.unprivileged_bpf_disabled = 2",
		"try sysctl -w net.core.bpf_jit_harden=0",
		"$ cat /sys/kernel/security/lsm",
		"lockdown,capability,yama,apparmor",
		"$ cat /sys/kernel/security/lockdown",
		"none [integrity] confidentiality",
		"$ getenforce",
		"Enforcing",
		"sysfs on /sys/fs/bpf type sysfs (rw,relatime)",
		"none on /run/agent/bpffs type bpf (rw)",
		"cgroup2 on /sys/fs/cgroup type cgroup2 (rw)",
		"cat /sys/devices/system/cpu/possible",
		"0-319",
		"$ ulimit -l",
		"64",
		"SEC(\"lsm/file_open\")",
	}))
	qt.Check(t, qt.DeepEquals(n.Config, map[string]string{"CONFIG_BPF_SYSCALL": "y", "CONFIG_BPF_EVENTS": "n"}))
	qt.Check(t, qt.DeepEquals(n.Sysctls, map[string]string{"kernel.perf_event_paranoid": "3", "kernel.unprivileged_bpf_disabled": "2"}))
	qt.Check(t, qt.DeepEquals(n.LSMs, []string{"lockdown", "capability", "yama", "apparmor", "selinux"}))
	qt.Check(t, qt.Equals(n.Lockdown, "integrity"))
	qt.Check(t, qt.IsTrue(n.Enforcing && n.NoBpffs && n.CgroupV2 && n.LSMPrograms && !n.CgroupV1))
	qt.Check(t, qt.Equals(n.Bpffs, "/run/agent/bpffs"))
	qt.Check(t, qt.Equals(n.CPUs, 320))
	qt.Check(t, qt.Equals(n.Memlock, uint64(64<<10)))
}

// What people and advice say of other nodes is no fact of this one.
func TestNodeOfAdvice(t *testing.T) {
	n := nodeOf(Unwrap([]string{
		"requires CONFIG_BPF_LSM=y in the kernel",
		"if kernel.perf_event_paranoid is 3, the call fails",
		"echo 1 > /proc/sys/net/core/bpf_jit_enable",
		"it works in permissive mode, and SELinux is not enforcing anything here",
		"mount -t bpf bpf /sys/fs/bpf",
	}))
	qt.Check(t, qt.HasLen(n.Config, 0))
	qt.Check(t, qt.HasLen(n.Sysctls, 0))
	qt.Check(t, qt.IsFalse(n.Enforcing || n.NoBpffs))
	qt.Check(t, qt.Equals(n.Bpffs, ""))
}

// An error that stands alone is read where the text is about BPF, and not elsewhere.
func TestLastResort(t *testing.T) {
	none := func(string) (Word, bool) { return Word{}, false }
	about := []string{"Writing to xsk_bar (BPF_MAP_TYPE_XSKMAP) from Rust:", "", "Error: System(88)"}
	got := Read(about, none)
	qt.Assert(t, qt.HasLen(got.Failures, 1))
	qt.Check(t, qt.Equals(got.Failures[0].Errno.Number, 88))
	qt.Check(t, qt.Equals(got.Failures[0].What(), "map update"))
	qt.Check(t, qt.HasLen(Read([]string{"A database does not start:", "", "Error: System(88)"}, none).Failures, 0))
	qt.Check(t, qt.HasLen(Read([]string{"An eBPF agent:", "Error: No such file or directory (os error 2)"}, none).Failures, 0))
}
