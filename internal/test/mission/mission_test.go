// SPDX-License-Identifier: Apache-2.0

// Package mission tests what this project exists for, end to end: nodes of several makes, an agent
// that loads on some of them alone, and the reason from what the nodes wrote down.
package mission

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
)

// agentPath is where this executable is the agent, which loads its program and says whether it is
// compiled.
const agentPath = "/tmp/sparse-agent"

// Where things are in a guest.
const (
	bpfwhy    = "/bin/bpfwhy"
	httpprobe = "/bin/httpprobe"
	object    = "/sparse.o"
	state     = "/out/state"
	listen    = "127.0.0.1:9465"

	probeListen = "127.0.0.1:9466"

	nodeEnv  = "MISSION_NODE"
	worksEnv = "MISSION_WORKS"

	hardenEnv = "MISSION_HARDEN"
)

// A node is one machine of the fleet. The agent starts on those where works is true.
type node struct {
	name, kernel, harden string
	works                bool
}

// With hardening at 2 the program is not compiled. The agent fails then where there is no
// interpreter; elsewhere it starts, and its program runs many times slower, which is told too.
var nodes = []node{
	{"old-1", "5.10", "2", true},
	{"plain-1", "6.1", "0", true},
	{"plain-2", "6.12", "2", true},
	{"secured-1", "hardened", "2", false},
	{"open-1", "hardened", "0", true},
}

func TestMain(m *testing.M) {
	if os.Args[0] == agentPath {
		if err := agent(); err != nil {
			fmt.Fprintln(os.Stderr, "agent:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func agent() error {
	if err := rlimit.RemoveMemlock(); err != nil {
		return err
	}
	c, err := ebpf.LoadCollection(object)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, p := range c.Programs {
		info, err := p.Info()
		if err != nil {
			return err
		}
		size, err := info.JitedSize()
		fmt.Printf("loaded, compiled to %d bytes %v\n", size, err)
	}
	return nil
}

// TestFleet boots the nodes, gathers what 'bpfwhy serve' wrote on each, and asks why.
func TestFleet(t *testing.T) {
	vmtest.Need(t)
	if !vmtest.Long() {
		t.Skip("five machines; set BPFWHY_LONG=1")
	}
	tools := build(t)
	fleet := t.TempDir()
	t.Run("nodes", func(t *testing.T) {
		for _, n := range nodes {
			m := vm.Machine{
				MemoryMiB: 2048, Timeout: 6 * time.Minute,
				Sysctls: map[string]string{"net.core.bpf_jit_harden": n.harden},
				Env:     []string{nodeEnv + "=" + n.name, worksEnv + "=" + fmt.Sprint(n.works), hardenEnv + "=" + n.harden},
				Files: map[string]string{
					bpfwhy: filepath.Join(tools, "bpfwhy"), httpprobe: filepath.Join(tools, "httpprobe"), object: "../../../loader/testdata/sparse.o",
				},
			}
			vmtest.RunIn(t, []string{n.kernel}, "^TestGuestNode$", m, func(t *testing.T, _ string, r *vm.Result) {
				report, ok := r.Files["state/node.json"]
				qt.Assert(t, qt.IsTrue(ok), qt.Commentf("%s left no report", n.name))
				qt.Assert(t, qt.IsNil(os.Mkdir(filepath.Join(fleet, n.name), 0o700)))
				qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(fleet, n.name, "node.json"), report, 0o600)))
			})
		}
	})
	if t.Failed() {
		return
	}

	ask := func(args ...string) string {
		out, err := exec.Command(filepath.Join(tools, "bpfwhy"), append([]string{"fleet", fleet}, args...)...).CombinedOutput()
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
		t.Logf("bpfwhy fleet DIR %s\n%s", strings.Join(args, " "), out)
		return string(out)
	}
	ask()
	why := ask("why")
	for _, want := range []string{
		"fails on  1 node: secured-1", "fails on  2 nodes: old-1, plain-2", "net.core.bpf_jit_harden: 2 where it fails, 0 elsewhere",
		"has no interpreter", "jump island",
	} {
		qt.Check(t, qt.StringContains(why, want))
	}
	var document struct {
		Reasons []struct {
			By []struct {
				Name string `json:"name"`
			} `json:"separated_by"`
		} `json:"reasons"`
	}
	said := ask("why", "--json")
	qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(said), &document)))
	qt.Assert(t, qt.HasLen(document.Reasons, 2), qt.Commentf("%s", said))
	for _, r := range document.Reasons {
		qt.Assert(t, qt.IsTrue(len(r.By) > 0))
		qt.Check(t, qt.Equals(r.By[0].Name, "net.core.bpf_jit_harden"))
	}
}

// build makes the commands as a user does.
func build(t *testing.T) string {
	dir := t.TempDir()
	cmd := exec.Command("go", "build", "-o", dir, "../../../cmd/bpfwhy", "../../../cmd/httpprobe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
	return dir
}

// TestGuestNode is the life of one node.
func TestGuestNode(t *testing.T) {
	vmtest.Guest(t)
	works := os.Getenv(worksEnv) == "true"
	self, err := os.Executable()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.Symlink(self, agentPath)))
	serve := exec.Command(bpfwhy, "serve", "--state", state, "--listen", listen, "--node", os.Getenv(nodeEnv))
	var said bytes.Buffer
	serve.Stdout, serve.Stderr = &said, &said
	qt.Assert(t, qt.IsNil(serve.Start()))
	defer func() { t.Logf("serve:\n%s", &said) }()
	until(t, "serve is ready", func() bool { return answers("http://"+listen+"/readyz", "") })

	out, err := run(exec.Command(agentPath))
	qt.Check(t, qt.Equals(err == nil, works), qt.Commentf("%v: %s", err, out))
	// The reference agent runs on all of them.
	probe := exec.Command(httpprobe, "--interval", "0", "--listen", probeListen)
	var table bytes.Buffer
	probe.Stdout, probe.Stderr = &table, &table
	qt.Assert(t, qt.IsNil(probe.Start()))
	until(t, "httpprobe is up", func() bool { return answers("http://"+probeListen+"/metrics", "source_up{") })
	qt.Assert(t, qt.IsNil(probe.Process.Signal(unix.SIGINT)))
	qt.Check(t, qt.IsNil(probe.Wait()), qt.Commentf("%s", &table))
	if os.Getenv(hardenEnv) == "2" {
		until(t, "the failure is told", func() bool { return answers("http://"+listen+"/metrics", `rule="BLIND00`) })
	}

	qt.Assert(t, qt.IsNil(serve.Process.Signal(unix.SIGTERM)))
	qt.Check(t, qt.IsNil(serve.Wait()))

	// What the fleet will be told to do: the agent as it is, repaired, with hardening on.
	before, err := os.ReadFile("/proc/sys/net/core/bpf_jit_harden")
	qt.Assert(t, qt.IsNil(err))
	out, err = run(exec.Command(bpfwhy, "run", "--repair", "--", agentPath))
	qt.Check(t, qt.IsNil(err), qt.Commentf("%s", out))
	qt.Check(t, qt.StringContains(out, "loaded, compiled to "))
	qt.Check(t, qt.Not(qt.StringContains(out, "compiled to 0 bytes")))
	after, err := os.ReadFile("/proc/sys/net/core/bpf_jit_harden")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(after), string(before)))
}

func answers(url, word string) bool {
	r, err := http.Get(url)
	if err != nil {
		return false
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return err == nil && r.StatusCode == http.StatusOK && bytes.Contains(b, []byte(word))
}

func run(cmd *exec.Cmd) (string, error) {
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(100 * time.Millisecond) {
		qt.Assert(t, qt.IsTrue(time.Now().Before(end)), qt.Commentf("wait until %s", what))
	}
}
