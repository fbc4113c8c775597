// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/node"
)

// Differences returns what two nodes differ in, with the rules of the failures that each difference
// leads to.
func Differences(a, b *node.Profile) []node.Difference { return withRules(node.Diff(a, b), a, b) }

func withRules(list []node.Difference, a, b *node.Profile) []node.Difference {
	for i := range list {
		list[i].Rules = rulesOf(&list[i], a, b)
	}
	return list
}

// rulesOf returns the rules of the failures that a difference leads to. A prefix such as VER stands
// for a family.
func rulesOf(d *node.Difference, a, b *node.Profile) []string {
	rules, ok := byKey[d.Key]
	if !ok {
		rules = byKind[d.Key.Kind]
	}
	rules = slices.Clone(rules)
	switch d.Key.Kind {
	case node.KindOption:
		if d.Key.Of != alwaysOn && a.Config[d.Key.Of] != "n" && b.Config[d.Key.Of] != "n" { // m does what y does
			return nil
		}
	case node.KindLockdown:
		levels := [2]string{a.Lockdown, b.Lockdown}
		slices.Sort(levels[:])
		if some, ok := byLockdown[levels]; ok {
			return slices.Clone(some)
		}
	case node.KindRelease:
		for _, behaviour := range d.Behaviours {
			rules = append(rules, byBehaviour[behaviour]...)
		}
		slices.Sort(rules)
		return slices.Compact(rules)
	case node.KindHelper:
		if strings.HasPrefix(d.Key.Of, "bpf_probe_read") {
			rules = append(rules, "PERM003")
		}
	}
	return rules
}

var byKind = map[node.Kind][]string{
	// Features and the verifier's limits follow the release.
	node.KindRelease:         {"FEAT001", "FEAT002", "FEAT004", "FEAT005", "FEAT006", "FEAT007", "FEAT008", "VER", "BTF001", "BTF004", "BTF005", "TAIL001"},
	node.KindVersion:         {"VER"},
	node.KindMachine:         {"JIT002", "FEAT007", "BTF005"},
	node.KindTypesOfKernel:   {"BTF003", "BTF004", "BTF005", "FEAT006"},
	node.KindJITMemory:       {"JIT001"},
	node.KindLockdown:        {"PERM003", "PERM004", "FEAT002", "REQ009"},
	node.KindSecurityModules: {"PERM005"},
	node.KindProgramType:     {"FEAT004", "BTF005"},
	node.KindMapType:         {"FEAT005"},
	node.KindInstructions:    {"FEAT008", "VER101", "VER102", "VER103"},
	node.KindHelper:          {"FEAT001", "FEAT002"},
	node.KindCapabilities:    {"PERM001", "PERM002", "PERM007", "PERM009"},
	node.KindUserNamespace:   {"PERM001", "PERM010"},
	node.KindSeccompMode:     {"PERM006", "PERM001"},
	node.KindLockedMemory:    {"PERM007"},
}

var byKey = map[node.Key][]string{
	{Kind: node.KindSetting, Of: "net.core.bpf_jit_harden"}:          {"BLIND001", "BLIND002", "BLIND003"},
	{Kind: node.KindSetting, Of: "net.core.bpf_jit_enable"}:          {"JIT003", "BLIND001", "BLIND002", "BLIND003", "FEAT007"},
	{Kind: node.KindSetting, Of: "net.core.bpf_jit_limit"}:           {"JIT001"},
	{Kind: node.KindSetting, Of: "net.core.optmem_max"}:              {"RES002"},
	{Kind: node.KindSetting, Of: "kernel.unprivileged_bpf_disabled"}: {"PERM002"},

	{Kind: node.KindOption, Of: alwaysOn}:                                  {"BLIND001", "BLIND002", "BLIND003", "JIT001", "JIT002", "JIT003"},
	{Kind: node.KindOption, Of: "CONFIG_BPF_JIT"}:                          {"JIT003", "FEAT007"},
	{Kind: node.KindOption, Of: "CONFIG_BPF_EVENTS"}:                       {"FEAT004", "FEAT002"},
	{Kind: node.KindOption, Of: "CONFIG_BPF_LSM"}:                          {"FEAT004", "BTF005"},
	{Kind: node.KindOption, Of: "CONFIG_CGROUP_BPF"}:                       {"FEAT004", "FEAT005"},
	{Kind: node.KindOption, Of: "CONFIG_BPF_STREAM_PARSER"}:                {"FEAT004", "FEAT005"},
	{Kind: node.KindOption, Of: "CONFIG_LWTUNNEL_BPF"}:                     {"FEAT004"},
	{Kind: node.KindOption, Of: "CONFIG_XDP_SOCKETS"}:                      {"FEAT005"},
	{Kind: node.KindOption, Of: "CONFIG_DEBUG_INFO_BTF"}:                   {"BTF003", "BTF004", "BTF005", "FEAT006"},
	{Kind: node.KindOption, Of: "CONFIG_DEBUG_INFO_BTF_MODULES"}:           {"BTF005", "FEAT006"},
	{Kind: node.KindOption, Of: "CONFIG_BPF_KPROBE_OVERRIDE"}:              {"FEAT002"},
	{Kind: node.KindOption, Of: "CONFIG_KPROBE_EVENTS"}:                    {"FEAT004"},
	{Kind: node.KindOption, Of: "CONFIG_FUNCTION_TRACER"}:                  {"BTF005"},
	{Kind: node.KindOption, Of: "CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS"}: {"BTF005"},
}

// byLockdown: what one level takes away and the other does not. The levels stand in the order of
// the alphabet.
var byLockdown = map[[2]string][]string{
	{"integrity", "none"}:            {"PERM004", "FEAT002"},
	{"confidentiality", "integrity"}: {"PERM003", "FEAT002"},
}

var byBehaviour = map[node.Behaviour][]string{
	node.SplitsCapabilities:  {"PERM001"},
	node.ChargesNoMemlock:    {"PERM007"},
	node.MillionInstructions: {"VER101", "VER102", "VER103"},
	node.BoundedLoops:        {"VER101", "VER102"},
	node.FallbackInDoubt:     {"BLIND001"},
	node.AlwaysFallsBack:     {"BLIND001"},
	node.BlindsWholeProgram:  {"BLIND002"},
	node.ChecksWrap:          {"BLIND004"},
}
