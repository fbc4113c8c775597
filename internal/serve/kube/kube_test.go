// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"

	"github.com/bpfwhy/bpfwhy/internal/fleet"
	"github.com/bpfwhy/bpfwhy/internal/fleet/nodereport"
	"github.com/bpfwhy/bpfwhy/internal/serve/sink"
	"github.com/bpfwhy/bpfwhy/load"
)

// server answers as an API server does, as far as the sink asks. It keeps objects by their path.
type server struct {
	mu      sync.Mutex
	objects map[string]map[string]any
	log     []string       // method and path
	refuse  map[string]int // part of a path: the status that it gets
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, r.Method+" "+r.URL.Path)
	body, _ := io.ReadAll(r.Body)
	var o map[string]any
	_ = json.Unmarshal(body, &o)
	for part, code := range s.refuse {
		if strings.Contains(r.URL.Path, part) {
			if code == http.StatusTooManyRequests {
				w.Header().Set("Retry-After", "7")
			}
			s.status(w, code)
			return
		}
	}
	path := r.URL.Path
	if r.Method == http.MethodPost {
		meta := o["metadata"].(map[string]any)
		path += "/" + meta["name"].(string)
	}
	have := s.objects[path]
	switch {
	case r.Method == http.MethodPost && have != nil:
		s.status(w, http.StatusConflict)
		return
	case r.Method != http.MethodPost && have == nil:
		s.status(w, http.StatusNotFound)
		return
	case r.Method == http.MethodPatch:
		for k, v := range o {
			have[k] = v
		}
		o = have
	case r.Method == http.MethodGet:
		o = have
	}
	if meta, ok := o["metadata"].(map[string]any); ok {
		meta["resourceVersion"] = fmt.Sprint(len(s.log))
	}
	s.objects[path] = o
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(o)
}

func (s *server) status(w http.ResponseWriter, code int) {
	reason := map[int]string{409: "AlreadyExists", 404: "NotFound", 403: "Forbidden", 429: "TooManyRequests"}[code]
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	details := map[string]any{}
	if code == http.StatusTooManyRequests {
		details["retryAfterSeconds"] = 7
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "details": details})
}

// requests are those that wrote, or asked for something else than the node.
func (s *server) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, line := range s.log {
		if line != "GET /api/v1/nodes/n1" {
			out = append(out, line)
		}
	}
	s.log = nil
	return out
}

type fixture struct {
	*Sink
	server *server
	clock  time.Time
	said   []string
}

func newFixture(t *testing.T, with func(*Options)) *fixture {
	t.Helper()
	f := &fixture{server: &server{objects: map[string]map[string]any{
		"/api/v1/nodes/n1": {"metadata": map[string]any{"name": "n1", "uid": "node-uid"}},
	}}, clock: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	web := httptest.NewServer(f.server)
	t.Cleanup(web.Close)
	f.Sink = f.again(t, web.URL, with)
	return f
}

// again is another start of the agent, which remembers nothing.
func (f *fixture) again(t *testing.T, url string, with func(*Options)) *Sink {
	o := Options{Node: "n1", Config: &rest.Config{Host: url}, Events: true, Reports: true, qps: 1000, now: func() time.Time { return f.clock },
		Say: func(format string, args ...any) { f.said = append(f.said, fmt.Sprintf(format, args...)) }}
	if with != nil {
		with(&o)
	}
	s, err := New(o)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	return s
}

func failure(id string, count int) sink.Item {
	return sink.Item{Failure: &sink.Failure{Failure: nodereport.Failure{
		Failure: fleet.Failure{ID: id, Kind: load.ProgLoad, Rule: "BLIND001", Program: fleet.Program{Name: "probe"}, Errno: 524, Count: count,
			Message: "a jump became too long.", Remedy: "Use islands"},
		Workload: nodereport.Workload{Namespace: "o", Pod: "agent-x1", PodUID: "u1"},
	}}}
}

func (f *fixture) put(t *testing.T, i sink.Item) {
	t.Helper()
	qt.Assert(t, qt.IsNil(f.Put(context.Background(), i)))
}

// An Event is written once. Later it is counted, and not more often than its series says.
func TestEvent(t *testing.T) {
	f := newFixture(t, nil)
	f.put(t, failure("0123456789ab", 1))
	wrote := f.server.requests()
	qt.Assert(t, qt.DeepEquals(wrote, []string{"POST /apis/events.k8s.io/v1/namespaces/o/events"}))
	var path string
	for p := range f.server.objects {
		if strings.Contains(p, "events") {
			path = p
		}
	}
	e := f.server.objects[path]
	qt.Check(t, qt.Matches(path, `.*/events/agent-x1\.[0-9a-f]{12}`))
	qt.Check(t, qt.DeepEquals(e["regarding"], any(map[string]any{"apiVersion": "v1", "kind": "Pod", "namespace": "o", "name": "agent-x1", "uid": "u1"})))
	qt.Check(t, qt.Equals(e["note"], any("BLIND001: BPF program probe: a jump became too long. Do first: Use islands")))
	qt.Check(t, qt.Equals(e["reason"], any("BPFLoadFailed")))
	qt.Check(t, qt.Equals(e["reportingController"], any("bpfwhy.dev/agent")))

	for range 50 {
		f.put(t, failure("0123456789ab", 2))
	}
	qt.Check(t, qt.HasLen(f.server.requests(), 0))
	for _, at := range []struct{ minutes, wanted int }{{9, 0}, {11, 1}, {12, 0}, {30, 0}, {32, 1}, {33, 0}, {80, 0}, {83, 1}, {130, 0}, {140, 1}} {
		f.clock = time.Date(2026, 1, 1, 0, at.minutes, 0, 0, time.UTC)
		f.put(t, failure("0123456789ab", at.minutes))
		qt.Check(t, qt.HasLen(f.server.requests(), at.wanted), qt.Commentf("after %d minutes", at.minutes))
	}
	qt.Check(t, qt.Equals(e["series"].(map[string]any)["count"], any(140.0)))
}

// An agent that was started again finds the Event, and one that expired is written again.
func TestEventAfterRestart(t *testing.T) {
	f := newFixture(t, nil)
	f.put(t, failure("0123456789ab", 1))
	f.server.requests()
	f.events = events{}
	f.put(t, failure("0123456789ab", 3))
	qt.Check(t, qt.HasLen(f.server.requests(), 2)) // 409, then the series
	for p := range f.server.objects {
		if strings.Contains(p, "events") {
			delete(f.server.objects, p)
		}
	}
	f.clock = f.clock.Add(time.Hour)
	f.put(t, failure("0123456789ab", 4))
	qt.Check(t, qt.HasLen(f.server.requests(), 2)) // 404, then a new one
}

// However many things fail, the API server hears of a few. What was held back is counted.
func TestBudget(t *testing.T) {
	f := newFixture(t, nil)
	for i := range 100 {
		f.put(t, failure(fmt.Sprintf("%012x", i), 1))
	}
	qt.Check(t, qt.HasLen(f.server.requests(), eventBurst))
	qt.Check(t, qt.Equals(f.Counts.Suppressed()["budget"], 90))
	f.clock = f.clock.Add(2 * time.Minute)
	for i := range 100 {
		f.put(t, failure(fmt.Sprintf("%012x", i), 1))
	}
	qt.Check(t, qt.HasLen(f.server.requests(), 2))
}

// What has no pod is told on the node. A hostile name does no harm, and no note is too long.
func TestEventOnNode(t *testing.T) {
	f := newFixture(t, nil)
	i := failure("0123456789ab", 1)
	i.Failure.Workload = nodereport.Workload{Owner: "tracer.service"}
	i.Failure.Program.Name = "a\x1b[31m\nb"
	i.Failure.Message = strings.Repeat("ü", 2000)
	f.put(t, i)
	qt.Check(t, qt.DeepEquals(f.server.requests(), []string{"POST /apis/events.k8s.io/v1/namespaces/default/events"}))
	for p, e := range f.server.objects {
		if !strings.Contains(p, "events") {
			continue
		}
		note := e["note"].(string)
		qt.Check(t, qt.IsTrue(len(note) <= maxNote))
		qt.Check(t, qt.IsFalse(strings.ContainsAny(note, "\x1b\n")))
		qt.Check(t, qt.Equals(e["regarding"].(map[string]any)["uid"], any("node-uid")))
	}
}

// The API server says when to try again, and what it will never take.
func TestAnswers(t *testing.T) {
	f := newFixture(t, nil)
	f.server.refuse = map[string]int{"/events": http.StatusTooManyRequests}
	err := f.Put(context.Background(), failure("0123456789ab", 1))
	qt.Assert(t, qt.IsNotNil(err))
	qt.Check(t, qt.HasLen(f.server.requests(), 1)) // not repeated before that
	f.server.refuse = map[string]int{"/events": http.StatusForbidden}
	err = f.Put(context.Background(), failure("0123456789ab", 1))
	qt.Assert(t, qt.IsNotNil(err))
	qt.Check(t, qt.Equals(f.Counts.Suppressed()["forbidden"], 1))
	qt.Check(t, qt.Equals(f.Counts.Requests()[Request{"post", "events", "403"}], 1))

	registry := prometheus.NewPedanticRegistry()
	qt.Assert(t, qt.IsNil(registry.Register(f.Counts)))
	families, err := registry.Gather()
	qt.Assert(t, qt.IsNil(err))
	var names []string
	for _, family := range families {
		names = append(names, family.GetName())
	}
	qt.Check(t, qt.DeepEquals(names, []string{"bpfwhy_kube_requests_total", "bpfwhy_kube_suppressed_total"}))
}

func state(class string, failing int) *sink.State {
	r := nodereport.NewReport("n1", nodereport.Status{Class: class, Failing: failing})
	for i := range failing {
		r.Status.Failures = append(r.Status.Failures, nodereport.Failure{Failure: fleet.Failure{ID: fmt.Sprintf("%012x", i), Rule: "BLIND001", Count: 1}})
	}
	return &sink.State{Report: r, Class: &nodereport.Class{APIVersion: nodereport.APIVersion, Kind: nodereport.ClassKind, Metadata: nodereport.Metadata{Name: class}, Spec: &fleet.Class{}}}
}

// A report is written when what it says has changed, and its class once.
func TestReport(t *testing.T) {
	f := newFixture(t, nil)
	write := func(s *sink.State) []string {
		t.Helper()
		qt.Assert(t, qt.IsNil(f.written(context.Background(), s)))
		return f.server.requests()
	}
	qt.Check(t, qt.DeepEquals(write(state("c-1", 0)), []string{"POST " + api + "/nodeclasses", "POST " + api + "/nodereports"}))
	report := f.server.objects[api+"/nodereports/n1"]
	owner := report["metadata"].(map[string]any)["ownerReferences"].([]any)[0].(map[string]any)
	qt.Check(t, qt.Equals(owner["uid"], any("node-uid")))
	_, needed := f.wait(state("c-1", 0))
	qt.Check(t, qt.IsFalse(needed))
	wait, needed := f.wait(state("c-1", 1))
	qt.Check(t, qt.IsTrue(needed))
	qt.Check(t, qt.Equals(wait, reportRest))
	qt.Check(t, qt.DeepEquals(write(state("c-1", 1)), []string{"PUT " + api + "/nodereports/n1"}))
	more := state("c-1", 1)
	more.Report.Status.Failures[0].Count = 9
	wait, _ = f.wait(more)
	qt.Check(t, qt.Equals(wait, countsRest))
	loaded := state("c-1", 1)
	loaded.Report.Status.Calls, loaded.Report.Status.Loaded = 7, []nodereport.Loaded{{Count: 7}}
	qt.Assert(t, qt.DeepEquals(write(loaded), []string{"PUT " + api + "/nodereports/n1"}))
	again := state("c-1", 1)
	again.Report.Status.Calls, again.Report.Status.Loaded = 8, []nodereport.Loaded{{Count: 8}}
	wait, _ = f.wait(again)
	qt.Check(t, qt.Equals(wait, countsRest))

	// That it still watches is nothing new: a report is no heartbeat.
	watching := func(last time.Time) *sink.State {
		s := state("c-1", 1)
		s.Report.Status.Watching = &nodereport.Watching{Backend: "fentry", Last: last}
		return s
	}
	write(watching(f.clock))
	_, needed = f.wait(watching(f.clock.Add(time.Minute)))
	qt.Check(t, qt.IsFalse(needed))

	// A new start: both are there already.
	f.report = reportState{}
	qt.Check(t, qt.DeepEquals(write(state("c-1", 1)), []string{"POST " + api + "/nodeclasses", "POST " + api + "/nodereports", "GET " + api + "/nodereports/n1", "PUT " + api + "/nodereports/n1"}))
	// Somebody deleted it.
	delete(f.server.objects, api+"/nodereports/n1")
	qt.Assert(t, qt.IsNotNil(f.written(context.Background(), state("c-1", 0))))
	f.server.requests()
	qt.Check(t, qt.DeepEquals(write(state("c-1", 0)), []string{"POST " + api + "/nodereports"}))
}

// A value that changes all the time does not fill the API server with classes.
func TestClassesADay(t *testing.T) {
	f := newFixture(t, nil)
	for i := range classesADay {
		qt.Assert(t, qt.IsNil(f.written(context.Background(), state(fmt.Sprint("c-", i), 0))))
	}
	qt.Check(t, qt.ErrorMatches(f.written(context.Background(), state("c-x", 0)), ".*changes that should not"))
	f.clock = f.clock.Add(25 * time.Hour)
	qt.Check(t, qt.IsNil(f.written(context.Background(), state("c-x", 0))))
}

// Where reports are forbidden there are Events, and that is said.
func TestForbidden(t *testing.T) {
	f := newFixture(t, nil)
	for _, code := range []int{http.StatusForbidden, http.StatusNotFound} {
		f.server.refuse = map[string]int{"/node": code}
		f.node = &nodeRef{"v1", "Node", "n1", "node-uid"}
		err := f.written(context.Background(), state("c-1", 0))
		qt.Check(t, qt.ErrorMatches(err, "no NodeReport is written, Events only.*"))
		qt.Check(t, qt.IsTrue(retryAfter(err) >= forbiddenRest))
		f.put(t, failure(fmt.Sprintf("%012x", code), 1))
	}
}

// The report that waits is written at the end.
func TestClose(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Jitter = time.Hour })
	f.put(t, sink.Item{State: state("c-1", 0)})
	f.put(t, sink.Item{State: state("c-1", 1)})
	qt.Assert(t, qt.IsNil(f.Close(context.Background())))
	f.Sink.stop = make(chan struct{}) // for the cleanup
	qt.Check(t, qt.Equals(f.server.objects[api+"/nodereports/n1"]["status"].(map[string]any)["failing"], any(1.0)))
}

func TestBounded(t *testing.T) {
	s := state("c-1", 300)
	for i := range s.Report.Status.Failures {
		s.Report.Status.Failures[i].Message = strings.Repeat("x", 256)
		s.Report.Status.Failures[i].Image = strings.Repeat("y", 256)
	}
	s.Report.Status.Loaded = slices.Repeat([]nodereport.Loaded{{Program: fleet.Program{Name: strings.Repeat("z", 256)}, Count: 1}}, 300)
	out := s.Report.Bounded()
	b, err := json.Marshal(out)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(len(b) <= nodereport.MaxBytes))
	qt.Check(t, qt.IsTrue(len(out.Status.Failures) > 10))
	qt.Check(t, qt.HasLen(s.Report.Status.Failures, 300)) // the sinks share it
}
