// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/hostinfo/probe"
	"github.com/bpfwhy/bpfwhy/internal/hostinfo/rights"
	"github.com/bpfwhy/bpfwhy/internal/output/render"
	"github.com/bpfwhy/bpfwhy/internal/output/text"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/spf13/cobra"
)

func newNode(io std) *cobra.Command {
	var asJSON, noProbe bool
	c := &cobra.Command{
		Use:   "node",
		Short: "Print what decides on this machine whether BPF programs load",
		Long: `Print what decides whether BPF programs load on this machine: kernel,
configuration, sysctls, lockdown, security modules, rights and JIT memory.
Program types, map types, helpers and instructions are found by trying them. If
something cannot be read, the reason is printed.`,
		Example: `  bpfwhy node
  bpfwhy node --json > a.json
  bpfwhy node diff a.json b.json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := interruptible(c.Context())
			p := node.Host()
			if !noProbe {
				probe.Add(ctx, p)
			}
			if ctx.Err() != nil {
				return fmt.Errorf("node: interrupted")
			}
			if asJSON {
				return render.JSON(io.out, node.Document{Schema: node.Schema, Profile: *p})
			}
			return printNode(io.text(), p)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "as one line of JSON, for 'node diff', 'check --kernel' and bug reports")
	c.Flags().BoolVar(&noProbe, "no-probe", false, "load nothing: do not try types, helpers and instructions")
	c.AddCommand(newNodeDiff(io))
	return c
}

func printNode(t *render.Text, p *node.Profile) error {
	sections := []render.Section{
		{Label: "kernel", Items: []string{strings.Join(strings.Fields(p.Release+" "+p.Machine), " "), p.Version, unknown(p.Distro)}},
	}
	add := func(label string, items ...string) {
		if len(items) > 0 {
			sections = append(sections, render.Section{Label: label, Items: items})
		}
	}
	have, _ := rights.Have()
	add("sysctls", sysctlLines(p)...)
	add("JIT", jitLines(p)...)
	add("host", hostLines(p)...)
	add("process", processLines(p.Process)...)
	add("rights", rights.Node.Less(have)...)
	add("CONFIG_", configLines(p)...)
	if f := p.Features; f != nil {
		add("programs", split(f.Programs)...)
		add("maps", split(f.Maps)...)
		add("helpers", helperLine(f))
		add("takes", split(f.Instructions)...)
	}
	add("not read", unreadLines(p)...)
	return t.Page("", sections)
}

func unknown(v string) string { return cmp.Or(v, "unknown") }

func sysctlLines(p *node.Profile) (lines []string) {
	for _, k := range sorted(p.Sysctls) {
		lines = append(lines, k+" = "+p.Sysctls[k])
	}
	return lines
}

func jitLines(p *node.Profile) []string {
	always := "unknown"
	if on, known := p.JITAlwaysOn(); known {
		always = "no, there is an interpreter"
		if on {
			always = "yes, there is no interpreter"
		}
	}
	lines := []string{"always on: " + always}
	if p.JITUsed != nil {
		s := fmt.Sprintf("memory: at most %s in use", size(*p.JITUsed))
		if limit, ok := p.Sysctl("net.core.bpf_jit_limit"); ok && limit > 0 {
			s += fmt.Sprintf(", of %s for loaders without CAP_BPF", size(uint64(limit)))
		}
		lines = append(lines, s)
	}
	if b := p.Blinding; b != nil {
		s := "blinding: function by function"
		if b.WholeProgram {
			s = "blinding: the whole program at once"
		}
		lines = append(lines, s+" ("+b.From+")")
	}
	return lines
}

func hostLines(p *node.Profile) []string {
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
	return []string{"lockdown: " + unknown(p.Lockdown), "LSMs: " + unknown(strings.Join(p.LSMs, ", ")), "kernel BTF: " + btf,
		"cgroups: " + cmp.Or(strings.Join(groups, ", "), "none mounted"), "container: " + cmp.Or(p.Container, "probably none")}
}

func processLines(q *node.Process) []string {
	if q == nil {
		return nil
	}
	memlock := "unlimited"
	if q.Memlock != nil {
		memlock = size(*q.Memlock)
	}
	ns := "the initial one"
	if !q.InitialUser {
		ns = "not the initial one, so capabilities do not count for bpf(2)"
	}
	return []string{"capabilities: " + deciding(q), "user namespace: " + ns, "seccomp: " + q.Seccomp, "RLIMIT_MEMLOCK: " + memlock}
}

func configLines(p *node.Profile) (lines []string) {
	for _, want := range []string{"y", "m", "n"} {
		var names []string
		for _, k := range sorted(p.Config) {
			if p.Config[k] == want {
				names = append(names, strings.TrimPrefix(k, "CONFIG_"))
			}
		}
		if len(names) > 0 {
			lines = append(lines, want+": "+strings.Join(names, ", "))
		}
	}
	if len(lines) > 0 {
		lines = append(lines, "from "+p.ConfigSource)
	}
	return lines
}

func helperLine(f *node.Features) string {
	var helpers []string
	for _, k := range sorted(f.Helpers) {
		helpers = append(helpers, fmt.Sprintf("%s %d", k, len(f.Helpers[k])))
	}
	return "(number by program type; --json has the names) " + strings.Join(helpers, ", ")
}

func unreadLines(p *node.Profile) (lines []string) {
	for _, k := range sorted(p.Unknown) {
		lines = append(lines, k+": "+text.Join(p.Unknown[k]))
	}
	return lines
}

// deciding lists the capabilities that bpf(2) and what is around it ask for.
func deciding(p *node.Process) string {
	ask := []string{"CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_SYS_RESOURCE", "CAP_SYSLOG"}
	there := slices.DeleteFunc(slices.Clone(ask), func(c string) bool { return !slices.Contains(p.Capabilities, c) })
	not := slices.DeleteFunc(ask, func(c string) bool { return slices.Contains(p.Capabilities, c) })
	s := cmp.Or(strings.Join(there, ", "), "none that loads ask for")
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
