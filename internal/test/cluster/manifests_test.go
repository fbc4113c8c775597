// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write deploy/kubernetes/bpfwhy-serve.yaml anew")

// plain is the chart as manifests, for those who do not use Helm.
const plain = "../../../deploy/kubernetes/bpfwhy-serve.yaml"

const plainHead = `# SPDX-License-Identifier: Apache-2.0
#
# The chart of bpfwhy (deploy/helm/bpfwhy) with its default values, for Kubernetes 1.31 and later.
# Replace registry.example.com/bpfwhy by where you pushed the image (docs/kubernetes.md). Then:
#
#   kubectl apply --server-side -f bpfwhy-serve.yaml
#
# Generated: go test ./internal/test/cluster -run TestManifests -update
---
apiVersion: v1
kind: Namespace
metadata:
  name: bpfwhy
  labels: { pod-security.kubernetes.io/enforce: privileged }
`

// TestManifests: the plain manifests are what the chart gives.
func TestManifests(t *testing.T) {
	lab(t)
	bin, err := Build(t.Context(), t.Logf, Helm)
	qt.Assert(t, qt.IsNil(err))
	f := &fixture{&Cluster{Bin: bin, dir: t.TempDir()}, t, ""}
	text := plainHead + f.must("", Helm, "template", "bpfwhy", chart, "--namespace="+namespace, "--include-crds", "--kube-version=1.31.0",
		"--set", "image.repository=registry.example.com/bpfwhy")
	if *update {
		qt.Assert(t, qt.IsNil(os.WriteFile(plain, []byte(text), 0o644)))
	}
	is, err := os.ReadFile(plain)
	qt.Assert(t, qt.IsNil(err))
	have, want := objects(t, string(is)), objects(t, text)
	qt.Assert(t, qt.IsTrue(len(want) > 10))
	qt.Check(t, qt.DeepEquals(have, want), qt.Commentf("go test ./internal/test/cluster -run TestManifests -update"))
}

// objects are those of a manifest, by kind and name.
func objects(t *testing.T, text string) map[string]any {
	t.Helper()
	out := map[string]any{}
	for d := yaml.NewDecoder(strings.NewReader(text)); ; {
		var o map[string]any
		if err := d.Decode(&o); errors.Is(err, io.EOF) {
			return out
		} else {
			qt.Assert(t, qt.IsNil(err))
		}
		if meta, ok := o["metadata"].(map[string]any); ok { // there are documents of comments alone
			out[fmt.Sprint(o["kind"], "/", meta["name"])] = o
		}
	}
}
