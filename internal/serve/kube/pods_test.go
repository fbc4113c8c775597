// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"k8s.io/client-go/rest"

	"github.com/bpfwhy/bpfwhy/internal/fleet/nodereport"
)

// listed are pods as an API server lists them.
const listed = `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[
{"metadata":{"name":"agent-5d8-x1","namespace":"o","uid":"u1","labels":{"pod-template-hash":"5d8"},
  "ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"agent-5d8","uid":"r","controller":true}]},
 "spec":{"containers":[{"name":"side","image":"i0"},{"name":"main","image":"i1","securityContext":{"capabilities":{"add":["CAP_BPF"]}}}]},
 "status":{"containerStatuses":[{"name":"main","containerID":"containerd://abc","state":{"waiting":{"reason":"CrashLoopBackOff"}}}]}},
{"metadata":{"name":"plain","namespace":"o","uid":"u2"},
 "spec":{"containers":[{"name":"main","image":"i2"}]},
 "status":{"containerStatuses":[{"name":"main","containerID":"cri-o://def","state":{"waiting":{"reason":"CrashLoopBackOff"}}}]}},
{"metadata":{"name":"static-n1","namespace":"kube-system","uid":"u3","annotations":{"kubernetes.io/config.hash":"h3"},
  "ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"n1","uid":"n","controller":true}]},
 "spec":{"containers":[{"name":"main","image":"i3","securityContext":{"privileged":true}}]},
 "status":{"containerStatuses":[{"name":"main","state":{"running":{}}}]}}]}`

// watched are the pods of an API server, which takes a while to list them.
func watched(t *testing.T, slow time.Duration) *Pods {
	t.Helper()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		qt.Check(t, qt.Equals(r.URL.Query().Get("fieldSelector"), "spec.nodeName=n1"))
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Query().Get("sendInitialEvents") != "" { // as API servers before 1.32 answer
			w.WriteHeader(http.StatusUnprocessableEntity)
			_, _ = w.Write([]byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Invalid","code":422}`))
			return
		}
		if r.URL.Query().Get("watch") != "" {
			<-r.Context().Done()
			return
		}
		time.Sleep(slow)
		_, _ = w.Write([]byte(listed))
	}))
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(func() { // the watch must not come back while the server waits for its end
		stop()
		web.CloseClientConnections()
		web.Close()
	})
	p, err := WatchPods(ctx, &rest.Config{Host: web.URL}, "n1")
	qt.Assert(t, qt.IsNil(err))
	return p
}

// TestFirstEvent: a pod that fails while the service starts gets its Event, and not its node.
func TestFirstEvent(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Pods = watched(t, 300*time.Millisecond) })
	i := failure("0123456789ab", 1)
	i.Failure.Workload = nodereport.Workload{PodUID: "u1"}
	f.put(t, i)
	qt.Check(t, qt.DeepEquals(f.server.requests(), []string{"POST /apis/events.k8s.io/v1/namespaces/o/events"}))
}

func TestPods(t *testing.T) {
	p := watched(t, 0)
	qt.Assert(t, qt.IsTrue(p.Wait(t.Context())))
	for _, test := range []struct{ in, want nodereport.Workload }{
		{nodereport.Workload{PodUID: "u1", Container: "containerd://abc"}, nodereport.Workload{Namespace: "o", Pod: "agent-5d8-x1", PodUID: "u1", Owner: "Deployment/agent", Container: "main", Image: "i1"}},
		{nodereport.Workload{PodUID: "u1", Container: "cri://abc"}, nodereport.Workload{Namespace: "o", Pod: "agent-5d8-x1", PodUID: "u1", Owner: "Deployment/agent", Container: "main", Image: "i1"}},
		{nodereport.Workload{PodUID: "u2", Container: "cri://gone"}, nodereport.Workload{Namespace: "o", Pod: "plain", PodUID: "u2", Owner: "Pod/plain", Container: "cri://gone"}},
		{nodereport.Workload{PodUID: "h3"}, nodereport.Workload{Namespace: "kube-system", Pod: "static-n1", PodUID: "u3", Owner: "Node/n1"}},
		{nodereport.Workload{PodUID: "other"}, nodereport.Workload{PodUID: "other"}},
		{nodereport.Workload{Owner: "a.service"}, nodereport.Workload{Owner: "a.service"}},
	} {
		qt.Check(t, qt.DeepEquals(p.Named(test.in), test.want))
	}
	b, err := json.Marshal(p.Crashing())
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(b), `[{"namespace":"o","pod":"agent-5d8-x1","podUID":"u1","owner":"Deployment/agent","container":"main","image":"i1"}]`))
}
