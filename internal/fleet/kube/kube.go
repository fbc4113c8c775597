// SPDX-License-Identifier: Apache-2.0

// Package kube reads a fleet from the API server of Kubernetes: the reports that 'bpfwhy serve'
// writes there.
package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/bpfwhy/bpfwhy/internal/fleet"
	"github.com/bpfwhy/bpfwhy/internal/fleet/nodereport"
	"github.com/bpfwhy/bpfwhy/internal/sys/kubeclient"
)

// A Cluster is one that a kubeconfig names.
type Cluster struct {
	Context   string
	Namespace string // of the context
	rest      rest.Interface
}

// Open takes the cluster of a context of the user's kubeconfig, as kubectl does. "" is the current
// one; where there is no kubeconfig, it is the cluster of the pod that this runs in.
func Open(name string) (*Cluster, error) {
	loading := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(clientcmd.NewDefaultClientConfigLoadingRules(),
		&clientcmd.ConfigOverrides{CurrentContext: name})
	config, err := loading.ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, ErrNoConfig
	}
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	namespace, _, err := loading.Namespace()
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	if raw, err := loading.RawConfig(); err == nil && name == "" {
		name = raw.CurrentContext
	}
	// A few large lists at once: no reason to wait between them.
	config.QPS, config.Burst = 50, 100
	config.UserAgent = "kubectl-bpfwhy"
	client, err := kubeclient.New(config)
	if err != nil {
		return nil, fmt.Errorf("reach cluster %q: %w", name, err)
	}
	return &Cluster{name, namespace, client}, nil
}

// ErrNoConfig: there is no kubeconfig, and this is no pod.
var ErrNoConfig = errors.New("there is no kubeconfig")

// ErrNotInstalled: the cluster has no reports, as bpfwhy is not installed there.
var ErrNotInstalled = errors.New("the cluster knows no NodeReports: the chart of bpfwhy is not installed there. " +
	"'kubectl bpfwhy now POD' needs nothing installed")

// Read reads all reports and classes. The selector is one of the labels of nodes; "" takes all
// nodes. What could not be taken is in the second value: one bad object hides no other.
func (c *Cluster) Read(ctx context.Context, selector string) (*fleet.Fleet, []error, error) {
	var reports []*nodereport.Report
	classes := map[string]*nodereport.Class{}
	var bad []error
	// Classes come last: a report that was written meanwhile has its class.
	for _, resource := range []string{"nodereports", "nodeclasses"} {
		items, err := c.items(ctx, resource)
		if err != nil {
			return nil, nil, err
		}
		for _, item := range items {
			r, k, err := nodereport.Decode(bytes.NewReader(item))
			if err != nil && len(bad) < maxBad {
				bad = append(bad, err)
			}
			reports = append(reports, r...)
			for _, one := range k {
				classes[one.Metadata.Name] = one
			}
		}
	}
	wanted, err := c.selected(ctx, selector)
	if err != nil {
		return nil, nil, err
	}
	f := &fleet.Fleet{}
	for _, r := range reports {
		if wanted == nil || wanted[r.Metadata.Name] {
			f.Nodes = append(f.Nodes, r.Node(classes[r.Status.Class]))
		}
	}
	f.Settle()
	return f, bad, nil
}

// maxBad is how many bad objects are named.
const maxBad = 10

// items are the objects of a resource, which the API server keeps by name.
func (c *Cluster) items(ctx context.Context, resource string) ([]json.RawMessage, error) {
	b, err := c.list(ctx, "/apis/"+nodereport.APIVersion+"/"+resource, "")
	switch {
	case apierrors.IsNotFound(err):
		return nil, ErrNotInstalled
	case err != nil:
		return nil, fmt.Errorf("list %s: %w", resource, err)
	}
	var list struct {
		Items []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("list %s: %w", resource, err)
	}
	return list.Items, nil
}

// list reads all objects of a resource from the API server's cache, in one answer: it is faster
// than pages, and does not trouble etcd.
func (c *Cluster) list(ctx context.Context, path, selector string) ([]byte, error) {
	r := c.rest.Get().AbsPath(path).Param("resourceVersion", "0")
	if selector != "" {
		r = r.Param("labelSelector", selector)
	}
	return kubeclient.Raw(r.Do(ctx))
}

// selected are the names of the nodes that a selector selects; nil: all.
func (c *Cluster) selected(ctx context.Context, selector string) (map[string]bool, error) {
	if selector == "" {
		return nil, nil
	}
	b, err := c.list(ctx, "/api/v1/nodes", selector)
	if err != nil {
		return nil, fmt.Errorf("list nodes with labels %q: %w", selector, err)
	}
	var list metav1.PartialObjectMetadataList
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	names := map[string]bool{}
	for i := range list.Items {
		names[list.Items[i].Name] = true
	}
	return names, nil
}
