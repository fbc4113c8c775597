// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/fleet/nodereport"
	"github.com/bpfwhy/bpfwhy/internal/repair/guardian"
	"github.com/bpfwhy/bpfwhy/internal/sys/cgroup"
	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
)

// agentName is what this executable is called where it is the agent, which loads one object.
const agentName = "sparse-agent"

// object is what the agent loads. Hardening breaks its program "far".
const object = "../../../loader/testdata/sparse.o"

func TestMain(m *testing.M) {
	guardian.Main()
	if filepath.Base(os.Args[0]) == agentName {
		if err := agent(os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, "agent:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func agent(object string) error {
	if err := rlimit.RemoveMemlock(); err != nil {
		return err
	}
	c, err := ebpf.LoadCollection(object)
	if err != nil {
		return err
	}
	c.Close()
	return nil
}

// until waits for something, a while.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(3 * time.Minute); !is(); time.Sleep(100 * time.Millisecond) {
		qt.Assert(t, qt.IsTrue(time.Now().Before(end)), qt.Commentf("wait until %s", what))
	}
}

// get is what a server answers; "" where it answers nothing good.
func get(address string) string {
	client := http.Client{Timeout: 5 * time.Second}
	r, err := client.Get(address)
	if err != nil {
		return ""
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		return ""
	}
	return string(b)
}

// service is a 'bpfwhy serve' on this machine.
type service struct {
	*fixture
	cmd    *exec.Cmd
	said   bytes.Buffer
	listen string
}

// serve starts bpfwhy as the agent of a node, with the token of its pod.
func (f *fixture) serve(name, listen string) *service {
	f.Helper()
	s := &service{fixture: f, listen: listen}
	s.cmd = exec.Command(filepath.Join(f.dir, "kubectl-bpfwhy"))
	s.cmd.Args = []string{"bpfwhy", "serve", "--node=node-" + name, "--state=" + filepath.Join(f.dir, "state-"+name),
		"--listen=" + listen, "--kubernetes=on", "--kubernetes-use=events,reports,pods,condition"}
	s.cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(f.dir, "agent-"+name))
	s.cmd.Stdout, s.cmd.Stderr = &s.said, &s.said
	qt.Assert(f, qt.IsNil(s.cmd.Start()))
	f.Cleanup(func() {
		if s.cmd.ProcessState == nil {
			_ = s.cmd.Process.Signal(syscall.SIGTERM)
			_ = s.cmd.Wait()
		}
		if f.Failed() {
			f.Logf("serve:\n%s", &s.said)
		}
	})
	until(f.T, "serve is ready", func() bool { return get("http://"+listen+"/readyz") != "" })
	return s
}

// end stops it as an init system does. What it has not written yet, it writes.
func (s *service) end() {
	s.Helper()
	qt.Assert(s, qt.IsNil(s.cmd.Process.Signal(syscall.SIGTERM)))
	qt.Assert(s, qt.IsNil(s.cmd.Wait()), qt.Commentf("%s", &s.said))
}

// pod is the control group of a pod on this machine, as a kubelet would make it.
func (f *fixture) pod(uid string) *os.File {
	f.Helper()
	root, err := cgroup.Root()
	qt.Assert(f, qt.IsNil(err))
	dir := filepath.Join(root, "pod"+uid)
	qt.Assert(f, qt.IsNil(os.Mkdir(dir, 0o755)))
	group, err := os.Open(dir)
	qt.Assert(f, qt.IsNil(err))
	f.Cleanup(func() { // a group is removed when its last process is gone, which takes a moment
		group.Close()
		until(f.T, "the group is gone", func() bool { return os.Remove(dir) == nil })
	})
	return group
}

// crash starts the agent in a control group, in which it does not get its program loaded.
func (f *fixture) crash(group *os.File) {
	f.Helper()
	cmd := exec.Command("/proc/self/exe", object)
	cmd.Args[0] = agentName
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
	out, err := cmd.CombinedOutput()
	qt.Assert(f, qt.IsNotNil(err), qt.Commentf("the agent started: %s", out))
	qt.Assert(f, qt.Matches(string(out), "(?s)agent: .*far.*"))
}

// told are the Events on a pod: how often, and what they say.
func (f *fixture) told(uid string) (out []string) {
	f.Helper()
	var list struct {
		Items []struct {
			Note      string
			Series    struct{ Count int }
			Regarding struct{ Name, UID string }
		}
	}
	b := f.must("", Kubectl, "get", "events.events.k8s.io", "-o", "json", "--field-selector=reason=BPFLoadFailed")
	qt.Assert(f, qt.IsNil(json.Unmarshal([]byte(b), &list)))
	for _, e := range list.Items {
		if e.Regarding.UID == uid {
			out = append(out, fmt.Sprintf("%s %d %s", e.Regarding.Name, e.Series.Count, e.Note))
		}
	}
	return out
}

// nodes: what fails on node-a, which is this machine, hardened for a moment, loads on node-b, which
// is a machine of the lab. Each report is what 'bpfwhy serve' saw.
func (f *fixture) nodes() {
	if os.Getenv("BPFWHY_HOST_SYSCTL") != "1" && os.Getenv("CI") != "true" {
		f.Skip("raises net.core.bpf_jit_harden: set BPFWHY_HOST_SYSCTL=1")
	}
	f.nodeB()
	uid := f.must("", Kubectl, "get", "pod", "agent-a", "-o", "jsonpath={.metadata.uid}")
	group := f.pod(uid)
	ports, err := freePorts(2)
	qt.Assert(f, qt.IsNil(err))
	listen := fmt.Sprintf("127.0.0.1:%d", ports[0])
	prometheus := f.prometheus(listen, ports[1])

	raised, err := guardian.RaiseHarden(f.Context(), 2)
	qt.Assert(f, qt.IsNil(err))
	defer func() {
		_, err := raised.Restore()
		qt.Check(f, qt.IsNil(err))
	}()
	s := f.serve("a", listen)
	f.crash(group)
	// A node writes few Events, and this one may have other failures, too: then it is told later.
	until(f.T, "there is an Event", func() bool { return len(f.told(uid)) > 0 })
	f.crash(group)
	f.scraped(prometheus, listen)
	s.end()
	first := f.told(uid)
	qt.Assert(f, qt.HasLen(first, 1))
	qt.Check(f, qt.Matches(first[0], `agent-a 0 BLIND00\d: BPF program far: .*\. Do first: .*`))

	s = f.serve("a", listen) // another start of the same agent counts, and tells nothing twice
	f.crash(group)
	until(f.T, "the Event is counted", func() bool { return f.told(uid)[0] != first[0] })
	s.end()
	again := f.told(uid)
	qt.Assert(f, qt.HasLen(again, 1))
	qt.Check(f, qt.Equals(strings.Replace(again[0], "agent-a 3 ", "agent-a 0 ", 1), first[0]))

	rule := first[0][len("agent-a 0 "):len("agent-a 0 BLIND001")]
	describe := f.must("", Kubectl, "describe", "pod", "agent-a")
	qt.Check(f, qt.StringContains(describe, rule+": BPF program far"))
	class := f.must("", Kubectl, "get", "nodereport", "node-a", "-o", "jsonpath={.status.class}")
	qt.Check(f, qt.Equals(f.must("", Kubectl, "get", "nodereports", "--field-selector=status.class="+class, "-o", "name"), "nodereport.bpfwhy.dev/node-a\n"))
	qt.Check(f, qt.StringContains(f.must("", Kubectl, "get", "node", "node-a", "-o", `jsonpath={.status.conditions[?(@.type=="BPFLoads")].status}`), "False"))
}

// nodeB gets the report of a machine of the lab, in which the agent starts, and writes it with the
// token of that node.
func (f *fixture) nodeB() {
	var report []byte
	ok := f.T.Run("machine", func(t *testing.T) {
		files := map[string]string{"/bin/bpfwhy": filepath.Join(f.dir, "kubectl-bpfwhy"), "/sparse.o": object}
		m := vm.Machine{MemoryMiB: 1536, Sysctls: map[string]string{harden: "0"}, Files: files}
		vmtest.RunIn(t, []string{"hardened"}, "^TestGuestNodeB$", m, func(t *testing.T, _ string, r *vm.Result) {
			report = r.Files["state/node.json"]
		})
	})
	qt.Assert(f, qt.IsTrue(ok))
	qt.Assert(f, qt.Not(qt.HasLen(report, 0)))
	f.fails("agent of node .node-a. may not write the report of node-b", string(report), Kubectl, "create", f.as("a"), "-f", "-")
	f.must("", Kubectl, "delete", "nodeclasses", "--all") // which the agent of node-a may create
	f.must(string(report), Kubectl, "create", f.as("b"), "-f", "-")
}

// TestGuestNodeB is the life of that machine.
func TestGuestNodeB(t *testing.T) {
	vmtest.Guest(t)
	const listen, state = "127.0.0.1:9465", "/out/state"
	serve := exec.Command("/bin/bpfwhy", "serve", "--state", state, "--listen", listen, "--node", "node-b", "--kubernetes", "off")
	var said bytes.Buffer
	serve.Stdout, serve.Stderr = &said, &said
	qt.Assert(t, qt.IsNil(serve.Start()))
	defer func() { t.Logf("serve:\n%s", &said) }()
	until(t, "serve is ready", func() bool { return get("http://"+listen+"/readyz") != "" })
	cmd := exec.Command("/proc/self/exe", "/sparse.o")
	cmd.Args[0] = agentName
	out, err := cmd.CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
	until(t, "the load is in the report", func() bool {
		b, err := os.ReadFile(filepath.Join(state, "node.json"))
		if err != nil {
			return false
		}
		reports, _, err := nodereport.Decode(bytes.NewReader(b))
		qt.Assert(t, qt.IsNil(err))
		for _, p := range reports[0].Status.Loaded {
			if p.Name == "far" {
				return true
			}
		}
		return false
	})
	qt.Assert(t, qt.IsNil(serve.Process.Signal(syscall.SIGTERM)))
	qt.Check(t, qt.IsNil(serve.Wait()))
}

// prometheus starts one that scrapes an address, with our rules, and returns its own address.
func (f *fixture) prometheus(target string, port int) string {
	f.Helper()
	rules, err := filepath.Abs(filepath.Join(chart, "rules", "bpfwhy.yaml"))
	qt.Assert(f, qt.IsNil(err))
	config := filepath.Join(f.dir, "prometheus.yaml")
	qt.Assert(f, qt.IsNil(os.WriteFile(config, fmt.Appendf(nil, `
global: { scrape_interval: 1s, evaluation_interval: 1s }
rule_files: [%q]
scrape_configs:
  - { job_name: bpfwhy, honor_labels: true, static_configs: [{ targets: [%q], labels: { node: node-a } }] }
`, rules, target), 0o600)))
	f.must("", "promtool", "check", "config", config)
	address := fmt.Sprintf("127.0.0.1:%d", port)
	qt.Assert(f, qt.IsNil(f.start("prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(f.dir, "tsdb"), "--web.listen-address="+address)))
	until(f.T, "Prometheus is ready", func() bool { return get("http://"+address+"/-/ready") != "" })
	return address
}

// scraped: Prometheus has the failure under its workload, and alerts.
func (f *fixture) scraped(prometheus, listen string) {
	f.must(get("http://"+listen+"/metrics"), "promtool", "check", "metrics")
	query := func(q string) string {
		return get("http://" + prometheus + "/api/v1/query?query=" + url.QueryEscape(q))
	}
	const fails = `bpfwhy_failing_programs{namespace="default",workload="DaemonSet/agent",node="node-a",rule=~"BLIND00."} == 1`
	until(f.T, "the failure is scraped", func() bool { return strings.Contains(query(fails), `"node":"node-a"`) })
	for _, q := range []string{
		`bpfwhy_node_info{node="node-a"} == 1`, `bpfwhy_sysctl_value{name="net.core.bpf_jit_harden"} == 2`,
		`bpfwhy_kube_requests_total{verb="post",resource="events",code="201"} >= 1`,
	} {
		qt.Check(f, qt.StringContains(query(q), `"value":`), qt.Commentf("%s", q))
	}
	until(f.T, "an alert is pending", func() bool {
		return strings.Contains(query(`ALERTS{alertname="BPFProgramDoesNotLoad",workload="DaemonSet/agent"}`), `"alertstate":"pending"`)
	})
	qt.Check(f, qt.Equals(strings.Count(get("http://"+prometheus+"/api/v1/rules"), `"health":"ok"`), 5))
}
