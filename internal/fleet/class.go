// SPDX-License-Identifier: Apache-2.0

// Package fleet is what is known of many nodes: of which class each is, what fails on it, and what
// separates the nodes on which a program fails from the others. It is pure.
package fleet

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"

	"github.com/bpfwhy/bpfwhy/node"
)

// A Class is what decides loads on a node. Nodes of one class treat a program alike, and a fleet
// has few classes: a profile of each node would be large, and nearly the same 5,000 times. So it
// holds nothing that differs between nodes of one make: no process, no memory in use, no name.
type Class struct {
	Release     string                  `json:"release"`
	Version     string                  `json:"version"`
	Machine     string                  `json:"machine"`
	Distro      string                  `json:"distro,omitempty"`
	Config      map[string]string       `json:"config,omitempty"`
	Sysctls     map[string]string       `json:"sysctls,omitempty"`
	Lockdown    string                  `json:"lockdown,omitempty"`
	LSMs        []string                `json:"lsms,omitempty"`
	BTF         bool                    `json:"btf"`
	CgroupV2    bool                    `json:"cgroup_v2"`
	CgroupV1    bool                    `json:"cgroup_v1"`
	Features    *Features               `json:"features,omitempty"`
	Blinding    *node.Blinding          `json:"blinding,omitempty"`
	Interpreter *node.Interpreter       `json:"interpreter,omitempty"`
	Proven      map[node.Behaviour]bool `json:"proven,omitempty"`
	// Unknown are the names of what could not be read. Why is in no class: the words differ.
	Unknown []string `json:"unknown,omitempty"`
}

// Features are those of a profile, with the helpers as one list and a bitmap for each program type:
// a tenth of the size.
type Features struct {
	Programs     map[string]bool `json:"program_types"`
	Maps         map[string]bool `json:"map_types"`
	Instructions map[string]bool `json:"instructions"`
	Helpers      []string        `json:"helpers"`
	// HelpersOf has bit i of byte i/8 set, the lowest first, where a type may call Helpers[i]; in
	// hexadecimal.
	HelpersOf map[string]string `json:"helpers_of"`
}

// ClassOf returns the class of a node.
func ClassOf(p *node.Profile) *Class {
	c := &Class{
		Release: p.Release, Version: p.Version, Machine: p.Machine, Distro: p.Distro,
		Config: p.Config, Sysctls: p.Sysctls, Lockdown: p.Lockdown, LSMs: p.LSMs,
		BTF: p.BTF, CgroupV2: p.CgroupV2, CgroupV1: p.CgroupV1,
		Blinding: p.Blinding, Interpreter: p.Interpreter,
		Unknown: slices.Sorted(maps.Keys(p.Unknown)),
	}
	if p.Features != nil {
		c.Features = packed(p.Features)
	}
	for b, proof := range p.Proven {
		if c.Proven == nil {
			c.Proven = map[node.Behaviour]bool{}
		}
		c.Proven[b] = proof.Does
	}
	return c
}

// ID names a class by its contents: "c-" and 16 hexadecimal digits.
func (c *Class) ID() string {
	b, err := json.Marshal(c)
	if err != nil {
		panic(err) // strings, numbers and maps of them
	}
	id, err := ClassID(b)
	if err != nil {
		panic(err) // it was written just now
	}
	return id
}

// ClassID is the name of a class that was written as JSON, by whichever version of bpfwhy: the keys
// are sorted first, and those that this version does not know count too.
func ClassID(written []byte) (string, error) {
	var v any
	d := json.NewDecoder(bytes.NewReader(written))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return "", err
	}
	canonical, err := json.Marshal(v) // sorts the keys
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(canonical)
	return "c-" + hex.EncodeToString(sum[:8]), nil
}

// Profile is that of a node of the class.
func (c *Class) Profile() *node.Profile {
	p := &node.Profile{
		Release: c.Release, Version: c.Version, Machine: c.Machine, Distro: c.Distro,
		Config: c.Config, Sysctls: c.Sysctls, Lockdown: c.Lockdown, LSMs: c.LSMs,
		BTF: c.BTF, CgroupV2: c.CgroupV2, CgroupV1: c.CgroupV1,
		Blinding: c.Blinding, Interpreter: c.Interpreter,
	}
	if c.Features != nil {
		p.Features = c.Features.unpacked()
	}
	for b, does := range c.Proven {
		if p.Proven == nil {
			p.Proven = map[node.Behaviour]node.Proof{}
		}
		p.Proven[b] = node.Proof{Does: does, Seen: "proven on a node of class " + c.ID()}
	}
	for _, name := range c.Unknown {
		if p.Unknown == nil {
			p.Unknown = map[string]string{}
		}
		p.Unknown[name] = "not read on the nodes of this class"
	}
	return p
}

func packed(f *node.Features) *Features {
	out := &Features{Programs: f.Programs, Maps: f.Maps, Instructions: f.Instructions, HelpersOf: map[string]string{}}
	all := map[string]bool{}
	for _, names := range f.Helpers {
		for _, name := range names {
			all[name] = true
		}
	}
	out.Helpers = slices.Sorted(maps.Keys(all))
	for program, names := range f.Helpers {
		bits := make([]byte, (len(out.Helpers)+7)/8)
		for _, name := range names {
			i, _ := slices.BinarySearch(out.Helpers, name)
			bits[i/8] |= 1 << (i % 8)
		}
		out.HelpersOf[program] = hex.EncodeToString(bits)
	}
	return out
}

// unpacked takes from hostile maps what is in them: a bit without a helper is none.
func (f *Features) unpacked() *node.Features {
	out := &node.Features{Programs: f.Programs, Maps: f.Maps, Instructions: f.Instructions, Helpers: map[string][]string{}}
	for program, digits := range f.HelpersOf {
		bits, err := hex.DecodeString(digits)
		if err != nil {
			continue
		}
		names := []string{}
		for i, name := range f.Helpers {
			if i/8 < len(bits) && bits[i/8]&(1<<(i%8)) != 0 {
				names = append(names, name)
			}
		}
		out.Helpers[program] = names
	}
	return out
}
