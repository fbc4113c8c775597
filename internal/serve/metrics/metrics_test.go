// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/bpfwhy/bpfwhy/internal/fleet"
	"github.com/bpfwhy/bpfwhy/internal/fleet/nodereport"
	"github.com/bpfwhy/bpfwhy/internal/serve/sink"
	"github.com/bpfwhy/bpfwhy/internal/serve/stream"
	"github.com/bpfwhy/bpfwhy/internal/sys/scrape"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

func filled() *Metrics {
	m := New(func() []sink.Stats { return []sink.Stats{{Name: "log", Put: 3, Dropped: 1}} })
	used := uint64(5)
	n := Node{
		Class: "c-1", Header: &trace.Header{Hooks: []trace.Hook{{Function: load.FnSyscall, Via: "fentry"}, {Function: load.FnSyscall, Via: "fentry"}, {Function: load.FnJIT}}},
		Facts: stream.Facts{Audit: &fleet.Audit{Harden2: map[string]int{"fails": 3}}, JITUsed: &used, Loads: map[string]uint64{"xdp": 5, "lsm": 2}, Sysctls: map[string]string{"net.core.bpf_jit_limit": "9", "x": "none"}, Kernel: []stream.Loaded{{Type: "kprobe", JITed: true, Count: 2}}},
	}
	n.Fails(&nodereport.Failure{Workload: nodereport.Workload{Namespace: "ns", Owner: "DaemonSet/a"}})
	m.Set(n)
	return m
}

func page(t *testing.T, m *Metrics) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.prom")
	qt.Assert(t, qt.IsNil(m.WriteFile(path)))
	b, err := os.ReadFile(path)
	qt.Assert(t, qt.IsNil(err))
	return string(b)
}

func failed(rule string) *load.Attempt {
	return &load.Attempt{Kind: load.ProgLoad, Outcome: load.Failed, ErrnoName: "EACCES", FailedStage: load.Verifier, Diagnosis: &load.Diagnosis{Rule: rule}}
}

// Names and help are as Prometheus wants them.
func TestLint(t *testing.T) {
	m := filled()
	m.Load(failed("VER001"))
	m.Fail(failed("VER001"), &nodereport.Workload{Namespace: "ns", Owner: "DaemonSet/a"})
	m.Lose("ring buffer full", 2)
	text := page(t, m)
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(problems, 0))
	for _, line := range []string{
		`bpfwhy_loads_total{kind="prog_load",outcome="loaded"} 7`,
		`bpfwhy_loads_total{kind="prog_load",outcome="failed"} 1`,
		`bpfwhy_healthy_loads_total{type="xdp"} 5`,
		`bpfwhy_audit_programs{fate="fails",harden="2"} 3`,
		`bpfwhy_load_failures_total{errno="EACCES",namespace="ns",rule="VER001",stage="verifier",workload="DaemonSet/a"} 1`,
		`bpfwhy_failing_programs{namespace="ns",rule="",workload="DaemonSet/a"} 1`,
		`bpfwhy_jit_memory_limit_bytes 9`,
		`bpfwhy_hook_attached{backend="fentry",hook="bpf"} 1`,
		`bpfwhy_hook_attached{backend="",hook="bpf_int_jit_compile"} 0`,
		`bpfwhy_records_lost_total{where="ring buffer full"} 2`,
		`bpfwhy_sink_items_total{result="dropped",sink="log"} 1`,
	} {
		qt.Check(t, qt.StringContains(text, line))
	}
}

// Hostile names: series are bounded, and nothing is lost of the sums.
func TestBounds(t *testing.T) {
	m := filled()
	const attempts = 5000
	n := Node{Header: &trace.Header{}}
	for i := range attempts {
		w := nodereport.Workload{Namespace: fmt.Sprint("\xff", i), Owner: strings.Repeat("\"\n\xc3", 300) + fmt.Sprint(i)}
		m.Fail(failed(fmt.Sprint(i)), &w)
		m.Lose(fmt.Sprint(i), 1)
		n.Fails(&nodereport.Failure{Workload: w})
	}
	m.Set(n)
	text := page(t, m)
	t.Logf("a page of %d bytes", len(text))
	qt.Check(t, qt.IsTrue(len(text) < 512<<10)) // docs/fleet.md
	sums := map[string]int{}
	lines := map[string]int{}
	for line := range strings.Lines(text) {
		name, _, labelled := strings.Cut(line, "{")
		if !labelled || strings.HasPrefix(line, "#") {
			continue
		}
		var v int
		_, err := fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &v)
		qt.Assert(t, qt.IsNil(err))
		sums[name] += v
		lines[name]++
		qt.Check(t, qt.IsTrue(len(line) < 2000))
	}
	qt.Check(t, qt.Equals(lines["bpfwhy_load_failures_total"], MaxFailures))
	for name, most := range map[string]int{"bpfwhy_load_failures_total": MaxFailures, "bpfwhy_failing_programs": maxFailing, "bpfwhy_records_lost_total": maxLosses} {
		qt.Check(t, qt.IsTrue(lines[name] <= most), qt.Commentf("%s: %d", name, lines[name]))
		qt.Check(t, qt.Equals(sums[name], attempts), qt.Commentf("%s", name))
	}
}

// The server answers what it is for, and nothing else.
func TestServe(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	qt.Assert(t, qt.IsNil(err))
	var bad error
	go filled().Serve(l, Health{Healthy: func() error { return bad }, Ready: func() error { return nil }})
	t.Cleanup(func() { l.Close() })
	ask := func(method, path string) int {
		r, err := http.NewRequestWithContext(t.Context(), method, "http://"+l.Addr().String()+path, nil)
		qt.Assert(t, qt.IsNil(err))
		answer, err := http.DefaultClient.Do(r)
		qt.Assert(t, qt.IsNil(err))
		answer.Body.Close()
		return answer.StatusCode
	}
	qt.Check(t, qt.Equals(ask("GET", "/metrics"), 200))
	qt.Check(t, qt.Equals(ask("GET", "/healthz"), 200))
	qt.Check(t, qt.Equals(ask("GET", "/readyz"), 200))
	qt.Check(t, qt.Equals(ask("POST", "/metrics"), 405))
	qt.Check(t, qt.Equals(ask("GET", "/"), 404))
	qt.Check(t, qt.Equals(ask("GET", "/debug/pprof/"), 404))
	bad = fmt.Errorf("nothing comes")
	qt.Check(t, qt.Equals(ask("GET", "/healthz"), 503))
}

// Connections that say nothing, half of a request, or read nothing delay nobody. The kubelet waits
// one second for an answer.
func TestSlowReaders(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	qt.Assert(t, qt.IsNil(err))
	go filled().Serve(l, Health{Healthy: func() error { return nil }, Ready: func() error { return nil }})
	t.Cleanup(func() { l.Close() })
	for i := range 3 * scrape.MaxReaders {
		c, err := net.Dial("tcp", l.Addr().String())
		qt.Assert(t, qt.IsNil(err))
		t.Cleanup(func() { c.Close() })
		fmt.Fprint(c, []string{"", "GET /metrics HTTP/1.1\r\nHo", "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n"}[i%3])
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Second}
	for _, path := range []string{"/healthz", "/metrics", "/readyz"} {
		answer, err := client.Get("http://" + l.Addr().String() + path)
		qt.Assert(t, qt.IsNil(err))
		b, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		qt.Check(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(answer.StatusCode, 200))
		qt.Check(t, qt.IsTrue(len(b) > 0))
	}
}
