// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/bpfwhy/bpfwhy/internal/fleet/nodereport"
	"github.com/bpfwhy/bpfwhy/internal/hostinfo/rights"
)

// pod is as much of a Pod as concerns us: the rest is dropped while it is decoded.
type pod struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              struct {
		Containers     []container `json:"containers"`
		InitContainers []container `json:"initContainers,omitempty"`
	} `json:"spec"`
	Status struct {
		Containers     []containerStatus `json:"containerStatuses,omitempty"`
		InitContainers []containerStatus `json:"initContainerStatuses,omitempty"`
	} `json:"status"`
}

type container struct {
	Name     string                 `json:"name"`
	Image    string                 `json:"image"`
	Security rights.SecurityContext `json:"securityContext"`
}

type containerStatus struct {
	Name        string `json:"name"`
	ContainerID string `json:"containerID,omitempty"`
	State       struct {
		Waiting struct {
			Reason string `json:"reason"`
		} `json:"waiting"`
	} `json:"state"`
}

type podList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []pod `json:"items"`
}

// DeepCopyObject implements [runtime.Object]. Nothing of a pod is ever changed.
func (p *pod) DeepCopyObject() runtime.Object { c := *p; return &c }

// DeepCopyObject implements [runtime.Object].
func (l *podList) DeepCopyObject() runtime.Object { c := *l; return &c }

// Pods are the pods of this node. They are watched, and never polled.
type Pods struct {
	store      cache.Indexer
	controller cache.Controller
}

const byUID = "uid"

// WatchPods begins to watch the pods of a node, until ctx ends.
func WatchPods(ctx context.Context, config *rest.Config, node string) (*Pods, error) {
	version := schema.GroupVersion{Version: "v1"}
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, version)
	scheme.AddKnownTypeWithName(version.WithKind("Pod"), &pod{})
	scheme.AddKnownTypeWithName(version.WithKind("PodList"), &podList{})
	c := rest.CopyConfig(config)
	c.GroupVersion, c.APIPath, c.UserAgent = &version, "/api", "bpfwhy-serve"
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	c.AcceptContentTypes, c.ContentType = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	client, err := rest.RESTClientFor(c)
	if err != nil {
		return nil, fmt.Errorf("watch pods: %w", err)
	}
	watched := cache.NewListWatchFromClient(client, "pods", metav1.NamespaceAll, fields.OneTermEqualSelector("spec.nodeName", node))
	store, controller := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: watched, ObjectType: &pod{}, Handler: cache.ResourceEventHandlerFuncs{}, Indexers: cache.Indexers{byUID: uids},
	})
	p := &Pods{store.(cache.Indexer), controller} // it has indexers
	go p.controller.RunWithContext(ctx)
	return p, nil
}

// uids are those by which a pod is known: the control group of a static pod is named after the hash
// of its file.
func uids(o any) ([]string, error) {
	p := o.(*pod)
	list := []string{string(p.UID)}
	if hash := p.Annotations["kubernetes.io/config.hash"]; hash != "" {
		list = append(list, hash)
	}
	return list, nil
}

// Named returns a workload with what the API server says of its pod. One that is not known, or that
// is gone, stays as it is.
func (p *Pods) Named(w nodereport.Workload) nodereport.Workload {
	found, err := p.store.ByIndex(byUID, w.PodUID)
	if err != nil || len(found) != 1 || w.PodUID == "" {
		return w
	}
	return found[0].(*pod).workload(w.Container)
}

// workload is a pod, and one of its containers by the runtime's id: "containerd://ID".
func (p *pod) workload(id string) nodereport.Workload {
	w := nodereport.Workload{Namespace: p.Namespace, Pod: p.Name, PodUID: string(p.UID), Owner: p.owner(), Container: id}
	_, number, _ := strings.Cut(id, "://")
	for _, s := range slices.Concat(p.Status.Containers, p.Status.InitContainers) {
		// The control group does not always say which runtime it is of.
		_, own, _ := strings.Cut(s.ContainerID, "://")
		if number == "" || own != number {
			continue
		}
		w.Container = s.Name
		for _, c := range slices.Concat(p.Spec.Containers, p.Spec.InitContainers) {
			if c.Name == s.Name {
				w.Image = c.Image
			}
		}
	}
	return w
}

// owner is what the pod is one of. A ReplicaSet of a Deployment ends with a hash.
func (p *pod) owner() string {
	for _, o := range p.OwnerReferences {
		if o.Controller == nil || !*o.Controller {
			continue
		}
		if hash := p.Labels["pod-template-hash"]; o.Kind == "ReplicaSet" && hash != "" {
			if name, ok := strings.CutSuffix(o.Name, "-"+hash); ok {
				return "Deployment/" + name
			}
		}
		return o.Kind + "/" + o.Name
	}
	return "Pod/" + p.Name
}

// Crashing are pods that crash in a loop and have rights for BPF.
func (p *Pods) Crashing() (out []nodereport.Workload) {
	for _, o := range p.store.List() {
		pod := o.(*pod)
		for _, s := range slices.Concat(pod.Status.Containers, pod.Status.InitContainers) {
			if s.State.Waiting.Reason == "CrashLoopBackOff" && pod.rights(s.Name) {
				out = append(out, pod.workload(s.ContainerID))
				break
			}
		}
	}
	slices.SortFunc(out, func(a, b nodereport.Workload) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod))
	})
	return out
}

// rights reports that a container may load BPF programs.
func (p *pod) rights(name string) bool {
	for _, c := range slices.Concat(p.Spec.Containers, p.Spec.InitContainers) {
		if c.Name == name {
			return c.Security.Loads()
		}
	}
	return false
}

// Wait gives the pods a moment to be known.
func (p *Pods) Wait(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return cache.WaitForCacheSync(ctx.Done(), p.controller.HasSynced)
}
