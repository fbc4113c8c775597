// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/bpfwhy/bpfwhy/internal/fleet/nodereport"
	"github.com/bpfwhy/bpfwhy/internal/serve/sink"
	"github.com/bpfwhy/bpfwhy/internal/sys/kubeclient"
)

// reportState is what the API server has of this node, as far as is known.
type reportState struct {
	version   string // resourceVersion; "": it is not known whether there is a report
	said      []byte // what it says, without counts
	exact     []byte // what it says
	at        time.Time
	classes   map[string]time.Time // those that were written by this process
	condition string
}

const api = "/apis/" + nodereport.APIVersion

// reports writes what is newest, when it is time.
func (s *Sink) reports() {
	defer close(s.done)
	var pending *sink.State
	var due <-chan time.Time
	for {
		select {
		case state := <-s.states:
			pending = state
			if wait, needed := s.wait(state); !needed {
				pending, due = nil, nil
			} else if due == nil {
				due = time.After(wait)
			}
		case <-due:
			due = nil
			if err := s.written(context.Background(), pending); err != nil {
				s.Say("kube: %v", err)
				due = time.After(retryAfter(err))
				continue
			}
			pending = nil
		case <-s.stop:
			select {
			case pending = <-s.states:
			default:
			}
			if pending != nil && (s.Reports || s.Conditions) {
				if err := s.written(context.Background(), pending); err != nil {
					s.Say("kube: %v", err)
				}
			}
			return
		}
	}
}

// wait is how long a state should wait. One that says nothing new is not written.
func (s *Sink) wait(state *sink.State) (time.Duration, bool) {
	if !s.Reports && !s.Conditions || state.Report == nil {
		return 0, false
	}
	r := &s.report
	said, exact := gist(state.Report)
	rest := reportRest
	switch {
	case r.exact != nil && slices.Equal(exact, r.exact):
		return 0, false
	case r.said != nil && slices.Equal(said, r.said):
		rest = countsRest
	}
	jitter := time.Duration(0)
	if s.Jitter > 0 {
		jitter = rand.N(s.Jitter)
	}
	return max(r.at.Add(rest).Sub(s.now()), 0) + jitter, true
}

// gist is a report without what changes with each load, and the report with that. Neither has the
// time until which somebody watched: that alone is nothing to write.
func gist(r *nodereport.Report) (said, exact []byte) {
	g := r.Status
	if g.Watching != nil {
		w := *g.Watching
		w.Last = time.Time{}
		g.Watching = &w
	}
	exact, err := json.Marshal(g)
	if err != nil {
		return nil, nil
	}
	g.Failures = slices.Clone(g.Failures)
	for i := range g.Failures {
		f := &g.Failures[i]
		f.Count, f.Last, f.First = 0, time.Time{}, time.Time{}
	}
	slices.SortFunc(g.Failures, func(a, b nodereport.Failure) int { return slices.Compare([]byte(a.ID+a.PodUID), []byte(b.ID+b.PodUID)) })
	g.Loaded = slices.Clone(g.Loaded)
	for i := range g.Loaded {
		g.Loaded[i].Count = 0
	}
	g.Dropped, g.Calls, g.Lost, g.Audit = 0, 0, nil, nil
	if said, err = json.Marshal(g); err != nil {
		return nil, exact
	}
	return said, exact
}

func retryAfter(err error) time.Duration {
	wait := reportRest
	if refused(err) {
		wait = forbiddenRest
	}
	if seconds, told := apierrors.SuggestsClientDelay(err); told {
		wait = max(wait, time.Duration(seconds)*time.Second)
	}
	return wait/2 + rand.N(wait/2) + wait/2
}

// written writes the class and the report, each unless it is there.
func (s *Sink) written(ctx context.Context, state *sink.State) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	node, err := s.self(ctx)
	if err != nil {
		return err
	}
	report := *state.Report
	report.Status.Silent = s.silent(&report.Status)
	if s.Reports {
		err = s.class(ctx, state.Class)
		if err == nil {
			err = s.put(ctx, report.Bounded(), node)
		}
		if refused(err) {
			s.Counts.suppress("forbidden")
			err = fmt.Errorf("no NodeReport is written, Events only: the API server says: %w", err)
		}
	}
	if s.Conditions {
		err = errors.Join(err, s.condition(ctx, &report.Status))
	}
	if err == nil {
		s.report.said, s.report.exact = gist(state.Report)
		s.report.at = s.now()
	}
	return err
}

// class writes a class unless somebody did: then the answer is 409.
func (s *Sink) class(ctx context.Context, c *nodereport.Class) error {
	r := &s.report
	if c == nil {
		return nil
	}
	if _, known := r.classes[c.Metadata.Name]; known {
		return nil
	}
	day := s.now().Add(-24 * time.Hour)
	recent := 0
	for name, at := range r.classes {
		if at.Before(day) {
			delete(r.classes, name)
			continue
		}
		recent++
	}
	if recent >= classesADay {
		s.Counts.suppress("classes")
		return fmt.Errorf("class %s is not written: this node had %d others within a day, so something in it changes that should not", c.Metadata.Name, recent)
	}
	_, err := s.send(ctx, s.rest.Post().AbsPath(api, "nodeclasses"), c)
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create class %s: %w", c.Metadata.Name, err)
	}
	if r.classes == nil {
		r.classes = map[string]time.Time{}
	}
	r.classes[c.Metadata.Name] = s.now()
	return nil
}

// object is a NodeReport with the metadata that the API server wants.
type object struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   objectMeta        `json:"metadata"`
	Status     nodereport.Status `json:"status"`
}

type objectMeta struct {
	Name            string    `json:"name"`
	ResourceVersion string    `json:"resourceVersion,omitempty"`
	OwnerReferences []nodeRef `json:"ownerReferences,omitempty"`
}

// put creates the report, or replaces it. It goes with its Node.
func (s *Sink) put(ctx context.Context, report *nodereport.Report, node *nodeRef) error {
	r := &s.report
	o := object{nodereport.APIVersion, nodereport.ReportKind, objectMeta{Name: s.Node, OwnerReferences: []nodeRef{*node}}, report.Status}
	var answer []byte
	var err error
	if r.version == "" {
		answer, err = s.send(ctx, s.rest.Post().AbsPath(api, "nodereports"), o)
		if apierrors.IsAlreadyExists(err) {
			answer, err = kubeclient.Raw(s.rest.Get().AbsPath(api, "nodereports", s.Node).MaxRetries(0).Do(ctx))
			if err == nil {
				r.version = versionOf(answer)
			}
		} else if err == nil {
			r.version = versionOf(answer)
			return nil
		}
	}
	if err == nil {
		o.Metadata.ResourceVersion = r.version
		answer, err = s.send(ctx, s.rest.Put().AbsPath(api, "nodereports", s.Node), o)
	}
	if err != nil {
		r.version = "" // it was deleted, or somebody else wrote: asked for at the next try
		return fmt.Errorf("write report: %w", err)
	}
	r.version = versionOf(answer)
	return nil
}

func versionOf(answer []byte) string {
	var o struct {
		Metadata objectMeta `json:"metadata"`
	}
	_ = json.Unmarshal(answer, &o) // without a version, it is asked for at the next time
	return o.Metadata.ResourceVersion
}

// condition writes BPFLoads on the Node, when it has changed.
func (s *Sink) condition(ctx context.Context, status *nodereport.Status) error {
	value, reason, message := "True", "BPFLoadsWork", "no BPF load fails"
	if status.Failing > 0 {
		value, reason = "False", "BPFLoadsFail"
		message = fmt.Sprintf("%d kinds of BPF loads fail: kubectl bpfwhy failures", status.Failing)
	}
	if s.report.condition == value+message {
		return nil
	}
	now := s.now().UTC().Format(time.RFC3339)
	patch := map[string]any{"status": map[string]any{"conditions": []map[string]string{{
		"type": "BPFLoads", "status": value, "reason": reason, "message": message, "lastHeartbeatTime": now, "lastTransitionTime": now,
	}}}}
	_, err := s.send(ctx, s.rest.Patch(types.StrategicMergePatchType).AbsPath("/api/v1/nodes", s.Node, "status"), patch)
	if err != nil {
		return fmt.Errorf("write condition of node: %w", err)
	}
	s.report.condition = value + message
	return nil
}

// silent are pods that crash in a loop, could load BPF, and of which nobody has seen a load fail.
func (s *Sink) silent(status *nodereport.Status) []nodereport.Workload {
	if s.Pods == nil {
		return nil
	}
	var out []nodereport.Workload
	for _, w := range s.Pods.Crashing() {
		seen := slices.ContainsFunc(status.Failures, func(f nodereport.Failure) bool { return f.PodUID == w.PodUID })
		if !seen && len(out) < nodereport.MaxSilent {
			out = append(out, w)
		}
	}
	return out
}
