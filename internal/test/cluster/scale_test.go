// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/bpfwhy/bpfwhy/internal/fleet"
	"github.com/bpfwhy/bpfwhy/internal/fleet/nodereport"
	"github.com/bpfwhy/bpfwhy/internal/serve/kube"
	"github.com/bpfwhy/bpfwhy/internal/sys/kubeclient"
	"github.com/bpfwhy/bpfwhy/internal/sys/proc"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// A fleet of the size of which docs/fleet.md gives figures. Half of its kinds are hardened.
const (
	fleetNodes   = 5000
	fleetClasses = 20
	// listTime is how long a person waits for the fleet.
	listTime = 3 * time.Second
)

// TestScale measures what a fleet costs its API server, and how long people wait for it. The
// figures of docs/fleet.md are those that it logs.
func TestScale(t *testing.T) {
	if !vmtest.Long() {
		t.Skip("writes a fleet of 5,000 nodes; set BPFWHY_LONG=1")
	}
	f := newFixture(t, Tools()...)
	f.must("", Kubectl, "apply", "--server-side", "-f", filepath.Join(chart, "crds"))
	f.must("", Kubectl, "wait", "--for=condition=Established", "crd/nodereports.bpfwhy.dev", "crd/nodeclasses.bpfwhy.dev", "--timeout=30s")
	classes := f.classes()
	f.Logf("API server without a fleet: %s resident", f.resident())

	const reports, events = "/apis/" + nodereport.APIVersion + "/nodereports", "/apis/events.k8s.io/v1/namespaces/default/events"
	reportAt := func(i, change int) []byte { return encoded(f, reportOf(i, change, classes[i%fleetClasses])) }
	f.Logf("a report: %d bytes of JSON", len(reportAt(1, 0)))
	f.measure("reports created", func(c *rest.RESTClient, i int) *rest.Request { return c.Post().AbsPath(reports).Body(reportAt(i, 0)) })
	f.measure("reports replaced", func(c *rest.RESTClient, i int) *rest.Request {
		return c.Patch("application/merge-patch+json").AbsPath(reports, nodeName(i)).Body(reportAt(i, 1))
	})
	f.measure("Events created", func(c *rest.RESTClient, i int) *rest.Request { return c.Post().AbsPath(events).Body(eventOf(f, i)) })
	f.Logf("API server with the fleet: %s resident; etcd: %d MB on disk", f.resident(), f.onDisk()>>20)
	f.Logf("the list of reports: %d bytes", len(f.must("", Kubectl, "get", "--raw", reports+"?resourceVersion=0")))

	for _, args := range [][]string{{}, {"failures"}, {"why"}, {"why", "BLIND001", "-o", "json"}, {"audit"}} {
		best := time.Hour
		for range 3 { // the best one is least of other work
			began := time.Now()
			out, code := f.pluginRun(args...)
			best = min(best, time.Since(began))
			if len(args) == 0 {
				qt.Assert(f, qt.StringContains(out, "5000 nodes of 20 classes"), qt.Commentf("%d: %s", code, out))
			}
		}
		f.Logf("kubectl bpfwhy %s: %s", strings.Join(args, " "), best.Round(time.Millisecond))
		qt.Check(f, qt.IsTrue(best < listTime), qt.Commentf("%q took %s", args, best))
	}
	out, _ := f.pluginRun("why")
	qt.Check(f, qt.Matches(out, `(?s).*fails on  2500 nodes.*loads on  2500 nodes.*why there net.core.bpf_jit_harden: 2 where it fails, 0.*`))
}

func encoded(f *fixture, v any) []byte {
	b, err := json.Marshal(v)
	qt.Assert(f, qt.IsNil(err))
	return b
}

// classes writes those of the fleet: this machine's, in twenty releases.
func (f *fixture) classes() (list []*nodereport.Class) {
	cmd := exec.Command(filepath.Join(f.dir, "kubectl-bpfwhy"))
	cmd.Args = []string{"bpfwhy", "node", "--no-probe", "--json"}
	out, err := cmd.Output()
	qt.Assert(f, qt.IsNil(err))
	for i := range fleetClasses {
		var p node.Profile
		qt.Assert(f, qt.IsNil(json.Unmarshal(out, &p)))
		p.Release = fmt.Sprintf("6.12.%d", i)
		p.Sysctls[harden] = fmt.Sprint(i % 2 * 2)
		c := nodereport.NewClass(fleet.ClassOf(&p))
		f.must(string(encoded(f, c)), Kubectl, "create", "-f", "-")
		list = append(list, c)
	}
	return list
}

func nodeName(i int) string { return fmt.Sprintf("ip-10-%d-%d-%d.example.com", i>>16, i>>8&255, i&255) }

// reportOf is what a node of a fleet has to say: an agent runs on all nodes, and fails on those
// that are hardened.
func reportOf(i, change int, c *nodereport.Class) map[string]any {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	program := fleet.Program{Name: "probe_handler", Type: "kprobe", Insns: 32000}
	s := nodereport.Status{
		Class:    c.Metadata.Name,
		Summary:  nodereport.Summary{Release: c.Spec.Release, Distro: "Debian GNU/Linux 12 (bookworm)", Arch: "x86_64", Harden: c.Spec.Sysctls[harden]},
		Watching: &nodereport.Watching{Since: at, Backend: "fentry", Version: "0.1.0", Last: at},
		Conditions: []nodereport.Condition{
			{Type: "Watching", Status: "True", Reason: "HooksAttached", Message: "loads are watched since 2026-01-01T00:00:00Z", LastTransitionTime: at},
			{Type: "LoadsOK", Status: "True", Reason: "NoFailures", Message: "nothing fails", LastTransitionTime: at},
		},
		Calls: 1000,
	}
	for k := range 10 {
		s.Loaded = append(s.Loaded, nodereport.Loaded{Program: fleet.Program{Name: fmt.Sprintf("cil_from_net_%d", k), Type: "sched_cls", Insns: 1000 + k}, Count: 1})
	}
	if c.Spec.Sysctls[harden] == "2" {
		s.Failing = 1
		s.Failures = []nodereport.Failure{{
			Failure: fleet.Failure{
				ID: "0123456789ab", Kind: load.ProgLoad, Rule: "BLIND001", Title: "Constant blinding made a jump too long", Program: program,
				Comm: "agent", Errno: 524, Stage: "blinding", Count: 7 + change, First: at, Last: at,
				Message: "Constant blinding made the program grow from 32687 to 32851 slots. The jump from instruction 32 to 32713 would then need an offset of 32840, and the limit is 32767.",
				Remedy:  "Split the long jump with a goto placed in between (a jump island). A plain goto is not blinded and does not grow",
			},
			Workload: nodereport.Workload{Namespace: "observability", Pod: fmt.Sprintf("agent-%05d", i), PodUID: "2d5f7b1a-9c3e-4e0f-8a6b-1c2d3e4f5a6b", Owner: "DaemonSet/agent", Container: "agent", Image: "registry.example.com/agent:1"},
		}}
	} else {
		s.Loaded = append(s.Loaded, nodereport.Loaded{Program: program, Count: 1 + change})
	}
	owner := map[string]string{"apiVersion": "v1", "kind": "Node", "name": nodeName(i), "uid": "2d5f7b1a-9c3e-4e0f-8a6b-1c2d3e4f5a6b"}
	return map[string]any{
		"apiVersion": nodereport.APIVersion, "kind": nodereport.ReportKind, "status": s,
		"metadata": map[string]any{"name": nodeName(i), "ownerReferences": []any{owner}},
	}
}

func eventOf(f *fixture, i int) []byte {
	name := nodeName(i)
	return encoded(f, map[string]any{
		"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": map[string]string{"name": fmt.Sprintf("agent-%05d.0123456789ab", i), "namespace": "default"},
		"eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": kube.Reporter, "reportingInstance": name, "action": "Load",
		"reason": "BPFLoadFailed", "type": "Warning", "note": "BLIND001: BPF program probe_handler: constant blinding made a jump too long. Do first: split the long jump",
		"regarding": map[string]string{"apiVersion": "v1", "kind": "Pod", "namespace": "default", "name": fmt.Sprintf("agent-%05d", i), "uid": "2d5f7b1a-9c3e-4e0f-8a6b-1c2d3e4f5a6b"},
		"related":   map[string]string{"apiVersion": "v1", "kind": "Node", "name": name},
	})
}

// measure makes one request for each node, 16 at a time, and says what that took.
func (f *fixture) measure(what string, request func(c *rest.RESTClient, i int) *rest.Request) {
	f.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", f.Kubeconfig)
	qt.Assert(f, qt.IsNil(err))
	config.QPS = -1
	client, err := kubeclient.New(config)
	qt.Assert(f, qt.IsNil(err))
	var next atomic.Int64
	var g errgroup.Group
	began, used := time.Now(), f.processor()
	for range 16 {
		g.Go(func() error {
			for i := int(next.Add(1)) - 1; i < fleetNodes; i = int(next.Add(1)) - 1 {
				if _, err := kubeclient.Raw(request(client.(*rest.RESTClient), i).Do(f.Context())); err != nil {
					return fmt.Errorf("node %d: %w", i, err)
				}
			}
			return nil
		})
	}
	qt.Assert(f, qt.IsNil(g.Wait()))
	took, used := time.Since(began), f.processor()-used
	f.Logf("%d %s in %s: %.0f/s, %s of the API server's processor time each (%d processors)",
		fleetNodes, what, took.Round(time.Second), fleetNodes/took.Seconds(), (used / fleetNodes).Round(10*time.Microsecond), runtime.NumCPU())
}

// apiserver is the process.
func (f *fixture) apiserver() string {
	for _, p := range f.procs {
		if p.name == filepath.Base(APIServer) {
			return fmt.Sprintf("/proc/%d/", p.cmd.Process.Pid)
		}
	}
	f.Fatal("there is no API server")
	return ""
}

func (f *fixture) processor() time.Duration {
	b, err := os.ReadFile(f.apiserver() + "stat")
	qt.Assert(f, qt.IsNil(err))
	_, rest, _ := strings.Cut(string(b), ") ")
	var user, system int64
	_, err = fmt.Sscan(strings.Join(strings.Fields(rest)[11:13], " "), &user, &system)
	qt.Assert(f, qt.IsNil(err))
	return time.Duration(user+system) * (time.Second / 100) // USER_HZ
}

func (f *fixture) resident() string {
	return proc.Field(proc.Read(f.apiserver()+"status"), "VmRSS")
}

// onDisk is the size of etcd's database.
func (f *fixture) onDisk() (size int64) {
	err := filepath.WalkDir(filepath.Join(f.Cluster.dir, "etcd", "member", "snap"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Base(path) != "db" {
			return err
		}
		info, err := d.Info()
		size = info.Size()
		return err
	})
	qt.Assert(f, qt.IsNil(err))
	return size
}
