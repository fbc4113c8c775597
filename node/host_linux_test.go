// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/go-quicktest/qt"
)

func file(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s), Mode: 0o444} }

func zipped(s string) *fstest.MapFile {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write([]byte(s))
	w.Close()
	return file(b.String())
}

// A hybrid cgroup host with securityfs, as Debian sets it up.
func machine() fstest.MapFS {
	return fstest.MapFS{
		"proc/sys/kernel/osrelease":                 file("6.1.0-49-cloud-amd64\n"),
		"proc/sys/kernel/version":                   file("#1 SMP Debian 6.1.192-2\n"),
		"proc/sys/kernel/unprivileged_bpf_disabled": file("2\n"),
		"proc/sys/net/core/bpf_jit_harden":          file("2\n"),
		"proc/self/mounts": file("cgroup /sys/fs/cgroup/memory cgroup rw,nosuid,memory 0 0\n" +
			"cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"),
		"proc/vmallocinfo": file("0x1-0x2   20480 kernel_clone+0x94/0x3e0 pages=4 vmalloc\n" +
			"0x2-0x3 2101248 bpf_prog_pack_alloc+0x28b/0x3a0 pages=512 vmalloc\n" +
			"0x4-0x5    8192 bpf_jit_alloc_exec+0x10/0x20 pages=1 vmalloc\n"),
		"etc/os-release":               file("NAME=\"Debian\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
		"sys/kernel/security/lockdown": file("none [integrity] confidentiality\n"),
		"sys/kernel/security/lsm":      file("lockdown,capability,yama,bpf"),
		"sys/kernel/btf/vmlinux":       file(""),
		"boot/config-6.1.0-49-cloud-amd64": file("CONFIG_BPF=y\nCONFIG_BPF_JIT=y\nCONFIG_NET_CLS_BPF=m\n" +
			"# CONFIG_BPF_JIT_ALWAYS_ON is not set\n"),
	}
}

func TestRead(t *testing.T) {
	p := read(machine(), "x86_64", nil)
	qt.Assert(t, qt.Equals(p.Release, "6.1.0-49-cloud-amd64"))
	qt.Assert(t, qt.Equals(p.Version, "#1 SMP Debian 6.1.192-2"))
	qt.Assert(t, qt.Equals(p.Machine, "x86_64"))
	qt.Assert(t, qt.Equals(p.Distro, "Debian GNU/Linux 12 (bookworm)"))
	qt.Assert(t, qt.Equals(p.Lockdown, "integrity"))
	qt.Assert(t, qt.DeepEquals(p.LSMs, []string{"lockdown", "capability", "yama", "bpf"}))
	qt.Assert(t, qt.IsTrue(p.BTF))
	qt.Assert(t, qt.IsTrue(p.CgroupV1))
	qt.Assert(t, qt.IsTrue(p.CgroupV2))
	qt.Assert(t, qt.Equals(p.Container, ""))
	qt.Assert(t, qt.Equals(p.Sysctls["net.core.bpf_jit_harden"], "2"))
	qt.Assert(t, qt.Equals(p.ConfigSource, "/boot/config-6.1.0-49-cloud-amd64"))
	qt.Assert(t, qt.Equals(p.Config["CONFIG_NET_CLS_BPF"], "m"))
	// Not mentioned at all, as when a dependency is off.
	qt.Assert(t, qt.Equals(p.Config["CONFIG_KPROBES"], "n"))
	on, known := p.JITAlwaysOn()
	qt.Assert(t, qt.IsFalse(on))
	qt.Assert(t, qt.IsTrue(known))
	// 2 MiB and one page: each area ends in a guard page.
	qt.Assert(t, qt.Equals(*p.JITUsed, 2<<20+4096))
	qt.Assert(t, qt.StringContains(p.Unknown["net.core.bpf_jit_limit"], "/proc/sys/net/core/bpf_jit_limit"))
}

func TestJITAlwaysOn(t *testing.T) {
	const head = "0000000000000000 T _text\n"
	tests := []struct {
		name        string
		config      *fstest.MapFile
		kallsyms    string
		on, known   bool
		source, why string
	}{
		{"running kernel", zipped("CONFIG_BPF_JIT=y\nCONFIG_BPF_JIT_ALWAYS_ON=y\n"), head, true, true, "/proc/config.gz", ""},
		{"corrupt archive", file("not gzip"), head + "0 t __bpf_prog_ret0_warn\n", true, true, "kallsyms", "unpack /proc/config.gz"},
		{"empty archive", zipped(""), head, false, false, "", "no option in it"},
		{"no interpreter", nil, head + "0 t __bpf_prog_ret0_warn\n", true, true, "kallsyms", "none of"},
		{"interpreter", nil, head + "0 t __bpf_prog_ret0_warn\n0 t ___bpf_prog_run\n", false, true, "kallsyms", "none of"},
		{"neither", nil, head, false, false, "", "none of"},
		{"other symbols that look alike", nil, head + "0 t __pfx___bpf_prog_ret0_warn\n", false, false, "", "none of"},
		{"no symbols", nil, "", false, false, "", "none of"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := machine()
			delete(m, "boot/config-6.1.0-49-cloud-amd64")
			if tt.config != nil {
				m["proc/config.gz"] = tt.config
			}
			m["proc/kallsyms"] = file(tt.kallsyms)
			p := read(m, "", nil)
			on, known := p.JITAlwaysOn()
			qt.Assert(t, qt.Equals(on, tt.on))
			qt.Assert(t, qt.Equals(known, tt.known))
			qt.Assert(t, qt.Equals(p.ConfigSource, tt.source))
			if tt.why == "" {
				qt.Assert(t, qt.Equals(p.Unknown["config"], ""))
			} else {
				qt.Assert(t, qt.StringContains(p.Unknown["config"], tt.why))
			}
		})
	}
}

func TestProcess(t *testing.T) {
	const status = "Name:\tagent\nCapEff:\t%s\nSeccomp:\t%s\n"
	const limits = "Limit                     Soft Limit           Hard Limit           Units     \n" +
		"Max locked memory         65536                65536                bytes     \n"
	m := machine()
	m["proc/self/status"] = file(fmt.Sprintf(status, "000000c000201000", "2"))
	m["proc/self/uid_map"] = file("         0          0 4294967295\n")
	m["proc/self/limits"] = file(limits)
	p := read(m, "", nil).Process
	// Bits 12, 21, 38 and 39.
	qt.Assert(t, qt.DeepEquals(p, &Process{Capabilities: []string{"CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_PERFMON", "CAP_BPF"},
		InitialUser: true, Seccomp: "filter", Memlock: amount(65536)}))
	qt.Check(t, qt.IsTrue(p.Has("CAP_BPF")))

	// Another user namespace: the same capabilities, and they do not count.
	m["proc/self/uid_map"] = file("         0     100000      65536\n")
	m["proc/self/limits"] = file("Max locked memory         unlimited            unlimited            bytes     \n")
	p = read(m, "", nil).Process
	qt.Check(t, qt.IsFalse(p.InitialUser))
	qt.Check(t, qt.IsFalse(p.Has("CAP_BPF")))
	qt.Check(t, qt.IsNil(p.Memlock))

	// CAP_SYS_ADMIN stands for the finer ones; a kernel without user namespaces or seccomp.
	m["proc/self/status"] = file("CapEff:\t0000000000200000\n")
	delete(m, "proc/self/uid_map")
	p = read(m, "", nil).Process
	qt.Check(t, qt.IsTrue(p.Has("CAP_PERFMON")))
	qt.Check(t, qt.Equals(p.Seccomp, "none"))

	m["proc/self/status"] = file("CapEff:\tzz\n")
	broken := read(m, "", nil)
	qt.Check(t, qt.IsNil(broken.Process))
	qt.Check(t, qt.StringContains(broken.Unknown["process"], "no capabilities"))
	qt.Check(t, qt.DeepEquals(Capabilities(0), []string{}))
	qt.Check(t, qt.DeepEquals(Capabilities(1<<63|1), []string{"CAP_CHOWN", "CAP_63"}))
}

func TestUnreadable(t *testing.T) {
	// Nothing is there at all: every gap is named and nothing is claimed.
	p := read(fstest.MapFS{}, "", nil)
	for _, what := range []string{"release", "config", "lockdown", "lsms", "cgroups", "jit_used_bytes", "net.core.bpf_jit_harden"} {
		qt.Check(t, qt.Not(qt.Equals(p.Unknown[what], "")), qt.Commentf("%s", what))
	}
	qt.Assert(t, qt.HasLen(p.Sysctls, 0))
	qt.Assert(t, qt.IsNil(p.JITUsed))

	m := machine()
	delete(m, "sys/kernel/security/lockdown")
	delete(m, "sys/kernel/security/lsm")
	m["sys/kernel/security"] = &fstest.MapFile{Mode: fs.ModeDir | 0o755}
	p = read(m, "", nil)
	// The configuration says that the kernel has no lockdown; the list of LSMs stays unknown.
	qt.Assert(t, qt.Equals(p.Lockdown, "none"))
	qt.Assert(t, qt.StringContains(p.Unknown["lsms"], "not mounted"))
}

func TestHostileFiles(t *testing.T) {
	m := machine()
	m["sys/kernel/security/lockdown"] = file("[")
	m["proc/sys/kernel/osrelease"] = file("../../../etc/passwd\n")
	m["proc/vmallocinfo"] = file("0-1 -5 bpf_jit_alloc\n0-1 99999999999999999999999 bpf_jit_alloc\n0-1 1 bpf_jit_alloc\n" + strings.Repeat("x", 1<<20))
	m["proc/self/mounts"] = file("\n \nx\n")
	p := read(m, "", nil)
	qt.Assert(t, qt.Equals(p.Lockdown, ""))
	qt.Assert(t, qt.Equals(p.ConfigSource, ""))
	qt.Assert(t, qt.IsNil(p.JITUsed))
}

func TestContainer(t *testing.T) {
	m := machine()
	m[".dockerenv"] = file("")
	qt.Assert(t, qt.StringContains(read(m, "", nil).Container, "docker"))
	m = machine()
	m["proc/self/ns/pid"] = &fstest.MapFile{Data: []byte("pid:[4026532281]"), Mode: fs.ModeSymlink | 0o777}
	qt.Assert(t, qt.StringContains(read(m, "", nil).Container, "pid namespace"))
}

func TestHost(t *testing.T) {
	p := Host()
	qt.Assert(t, qt.Not(qt.Equals(p.Release, "")))
	qt.Assert(t, qt.Not(qt.Equals(p.Machine, "")))
	if os.Geteuid() == 0 {
		_, ok := p.Sysctl("kernel.unprivileged_bpf_disabled")
		qt.Assert(t, qt.IsTrue(ok))
	}
}
