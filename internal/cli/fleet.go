// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"slices"

	"github.com/bpfwhy/bpfwhy/internal/fleet"
	"github.com/bpfwhy/bpfwhy/internal/fleet/kube"
	"github.com/bpfwhy/bpfwhy/internal/output/render"
	"github.com/spf13/cobra"
)

// fleetSchema names the JSON form of what 'fleet' says (docs/schema/fleet-v1.schema.json).
const fleetSchema = "bpfwhy.fleet/v1"

func newFleet(io std) *cobra.Command {
	o := fleetOptions{std: io}
	c := &cobra.Command{
		Use:   "fleet [SOURCE...] [VERB [WORD...]]",
		Short: "Many nodes: what fails on which, and what separates them",
		Long: `Say what fails on which of many nodes, and what separates the nodes on which a
program fails from those where it loads.

Without a SOURCE the nodes are those of the cluster of your kubeconfig, on which
'bpfwhy serve' runs. As kubectl-bpfwhy in your PATH this command is 'kubectl
bpfwhy'. A SOURCE is a folder or a file: state folders of 'serve', recordings of
'watch --record' and 'run --record', profiles of 'node --json', and what
'kubectl get nodereports,nodeclasses -o json' prints. A file is of the node that
it is named after: worker-1.json, worker-1.bpfwhy and worker-1/anything are of
worker-1.

  overview        the classes of nodes, and what fails (the default)
  failures        each kind of failures: on how many nodes, how often
  why [WHAT...]   the reason, and what to do. WHAT is an id of 'failures', a
                  rule, or the name of a program, process, pod or workload
  diff A B        what separates two sets of nodes. Each is a name, a pattern
                  ("worker-*") or a class
  audit           what net.core.bpf_jit_harden (--harden) would break, where

In a cluster also, each with a command that it prints, or runs with --run:

  trace ID        the recording of a failure, from a node that has it
  watch NODE      the loads of a node, as they happen
  now POD         the loads of the pod's node, where nothing is installed
  repair WORKLOAD a patch that lets a workload load what blinding breaks. It is
                  printed, and never applied

The status of why is 1 when it finds nothing that separates the nodes, that of
audit when something would break.`,
		Example: `  bpfwhy fleet
  bpfwhy fleet nodes/ why BLIND001
  bpfwhy fleet nodes/ diff 'gpu-*' 'worker-*'
  kubectl bpfwhy why agent-x7k2p -n observability
  kubectl bpfwhy now agent-x7k2p --image registry.example.com/bpfwhy:0.1.0`,
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), args) },
	}
	o.flags(c)
	return c
}

// fleetVerb is what can be asked of a fleet, and how many words it takes.
type fleetVerb struct {
	least, most int
	words       string // what they are
	run         func(o fleetOutput, f *fleet.Fleet, words []string) error
	// cluster is set for what needs no fleet, but a cluster.
	cluster func(o *fleetOptions, ctx context.Context, c *kube.Cluster, word string) error
}

var fleetVerbs = map[string]fleetVerb{
	"overview": {run: fleetOutput.overview},
	"failures": {run: fleetOutput.failures},
	"why":      {most: 1000, run: fleetOutput.why},
	"diff":     {least: 2, most: 2, words: "two words: names, patterns or classes of nodes", run: fleetOutput.diff},
	"audit":    {run: fleetOutput.audit},
	"trace":    {least: 1, most: 1, words: "an id of 'failures'", cluster: (*fleetOptions).trace},
	"watch":    {least: 1, most: 1, words: "the name of a node", cluster: (*fleetOptions).watch},
	"now":      {least: 1, most: 1, words: "the name of a pod", cluster: (*fleetOptions).now},
	"repair":   {least: 1, most: 1, words: "a workload, such as daemonset/agent", cluster: (*fleetOptions).repair},
}

// fleetArgs tells the sources from what is asked of them.
func fleetArgs(args []string) (sources []string, verb string, words []string, err error) {
	at := slices.IndexFunc(args, func(a string) bool { _, is := fleetVerbs[a]; return is })
	sources, verb = args, "overview"
	if at >= 0 {
		sources, verb, words = args[:at], args[at], args[at+1:]
	}
	v := fleetVerbs[verb]
	switch {
	case len(words) < v.least:
		return nil, "", nil, usage("fleet: %s takes %s", verb, v.words)
	case len(words) > v.most:
		return nil, "", nil, usage("fleet: %s does not take %q", verb, words[v.most])
	case v.cluster != nil && len(sources) > 0:
		return nil, "", nil, usage("fleet: %s asks a cluster, and takes no folder or file", verb)
	}
	return sources, verb, words, nil
}

// fleetOutput writes what was asked.
type fleetOutput struct {
	std
	asJSON bool
	harden int
}

// fleetDocument is the JSON form. One of its lists is set, as was asked.
type fleetDocument struct {
	Schema      string             `json:"schema"`
	Classes     []fleet.Kind       `json:"classes,omitempty"`
	Failures    []*fleet.Problem   `json:"failures,omitempty"`
	Reasons     []*fleet.Reason    `json:"reasons,omitempty"`
	Separations []fleet.Separation `json:"separations,omitempty"`
	Unknown     []fleet.Unknown    `json:"unknown,omitempty"`
	Hardened    *fleet.Change      `json:"hardened,omitempty"`
}

func (o fleetOutput) document(d fleetDocument) error {
	d.Schema = fleetSchema
	return render.JSON(o.out, d)
}

func (o fleetOutput) overview(f *fleet.Fleet, _ []string) error {
	if o.asJSON {
		return o.document(fleetDocument{Classes: f.Kinds(), Failures: f.Problems()})
	}
	return o.text().FleetOverview(f)
}

func (o fleetOutput) failures(f *fleet.Fleet, _ []string) error {
	problems := f.Problems()
	switch {
	case o.asJSON:
		return o.document(fleetDocument{Failures: problems})
	case len(problems) == 0:
		return o.text().Page("No failure on any node that was watched", nil)
	}
	return o.text().FleetFailures(problems)
}

func (o fleetOutput) why(f *fleet.Fleet, words []string) error {
	var reasons []*fleet.Reason
	separated := false
	found := map[string]bool{}
	for _, p := range f.Problems() {
		wanted := len(words) == 0
		for _, w := range words {
			if p.Matches(w) {
				wanted, found[w] = true, true
			}
		}
		if wanted {
			r := f.Why(p)
			reasons = append(reasons, r)
			separated = separated || len(r.By) > 0
		}
	}
	for _, w := range words {
		if !found[w] {
			return fmt.Errorf("fleet: why: nothing fails that is named %q; 'bpfwhy fleet [SOURCE] failures' lists what does", w)
		}
	}
	if o.asJSON {
		if err := o.document(fleetDocument{Reasons: reasons}); err != nil {
			return err
		}
	} else {
		t := o.text()
		if len(reasons) == 0 {
			return t.Page("No failure on any node that was watched", nil)
		}
		for _, r := range reasons {
			if err := t.FleetReason(r); err != nil {
				return err
			}
		}
	}
	if len(reasons) > 0 && !separated {
		return &status{code: negative}
	}
	return nil
}

func (o fleetOutput) diff(f *fleet.Fleet, words []string) error {
	var sides [2][]*fleet.Node
	for i, w := range words {
		if sides[i] = f.Select(w); len(sides[i]) == 0 {
			return fmt.Errorf("fleet: diff: no node and no class is named %q", w)
		}
		for _, n := range sides[i] {
			if n.Profile == nil {
				return fmt.Errorf("fleet: diff: nothing is known of %s: there is no profile", n.Name)
			}
		}
	}
	list, unknown := fleet.Separate("", sides[0], sides[1])
	if o.asJSON {
		return o.document(fleetDocument{Separations: list, Unknown: unknown})
	}
	return o.text().FleetDiff(words[0], words[1], list, unknown)
}

func (o fleetOutput) audit(f *fleet.Fleet, _ []string) error {
	c := f.Hardened(o.harden)
	err := error(nil)
	if o.asJSON {
		err = o.document(fleetDocument{Hardened: c})
	} else {
		err = o.text().FleetHardened(c)
	}
	switch {
	case err != nil:
		return err
	case len(c.Nodes) > 0:
		return &status{code: negative}
	case len(c.Fine) == 0:
		return &status{code: nothing}
	}
	return nil
}
