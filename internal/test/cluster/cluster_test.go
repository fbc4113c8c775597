// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/bpfwhy/bpfwhy/internal/serve/kube"
	"github.com/bpfwhy/bpfwhy/internal/sys/kubeclient"
)

const (
	chart     = "../../../deploy/helm/bpfwhy"
	namespace = "bpfwhy"
	harden    = "net.core.bpf_jit_harden"
)

// fixture is a cluster with the chart in it.
type fixture struct {
	*Cluster
	*testing.T
	dir string
}

func lab(t *testing.T) {
	t.Helper()
	if os.Getenv("BPFWHY_LAB") != "1" && os.Getenv("CI") != "true" {
		t.Skip("builds Kubernetes and starts it: set BPFWHY_LAB=1")
	}
}

// newFixture starts a cluster, with bpfwhy beside it.
func newFixture(t *testing.T, tools ...string) *fixture {
	t.Helper()
	lab(t)
	bin, err := Build(t.Context(), t.Logf, tools...)
	qt.Assert(t, qt.IsNil(err))
	dir := t.TempDir()
	c, err := Start(t.Context(), bin, dir)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(c.Stop)
	f := &fixture{c, t, dir}
	f.bpfwhy()
	return f
}

// TestCluster does all that needs an API server, with one: its start is what costs.
func TestCluster(t *testing.T) {
	f := newFixture(t, Tools()...)
	f.must("", Kubectl, "create", "namespace", namespace)
	for _, step := range []struct {
		name string
		do   func(*fixture)
	}{
		{"not installed", (*fixture).notInstalled},
		{"install", (*fixture).install},
		{"rights", (*fixture).rights},
		{"policies", (*fixture).policies},
		{"conditions", (*fixture).conditions},
		{"nodes", (*fixture).nodes},
		{"plugin", (*fixture).plugin},
		{"upgrade and uninstall", (*fixture).uninstall},
	} {
		ok := t.Run(step.name, func(t *testing.T) { step.do(&fixture{f.Cluster, t, f.dir}) })
		if !ok {
			return // what follows needs it
		}
	}
}

// must runs a tool that must succeed.
func (f *fixture) must(input, tool string, args ...string) string {
	f.Helper()
	ctx, cancel := context.WithTimeout(f.Context(), 2*time.Minute)
	defer cancel()
	out, err := f.Run(ctx, input, tool, args...)
	qt.Assert(f, qt.IsNil(err))
	return out
}

// fails runs a tool that must fail, and say why.
func (f *fixture) fails(pattern, input, tool string, args ...string) {
	f.Helper()
	ctx, cancel := context.WithTimeout(f.Context(), 2*time.Minute)
	defer cancel()
	out, err := f.Run(ctx, input, tool, args...)
	qt.Assert(f, qt.IsNotNil(err), qt.Commentf("%s", out))
	qt.Assert(f, qt.Matches(strings.ReplaceAll(out, "\n", " "), ".*(?:"+pattern+").*"))
}

// Run shadows that of testing.T.
func (f *fixture) Run(ctx context.Context, input, tool string, args ...string) (string, error) {
	return f.Cluster.Run(ctx, input, tool, args...)
}

func (f *fixture) helm(verb ...string) string {
	f.Helper()
	return f.must("", Helm, append(verb, "--namespace="+namespace, "--set", "image.repository=registry.example.com/bpfwhy")...)
}

func (f *fixture) bpfwhy() {
	out, err := exec.Command("go", "build", "-ldflags=-w", "-o", filepath.Join(f.dir, "kubectl-bpfwhy"), "../../../cmd/bpfwhy").CombinedOutput()
	qt.Assert(f, qt.IsNil(err), qt.Commentf("%s", out))
}

// notInstalled: the plugin says what is missing.
func (f *fixture) notInstalled() {
	out, code := f.pluginRun("failures")
	qt.Check(f, qt.Equals(code, 2))
	qt.Check(f, qt.Matches(out, "(?s).*the chart of bpfwhy is not installed there.*"))
}

func (f *fixture) install() {
	lint := f.must("", Helm, "lint", "--strict", chart, "--set", "image.repository=x")
	qt.Check(f, qt.StringContains(lint, "0 chart(s) failed"))
	f.fails("image.repository is not set", "", Helm, "template", "bpfwhy", chart)
	f.fails("additional properties .hostNetwrok. not allowed", "", Helm, "template", "bpfwhy", chart, "--set", "image.repository=x,hostNetwrok=true")
	f.helm("install", "bpfwhy", chart, "--dry-run=server")
	f.helm("install", "bpfwhy", chart, "--set", "nodeConditions.enabled=true")
	f.must("", Kubectl, "wait", "--for=condition=Established", "crd/nodereports.bpfwhy.dev", "crd/nodeclasses.bpfwhy.dev", "--timeout=30s")
}

// rights are all that the agents have, as docs/kubernetes.md lists them.
func (f *fixture) rights() {
	var role struct {
		Rules []struct {
			APIGroups, Resources, Verbs []string
		} `json:"rules"`
	}
	qt.Assert(f, qt.IsNil(json.Unmarshal([]byte(f.must("", Kubectl, "get", "clusterrole", "bpfwhy-agent", "-o", "json")), &role)))
	var have []string
	for _, r := range role.Rules {
		have = append(have, fmt.Sprintf("%s %s [%s]", strings.Join(r.APIGroups, ","), strings.Join(r.Resources, ","), strings.Join(r.Verbs, ", ")))
	}
	qt.Check(f, qt.DeepEquals(have, []string{
		" nodes [get]", " pods [list, watch]", "events.k8s.io events [create, patch]",
		"bpfwhy.dev nodereports [get, create, update, patch]", "bpfwhy.dev nodeclasses [get, create]", " nodes/status [patch]",
	}))
	for _, name := range []string{"a", "b"} {
		f.must(fmt.Sprintf(nodeAndPod, name), Kubectl, "apply", "-f", "-")
	}
	for _, name := range []string{"a", "b"} {
		f.agent(name)
	}
}

// nodeAndPod is a node with a pod of the DaemonSet, as the scheduler and the kubelet would make
// them, and a pod that fails.
const nodeAndPod = `
apiVersion: v1
kind: Node
metadata: { name: node-%[1]s, labels: { pool: %[1]s } }
status: { capacity: { cpu: "4" }, allocatable: { cpu: "4" }, addresses: [{ type: Hostname, address: node-%[1]s }] }
---
apiVersion: v1
kind: Pod
metadata: { name: bpfwhy-%[1]s, namespace: bpfwhy, labels: { app.kubernetes.io/name: bpfwhy } }
spec: { nodeName: node-%[1]s, serviceAccountName: bpfwhy, containers: [{ name: bpfwhy, image: x }] }
---
apiVersion: v1
kind: ServiceAccount
metadata: { name: default, namespace: default }
---
apiVersion: v1
kind: Pod
metadata:
  name: agent-%[1]s
  namespace: default
  ownerReferences: [{ apiVersion: apps/v1, kind: DaemonSet, name: agent, uid: "1", controller: true }]
spec:
  nodeName: node-%[1]s
  containers: [{ name: agent, image: "registry.example.com/agent:1", securityContext: { capabilities: { add: [BPF] } } }]
`

// agent writes a kubeconfig for the agent of a node. Its token is that of its pod.
func (f *fixture) agent(name string) string {
	f.Helper()
	uid := f.must("", Kubectl, "get", "pod", "-n", namespace, "bpfwhy-"+name, "-o", "jsonpath={.metadata.uid}")
	token := f.must("", Kubectl, "create", "token", "bpfwhy", "-n", namespace, "--bound-object-kind=Pod", "--bound-object-name=bpfwhy-"+name, "--bound-object-uid="+uid)
	file := filepath.Join(f.dir, "agent-"+name)
	qt.Assert(f, qt.IsNil(f.WriteKubeconfig(file, strings.TrimSpace(token))))
	return file
}

func (f *fixture) as(name string) string {
	return "--kubeconfig=" + filepath.Join(f.dir, "agent-"+name)
}

// policies: a token is worth one node.
func (f *fixture) policies() {
	report := func(name, more string) string {
		return fmt.Sprintf(`{"apiVersion":"bpfwhy.dev/v1alpha1","kind":"NodeReport","metadata":{"name":%q%s},"status":{"failing":0}}`, name, more)
	}
	f.must(report("node-a", ""), Kubectl, "create", f.as("a"), "-f", "-")
	f.fails(`agent of node .node-a. may not write the report of node-b`, report("node-b", ""), Kubectl, "create", f.as("a"), "-f", "-")
	f.must(report("node-b", ""), Kubectl, "create", f.as("b"), "-f", "-")
	patch := []string{"patch", "nodereport", "--type=merge", "-p", `{"status":{"failing":7}}`}
	f.must("", Kubectl, append(patch, f.as("a"), "node-a")...)
	f.fails("may not write the report of node-b", "", Kubectl, append(patch, f.as("a"), "node-b")...)
	f.fails("no finalizers", "", Kubectl, "patch", "nodereport", "--type=merge", "-p", `{"metadata":{"finalizers":["x.example.com/y"]}}`, f.as("a"), "node-a")
	f.fails("owned by its node", "", Kubectl, "patch", "nodereport", "--type=merge", "-p", `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"node-b","uid":"u"}]}}`, f.as("a"), "node-a")
	// A token that is bound to no pod names no node.
	loose := strings.TrimSpace(f.must("", Kubectl, "create", "token", "bpfwhy", "-n", namespace))
	qt.Assert(f, qt.IsNil(f.WriteKubeconfig(filepath.Join(f.dir, "agent-loose"), loose)))
	f.fails("may not write the report", "", Kubectl, append(patch, f.as("loose"), "node-a")...)

	f.must("", Kubectl, "delete", "nodereports", "--all") // what follows is what nodes write

	class := `{"apiVersion":"bpfwhy.dev/v1alpha1","kind":"NodeClass","metadata":{"name":%q},"spec":{"release":"6.1"}}`
	f.must(fmt.Sprintf(class, "c-0123456789abcdef"), Kubectl, "create", f.as("a"), "-f", "-")
	f.fails("hexadecimal digits", fmt.Sprintf(class, "mine"), Kubectl, "create", f.as("a"), "-f", "-")
	change := []string{"patch", "nodeclass", "c-0123456789abcdef", "--type=merge", "-p", `{"spec":{"release":"6.2"}}`}
	f.fails("[Ff]orbidden", "", Kubectl, append(change, f.as("a"))...)
	f.fails("never changes", "", Kubectl, change...) // not even by an administrator
	f.must("", Kubectl, "delete", "nodeclass", "c-0123456789abcdef")

	event := func(controller, instance, kind, name string) string {
		return fmt.Sprintf(`{"apiVersion":"events.k8s.io/v1","kind":"Event","metadata":{"generateName":"e-","namespace":"default"},"eventTime":"2026-01-01T00:00:00.000000Z",
"reportingController":%q,"reportingInstance":%q,"action":"Load","reason":"BPFLoadFailed","type":"Warning","note":"n","regarding":{"kind":%q,"name":%q,"apiVersion":"v1"}}`, controller, instance, kind, name)
	}
	f.must(event(kube.Reporter, "node-a", "Node", "node-a"), Kubectl, "create", f.as("a"), "-f", "-")
	f.fails("only as bpfwhy.dev/agent", event(kube.Reporter, "node-b", "Node", "node-a"), Kubectl, "create", f.as("a"), "-f", "-")
	f.fails("only as bpfwhy.dev/agent", event("kubelet", "node-a", "Node", "node-a"), Kubectl, "create", f.as("a"), "-f", "-")
	f.fails("about a pod, or about the agent.s node", event(kube.Reporter, "node-a", "Node", "node-b"), Kubectl, "create", f.as("a"), "-f", "-")
	f.fails("about a pod", event(kube.Reporter, "node-a", "Secret", "s"), Kubectl, "create", f.as("a"), "-f", "-")

	for _, no := range [][]string{{"get", "secrets", "-A"}, {"get", "pods/exec"}, {"create", "pods"}, {"delete", "nodereports"}, {"list", "nodes"}, {"update", "nodeclasses"}, {"get", "configmaps"}, {"create", "nodes/proxy"}} {
		f.fails("no", "", Kubectl, append(append([]string{"auth", "can-i"}, no...), f.as("a"))...)
	}
}

// conditions: of the status of its node, an agent may change its condition and nothing else.
func (f *fixture) conditions() {
	// kubectl would get the status first, for which the agent has no right and no need.
	patch := func(node, patch string) error {
		config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(f.dir, "agent-a"))
		qt.Assert(f, qt.IsNil(err))
		client, err := kubeclient.New(config)
		qt.Assert(f, qt.IsNil(err))
		_, err = kubeclient.Raw(client.Patch(types.StrategicMergePatchType).AbsPath("/api/v1/nodes", node, "status").Body([]byte(`{"status":{` + patch + `}}`)).Do(f.Context()))
		return err
	}
	const ours = `"conditions":[{"type":"BPFLoads","status":"True","reason":"x","message":"y"}]`
	qt.Assert(f, qt.IsNil(patch("node-a", ours)))
	qt.Check(f, qt.ErrorMatches(patch("node-b", ours), ".*may not write the status of node-b.*"))
	qt.Check(f, qt.ErrorMatches(patch("node-a", `"conditions":[{"type":"Ready","status":"False"}]`), ".*no condition but BPFLoads.*"))
	for _, other := range []string{`"capacity":{"cpu":"1"}`, `"allocatable":{"cpu":"1"}`, `"addresses":[{"type":"Hostname","address":"evil"}]`, `"images":[{"names":["x"],"sizeBytes":1}]`} {
		qt.Check(f, qt.ErrorMatches(patch("node-a", other), ".*may change nothing of a node.*"), qt.Commentf("%s", other))
	}
}

// pluginRun runs the plugin as kubectl does.
func (f *fixture) pluginRun(args ...string) (string, int) {
	f.Helper()
	cmd := f.Command(f.Context(), Kubectl, append([]string{"bpfwhy"}, args...)...)
	cmd.Env = append(cmd.Env, "PATH="+f.dir, "NO_COLOR=1")
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		f.Fatalf("kubectl bpfwhy: %v", err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// plugin: the mission, from the API server. What the kernel of this machine shows decides which of
// the rules of blinding it is.
func (f *fixture) plugin() {
	failures, _ := f.pluginRun("failures")
	rule := regexp.MustCompile(`BLIND00[12]`).FindString(failures)
	qt.Assert(f, qt.Not(qt.Equals(rule, "")), qt.Commentf("%s", failures))
	for _, args := range [][]string{{}, {"why"}, {"why", "agent-a"}, {"why", rule, "-n", "default"}, {"why", "--context=test", "-l", "pool in (a,b)"}} {
		out, code := f.pluginRun(args...)
		qt.Assert(f, qt.Equals(code, 0), qt.Commentf("%q: %s", args, out))
		qt.Check(f, qt.StringContains(out, rule), qt.Commentf("%q", args))
	}
	out, _ := f.pluginRun("why", "agent-a")
	qt.Check(f, qt.Matches(out, `(?s).*workload  default/DaemonSet/agent.*fails on  1 node: node-a.*loads on  1 node: node-b.*why there net.core.bpf_jit_harden: 2 where it fails, 0\s+elsewhere.*do first  [Ss]plit the (?:program|long jump).*`))
	out, code := f.pluginRun("why", "-o", "json")
	qt.Check(f, qt.Equals(code, 0))
	qt.Check(f, qt.Matches(out, `(?s).*"separated_by":\[\{"name":"net.core.bpf_jit_harden".*`))
	out, _ = f.pluginRun("failures", "-n", "other")
	qt.Check(f, qt.StringContains(out, "No failure"))
	out, _ = f.pluginRun("-l", "pool=b")
	qt.Check(f, qt.Matches(out, "(?s)1 node of 1 class, something fails on 0.*"))
	out, code = f.pluginRun("audit")
	qt.Check(f, qt.Equals(code, 3), qt.Commentf("%s", out))
	out, _ = f.pluginRun("watch", "node-a")
	qt.Check(f, qt.Equals(out, "kubectl exec -n bpfwhy bpfwhy-a -c bpfwhy -- /bin/bpfwhy watch\n"))
	out, _ = f.pluginRun("now", "agent-b", "-n", "default", "--image", "registry.example.com/bpfwhy:1")
	qt.Check(f, qt.Matches(out, "kubectl debug node/node-b .*--image=registry.example.com/bpfwhy:1 .*watch --failed --pod=[0-9a-f-]{36}\n"))
	f.repair()

	// What somebody wrote under a name that is not its own is left out, and said.
	f.must("", Kubectl, "patch", "nodereport", "node-b", "--type=merge", "-p", `{"status":{"class":"c-0123456789abcdef"}}`)
	f.must(`{"apiVersion":"bpfwhy.dev/v1alpha1","kind":"NodeClass","metadata":{"name":"c-0123456789abcdef"},"spec":{"release":"evil"}}`, Kubectl, "create", f.as("b"), "-f", "-")
	out, _ = f.pluginRun("why")
	qt.Check(f, qt.StringContains(out, "is not what its name says"))
	qt.Check(f, qt.IsFalse(strings.Contains(out, "0 elsewhere")))
}

func (f *fixture) repair() {
	f.must(`
apiVersion: apps/v1
kind: DaemonSet
metadata: { name: agent, namespace: default }
spec:
  selector: { matchLabels: { a: b } }
  template:
    metadata: { labels: { a: b } }
    spec:
      containers:
        - { name: side, image: s, command: [sleep] }
        - { name: agent, image: x, command: [/agent, "it's: {}"], args: [-v], securityContext: { capabilities: { add: [BPF] } } }
`, Kubectl, "apply", "-f", "-")
	patch, code := f.pluginRun("repair", "daemonset/agent", "-n", "default", "--image", "registry.example.com/bpfwhy:1")
	qt.Assert(f, qt.Equals(code, 0), qt.Commentf("%s", patch))
	file := filepath.Join(f.dir, "patch.yaml")
	qt.Assert(f, qt.IsNil(os.WriteFile(file, []byte(patch), 0o600)))
	get := `jsonpath={.spec.template.spec.containers[?(@.name=="agent")]['command','args']} {.spec.template.spec.initContainers[0].command}`
	before := f.must("", Kubectl, "get", "daemonset", "agent", "-o", get)
	qt.Check(f, qt.StringContains(before, `["/agent","it's: {}"]`)) // nothing was applied
	f.must("", Kubectl, "patch", "daemonset", "agent", "--patch-file", file)
	after := f.must("", Kubectl, "get", "daemonset", "agent", "-o", get)
	qt.Check(f, qt.Equals(after, `["/bpfwhy/bpfwhy","run","--repair","--","/agent","it's: {}"] ["-v"] ["/bin/bpfwhy","copy","/bpfwhy/bpfwhy"]`))
}

// uninstall: an upgrade changes what it says, and nothing but the definitions stays behind.
func (f *fixture) uninstall() {
	f.helm("upgrade", "bpfwhy", chart, "--set", "pods.enabled=false")
	rules := f.must("", Kubectl, "get", "clusterrole", "bpfwhy-agent", "-o", "json")
	qt.Check(f, qt.IsFalse(strings.Contains(rules, `"pods"`)))
	f.must("", Helm, "uninstall", "bpfwhy", "--namespace="+namespace)
	left := f.must("", Kubectl, "get", "daemonsets,serviceaccounts,clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings", "-A", "-o", "name")
	qt.Check(f, qt.IsFalse(strings.Contains(left, "/bpfwhy")), qt.Commentf("%s", left))
	f.must("", Kubectl, "get", "nodereport", "node-a") // reports are data: they stay with their definition

	// The same without Helm.
	f.must("", Kubectl, "apply", "--server-side", "--force-conflicts", "-f", plain)
	f.must("", Kubectl, "get", "daemonset", "bpfwhy", "-n", namespace)
	f.must("", Kubectl, "delete", "-f", plain, "--wait=false")
}

// TestRules: the alerts fire when they should, by Prometheus's own tool.
func TestRules(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil && os.Getenv("CI") != "true" {
		t.Skip("no promtool: scripts/install-deps.sh installs it")
	}
	qt.Assert(t, qt.IsNil(err))
	out, err := exec.Command(promtool, "test", "rules", filepath.Join(chart, "rules", "bpfwhy_test.yaml")).CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
}
