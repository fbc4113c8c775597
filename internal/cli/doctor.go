// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/hostinfo/probe"
	"github.com/bpfwhy/bpfwhy/internal/hostinfo/rights"
	"github.com/bpfwhy/bpfwhy/internal/output/render"
	"github.com/bpfwhy/bpfwhy/internal/output/text"
	"github.com/bpfwhy/bpfwhy/internal/sys/tracefs"
	"github.com/bpfwhy/bpfwhy/internal/watch/capture"
	"github.com/bpfwhy/bpfwhy/internal/watch/hook"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/spf13/cobra"
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
	Rows     []probe.Row    `json:"rows,omitempty"`    // of --prove
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

func newDoctor(io std) *cobra.Command {
	o := doctorOptions{std: io}
	c := &cobra.Command{
		Use:   "doctor [--preflight [FILE...]]",
		Short: "Say what bpfwhy can observe here, and what would let it see more",
		Long: `Try every hook on this machine. Say what can be observed, what cannot and why,
and what would change that. Nothing on the machine is changed. The status is 1
when nothing can be watched.

With --prove (CAP_BPF) also load small programs whose outcome shows what this
kernel does, and compare with what its release should do. None of them is run.
The tests of blinding need net.core.bpf_jit_harden=2: --allow-sysctl raises it
for a moment and puts it back. --record writes the results to a file for a bug
report. 'check --kernel', 'explain --proven' and 'audit --proven' read it.

With --preflight, for init containers and Helm hooks: say PASS, WARN or FAIL of
each need of an agent before it starts. FILE is its BPF object or its
executable; --needs lists features (program:TYPE, map:TYPE, helper:NAME,
kernel-btf, fentry, v3 ...; a shell completes them). What cannot be tried is
WARN. The status is 1 when a line says FAIL.`,
		Example: `  bpfwhy doctor
  bpfwhy doctor --preflight probe.o
  bpfwhy doctor --preflight /usr/bin/agent
  bpfwhy doctor --preflight --needs kprobe,map:ringbuf,kernel-btf`,
		RunE: func(c *cobra.Command, files []string) error {
			switch {
			case o.preflight && (o.prove || o.allow || o.record != ""):
				return usage("doctor: --preflight and --prove exclude each other")
			case o.preflight:
				return checkPreflight(c.Context(), o, files)
			case len(files) > 0 || o.needs != nil:
				return usage("doctor: a FILE and --needs are for --preflight")
			}
			return doctor(c.Context(), o)
		},
	}
	f := c.Flags()
	f.BoolVar(&o.json, "json", false, "as one line of JSON")
	f.BoolVar(&o.prove, "prove", false, "find out what this kernel does, by loads that some kernels refuse (CAP_BPF)")
	f.BoolVar(&o.allow, "allow-sysctl", false, "with --prove: raise net.core.bpf_jit_harden for a moment and put it back")
	f.StringVar(&o.record, "record", "", "with --prove: write the results to this file (docs/schema/prove-v1.schema.json)")
	f.BoolVar(&o.preflight, "preflight", false, "say whether this node has what an agent needs")
	f.StringSliceVar(&o.needs, "needs", nil, "with --preflight: features that the agent needs, with commas")
	_ = c.RegisterFlagCompletionFunc("needs", features) // the error is for a flag that does not exist
	return c
}

type doctorOptions struct {
	std
	json, prove, allow, preflight bool
	record                        string
	needs                         []string
}

func doctor(ctx context.Context, o doctorOptions) error {
	if !o.prove && (o.allow || o.record != "") {
		return usage("doctor: --allow-sysctl and --record need --prove")
	}
	r := examine(ctx)
	var err error
	if o.prove {
		if err := r.prove(interruptible(ctx), o); err != nil {
			return err
		}
	}
	if o.json {
		err = render.JSON(o.out, r)
	} else {
		err = r.print(o.text())
	}
	if err == nil && !r.Watching {
		err = &status{code: negative}
	}
	return err
}

func examine(ctx context.Context) *report {
	r := &report{Schema: "bpfwhy.doctor/v1", Build: buildInfo(), Node: *node.Host(), Tracefs: tracefs.Mounted()}
	waiting := scanWaiting()
	stuck := loadsHang(ctx)
	if stuck != nil {
		r.Error = stuck.Error()
	} else if c, err := capture.Open(ctx, capture.Options{}); err != nil {
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
		c, err := capture.Open(ctx, capture.Options{Backend: name})
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
		for _, s := range hook.Of(k.Function).Shows {
			by[s] = append(by[s], fmt.Sprintf("%s (%s)", k.Function, k.Via))
		}
	}
	var out []stageCheck
	for _, s := range []load.Stage{load.Request, load.Permission, load.Verifier, load.Blinding, load.JIT, load.Install} {
		out = append(out, stageCheck{s, len(by[s]) > 0, by[s]})
	}
	return out
}

// advise says what would change what is missing. It recommends nothing that weakens a machine
// without saying so.
//
//revive:disable-next-line:cyclomatic one piece of advice for each thing that is missing
func (r *report) advise() []string {
	var out []string
	n := &r.Node
	if why := n.Unknown[hardenSetting]; why != "" {
		out = append(out, "net.core.bpf_jit_harden could not be read ("+why+"). A diagnosis of blinding will say so.")
	}
	unobserved := false
	for _, s := range r.Stages {
		unobserved = unobserved || !s.Observed
	}
	if !unobserved {
		return append(out, r.settings()...)
	}
	if n.Container != "" {
		out = append(out, "This looks like a container ("+n.Container+"). Run it privileged, in the host's pid namespace, with /sys/kernel/tracing and /boot mounted.")
	}
	if v, ok := n.Sysctl("kernel.ftrace_enabled"); ok && v == 0 {
		out = append(out, "kernel.ftrace_enabled is 0, which switches off fentry and the kprobes that use ftrace: sysctl kernel.ftrace_enabled=1.")
	}
	if !n.BTF {
		out = append(out, "The kernel has no BTF (CONFIG_DEBUG_INFO_BTF). Without it there is no fentry, and kernel structures cannot be read.")
	}
	if n.Lockdown == "confidentiality" {
		out = append(out, "Lockdown is at confidentiality: BPF may not read kernel memory, and tracefs is closed. Only a reboot with another Secure Boot policy or another lockdown= on the command line changes that, and it lowers the protection of the machine.")
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
			out = append(out, fmt.Sprintf("The kernel was built without %s, which is needed for %s.", o.option, o.what))
		}
	}
	if v, ok := n.Sysctl("kernel.kptr_restrict"); ok && v == 2 {
		out = append(out, "kernel.kptr_restrict is 2, which hides kernel addresses even from root. With 1, bpfwhy could read the verifier's messages to loaders without a log buffer.")
	}
	return append(out, r.settings()...)
}

// settings says what the node's own settings mean for loads.
func (r *report) settings() []string {
	var out []string
	n := &r.Node
	if v, ok := n.Sysctl("net.core.bpf_jit_enable"); ok && v == 0 {
		out = append(out, "net.core.bpf_jit_enable is 0: no program is compiled. Each one will be reported as NOT jited.")
	}
	if v, ok := n.Sysctl("net.core.bpf_jit_harden"); ok && v > 0 {
		s := "net.core.bpf_jit_harden is 2: every program is blinded, long jumps may break, and large programs load slowly ('bpfwhy explain BLIND001')."
		if v == 1 {
			s = "net.core.bpf_jit_harden is 1: programs of loaders without CAP_BPF are blinded."
			if n.Does(node.HardenSparesCapBPF) != node.Yes {
				s = "net.core.bpf_jit_harden is 1: programs of loaders without CAP_BPF are blinded, before 6.1 those of all without CAP_SYS_ADMIN."
			}
		}
		out = append(out, s)
	}
	if full, _ := n.JITMemoryFull(); full {
		limit, _ := n.Sysctl("net.core.bpf_jit_limit")
		out = append(out, fmt.Sprintf("Compiled programs use %d of the %d bytes of net.core.bpf_jit_limit. Loads without CAP_BPF and seccomp filters are about to fail with 524.", *n.JITUsed, limit))
	}
	return out
}

const hardenSetting = "net.core.bpf_jit_harden"

//revive:disable-next-line:cyclomatic a section for each thing that doctor found
func (r *report) print(t *render.Text) error {
	verdict := "Loads can be watched on this machine, by " + r.Backend
	if !r.Watching {
		verdict = "Nothing can be watched on this machine: " + text.Join(r.Error)
	}
	var stages, caps, kinds []string
	for _, s := range r.Stages {
		if s.Observed {
			stages = append(stages, fmt.Sprintf("%s: observed by %s", s.Stage, strings.Join(s.By, ", ")))
		} else {
			stages = append(stages, fmt.Sprintf("%s: not observed; concluded from other evidence where possible", s.Stage))
		}
	}
	for _, c := range r.Rights {
		s := c.Command + ": has all rights that it can use"
		switch {
		case c.Missing != nil:
			s = fmt.Sprintf("%s: needs %s; MISSING %s", c.Command, c.Needs, strings.Join(c.Missing, ", "))
		case c.Without != nil:
			s = c.Command + ": works, but " + strings.Join(c.Without, "; ")
		}
		caps = append(caps, s)
	}
	for _, b := range r.Backends {
		s := b.Backend + ": no, " + text.Join(b.Why)
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
	if len(r.Rows) > 0 {
		sections = append(sections, render.Section{Label: "behaviour", Items: rowLines(r.Rows)})
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
		why := cmp.Or(text.Join(k.Why), "no reason given")
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
