// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/bpfwhy/bpfwhy/internal/fleet/nodereport"
	"github.com/bpfwhy/bpfwhy/internal/output/text"
	"github.com/bpfwhy/bpfwhy/internal/serve/sink"
	"github.com/bpfwhy/bpfwhy/load"
)

// Reporter is who the Events are from. A policy binds the agents to it.
const Reporter = "bpfwhy.dev/agent"

// Bounds of the API server. A note that is longer is refused.
const (
	maxNote     = 1024
	maxName     = 253
	maxInstance = 128
)

// event is an Event of events.k8s.io/v1.
type event struct {
	APIVersion          string         `json:"apiVersion"`
	Kind                string         `json:"kind"`
	Metadata            eventMeta      `json:"metadata"`
	EventTime           string         `json:"eventTime"`
	ReportingController string         `json:"reportingController"`
	ReportingInstance   string         `json:"reportingInstance"`
	Action              string         `json:"action"`
	Reason              string         `json:"reason"`
	Regarding           regarding      `json:"regarding"`
	Related             *nodeRef       `json:"related,omitempty"`
	Note                string         `json:"note"`
	Type                string         `json:"type"`
	Series              map[string]any `json:"series,omitempty"`
}

type eventMeta struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
}

type regarding struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace,omitempty"`
	Name       string `json:"name"`
	UID        string `json:"uid,omitempty"`
}

// events are the Events that this process knows of.
type events struct {
	known map[string]*told // by namespace and name
	order []string         // the oldest first
}

// told is what was said of one kind of failures.
type told struct {
	written bool
	repeats int       // how often the series was written
	next    time.Time // when the series may be written again
}

// maxEvents bounds what is remembered. What was forgotten gets 409, and is patched.
const maxEvents = 1000

func (e *events) of(key string) *told {
	if t := e.known[key]; t != nil {
		return t
	}
	if e.known == nil {
		e.known = map[string]*told{}
	}
	if len(e.order) == maxEvents {
		delete(e.known, e.order[0])
		e.order = e.order[1:]
	}
	t := &told{}
	e.known[key] = t
	e.order = append(e.order, key)
	return t
}

// again is how long a series rests after so many times that it was written.
func again(repeats int) time.Duration {
	switch repeats {
	case 0:
		return 10 * time.Minute
	case 1:
		return 20 * time.Minute // 30 after the first
	}
	return 50 * time.Minute
}

// failure writes a failure on its pod; where there is none, on the node.
func (s *Sink) failure(ctx context.Context, f *sink.Failure) error {
	if f.Over {
		return nil // an Event goes by itself
	}
	node, err := s.self(ctx)
	if err != nil {
		return judge(err)
	}
	on := s.regarding(ctx, f.Workload, node)
	e := s.event(on, node, f.ID+on.UID+cmp.Or(f.PodUID, f.Owner), reasonOf(&f.Failure), note(&f.Failure))
	return s.tell(ctx, e, f.Count)
}

// regarding is what an Event is about. 'kubectl describe pod' shows only those with the pod's uid.
func (s *Sink) regarding(ctx context.Context, w nodereport.Workload, node *nodeRef) regarding {
	if s.Pods != nil && w.PodUID != "" {
		s.first.Do(func() { s.Pods.Wait(ctx) }) // the pods of a node that boots load at once
		w = s.Pods.Named(w)
	}
	if w.Pod != "" && w.Namespace != "" {
		return regarding{"v1", "Pod", w.Namespace, w.Pod, w.PodUID}
	}
	return regarding{"v1", "Node", "", node.Name, node.UID}
}

// event has a name that is the same after a restart of the agent: the API server then says that the
// Event exists.
func (s *Sink) event(on regarding, node *nodeRef, what, reason, note string) *event {
	sum := sha256.Sum256([]byte(what))
	mark := "." + hex.EncodeToString(sum[:6])
	instance := s.Node[:min(len(s.Node), maxInstance)]
	return &event{
		APIVersion: "events.k8s.io/v1", Kind: "Event",
		Metadata: eventMeta{
			Name: strings.TrimRight(on.Name[:min(len(on.Name), maxName-len(mark))], ".-") + mark,
			// Events of nodes are taken in this namespace alone.
			Namespace: cmp.Or(on.Namespace, "default"),
		},
		EventTime:           microTime(s.now()),
		ReportingController: Reporter, ReportingInstance: instance, Action: "Load", Reason: reason,
		Regarding: on, Related: node, Note: cut(note, maxNote), Type: "Warning",
	}
}

// tell writes an Event once, and later its series. count is how often it has happened.
func (s *Sink) tell(ctx context.Context, e *event, count int) error {
	path := []string{"/apis/events.k8s.io/v1/namespaces", e.Metadata.Namespace, "events"}
	t := s.events.of(e.Metadata.Namespace + "/" + e.Metadata.Name)
	now := s.now()
	if t.written && now.Before(t.next) {
		return nil
	}
	if !s.budget.AllowN(now, 1) {
		s.Counts.suppress("budget")
		return nil
	}
	err := error(nil)
	if !t.written {
		_, err = s.send(ctx, s.rest.Post().AbsPath(path...), e)
		if err == nil {
			t.written, t.next = true, now.Add(again(0))
			return nil
		}
		if !apierrors.IsAlreadyExists(err) {
			return s.giveUp(err)
		}
	}
	series := map[string]any{"series": map[string]any{"count": max(count, 2), "lastObservedTime": microTime(now)}}
	_, err = s.send(ctx, s.rest.Patch(types.MergePatchType).AbsPath(append(path, e.Metadata.Name)...), series)
	if apierrors.IsNotFound(err) { // it is older than Events are kept
		*t = told{}
		if _, err = s.send(ctx, s.rest.Post().AbsPath(path...), e); err == nil {
			t.written, t.next = true, now.Add(again(0))
		}
		return s.giveUp(err)
	}
	if err != nil {
		return s.giveUp(err)
	}
	t.repeats++
	t.written, t.next = true, now.Add(again(t.repeats))
	return nil
}

// giveUp says what the API server will never take: a pod's namespace may be going.
func (s *Sink) giveUp(err error) error {
	if refused(err) {
		s.Counts.suppress("forbidden")
	}
	return judge(err)
}

// change writes a setting that somebody changed, on the node.
func (s *Sink) change(ctx context.Context, c *nodereport.Change) error {
	return s.onNode(ctx, fmt.Sprint(c.Name, c.From, c.To, c.At.Unix()), "BPFSettingsChanged",
		fmt.Sprintf("%s: %s became %s", c.Name, cmp.Or(c.From, "unknown"), cmp.Or(c.To, "unknown")))
}

// hang writes that loads do not come back, on the node.
func (s *Sink) hang(ctx context.Context, h *load.Hang) error {
	d := h.Diagnosis
	return s.onNode(ctx, d.Rule, "BPFLoadsHang", line(d.Rule, d.Cause, first(d.Remedies)))
}

func (s *Sink) onNode(ctx context.Context, what, reason, note string) error {
	node, err := s.self(ctx)
	if err != nil {
		return judge(err)
	}
	return s.tell(ctx, s.event(regarding{"v1", "Node", "", node.Name, node.UID}, node, what, reason, note), 2)
}

// reasonOf is the word that people filter Events by.
func reasonOf(f *nodereport.Failure) string {
	switch {
	case f.Errno == 0:
		return "BPFNotJITed"
	case f.Kind == load.Seccomp || f.Kind == load.SocketFilter:
		return "BPFFilterFailed"
	case f.Kind.Attaches():
		return "BPFAttachFailed"
	}
	return "BPFLoadFailed"
}

// note is one line that a person understands without the tool: rule, cause, first remedy.
func note(f *nodereport.Failure) string {
	what := f.Program.Name
	if what == "" {
		what = f.Comm
	}
	return line(f.Rule, "BPF program "+what+": "+f.Message, f.Remedy)
}

func line(rule, cause, remedy string) string {
	cause = strings.TrimRight(text.Line(cause), ". ")
	if remedy == "" {
		return rule + ": " + cause
	}
	return rule + ": " + cause + ". Do first: " + strings.TrimRight(text.Line(remedy), ". ")
}

func first(remedies []load.Remedy) string {
	if len(remedies) == 0 {
		return ""
	}
	return remedies[0].Title
}

// cut shortens a text to so many bytes, at the end of a rune.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}

func microTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000Z07:00") }
