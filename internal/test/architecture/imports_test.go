// SPDX-License-Identifier: Apache-2.0

package architecture

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

const module = "github.com/bpfwhy/bpfwhy/"

// pure are the packages that need no kernel, with what each may import of this module.
var pure = map[string][]string{
	"insn":                       {},
	"internal/abi":               {},
	"internal/sys/selfprobe":     {"insn"},
	"node":                       {"internal/abi", "insn", "blinding", "internal/hostinfo/sysctl"}, // sysctl on Linux
	"load":                       {"insn"},
	"internal/lazyregexp":        {},
	"verifierlog":                {"internal/lazyregexp", "internal/output/text"},
	"blinding":                   {"insn"},
	"rewrite":                    {"insn", "blinding"},
	"explain/reading":            {"internal/lazyregexp", "internal/abi", "load", "verifierlog"},
	"explain":                    {"explain/reading", "internal/lazyregexp", "internal/abi", "insn", "load", "node", "verifierlog", "blinding", "internal/objects/jitonly", "internal/output/text"},
	"internal/objects/jitonly":   {"insn", "node"},
	"internal/repair/ladder":     {"insn", "blinding", "rewrite", "verifierlog", "internal/abi"},
	"internal/watch/trace":       {"insn", "load", "node"},
	"internal/watch/enrich":      {"load"},
	"internal/watch/redact":      {"internal/lazyregexp", "insn"},
	"internal/watch/hook":        {"load"},
	"internal/watch/assemble":    {"internal/lazyregexp", "internal/abi", "internal/sys/selfprobe", "insn", "load", "node", "verifierlog", "blinding", "internal/watch/hook", "internal/watch/trace", "internal/watch/enrich", "internal/watch/redact"},
	"internal/watch/repeat":      {"insn", "load"},
	"internal/watch/story":       {"load"},
	"internal/watch/diagnose":    {"load", "explain", "internal/watch/trace", "internal/watch/assemble", "internal/watch/repeat", "internal/watch/story"},
	"internal/objects/object":    {"insn", "blinding", "rewrite"},
	"internal/objects/check":     {"insn", "blinding", "load", "node", "explain", "internal/objects/jitonly", "internal/objects/object"},
	"internal/objects/preflight": {"insn", "load", "node", "explain", "internal/abi", "internal/objects/object", "internal/objects/check"},
	"internal/output/text":       {},
	"internal/hostinfo/nodediff": {"load", "node", "explain", "internal/watch/trace"},
	"internal/fleet":             {"load", "node", "explain"},
	"internal/fleet/folder":      {"node", "internal/fleet", "internal/fleet/nodereport", "internal/watch/diagnose", "internal/watch/trace"},
	"internal/fleet/nodereport":  {"internal/fleet"},
	"internal/serve/sink":        {"load", "internal/fleet/nodereport"},
	"internal/serve/failures":    {"load", "internal/fleet", "internal/fleet/nodereport"},
	"internal/serve/config":      {},
	"internal/output/render":     {"internal/output/text", "insn", "blinding", "rewrite", "load", "node", "explain", "internal/watch/trace", "internal/objects/check", "internal/objects/object", "internal/objects/preflight", "internal/hostinfo/nodediff", "internal/fleet"},

	"httpprobe/event":        {},
	"httpprobe/http1":        {"httpprobe/event"},
	"httpprobe/http2":        {"httpprobe/event", "httpprobe/http1"},
	"httpprobe/connection":   {"httpprobe/event", "httpprobe/http1", "httpprobe/http2"},
	"httpprobe/metrics":      {"httpprobe/event", "httpprobe/http1", "httpprobe/connection"},
	"httpprobe/exchangejson": {"httpprobe/connection", "httpprobe/metrics"},
	"httpprobe/table":        {"httpprobe/http1", "httpprobe/connection", "internal/output/render"},
}

// edge are the packages that may touch the kernel's BPF through cilium/ebpf.
var edge = []string{"loader", "internal/watch/capture", "internal/demo/failing", "internal/test/corpus", "internal/test/bench", "internal/test/starts", "internal/hostinfo/probe", "internal/sys/verbatim", "httpprobe/sources"}

type pkg struct {
	ImportPath string
	Imports    []string
}

func packages(t *testing.T) []pkg {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...").Output()
	qt.Assert(t, qt.IsNil(err))
	var all []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else {
			qt.Assert(t, qt.IsNil(err))
		}
		all = append(all, p)
	}
	qt.Assert(t, qt.IsTrue(len(all) > len(pure)))
	return all
}

// Whoever opens the repository finds in the document what each package is for.
func TestPackagesDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/architecture.md")
	qt.Assert(t, qt.IsNil(err))
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		qt.Check(t, qt.StringContains(string(doc), "`"+name+"`"), qt.Commentf("docs/architecture.md does not say what it is"))
	}
}

func TestImports(t *testing.T) {
	seen := 0
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		allowed, isPure := pure[name]
		if isPure {
			seen++
		}
		for _, imported := range p.Imports {
			own, inModule := strings.CutPrefix(imported, module)
			switch {
			case isPure && inModule:
				qt.Check(t, qt.IsTrue(slices.Contains(allowed, own)), qt.Commentf("%s imports %s", name, own))
			case strings.HasPrefix(imported, "github.com/cilium/ebpf"):
				ok := slices.ContainsFunc(edge, func(e string) bool { return name == e || strings.HasPrefix(name, e+"/") })
				qt.Check(t, qt.IsTrue(ok), qt.Commentf("%s imports %s", name, imported))
			}
		}
	}
	qt.Assert(t, qt.Equals(seen, len(pure)))
}

// ofProbe are the packages that httpprobe may use, besides its own: those that any agent in Go
// uses, and rooms that know nothing of watching or repairing.
var ofProbe = []string{"loader", "explain", "load",
	"internal/abi", "internal/hostinfo/rights", "internal/output/flagerror",
	"internal/output/render", "internal/output/terminal", "internal/output/text",
	"internal/sys/buildinfo", "internal/sys/cgroup", "internal/sys/fdinfo", "internal/sys/privilege", "internal/sys/proc",
	"internal/sys/scrape", "internal/sys/selfprobe", "internal/sys/threads", "internal/sys/tracefs", "internal/sys/verbatim",
	"internal/watch/enrich"}

// The reference agent uses what agents have: a loader, and explanations.
func TestProbeImports(t *testing.T) {
	used := map[string]bool{}
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		if name != "cmd/httpprobe" && !strings.HasPrefix(name, "httpprobe/") {
			continue
		}
		for _, imported := range p.Imports {
			own, inModule := strings.CutPrefix(imported, module)
			if !inModule || strings.HasPrefix(own, "httpprobe/") {
				continue
			}
			used[own] = true
			qt.Check(t, qt.IsTrue(slices.Contains(ofProbe, own)), qt.Commentf("%s imports %s", name, own))
		}
	}
	for _, own := range ofProbe {
		qt.Check(t, qt.IsTrue(used[own]), qt.Commentf("nothing of httpprobe imports %s any more", own))
	}
}

// There is one way from records to diagnoses: nobody else assembles attempts.
func TestOnePipeline(t *testing.T) {
	const only = "internal/watch/diagnose/"
	found := false
	for _, name := range sources(t) {
		b, err := os.ReadFile(filepath.Join(root, name))
		qt.Assert(t, qt.IsNil(err))
		if strings.Contains(string(b), "assemble.New(") {
			found = found || strings.HasPrefix(name, only)
			qt.Check(t, qt.IsTrue(strings.HasPrefix(name, only)), qt.Commentf("%s", name))
		}
	}
	qt.Assert(t, qt.IsTrue(found))
}
