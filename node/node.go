// SPDX-License-Identifier: Apache-2.0

// Package node describes a kernel and host as far as they decide the fate of BPF loads.
package node

// Profile is what is known of one node. A nil pointer, or an empty string, means that it could not be read; Unknown says why.
type Profile struct {
	Release string `json:"release"`          // uname -r
	Version string `json:"version"`          // uname -v
	Machine string `json:"machine"`          // uname -m
	Distro  string `json:"distro,omitempty"` // PRETTY_NAME of /etc/os-release

	// Config holds the kernel's configuration options that matter here ("CONFIG_BPF_JIT_ALWAYS_ON": "y"). An option
	// that is known to be off is "n". ConfigSource is where it was read: a path, or "kallsyms" when derived.
	Config       map[string]string `json:"config,omitempty"`
	ConfigSource string            `json:"config_source,omitempty"`

	// Sysctls by name ("net.core.bpf_jit_harden": "2").
	Sysctls map[string]string `json:"sysctls,omitempty"`

	Lockdown  string   `json:"lockdown,omitempty"` // none, integrity, confidentiality
	LSMs      []string `json:"lsms,omitempty"`
	BTF       bool     `json:"btf"`                      // /sys/kernel/btf/vmlinux
	CgroupV2  bool     `json:"cgroup_v2"`                // mounted anywhere
	CgroupV1  bool     `json:"cgroup_v1"`                // the memory controller is on v1
	JITUsed   *uint64  `json:"jit_used_bytes,omitempty"` // /proc/vmallocinfo: bpf_jit allocations
	Container string   `json:"container,omitempty"`      // why we think we run in one

	Unknown map[string]string `json:"unknown,omitempty"` // what could not be read, and why
}

// Sysctl returns the value of a sysctl as a number.
func (p *Profile) Sysctl(name string) (int64, bool) {
	return parseInt(p.Sysctls[name])
}

// JITAlwaysOn reports whether the kernel has no interpreter; known is false when that could not be read.
func (p *Profile) JITAlwaysOn() (on, known bool) {
	v, ok := p.Config["CONFIG_BPF_JIT_ALWAYS_ON"]
	return v == "y", ok
}
