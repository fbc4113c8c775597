// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bpfwhy/bpfwhy/internal/fleet"
	"github.com/bpfwhy/bpfwhy/internal/fleet/folder"
	"github.com/bpfwhy/bpfwhy/internal/fleet/kube"
)

// plugin is the name under which kubectl finds bpfwhy.
const plugin = "kubectl-bpfwhy"

// fleetOptions are the flags of fleet, named as kubectl names its own.
type fleetOptions struct {
	std
	asJSON    bool
	output    string
	contexts  []string
	namespace string
	selector  string
	harden    int
	exec      bool
	image     string
	command   []string
}

func (o *fleetOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.BoolVar(&o.asJSON, "json", false, "as one line of JSON")
	f.StringVarP(&o.output, "output", "o", "", "json, which is the same as --json")
	f.StringArrayVar(&o.contexts, "context", nil, "the context of the kubeconfig; may be given several times")
	f.StringVarP(&o.namespace, "namespace", "n", "", "only what fails in this namespace")
	f.StringVarP(&o.selector, "selector", "l", "", "only nodes with these labels")
	f.IntVar(&o.harden, "harden", 2, "of audit: the value of net.core.bpf_jit_harden, 1 or 2")
	f.BoolVar(&o.exec, "run", false, "of trace, watch and now: run the command")
	f.StringVar(&o.image, "image", "", "of now and repair: the image that has bpfwhy")
	f.StringArrayVar(&o.command, "command", nil, "of repair: the command of the container, a word each, where the workload has none")
}

func (o *fleetOptions) run(ctx context.Context, args []string) error {
	switch {
	case o.output != "" && o.output != "json":
		return usage("fleet: -o %q: choose json", o.output)
	case o.harden != 1 && o.harden != 2:
		return usage("fleet: --harden %d: choose 1 or 2", o.harden)
	}
	sources, verb, words, err := fleetArgs(args)
	if err != nil {
		return err
	}
	v := fleetVerbs[verb]
	if v.cluster != nil {
		c, err := o.cluster()
		if err != nil {
			return err
		}
		return v.cluster(o, ctx, c, words[0])
	}
	f, err := o.read(ctx, sources)
	if err != nil {
		return err
	}
	f.Only(o.namespace)
	return v.run(fleetOutput{o.std, o.asJSON || o.output == "json", o.harden}, f, words)
}

// cluster is the one that a command goes to.
func (o *fleetOptions) cluster() (*kube.Cluster, error) {
	if len(o.contexts) > 1 {
		return nil, usage("fleet: give one --context")
	}
	return openCluster(cmp.Or(append(o.contexts, "")...))
}

func openCluster(name string) (*kube.Cluster, error) {
	c, err := kube.Open(name)
	if errors.Is(err, kube.ErrNoConfig) {
		return nil, usage("fleet: give a folder or files that were gathered from nodes, or a cluster: there is no kubeconfig")
	}
	if err != nil {
		return nil, fmt.Errorf("fleet: %w", err)
	}
	return c, nil
}

// read reads files, or clusters.
func (o *fleetOptions) read(ctx context.Context, sources []string) (*fleet.Fleet, error) {
	if len(sources) > 0 {
		if len(o.contexts) > 0 || o.selector != "" {
			return nil, usage("fleet: --context and --selector are of clusters, and %q is a file or a folder", sources[0])
		}
		return o.files(sources)
	}
	contexts := o.contexts
	if len(contexts) == 0 {
		contexts = []string{""}
	}
	all := &fleet.Fleet{}
	for _, name := range contexts {
		c, err := openCluster(name)
		if err != nil {
			return nil, err
		}
		f, bad, err := c.Read(ctx, o.selector)
		if err != nil {
			return nil, fmt.Errorf("fleet: cluster %q: %w", c.Context, err)
		}
		for _, b := range bad {
			o.say("fleet: cluster %q: %v", c.Context, b)
		}
		for _, n := range f.Nodes {
			if len(contexts) > 1 { // clusters name their nodes alike
				n.Name = c.Context + "/" + n.Name
			}
			all.Nodes = append(all.Nodes, n)
		}
	}
	if len(all.Nodes) == 0 {
		return nil, errors.New("fleet: no node has reported yet: 'kubectl get nodereports' is empty")
	}
	return all, nil
}

func (o *fleetOptions) files(sources []string) (*fleet.Fleet, error) {
	f, skipped, err := folder.Read(sources)
	if err != nil {
		return nil, fmt.Errorf("fleet: %w", err)
	}
	for _, s := range skipped {
		what := "was skipped"
		if s.Partly {
			what = "was read in part"
		}
		o.say("fleet: %s %s: %v", s.File, what, s.Err)
	}
	if len(f.Nodes) == 0 {
		return nil, fmt.Errorf("fleet: no recording and no profile in %q. Record with 'bpfwhy watch --record FILE', and write profiles with 'bpfwhy node --json'", sources)
	}
	return f, nil
}

// trace gives the recording of a failure.
func (o *fleetOptions) trace(ctx context.Context, c *kube.Cluster, id string) error {
	f, _, err := c.Read(ctx, o.selector)
	if err != nil {
		return fmt.Errorf("fleet: trace: %w", err)
	}
	for _, p := range f.Problems() {
		if !strings.EqualFold(p.ID, id) {
			continue
		}
		agent, err := c.Agent(ctx, p.Fail[0])
		if err != nil {
			return fmt.Errorf("fleet: trace: %w", err)
		}
		return o.kubectl(c, agent.Exec("explain", kube.StateFolder+"/failures/"+p.ID+".bpfwhy")...)
	}
	return fmt.Errorf("fleet: trace: nothing fails with the id %q; 'kubectl bpfwhy failures' lists the ids", id)
}

// watch shows the loads of a node.
func (o *fleetOptions) watch(ctx context.Context, c *kube.Cluster, node string) error {
	agent, err := c.Agent(ctx, node)
	if err != nil {
		return fmt.Errorf("fleet: watch: %w", err)
	}
	return o.kubectl(c, agent.Exec("watch")...)
}

// now watches the node of a pod without anything that is installed there.
func (o *fleetOptions) now(ctx context.Context, c *kube.Cluster, pod string) error {
	if o.image == "" {
		return usage("fleet: now: say which image has bpfwhy, with --image")
	}
	p, err := c.Pod(ctx, cmp.Or(o.namespace, c.Namespace), strings.TrimPrefix(pod, "pod/"))
	if err != nil {
		return fmt.Errorf("fleet: now: %w", err)
	}
	return o.kubectl(c, "debug", "node/"+p.Node, "--profile=sysadmin", "--image="+o.image, "--attach=true", "--quiet",
		"--", "/bin/bpfwhy", "watch", "--failed", "--pod="+p.UID)
}

// repair prints a patch.
func (o *fleetOptions) repair(ctx context.Context, c *kube.Cluster, workload string) error {
	if o.image == "" {
		return usage("fleet: repair: say which image has bpfwhy, with --image")
	}
	text, err := c.Repair(ctx, cmp.Or(o.namespace, c.Namespace), workload, o.image, o.command)
	if err != nil {
		return fmt.Errorf("fleet: repair: %w", err)
	}
	_, err = o.out.WriteString(text)
	return err
}

// kubectl prints a command of kubectl, or runs it.
func (o *fleetOptions) kubectl(c *kube.Cluster, args ...string) error {
	if len(o.contexts) > 0 {
		args = append([]string{"--context=" + c.Context}, args...)
	}
	if !o.exec {
		_, err := fmt.Fprintln(o.out, "kubectl "+quoted(args))
		return err
	}
	cmd := exec.Command("kubectl", args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, o.out, o.err
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return &status{code: max(exit.ExitCode(), negative)}
	}
	if err != nil {
		return fmt.Errorf("fleet: run kubectl: %w", err)
	}
	return nil
}

// quoted writes words so that a shell reads them as they are.
func quoted(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		safe := strings.Trim(w, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=./:@,") == ""
		if out[i] = w; !safe || w == "" {
			out[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(out, " ")
}
