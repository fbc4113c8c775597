// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"slices"

	"github.com/bpfwhy/bpfwhy/internal/fleet"
	"github.com/bpfwhy/bpfwhy/internal/fleet/folder"
	"github.com/bpfwhy/bpfwhy/internal/output/render"
	"github.com/spf13/cobra"
)

// fleetSchema names the JSON form of what 'fleet' says (docs/schema/fleet-v1.schema.json).
const fleetSchema = "bpfwhy.fleet/v1"

func newFleet(io std) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "fleet SOURCE... [overview | failures | why [WHAT] | diff A B]",
		Short: "Many nodes: what fails on which, and what separates them",
		Long: `Read what was gathered from many nodes, and say what fails on which of them, and
what separates the nodes on which a program fails from those where it loads.

A SOURCE is a folder or a file: recordings of 'watch --record' and 'run
--record', and profiles of 'node --json'. A file is of the node that it is named
after: worker-1.json, worker-1.bpfwhy and worker-1/anything are of worker-1.

  overview        the classes of nodes, and what fails (the default)
  failures        each kind of failures: on how many nodes, how often
  why [WHAT...]   the reason, and what to do. WHAT is an id of 'failures', a
                  rule, or the name of a program or process
  diff A B        what separates two sets of nodes. Each is a name, a pattern
                  ("worker-*") or a class

The status of why is 1 when it finds nothing that separates the nodes.`,
		Example: `  bpfwhy fleet nodes/
  bpfwhy fleet nodes/ why BLIND001
  bpfwhy fleet nodes/ diff 'gpu-*' 'worker-*'`,
		RunE: func(_ *cobra.Command, args []string) error {
			sources, verb, rest, err := fleetArgs(args)
			if err != nil {
				return err
			}
			f, skipped, err := folder.Read(sources)
			if err != nil {
				return fmt.Errorf("fleet: %w", err)
			}
			for _, s := range skipped {
				what := "was skipped"
				if s.Partly {
					what = "was read in part"
				}
				io.say("fleet: %s %s: %v", s.File, what, s.Err)
			}
			if len(f.Nodes) == 0 {
				return fmt.Errorf("fleet: no recording and no profile in %q. Record with 'bpfwhy watch --record FILE', and write profiles with 'bpfwhy node --json'", sources)
			}
			return fleetVerbs[verb].run(fleetOutput{io, asJSON}, f, rest)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "as one line of JSON")
	return c
}

// fleetVerbs are what can be asked of a fleet, with how many words each takes.
var fleetVerbs = map[string]struct {
	least, most int
	run         func(o fleetOutput, f *fleet.Fleet, words []string) error
}{
	"overview": {0, 0, fleetOutput.overview},
	"failures": {0, 0, fleetOutput.failures},
	"why":      {0, 1000, fleetOutput.why},
	"diff":     {2, 2, fleetOutput.diff},
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
	case len(sources) == 0:
		return nil, "", nil, usage("fleet: give a folder or files that were gathered from nodes")
	case len(words) < v.least:
		return nil, "", nil, usage("fleet: %s takes two words: names, patterns or classes of nodes", verb)
	case len(words) > v.most:
		return nil, "", nil, usage("fleet: %s does not take %q", verb, words[v.most])
	}
	return sources, verb, words, nil
}

// fleetOutput writes what was asked.
type fleetOutput struct {
	std
	asJSON bool
}

// fleetDocument is the JSON form. One of its lists is set, as was asked.
type fleetDocument struct {
	Schema      string             `json:"schema"`
	Classes     []fleet.Kind       `json:"classes,omitempty"`
	Failures    []*fleet.Problem   `json:"failures,omitempty"`
	Reasons     []*fleet.Reason    `json:"reasons,omitempty"`
	Separations []fleet.Separation `json:"separations,omitempty"`
	Unknown     []fleet.Unknown    `json:"unknown,omitempty"`
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
			return fmt.Errorf("fleet: why: nothing fails that is named %q; 'bpfwhy fleet SOURCE failures' lists what does", w)
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
