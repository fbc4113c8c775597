// SPDX-License-Identifier: Apache-2.0

// Package kube tells the API server of Kubernetes what 'bpfwhy serve' finds on its node: Events on
// the pods whose loads fail, and a NodeReport. It writes little: an Event when something new fails,
// and a report when what it says has changed.
package kube

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/time/rate"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/bpfwhy/bpfwhy/internal/serve/sink"
	"github.com/bpfwhy/bpfwhy/internal/sys/kubeclient"
)

// Options say what is written, and as whom.
type Options struct {
	Node    string // the name of the Node
	Config  *rest.Config
	Events  bool
	Reports bool
	// Conditions adds the condition BPFLoads to the Node.
	Conditions bool
	// Pods are those of the node; nil: their names are not known.
	Pods *Pods
	// Jitter is how long a report waits at most, so that not all nodes write at once.
	Jitter time.Duration
	// Say tells people what is left out, and why.
	Say func(format string, args ...any)

	now func() time.Time
	qps float32
}

// How often this node writes at most. A failure that is held back is in the report and in metrics.
const (
	eventBurst = 10
	eventEvery = time.Minute
	reportRest = time.Minute
	// A report in which nothing but counts has changed waits longer.
	countsRest = 10 * time.Minute
	// What was forbidden is tried again after this time: an administrator may have changed it.
	forbiddenRest = 10 * time.Minute
	// A node of which the class changes more often has a value in it that should not be there.
	classesADay = 10
)

// Client returns the configuration of the service account of this pod. Its token is read again when
// it was replaced. Outside of a pod, KUBECONFIG names a file with another.
func Client() (*rest.Config, error) {
	c, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return nil, fmt.Errorf("reach API server: %w", err)
	}
	return c, nil
}

// Sink writes to the API server.
type Sink struct {
	Options
	Counts *Counts

	rest   rest.Interface
	budget *rate.Limiter
	events events
	first  sync.Once // a failure in a pod

	// Of the goroutine that writes reports.
	states chan *sink.State
	stop   chan struct{}
	done   chan struct{}
	report reportState

	mu   sync.Mutex
	node *nodeRef // nil until it was asked for
}

// nodeRef is how other objects name the Node.
type nodeRef struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Name       string `json:"name"`
	UID        string `json:"uid"`
}

// New returns a sink. It asks nothing of the API server yet: that may be away.
func New(o Options) (*Sink, error) {
	if o.Say == nil {
		o.Say = func(string, ...any) {}
	}
	if o.now == nil {
		o.now = time.Now
	}
	s := &Sink{Options: o, Counts: &Counts{}, budget: rate.NewLimiter(rate.Every(eventEvery), eventBurst),
		states: make(chan *sink.State, 1), stop: make(chan struct{}), done: make(chan struct{})}
	c := rest.CopyConfig(o.Config)
	c.QPS, c.Burst = cmp.Or(o.qps, 1), 5
	c.UserAgent = "bpfwhy-serve"
	c.Wrap(s.Counts.wrap)
	client, err := kubeclient.New(c)
	if err != nil {
		return nil, fmt.Errorf("reach API server: %w", err)
	}
	s.rest = client
	go s.reports()
	return s, nil
}

// Name implements [sink.Sink].
func (s *Sink) Name() string { return "kube" }

// Put implements [sink.Sink].
func (s *Sink) Put(ctx context.Context, i sink.Item) error {
	switch {
	case i.State != nil:
		select { // the last one counts
		case <-s.states:
		default:
		}
		s.states <- i.State
		return nil
	case !s.Events:
		return nil
	case i.Failure != nil:
		return s.failure(ctx, i.Failure)
	case i.Change != nil:
		return s.change(ctx, i.Change)
	case i.Hang != nil && i.Hang.Diagnosis != nil:
		return s.hang(ctx, i.Hang)
	}
	return nil
}

// Close implements [sink.Sink]. A report that waits is written.
func (s *Sink) Close(ctx context.Context) error {
	close(s.stop)
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// send makes one request, and does not repeat it: the queue does, when the server says.
func (s *Sink) send(ctx context.Context, r *rest.Request, object any) ([]byte, error) {
	if object != nil {
		b, err := json.Marshal(object)
		if err != nil {
			return nil, err
		}
		r = r.Body(b)
	}
	return kubeclient.Raw(r.MaxRetries(0).Param("fieldManager", "bpfwhy").Do(ctx))
}

// self is the Node, which the API server is asked for once.
func (s *Sink) self(ctx context.Context) (*nodeRef, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.node != nil {
		return s.node, nil
	}
	b, err := kubeclient.Raw(s.rest.Get().AbsPath("/api/v1/nodes", s.Node).MaxRetries(0).Do(ctx))
	if err != nil {
		return nil, fmt.Errorf("get node %s: %w", s.Node, err)
	}
	var n struct {
		Metadata struct {
			UID string `json:"uid"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(b, &n); err != nil || n.Metadata.UID == "" {
		return nil, fmt.Errorf("get node %s: the answer has no uid", s.Node)
	}
	s.node = &nodeRef{"v1", "Node", s.Node, n.Metadata.UID}
	return s.node, nil
}

// judge turns an answer of the API server into what the queue understands: when to try again, or
// never.
func judge(err error) error {
	if err == nil {
		return nil
	}
	if seconds, told := apierrors.SuggestsClientDelay(err); told {
		return sink.After(err, time.Duration(seconds)*time.Second)
	}
	reason := apierrors.ReasonForError(err)
	switch reason {
	case metav1.StatusReasonForbidden, metav1.StatusReasonInvalid, metav1.StatusReasonBadRequest, metav1.StatusReasonNotFound,
		metav1.StatusReasonRequestEntityTooLarge, metav1.StatusReasonMethodNotAllowed:
		return sink.Permanent(err)
	}
	return err
}

// refused reports that the API server will not take a kind of objects at all: it does not know
// them, or an administrator did not allow them.
func refused(err error) bool {
	return err != nil && (apierrors.IsForbidden(err) || apierrors.IsNotFound(err)) && !errors.Is(err, context.Canceled)
}
