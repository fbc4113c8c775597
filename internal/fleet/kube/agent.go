// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/bpfwhy/bpfwhy/internal/sys/kubeclient"
)

// StateFolder is where the chart lets 'bpfwhy serve' keep recordings.
const StateFolder = "/var/lib/bpfwhy"

// agentLabel is what the chart gives to the pods of 'bpfwhy serve'.
const agentLabel = "app.kubernetes.io/name=bpfwhy"

// Pod is where a pod runs.
type Pod struct {
	Namespace, Name, UID, Node string
}

type podObject struct {
	Metadata struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
		UID       string `json:"uid"`

		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
	Spec struct {
		NodeName string `json:"nodeName"`
	} `json:"spec"`
}

// pod has the uid that control groups are named after: for a static pod, that is the hash of its
// file.
func (p *podObject) pod() *Pod {
	uid := cmp.Or(p.Metadata.Annotations["kubernetes.io/config.hash"], p.Metadata.UID)
	return &Pod{p.Metadata.Namespace, p.Metadata.Name, uid, p.Spec.NodeName}
}

// Pod returns a pod that has a node.
func (c *Cluster) Pod(ctx context.Context, namespace, name string) (*Pod, error) {
	b, err := kubeclient.Raw(c.rest.Get().AbsPath("/api/v1/namespaces", namespace, "pods", name).Do(ctx))
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("namespace %s has no pod %q", namespace, name)
	}
	if err != nil {
		return nil, fmt.Errorf("get pod %s/%s: %w", namespace, name, err)
	}
	var p podObject
	if err := json.Unmarshal(b, &p); err != nil {
		return nil, fmt.Errorf("get pod %s/%s: %w", namespace, name, err)
	}
	if p.Spec.NodeName == "" {
		return nil, fmt.Errorf("pod %s/%s has no node yet: it loaded nothing so far", namespace, name)
	}
	return p.pod(), nil
}

// Agent returns the pod of 'bpfwhy serve' on a node.
func (c *Cluster) Agent(ctx context.Context, node string) (*Pod, error) {
	b, err := kubeclient.Raw(c.rest.Get().AbsPath("/api/v1/pods").Param("labelSelector", agentLabel).Param("fieldSelector", "spec.nodeName="+node).Do(ctx))
	if err != nil {
		return nil, fmt.Errorf("list pods of bpfwhy: %w", err)
	}
	var list struct {
		Items []podObject `json:"items"`
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("list pods of bpfwhy: %w", err)
	}
	if len(list.Items) == 0 {
		return nil, fmt.Errorf("no pod of bpfwhy (label %s) runs on node %q", agentLabel, node)
	}
	return list.Items[0].pod(), nil
}

// Exec are the words of the kubectl command that runs bpfwhy in a pod.
func (p *Pod) Exec(words ...string) []string {
	return append([]string{"exec", "-n", p.Namespace, p.Name, "-c", "bpfwhy", "--", "/bin/bpfwhy"}, words...)
}
