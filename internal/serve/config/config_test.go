// SPDX-License-Identifier: Apache-2.0

package config

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/go-quicktest/qt"
)

func read(t *testing.T, text string) (Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.yaml")
	qt.Assert(t, qt.IsNil(os.WriteFile(path, []byte(text), 0o600)))
	c, err := Read(path)
	if err == nil {
		err = c.Check()
	}
	return c, err
}

func TestRead(t *testing.T) {
	c, err := read(t, "node: a\nstate: /var/lib/bpfwhy\nlisten: 9465\nlog: true\notlp:\n  endpoint: http://c:4318\n  headers: {x: y}\n")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(c.Node, "a"))
	qt.Check(t, qt.Equals(c.Listen, "localhost:9465"))
	qt.Check(t, qt.IsTrue(*c.Log))
	qt.Check(t, qt.Equals(c.OTLP.Headers["x"], "y"))
	qt.Check(t, qt.Equals(c.Kubernetes, "auto"))
	qt.Check(t, qt.DeepEquals(c.KubernetesUse, []string{"events", "reports", "pods"}))
	c, err = read(t, "kubernetesUse: [condition]")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(c.Use("condition")))
	qt.Check(t, qt.IsFalse(c.Use("events")))
	c, err = read(t, "kubernetesUse: []")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(c.KubernetesUse, 0)) // a cluster in which all is forbidden
}

// Without any place, failures go to the log; with one, only to that.
func TestLogDefault(t *testing.T) {
	for text, log := range map[string]bool{"": true, "# nothing\n": true, "state: /s": false, "listen: 1": false, "state: /s\nlog: true": true} {
		c, err := read(t, text)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(*c.Log, log), qt.Commentf("%q", text))
	}
}

func TestBad(t *testing.T) {
	for text, want := range map[string]string{
		"stat: /x":                      ".*field stat not found.*",
		"log: maybe":                    ".*cannot unmarshal.*",
		"state: x":                      `state "x": give an absolute path`,
		"listen: nowhere":               `listen: "nowhere" is no address.*`,
		"listen: a:99999":               `listen: "a:99999": the port.*`,
		"textfile: /x":                  `textfile "/x": node_exporter reads.*`,
		"backend: magic":                `backend "magic": choose one of fentry.*`,
		"kubernetes: perhaps":           `kubernetes "perhaps": choose one of.*`,
		"kubernetesUse: [secrets]":      `kubernetesUse "secrets": choose of events, .*`,
		"node: \"a/b\"":                 `node "a/b": not the name of a node`,
		"otlp: {endpoint: \"ftp://x\"}": `otlp endpoint "ftp://x": give a URL.*`,
		"otlp: {headers: {a: b}}":       "otlp: there are headers and no endpoint",
		"node: a\n---\nnode: b":         ".*more than one document",
		"[1, 2]":                        ".*cannot unmarshal.*",
	} {
		_, err := read(t, text)
		qt.Check(t, qt.ErrorMatches(err, want), qt.Commentf("%q", text))
		qt.Check(t, qt.Not(qt.ErrorMatches(err, `.*config\.\w.*`)), qt.Commentf("%q: a name of ours", text))
	}
}
