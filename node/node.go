// SPDX-License-Identifier: Apache-2.0

// Package node describes a kernel and host as far as they decide the fate of BPF loads.
package node

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
)

// Profile is what is known of one node. A nil pointer, or an empty string, means that it could not
// be read; Unknown says why.
type Profile struct {
	Release string `json:"release"`          // uname -r
	Version string `json:"version"`          // uname -v
	Machine string `json:"machine"`          // uname -m
	Distro  string `json:"distro,omitempty"` // PRETTY_NAME of /etc/os-release

	// Config holds the kernel's configuration options that matter here ("CONFIG_BPF_JIT_ALWAYS_ON":
	// "y"). An option that is known to be off is "n". ConfigSource is where it was read: a path, or
	// "kallsyms" when derived.
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

	// Process is the process that read the profile: loaders that it starts inherit all of this.
	Process *Process `json:"process,omitempty"`
	// Features were found by trying them. Nil: nobody tried, as in the header of a trace.
	Features *Features `json:"features,omitempty"`
	// Blinding says how the kernel blinds constants, nil when only its release tells.
	Blinding *Blinding `json:"blinding,omitempty"`
	// Interpreter says what the kernel interprets, nil when that is not known.
	Interpreter *Interpreter `json:"interpreter,omitempty"`

	// Proven is what was tried on this kernel ('bpfwhy doctor --prove'). It beats the table of
	// releases.
	Proven map[Behaviour]Proof `json:"proven,omitempty"`

	Unknown map[string]string `json:"unknown,omitempty"` // what could not be read, and why
}

// Process is what a process may do and use: the parts that decide whether its loads succeed.
type Process struct {
	Capabilities []string `json:"capabilities"` // effective, by name; in its own user namespace
	InitialUser  bool     `json:"initial_user_ns"`
	Seccomp      string   `json:"seccomp"` // none, strict, filter
	// Memlock is RLIMIT_MEMLOCK in bytes, which decides before 5.11. Nil: unlimited.
	Memlock *uint64 `json:"memlock_bytes,omitempty"`
}

// Has reports whether the process holds a capability where bpf(2) looks for it, by name
// ("CAP_BPF"); CAP_SYS_ADMIN stands for the finer ones.
func (p *Process) Has(name string) bool {
	return p.InitialUser && (slices.Contains(p.Capabilities, name) || slices.Contains(p.Capabilities, "CAP_SYS_ADMIN"))
}

// Features are what programs can be made of. A type that could not be tried is in no map, and
// Unknown says why.
type Features struct {
	Programs map[string]bool `json:"program_types"` // "socket_filter"
	Maps     map[string]bool `json:"map_types"`     // "hash"
	// Helpers are those that a program of a type may call, by their full names, sorted.
	Helpers map[string][]string `json:"helpers"`
	// Instructions that not every kernel takes: v2, v3, v4 (of clang's -mcpu), gotol (of v4,
	// backported alone by some), bounded_loops, large_programs (more than 4096 instructions).
	Instructions map[string]bool `json:"instructions"`
}

// Blinding is how a kernel blinds constants.
type Blinding struct {
	// WholeProgram: all functions are blinded at once (7.1).
	WholeProgram bool   `json:"whole_program"`
	From         string `json:"from"` // what told it
}

// Interpreter is how a kernel guards its interpreter.
type Interpreter struct {
	// Refuses: a program with what only compiled code can run is refused when it cannot be
	// compiled. Elsewhere it is loaded, and may crash the machine when it runs. (f1c27922576e: 7.3,
	// and 7.2.13.)
	Refuses bool   `json:"refuses_jit_only"`
	From    string `json:"from"` // what told it
}

// Proof is what a try has shown of one behaviour.
type Proof struct {
	Does bool   `json:"does"`
	Seen string `json:"seen"` // what was tried, and what the kernel did
}

// Schema names the JSON form of Document. A change that breaks a reader changes the number.
const Schema = "bpfwhy.node/v1"

// Document is a profile as a file of its own (docs/schema/node-v1.schema.json).
type Document struct {
	Schema string `json:"schema"`
	Profile
}

// The longest file that Decode reads, many times what a kernel can fill.
const maxDocument = 8 << 20

// Decode reads a Document and returns its profile. It trusts nothing in it.
func Decode(r io.Reader) (*Profile, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxDocument+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read profile: %w", err)
	case len(b) > maxDocument:
		return nil, fmt.Errorf("read profile: it is longer than %d MiB", maxDocument>>20)
	}
	var d struct {
		Document
		Node *Document `json:"node"` // of a record of 'bpfwhy doctor --prove'
	}
	if err := json.Unmarshal(b, &d); err != nil {
		return nil, fmt.Errorf("read profile: not a profile of 'bpfwhy node --json': %w", err)
	}
	if d.Schema == "bpfwhy.prove/v1" && d.Node != nil {
		d.Document = *d.Node
	}
	if d.Schema != Schema {
		return nil, fmt.Errorf("read profile: schema is %.40q, this version reads %q", d.Schema, Schema)
	}
	return &d.Profile, nil
}

// Sysctl returns the value of a sysctl as a number.
func (p *Profile) Sysctl(name string) (int64, bool) {
	return parseInt(p.Sysctls[name])
}

// JITAlwaysOn reports whether the kernel has no interpreter; known is false when that could not be
// read.
func (p *Profile) JITAlwaysOn() (on, known bool) {
	v, ok := p.Config["CONFIG_BPF_JIT_ALWAYS_ON"]
	return v == "y", ok
}

// RefusesJITOnly reports whether the kernel keeps what only compiled code can run from its
// interpreter; known is false where neither its types nor its release tell.
func (p *Profile) RefusesJITOnly() (refuses, known bool) {
	a := p.Does(RefusesJITOnly)
	return a == Yes, a != Unknown
}
