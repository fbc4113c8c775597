// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"go.yaml.in/yaml/v3"

	"github.com/bpfwhy/bpfwhy/internal/fleet"
	"github.com/bpfwhy/bpfwhy/internal/fleet/nodereport"
	"github.com/bpfwhy/bpfwhy/node"
)

// server is an API server that has answers for paths. Of others it says 404.
type server struct {
	*testing.T
	answers map[string]any // a value, or the status of a refusal
	asked   []string       // path and query, in their order
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	qt.Check(s, qt.Equals(r.Method, http.MethodGet)) // people read
	s.asked = append(s.asked, r.URL.String())
	answer, ok := s.answers[r.URL.Path]
	if !ok {
		answer = http.StatusNotFound
	}
	w.Header().Set("Content-Type", "application/json")
	if code, refused := answer.(int); refused {
		w.WriteHeader(code)
		reason := map[int]string{404: "NotFound", 403: "Forbidden"}[code]
		answer = map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": "refused: " + reason}
	}
	if text, raw := answer.(string); raw {
		fmt.Fprint(w, text)
		return
	}
	qt.Check(s, qt.IsNil(json.NewEncoder(w).Encode(answer)))
}

const api = "/apis/bpfwhy.dev/v1alpha1/"

// open opens the cluster as a user does, with a kubeconfig.
func open(t *testing.T, answers map[string]any) (*Cluster, *server) {
	t.Helper()
	s := &server{T: t, answers: answers}
	web := httptest.NewServer(s)
	t.Cleanup(web.Close)
	kubeconfig(t, web.URL)
	c, err := Open("")
	qt.Assert(t, qt.IsNil(err))
	return c, s
}

func kubeconfig(t *testing.T, url string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config")
	text := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"first",
"clusters":[{"name":"c","cluster":{"server":%q}}],"users":[{"name":"u","user":{}}],
"contexts":[{"name":"first","context":{"cluster":"c","user":"u","namespace":"apps"}},{"name":"second","context":{"cluster":"c","user":"u"}}]}`, url)
	qt.Assert(t, qt.IsNil(os.WriteFile(file, []byte(text), 0o600)))
	t.Setenv("KUBECONFIG", file)
}

func TestOpen(t *testing.T) {
	kubeconfig(t, "http://127.0.0.1:1")
	for name, want := range map[string][2]string{"": {"first", "apps"}, "second": {"second", "default"}} {
		c, err := Open(name)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals([2]string{c.Context, c.Namespace}, want))
	}
	_, err := Open("third")
	qt.Check(t, qt.ErrorMatches(err, `read kubeconfig: context "third" does not exist`))
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	_, err = Open("")
	qt.Check(t, qt.ErrorIs(err, ErrNoConfig))
}

// list is one of Kubernetes.
func list(items ...any) map[string]any {
	return map[string]any{"kind": "List", "apiVersion": "v1", "items": append([]any{}, items...)}
}

func TestRead(t *testing.T) {
	class := nodereport.NewClass(fleet.ClassOf(&node.Profile{Release: "6.12.0", Sysctls: map[string]string{"net.core.bpf_jit_harden": "2"}}))
	forged := nodereport.NewClass(fleet.ClassOf(&node.Profile{Release: "6.13.0"}))
	forged.Metadata.Name = "c-0123456789abcdef"
	report := func(name, class string) *nodereport.Report {
		return nodereport.NewReport(name, nodereport.Status{Class: class, Failures: []nodereport.Failure{{
			Failure: fleet.Failure{ID: "0123456789ab", Rule: "BLIND001", Count: 2}, Workload: nodereport.Workload{Namespace: "apps", Pod: "x"},
		}}})
	}
	answers := map[string]any{
		api + "nodereports": list(report("a", class.Metadata.Name), report("b", forged.Metadata.Name), map[string]any{"kind": "NodeReport", "apiVersion": "bpfwhy.dev/v9"}),
		api + "nodeclasses": list(class, forged),
		"/api/v1/nodes":     list(map[string]any{"metadata": map[string]any{"name": "b"}}),
	}
	c, s := open(t, answers)
	f, bad, err := c.Read(t.Context(), "")
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.HasLen(f.Nodes, 2))
	qt.Check(t, qt.Equals(f.Nodes[0].Profile.Sysctls["net.core.bpf_jit_harden"], "2"))
	qt.Check(t, qt.IsNil(f.Nodes[1].Profile)) // no class is believed that is not what its name says
	qt.Check(t, qt.Equals(f.Nodes[0].Failures[0].Count, 2))
	qt.Assert(t, qt.HasLen(bad, 2)) // one bad object hides no other
	qt.Check(t, qt.StringContains(bad[0].Error(), `apiVersion is "bpfwhy.dev/v9"`))
	qt.Check(t, qt.StringContains(bad[1].Error(), "is not what its name says"))
	// From the API server's cache, in one answer each, the classes last.
	qt.Check(t, qt.DeepEquals(s.asked, []string{api + "nodereports?resourceVersion=0", api + "nodeclasses?resourceVersion=0"}))

	s.asked = nil
	f, _, err = c.Read(t.Context(), "pool=b")
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.HasLen(f.Nodes, 1))
	qt.Check(t, qt.Equals(f.Nodes[0].Name, "b"))
	qt.Check(t, qt.Equals(s.asked[2], "/api/v1/nodes?labelSelector=pool%3Db&resourceVersion=0"))

	for _, test := range []struct {
		path, selector, want string
		answer               any
	}{
		{"/api/v1/nodes", "x", `list nodes with labels "x": refused: Forbidden`, http.StatusForbidden},
		{"/api/v1/nodes", "x", "list nodes: .*", "no JSON"},
		{api + "nodeclasses", "", "list nodeclasses: refused: Forbidden", http.StatusForbidden},
		{api + "nodereports", "", "list nodereports: .*", "no JSON"},
		{api + "nodereports", "", "the cluster knows no NodeReports: .*", http.StatusNotFound},
	} {
		answers[test.path] = test.answer
		_, _, err := c.Read(t.Context(), test.selector)
		qt.Check(t, qt.ErrorMatches(err, test.want))
	}
}

// TestReadManyBad: a cluster full of what nobody can read is named in part.
func TestReadManyBad(t *testing.T) {
	items := slices.Repeat([]any{map[string]any{"kind": "NodeReport"}}, 3*maxBad)
	c, _ := open(t, map[string]any{api + "nodereports": list(items...), api + "nodeclasses": list()})
	f, bad, err := c.Read(t.Context(), "")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(f.Nodes, 0))
	qt.Check(t, qt.HasLen(bad, maxBad))
}

func podOn(node string, annotations map[string]string) map[string]any {
	return map[string]any{
		"metadata": map[string]any{"namespace": "apps", "name": "p", "uid": "u1", "annotations": annotations},
		"spec":     map[string]any{"nodeName": node},
	}
}

func TestPod(t *testing.T) {
	const path = "/api/v1/namespaces/apps/pods/p"
	answers := map[string]any{path: podOn("n1", nil)}
	c, _ := open(t, answers)
	p, err := c.Pod(t.Context(), "apps", "p")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(*p, Pod{"apps", "p", "u1", "n1"}))
	// The control group of a static pod is named after its file.
	answers[path] = podOn("n1", map[string]string{"kubernetes.io/config.hash": "h1"})
	p, err = c.Pod(t.Context(), "apps", "p")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(p.UID, "h1"))
	for want, answer := range map[string]any{
		"pod apps/p has no node yet: it loaded nothing so far": podOn("", nil),
		`namespace apps has no pod "p"`:                        http.StatusNotFound,
		"get pod apps/p: refused: Forbidden":                   http.StatusForbidden,
		"get pod apps/p: .*":                                   "no JSON",
	} {
		answers[path] = answer
		_, err := c.Pod(t.Context(), "apps", "p")
		qt.Check(t, qt.ErrorMatches(err, want))
	}
}

func TestAgent(t *testing.T) {
	answers := map[string]any{"/api/v1/pods": list(podOn("n1", nil))}
	c, s := open(t, answers)
	p, err := c.Agent(t.Context(), "n1")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(s.asked, []string{"/api/v1/pods?fieldSelector=spec.nodeName%3Dn1&labelSelector=app.kubernetes.io%2Fname%3Dbpfwhy"}))
	qt.Check(t, qt.Equals(strings.Join(p.Exec("watch", "--failed"), " "), "exec -n apps p -c bpfwhy -- /bin/bpfwhy watch --failed"))
	for want, answer := range map[string]any{
		`no pod of bpfwhy .* runs on node "n1"`:   list(),
		"list pods of bpfwhy: refused: Forbidden": http.StatusForbidden,
		"list pods of bpfwhy: invalid .*":         "no JSON",
	} {
		answers["/api/v1/pods"] = answer
		_, err := c.Agent(t.Context(), "n1")
		qt.Check(t, qt.ErrorMatches(err, want))
	}
}

// workload is one with containers.
func workload(containers ...string) string {
	return `{"spec":{"template":{"spec":{"containers":[` + strings.Join(containers, ",") + `]}}}}`
}

const (
	side   = `{"name":"side","command":["sleep"]}`
	agent  = `{"name":"1e3","command":["/agent","it's: {}"],"securityContext":{"capabilities":{"add":["BPF"]}}}`
	silent = `{"name":"other","securityContext":{"privileged":true}}`
)

func TestRepair(t *testing.T) {
	const path = "/apis/apps/v1/namespaces/apps/daemonsets/x"
	answers := map[string]any{path: workload(side, agent)}
	c, _ := open(t, answers)
	for _, kind := range []string{"daemonset", "DaemonSets", "ds"} {
		text, err := c.Repair(t.Context(), "apps", kind+"/x", "registry.example.com/b:1", nil)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.StringContains(text, "#   kubectl -n apps patch daemonset x --patch-file FILE"))
		var patch struct {
			Spec struct {
				Template struct{ Spec map[string][]map[string]any }
			}
		}
		qt.Assert(t, qt.IsNil(yaml.Unmarshal([]byte(text), &patch)))
		spec := patch.Spec.Template.Spec
		qt.Assert(t, qt.HasLen(spec["containers"], 1)) // the others stay as they are
		qt.Check(t, qt.Equals(spec["containers"][0]["name"], any("1e3")))
		qt.Check(t, qt.DeepEquals(spec["containers"][0]["command"], any([]any{"/bpfwhy/bpfwhy", "run", "--repair", "--", "/agent", "it's: {}"})))
		qt.Check(t, qt.Equals(spec["initContainers"][0]["image"], any("registry.example.com/b:1")))
	}
	answers[path] = workload(silent)
	text, err := c.Repair(t.Context(), "apps", "ds/x", "i", []string{"/bin/other"})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.StringContains(text, `["/bpfwhy/bpfwhy","run","--repair","--","/bin/other"]`))
	for _, test := range []struct {
		workload, want string
		answer         any
	}{
		{"pod/x", `"pod/x": name a workload as .*`, nil},
		{"ds/", `"ds/": name a workload as .*`, nil},
		{"x", `"x": name a workload as .*`, nil},
		{"ds/x", `container "other" has no command of its own, .*`, workload(silent)},
		{"ds/x", "none of its containers has a right to load BPF programs .*", workload(side)},
		{"ds/x", `several of its containers may load BPF programs \(1e3, other\): .*`, workload(agent, silent)},
		{"ds/x", "get daemonsets apps/x: refused: Forbidden", http.StatusForbidden},
		{"ds/x", "get daemonsets apps/x: .*", "no JSON"},
		{"ds/y", `namespace apps has no daemonset "y"`, nil},
	} {
		answers[path] = test.answer
		_, err := c.Repair(t.Context(), "apps", test.workload, "i", nil)
		qt.Check(t, qt.ErrorMatches(err, test.want))
	}
}
