// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/bpfwhy/bpfwhy/internal/hostinfo/rights"
	"github.com/bpfwhy/bpfwhy/internal/sys/kubeclient"
)

// workloads are the kinds that can be patched, by the words that kubectl takes for them.
var workloads = map[string]string{
	"daemonset": "daemonsets", "daemonsets": "daemonsets", "ds": "daemonsets",
	"deployment": "deployments", "deployments": "deployments", "deploy": "deployments",
	"statefulset": "statefulsets", "statefulsets": "statefulsets", "sts": "statefulsets",
}

// template is as much of a workload as the patch depends on.
type template struct {
	Spec struct {
		Template struct {
			Spec struct {
				Containers []container `json:"containers"`
			} `json:"spec"`
		} `json:"template"`
	} `json:"spec"`
}

type container struct {
	Name     string                 `json:"name"`
	Command  []string               `json:"command"`
	Security rights.SecurityContext `json:"securityContext"`
}

// Repair returns a patch for a workload, with the command that would apply it as a comment: its
// container starts below 'bpfwhy run --repair'. command is that of the image, where the workload
// has none: nobody but the registry knows it.
func (c *Cluster) Repair(ctx context.Context, namespace, workload, image string, command []string) (string, error) {
	kind, name, ok := strings.Cut(workload, "/")
	resource := workloads[strings.ToLower(kind)]
	if !ok || resource == "" || name == "" {
		return "", fmt.Errorf("%q: name a workload as daemonset/NAME, deployment/NAME or statefulset/NAME", workload)
	}
	b, err := kubeclient.Raw(c.rest.Get().AbsPath("/apis/apps/v1/namespaces", namespace, resource, name).Do(ctx))
	if apierrors.IsNotFound(err) {
		return "", fmt.Errorf("namespace %s has no %s %q", namespace, strings.TrimSuffix(resource, "s"), name)
	}
	if err != nil {
		return "", fmt.Errorf("get %s %s/%s: %w", resource, namespace, name, err)
	}
	var t template
	if err := json.Unmarshal(b, &t); err != nil {
		return "", fmt.Errorf("get %s %s/%s: %w", resource, namespace, name, err)
	}
	one, err := loading(t.Spec.Template.Spec.Containers)
	if err != nil {
		return "", err
	}
	if len(one.Command) == 0 {
		one.Command = command
	}
	if len(one.Command) == 0 {
		return "", fmt.Errorf("container %q has no command of its own, and bpfwhy cannot know that of its image: give it with --command, once for each word", one.Name)
	}
	return patch(namespace, strings.TrimSuffix(resource, "s"), name, image, one), nil
}

// loading is the container that loads BPF programs.
func loading(all []container) (*container, error) {
	var found []*container
	var names []string
	for i := range all {
		if all[i].Security.Loads() {
			found = append(found, &all[i])
			names = append(names, all[i].Name)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) == 0:
		return nil, errors.New("none of its containers has a right to load BPF programs (privileged, BPF or SYS_ADMIN)")
	}
	return nil, fmt.Errorf("several of its containers may load BPF programs (%s): patch the right one by hand", strings.Join(names, ", "))
}

// patch is YAML, in which each foreign word is written as JSON.
func patch(namespace, kind, name, image string, c *container) string {
	command := append([]string{"/bpfwhy/bpfwhy", "run", "--repair", "--"}, c.Command...)
	return fmt.Sprintf(`# %[1]s/%[2]s: programs that constant blinding breaks are rewritten while they are
# loaded. Better, where you own the agent: its loader (package loader of bpfwhy).
# Nothing is applied. To apply it:
#   kubectl -n %[3]s patch %[1]s %[2]s --patch-file FILE
spec:
  template:
    spec:
      volumes:
        - { name: bpfwhy, emptyDir: {} }
      initContainers:
        - name: bpfwhy
          image: %[4]s
          command: [/bin/bpfwhy, copy, /bpfwhy/bpfwhy]
          volumeMounts: [{ name: bpfwhy, mountPath: /bpfwhy }]
      containers:
        - name: %[5]s
          command: %[6]s
          volumeMounts: [{ name: bpfwhy, mountPath: /bpfwhy, readOnly: true }]
`, kind, name, namespace, quote(image), quote(c.Name), quote(command))
}

func quote(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings
	}
	return string(b)
}
