// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/probe"
	"github.com/bpfwhy/bpfwhy/internal/render"
	"github.com/bpfwhy/bpfwhy/internal/rights"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/spf13/cobra"
)

func newNode() *cobra.Command {
	var asJSON, noProbe bool
	c := &cobra.Command{
		Use:   "node",
		Short: "The profile of this kernel and host, as far as it decides loads",
		Long: `Print what decides whether BPF programs load on this machine: kernel, configuration, sysctls, lockdown,
security modules, rights, memory of the JIT, and, by trying, the types of programs and maps, the helpers
and the instructions that there are. What cannot be read is said, with the reason.`,
		Example: `  bpfwhy node
  bpfwhy node --json > a.json
  bpfwhy node diff a.json b.json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			ctx := interruptible()
			p := node.Host()
			if !noProbe {
				probe.Add(ctx, p)
			}
			if ctx.Err() != nil {
				return fmt.Errorf("node: interrupted")
			}
			if asJSON {
				return render.JSON(os.Stdout, node.Document{Schema: node.Schema, Profile: *p})
			}
			return printNode(newText(os.Stdout), p)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "as one line of JSON, for 'node diff', 'check --kernel' and bug reports")
	c.Flags().BoolVar(&noProbe, "no-probe", false, "load nothing: leave out what is found by trying")
	c.AddCommand(newNodeDiff())
	return c
}

func printNode(t *render.Text, p *node.Profile) error {
	unknown := func(v string) string { return cmp.Or(v, "unknown") }
	sections := []render.Section{
		{Label: "kernel", Items: []string{strings.Join(strings.Fields(p.Release+" "+p.Machine), " "), p.Version, unknown(p.Distro)}},
	}
	add := func(label string, items ...string) {
		if len(items) > 0 {
			sections = append(sections, render.Section{Label: label, Items: items})
		}
	}
	var sysctls []string
	for _, k := range sorted(p.Sysctls) {
		sysctls = append(sysctls, k+" = "+p.Sysctls[k])
	}
	add("sysctls", sysctls...)

	always := "unknown"
	if on, known := p.JITAlwaysOn(); known {
		always = "no, there is an interpreter"
		if on {
			always = "yes, there is no interpreter"
		}
	}
	jit := []string{"always on: " + always}
	if p.JITUsed != nil {
		s := fmt.Sprintf("memory: at most %s in use", size(*p.JITUsed))
		if limit, ok := p.Sysctl("net.core.bpf_jit_limit"); ok && limit > 0 {
			s += fmt.Sprintf(", of %s for loaders without CAP_BPF", size(uint64(limit)))
		}
		jit = append(jit, s)
	}
	if b := p.Blinding; b != nil {
		s := "blinding: function by function"
		if b.WholeProgram {
			s = "blinding: the whole program at once"
		}
		jit = append(jit, s+" ("+b.From+")")
	}
	add("JIT", jit...)

	btf := "no"
	if p.BTF {
		btf = "yes"
	}
	var groups []string
	if p.CgroupV2 {
		groups = append(groups, "v2")
	}
	if p.CgroupV1 {
		groups = append(groups, "memory controller on v1")
	}
	add("host", "lockdown: "+unknown(p.Lockdown), "LSMs: "+unknown(strings.Join(p.LSMs, ", ")), "kernel BTF: "+btf,
		"cgroups: "+cmp.Or(strings.Join(groups, ", "), "none mounted"), "container: "+cmp.Or(p.Container, "no sign of one"))
	if q := p.Process; q != nil {
		memlock := "unlimited"
		if q.Memlock != nil {
			memlock = size(*q.Memlock)
		}
		ns := "the initial one"
		if !q.InitialUser {
			ns = "not the initial one: capabilities do not count for bpf(2)"
		}
		add("process", "capabilities: "+deciding(q), "user namespace: "+ns,
			"seccomp: "+q.Seccomp, "RLIMIT_MEMLOCK: "+memlock)
	}
	have, _ := rights.Have()
	add("rights", rights.Node.Less(have)...)
	var config []string
	for _, want := range []string{"y", "m", "n"} {
		var names []string
		for _, k := range sorted(p.Config) {
			if p.Config[k] == want {
				names = append(names, strings.TrimPrefix(k, "CONFIG_"))
			}
		}
		if len(names) > 0 {
			config = append(config, want+": "+strings.Join(names, ", "))
		}
	}
	if len(config) > 0 {
		config = append(config, "from "+p.ConfigSource)
	}
	add("CONFIG_", config...)
	if f := p.Features; f != nil {
		add("programs", split(f.Programs)...)
		add("maps", split(f.Maps)...)
		var helpers []string
		for _, k := range sorted(f.Helpers) {
			helpers = append(helpers, fmt.Sprintf("%s %d", k, len(f.Helpers[k])))
		}
		add("helpers", "(number by program type; --json has the names) "+strings.Join(helpers, ", "))
		add("takes", split(f.Instructions)...)
	}
	var missing []string
	for _, k := range sorted(p.Unknown) {
		missing = append(missing, k+": "+joinLines(p.Unknown[k]))
	}
	add("not read", missing...)
	return t.Page("", sections)
}

// deciding lists the capabilities that bpf(2) and what is around it ask for.
func deciding(p *node.Process) string {
	ask := []string{"CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_SYS_RESOURCE", "CAP_SYSLOG"}
	there := slices.DeleteFunc(slices.Clone(ask), func(c string) bool { return !slices.Contains(p.Capabilities, c) })
	not := slices.DeleteFunc(ask, func(c string) bool { return slices.Contains(p.Capabilities, c) })
	s := cmp.Or(strings.Join(there, ", "), "none that decides loads")
	if len(not) > 0 {
		s += "; not " + strings.Join(not, ", ")
	}
	return s
}

// split lists what there is, and then what there is not.
func split(m map[string]bool) []string {
	var there, not []string
	for _, k := range sorted(m) {
		if m[k] {
			there = append(there, k)
		} else {
			not = append(not, k)
		}
	}
	var out []string
	if len(there) > 0 {
		out = append(out, strings.Join(there, ", "))
	}
	if len(not) > 0 {
		out = append(out, "not: "+strings.Join(not, ", "))
	}
	return slices.Clip(out)
}

// size prints bytes.
func size(n uint64) string {
	switch {
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 10<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}
