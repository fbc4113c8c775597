// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/capture"
	"github.com/bpfwhy/bpfwhy/internal/render"
	"github.com/bpfwhy/bpfwhy/internal/rights"
	"github.com/bpfwhy/bpfwhy/internal/trace"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// report is what doctor found. Its JSON form is for support bundles; it has no schema of its own.
type report struct {
	Schema   string         `json:"schema"`
	Build    build          `json:"build"`
	Node     node.Profile   `json:"node"`
	Watching bool           `json:"watching"` // some backend works
	Error    string         `json:"error,omitempty"`
	Backend  string         `json:"backend,omitempty"`
	Backends []backendCheck `json:"backends"`
	Stages   []stageCheck   `json:"stages"`
	Hooks    []trace.Hook   `json:"hooks"`
	Rights   []rightsCheck  `json:"rights"`
	Tracefs  string         `json:"tracefs,omitempty"` // where it is mounted
	// Hanging are loads of others that do not come back.
	Hanging *load.Hang `json:"hanging,omitempty"`
	Advice  []string   `json:"advice,omitempty"`
}

type backendCheck struct {
	Backend string        `json:"backend"`
	Works   bool          `json:"works"`
	Hooks   int           `json:"hooks,omitempty"`
	Took    time.Duration `json:"took_ns,omitempty"`
	Why     string        `json:"why,omitempty"`
}

type stageCheck struct {
	Stage    load.Stage `json:"stage"`
	Observed bool       `json:"observed"`
	By       []string   `json:"by,omitempty"`
}

// rightsCheck is a row of the table of rights, as far as they are missing here.
type rightsCheck struct {
	Command string   `json:"command"`
	Needs   string   `json:"needs"`
	Missing []string `json:"missing,omitempty"` // it does not start
	Without []string `json:"without,omitempty"` // what it does not show
}

func newDoctor() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Say what can be observed on this machine, what not, and what would change it",
		Long: `Try every hook on this machine and say what can be observed, what not, why, and what would change it.
Nothing on the machine is changed. The status is 1 when nothing can be watched.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return doctor(asJSON) },
	}
	c.Flags().BoolVar(&asJSON, "json", false, "as one line of JSON")
	return c
}

func doctor(asJSON bool) error {
	r := examine()
	var err error
	if asJSON {
		err = render.JSON(os.Stdout, r)
	} else {
		err = r.print(newText(os.Stdout))
	}
	if err == nil && !r.Watching {
		err = &status{code: negative}
	}
	return err
}

func examine() *report {
	r := &report{Schema: "bpfwhy.doctor/v1", Build: buildInfo(), Node: *node.Host(), Tracefs: tracefs()}
	waiting := scanWaiting()
	stuck := loadsHang(context.Background())
	if stuck != nil {
		r.Error = stuck.Error()
	} else if c, err := capture.Open(context.Background(), capture.Options{}); err != nil {
		r.Error = err.Error()
	} else {
		h := c.Header()
		c.Close()
		r.Watching, r.Backend, r.Hooks = true, h.Backend, h.Hooks
	}
	r.Stages = observed(r.Hooks)
	for _, name := range backends {
		if stuck != nil {
			r.Backends = append(r.Backends, backendCheck{Backend: name, Why: "not tried: loads hang"})
			continue
		}
		b := backendCheck{Backend: name}
		began := time.Now()
		c, err := capture.Open(context.Background(), capture.Options{Backend: name})
		b.Took = time.Since(began)
		if err != nil {
			b.Why, b.Took = err.Error(), 0
		} else {
			b.Works = true
			for _, k := range c.Header().Hooks {
				if k.Via != "" {
					b.Hooks++
				}
			}
			c.Close()
		}
		r.Backends = append(r.Backends, b)
	}
	have, _ := rights.Have()
	for _, c := range rights.Commands() {
		k := rightsCheck{Command: c.Name, Needs: c.Needs(), Without: c.Less(have)}
		for _, m := range c.Missing(have) {
			k.Missing = append(k.Missing, m.Name())
		}
		r.Rights = append(r.Rights, k)
	}
	r.Hanging = waiting.still()
	r.Advice = r.advise()
	return r
}

func observed(hooks []trace.Hook) []stageCheck {
	by := map[load.Stage][]string{}
	for _, k := range hooks {
		if k.Via == "" {
			continue
		}
		for _, s := range stagesOf(k.Function) {
			by[s] = append(by[s], fmt.Sprintf("%s (%s)", k.Function, k.Via))
		}
	}
	var out []stageCheck
	for _, s := range []load.Stage{load.Request, load.Permission, load.Verifier, load.Blinding, load.JIT, load.Install} {
		out = append(out, stageCheck{s, len(by[s]) > 0, by[s]})
	}
	return out
}

// tracefs returns where it is mounted, "" if nowhere usual.
func tracefs() string {
	for _, dir := range []string{"/sys/kernel/tracing", "/sys/kernel/debug/tracing"} {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && st.Type == unix.TRACEFS_MAGIC {
			return dir
		}
	}
	return ""
}

// advise says what would change what is missing. It recommends nothing that weakens a machine without saying so.
func (r *report) advise() []string {
	var out []string
	n := &r.Node
	if why := n.Unknown[hardenSetting]; why != "" {
		out = append(out, "The hardening of this node is not known ("+why+"), and a diagnosis of blinding will say so.")
	}
	unobserved := false
	for _, s := range r.Stages {
		unobserved = unobserved || !s.Observed
	}
	if !unobserved {
		return append(out, r.settings()...)
	}
	if n.Container != "" {
		out = append(out, "This looks like a container ("+n.Container+"): run in the host's pid namespace, privileged, with /sys/kernel/tracing and /boot mounted.")
	}
	if v, ok := n.Sysctl("kernel.ftrace_enabled"); ok && v == 0 {
		out = append(out, "kernel.ftrace_enabled is 0, which switches fentry and ftrace-based kprobes off: sysctl kernel.ftrace_enabled=1.")
	}
	if !n.BTF {
		out = append(out, "The kernel has no BTF (CONFIG_DEBUG_INFO_BTF): without it there is no fentry, and structures in the kernel cannot be read.")
	}
	if n.Lockdown == "confidentiality" {
		out = append(out, "Lockdown is at confidentiality: BPF may not read kernel memory and tracefs is closed. Only another boot (Secure Boot policy, lockdown= on the command line) changes that; it lowers the protection of the machine.")
	}
	if r.Tracefs == "" && n.Lockdown != "confidentiality" {
		out = append(out, "tracefs is not mounted: mount -t tracefs tracefs /sys/kernel/tracing.")
	}
	for _, o := range []struct{ option, what string }{
		{"CONFIG_KPROBES", "kprobes"},
		{"CONFIG_FUNCTION_TRACER", "fentry"},
		{"CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS", "fentry"},
		{"CONFIG_BPF_EVENTS", "any hook by BPF"},
		{"CONFIG_FTRACE_SYSCALLS", "system call tracepoints"},
	} {
		if n.Config[o.option] == "n" {
			out = append(out, fmt.Sprintf("The kernel was built without %s: %s need a kernel that has it.", o.option, o.what))
		}
	}
	if v, ok := n.Sysctl("kernel.kptr_restrict"); ok && v == 2 {
		out = append(out, "kernel.kptr_restrict is 2 and hides kernel addresses even from root: with 1, the verifier's words to loaders without a log buffer could be read.")
	}
	return append(out, r.settings()...)
}

// settings says what the node's own settings mean for loads.
func (r *report) settings() []string {
	var out []string
	n := &r.Node
	if v, ok := n.Sysctl("net.core.bpf_jit_enable"); ok && v == 0 {
		out = append(out, "net.core.bpf_jit_enable is 0: no program is compiled; each one will be reported as not jited.")
	}
	if v, ok := n.Sysctl("net.core.bpf_jit_harden"); ok && v > 0 {
		s := "net.core.bpf_jit_harden is 2: every program is blinded, long jumps may break, and large programs load slowly ('bpfwhy explain BLIND001')."
		if v == 1 {
			s = "net.core.bpf_jit_harden is 1: programs of loaders without CAP_BPF are blinded."
		}
		out = append(out, s)
	}
	if limit, ok := n.Sysctl("net.core.bpf_jit_limit"); ok && n.JITUsed != nil && limit > 0 && *n.JITUsed > uint64(limit)/10*9 {
		out = append(out, fmt.Sprintf("The JIT holds %d of the %d bytes of net.core.bpf_jit_limit: unprivileged loaders and seccomp filters are about to fail with 524.", *n.JITUsed, limit))
	}
	return out
}

const hardenSetting = "net.core.bpf_jit_harden"

func (r *report) print(t *render.Text) error {
	verdict := "Loads can be watched on this machine, by " + r.Backend
	if !r.Watching {
		verdict = "Nothing can be watched on this machine: " + joinLines(r.Error)
	}
	var stages, caps, kinds []string
	for _, s := range r.Stages {
		if s.Observed {
			stages = append(stages, fmt.Sprintf("%s: observed by %s", s.Stage, strings.Join(s.By, ", ")))
		} else {
			stages = append(stages, fmt.Sprintf("%s: not observed; concluded from what was captured, where that allows it", s.Stage))
		}
	}
	for _, c := range r.Rights {
		s := c.Command + ": all it can use"
		switch {
		case c.Missing != nil:
			s = fmt.Sprintf("%s: needs %s; MISSING %s", c.Command, c.Needs, strings.Join(c.Missing, ", "))
		case c.Without != nil:
			s = c.Command + ": enough, but " + strings.Join(c.Without, "; ")
		}
		caps = append(caps, s)
	}
	for _, b := range r.Backends {
		s := b.Backend + ": no, " + joinLines(b.Why)
		if b.Works {
			s = fmt.Sprintf("%s: works, %d hooks in %d ms", b.Backend, b.Hooks, b.Took.Milliseconds())
		}
		kinds = append(kinds, s)
	}
	if h := r.Hanging; h != nil {
		verdict += fmt.Sprintf("; but loads hang (%s)", h.Diagnosis.Rule)
	}
	sections := []render.Section{{Label: "kernel", Items: []string{strings.Join(strings.Fields(r.Node.Release+" "+r.Node.Machine+" "+r.Node.Distro), " ")}},
		{Label: "stages", Items: stages}, {Label: "backends", Items: kinds}}
	if h := r.Hanging; h != nil {
		sections = append(sections, render.Section{Label: "hanging", Items: append([]string{h.Diagnosis.Cause}, h.Diagnosis.Evidence...)})
	}
	if len(r.Hooks) > 0 {
		sections = append(sections, render.Section{Label: "hooks", Items: hookLines(r.Hooks)})
	}
	sections = append(sections, render.Section{Label: "rights", Items: caps}, render.Section{Label: "node", Items: r.nodeLines()})
	if len(r.Node.Unknown) > 0 {
		var lines []string
		for _, k := range sorted(r.Node.Unknown) {
			lines = append(lines, k+": "+r.Node.Unknown[k])
		}
		sections = append(sections, render.Section{Label: "not read", Items: lines})
	}
	if len(r.Advice) > 0 {
		sections = append(sections, render.Section{Label: "to change", Items: r.Advice})
	}
	return t.Page(verdict, sections)
}

// hookLines lists what is watched, and then, by reason, what is not.
func hookLines(hooks []trace.Hook) []string {
	var out, reasons []string
	missing := map[string][]string{}
	for _, k := range hooks {
		name := string(k.Function)
		if k.Symbol != "" && k.Symbol != name {
			name += " (" + k.Symbol + ")"
		}
		if k.Via != "" {
			out = append(out, name+": "+k.Via)
			continue
		}
		why := cmp.Or(joinLines(k.Why), "no reason given")
		if missing[why] == nil {
			reasons = append(reasons, why)
		}
		missing[why] = append(missing[why], name)
	}
	for _, why := range reasons {
		out = append(out, "not watched: "+strings.Join(missing[why], ", ")+"; "+why)
	}
	return out
}

func (r *report) nodeLines() []string {
	n := &r.Node
	var out []string
	for _, k := range sorted(n.Sysctls) {
		out = append(out, k+" = "+n.Sysctls[k])
	}
	value := func(name, v string) {
		if v == "" {
			v = "unknown"
		}
		out = append(out, name+": "+v)
	}
	on, known := n.JITAlwaysOn()
	switch {
	case !known:
		value("JIT always on", "")
	case on:
		value("JIT always on", "yes, there is no interpreter (from "+n.ConfigSource+")")
	default:
		value("JIT always on", "no (from "+n.ConfigSource+")")
	}
	if n.JITUsed != nil {
		value("JIT memory", fmt.Sprintf("at most %d bytes in use", *n.JITUsed))
	}
	value("lockdown", n.Lockdown)
	value("LSMs", strings.Join(n.LSMs, ", "))
	btf := "no"
	if n.BTF {
		btf = "/sys/kernel/btf/vmlinux"
	}
	value("kernel BTF", btf)
	value("tracefs", cmp.Or(r.Tracefs, "not mounted"))
	var groups []string
	if n.CgroupV2 {
		groups = append(groups, "v2")
	}
	if n.CgroupV1 {
		groups = append(groups, "v1 memory controller")
	}
	value("cgroups", cmp.Or(strings.Join(groups, ", "), "none mounted"))
	return out
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
