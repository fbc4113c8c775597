// SPDX-License-Identifier: Apache-2.0

package rights_test

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/bpfwhy/bpfwhy/internal/hostinfo/rights"
	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/wire"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// deployed reads a file that is deployed, in a guest and on the host.
func deployed(t *testing.T, name string) string {
	t.Helper()
	dir := "../../../deploy"
	if os.Getenv(wire.KernelEnv) != "" {
		dir = "/deploy"
	}
	b, err := os.ReadFile(filepath.Join(dir, name))
	qt.Assert(t, qt.IsNil(err))
	return string(b)
}

const (
	unit          = "systemd/bpfwhy.service"
	serveUnit     = "systemd/bpfwhy-serve.service"
	probeUnit     = "systemd/httpprobe.service"
	manifest      = "kubernetes/bpfwhy.yaml"
	probeManifest = "kubernetes/httpprobe.yaml"
)

// settings are the values that a unit gives to a name.
func settings(text, name string) (values []string) {
	for _, m := range regexp.MustCompile(`(?m)^`+name+`=(.*)$`).FindAllStringSubmatch(text, -1) {
		values = append(values, strings.Fields(m[1])...)
	}
	return values
}

// in is a list of the manifest's, such as add: [A, B].
func in(t *testing.T, text, key string) []string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^ +` + key + `: \[(.*)\]$`).FindStringSubmatch(text)
	qt.Assert(t, qt.HasLen(m, 2), qt.Commentf("%s", key))
	return strings.Split(strings.ReplaceAll(m[1], `"`, ""), ", ")
}

// deployedCaps are what both have: all that watch can use in the first namespaces.
func deployedCaps() []string {
	return node.Capabilities(bits(less(rights.Watch.Least(true), unix.CAP_SYS_PTRACE)))
}

// TestDeployed: unit and manifest have the rights of the table and no more.
func TestDeployed(t *testing.T) {
	want := deployedCaps()
	for _, name := range []string{unit, serveUnit} {
		got := settings(deployed(t, name), "CapabilityBoundingSet")
		qt.Check(t, qt.DeepEquals(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))), qt.Commentf("%s", name))
	}
	qt.Check(t, qt.SliceContains(settings(deployed(t, serveUnit), "Before"), "kubelet.service"))
	var probe []int
	for _, c := range []rights.Command{rights.Syscalls, rights.OpenSSL} {
		probe = append(probe, c.Least(true)...)
	}
	probe = append(probe, unix.CAP_SYS_ADMIN) // what some kernels want, as the rows note
	got := settings(deployed(t, probeUnit), "CapabilityBoundingSet")
	qt.Check(t, qt.DeepEquals(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(node.Capabilities(bits(probe))))))
	for name, want := range map[string][]string{manifest: want, probeManifest: node.Capabilities(bits(probe))} {
		m := deployed(t, name)
		qt.Check(t, qt.DeepEquals(in(t, m, "drop"), []string{"ALL"}))
		qt.Check(t, qt.DeepEquals(slices.Sorted(slices.Values(added(t, m))), slices.Sorted(slices.Values(want))))
		for _, line := range []string{"readOnlyRootFilesystem: true", "allowPrivilegeEscalation: false", "privileged: false", "hostPID: true", "hostNetwork: true", "type: RuntimeDefault"} {
			qt.Check(t, qt.StringContains(m, line), qt.Commentf("%s", name))
		}
	}
}

// added are the capabilities that a manifest adds.
func added(t *testing.T, manifest string) (caps []string) {
	t.Helper()
	for _, c := range in(t, manifest, "add") {
		caps = append(caps, "CAP_"+c)
	}
	return caps
}

// TestUnit: systemd finds nothing wrong with the units, and no more exposed than 2.5 and 3 of 10.
func TestUnit(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil && os.Getenv("BPFWHY_LAB") != "1" {
		t.Skip("no systemd-analyze")
	}
	for name, most := range map[string]string{unit: "25", serveUnit: "30", probeUnit: "30"} {
		path := filepath.Join(t.TempDir(), filepath.Base(name))
		text := regexp.MustCompile(`(?m)^ExecStart=/usr/local/bin/\w+`).ReplaceAllString(deployed(t, name), "ExecStart=/bin/true") // which is there
		qt.Assert(t, qt.IsNil(os.WriteFile(path, []byte(text), 0o644)))
		for _, args := range [][]string{{"verify", path}, {"security", "--offline=true", "--no-pager", "--threshold=" + most, path}} {
			out, err := exec.Command("systemd-analyze", args...).CombinedOutput()
			qt.Check(t, qt.IsNil(err), qt.Commentf("%s", out))
			if args[0] == "verify" {
				qt.Check(t, qt.Equals(string(out), ""))
			} else {
				t.Log(regexp.MustCompile("Overall exposure.*").FindString(string(out)))
			}
		}
	}
}

// allowed expands a unit's filter of system calls.
func allowed(t *testing.T, unit string) (names []string) {
	t.Helper()
	var expand func(set string, out map[string]bool)
	expand = func(set string, out map[string]bool) {
		if !strings.HasPrefix(set, "@") {
			out[set] = true
			return
		}
		b, err := exec.Command("systemd-analyze", "syscall-filter", set).Output()
		qt.Assert(t, qt.IsNil(err))
		for line := range strings.Lines(string(b)) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "#") || line == set || line == "" {
				continue
			}
			expand(line, out)
		}
	}
	all := map[string]bool{}
	for _, line := range strings.Split(deployed(t, unit), "\n") {
		sets, ok := strings.CutPrefix(line, "SystemCallFilter=")
		if !ok {
			continue
		}
		sets, minus := strings.CutPrefix(sets, "~")
		some := map[string]bool{}
		for _, set := range strings.Fields(sets) {
			expand(set, some)
		}
		for name := range some {
			if minus {
				delete(all, name)
			} else {
				all[name] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// bundle makes what a container runtime runs: this executable with the capabilities, a policy for
// system calls, a read-only root, and the namespaces that hostPID and hostNetwork leave.
func bundle(t *testing.T, caps []string, seccomp json.RawMessage, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	qt.Assert(t, qt.IsNil(os.MkdirAll(filepath.Join(dir, "rootfs"), 0o755)))
	name := args[0]
	qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(dir, "rootfs", name), nil, 0o755)))
	for _, at := range []string{"proc", "dev", "sys", "tmp", "etc"} {
		qt.Assert(t, qt.IsNil(os.Mkdir(filepath.Join(dir, "rootfs", at), 0o755)))
	}
	qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(dir, "rootfs/etc/hosts"), []byte(hosts), 0o644))) // as runtimes do
	exe, err := os.Executable()
	qt.Assert(t, qt.IsNil(err))
	type mount struct {
		Destination string   `json:"destination"`
		Type        string   `json:"type"`
		Source      string   `json:"source"`
		Options     []string `json:"options,omitempty"`
	}
	hidden := []string{"nosuid", "noexec", "nodev"}
	config := map[string]any{
		"ociVersion": "1.0.2",
		"root":       map[string]any{"path": "rootfs", "readonly": true},
		"process": map[string]any{
			"user": map[string]any{"uid": 0, "gid": 0}, "args": args, "env": []string{"PATH=/"}, "cwd": "/", "noNewPrivileges": true,
			"capabilities": map[string]any{"bounding": caps, "effective": caps, "permitted": caps},
		},
		"mounts": []mount{
			{"/proc", "proc", "proc", hidden},
			{"/dev", "tmpfs", "tmpfs", []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{"/sys", "sysfs", "sysfs", append(hidden, "ro")},
			{"/tmp", "tmpfs", "tmpfs", hidden},
			{"/" + name, "bind", exe, []string{"bind", "ro"}},
		},
		"linux": map[string]any{
			"namespaces":    []map[string]string{{"type": "mount"}, {"type": "ipc"}, {"type": "uts"}},
			"seccomp":       seccomp,
			"maskedPaths":   []string{"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"},
			"readonlyPaths": []string{"/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
	b, err := json.Marshal(config)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(dir, "config.json"), b, 0o644)))
	return dir
}

// withTracing gives a bundle the machine's tracefs, which services see.
func withTracing(t *testing.T, bundle string) string {
	t.Helper()
	file := filepath.Join(bundle, "config.json")
	b, err := os.ReadFile(file)
	qt.Assert(t, qt.IsNil(err))
	var config map[string]any
	qt.Assert(t, qt.IsNil(json.Unmarshal(b, &config)))
	const at = "/sys/kernel/tracing"
	config["mounts"] = append(config["mounts"].([]any), map[string]any{"destination": at, "type": "bind", "source": at, "options": []string{"bind", "ro"}})
	b, err = json.Marshal(config)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.WriteFile(file, b, 0o644)))
	return bundle
}

const hosts = "127.0.0.1 localhost\n"

// contained is runc with a bundle.
func contained(t *testing.T, bundle string) *exec.Cmd {
	args := []string{"--root", filepath.Join(bundle, "state"), "run", "--bundle", bundle}
	if os.Getenv(wire.KernelEnv) != "" {
		args = append(args, "--no-pivot") // the root of an initramfs cannot be pivoted
	}
	cmd := exec.Command("/usr/sbin/runc", append(args, filepath.Base(bundle)+filepath.Base(filepath.Dir(bundle)))...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	return cmd
}

func runtimeDefault(t *testing.T) json.RawMessage {
	t.Helper()
	b, err := os.ReadFile("testdata/runtime-default.json")
	qt.Assert(t, qt.IsNil(err))
	return b
}

var watchArgs = []string{"bpfwhy", "watch", "--json", "--failed"}

// complete checks what a watch said of a load that asked for no log.
func complete(t *testing.T, w watched) {
	t.Helper()
	qt.Check(t, qt.Equals(w.load.Diagnosis.Rule, "VER001"))
	qt.Check(t, qt.IsFalse(strings.Contains(w.said, "bpfwhy: without CAP_SYS_ADMIN")), qt.Commentf("%s", w.said))
	qt.Check(t, qt.IsFalse(strings.Contains(w.said, "bpfwhy: without CAP_SYSLOG")), qt.Commentf("%s", w.said))
}

// TestGuestPod runs the container of the manifest, with containerd's RuntimeDefault.
func TestGuestPod(t *testing.T) {
	sampled(t)
	testPod(t)
}

func TestHostPod(t *testing.T) {
	if os.Geteuid() != 0 || os.Getenv(wire.KernelEnv) != "" || os.Getenv("BPFWHY_LAB") != "1" {
		t.Skip("needs root and runc; BPFWHY_LAB=1 asks for it")
	}
	testPod(t)
}

func testPod(t *testing.T) {
	m := deployed(t, manifest)
	caps := added(t, m)
	args := in(t, m, "command")
	args[0] = strings.TrimPrefix(args[0], "/")
	w := seen(t, contained(t, bundle(t, caps, runtimeDefault(t), args...)), "")
	complete(t, w)
	if os.Getenv(wire.KernelEnv) != "" {
		qt.Check(t, qt.Equals(w.load.Diagnosis.HowKnown, load.Observed))
	}
	o := finish(t, contained(t, bundle(t, caps, runtimeDefault(t), "bpfwhy", "node", "--no-probe", "--json")))
	var p node.Profile
	qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(o.stdout), &p)), qt.Commentf("%s", o.stderr))
	want, err := os.ReadFile("/proc/sys/net/core/bpf_jit_harden")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(p.Sysctls[harden], strings.TrimSpace(string(want))))
	qt.Check(t, qt.DeepEquals(slices.Sorted(slices.Values(p.Process.Capabilities)), slices.Sorted(slices.Values(caps))))
	qt.Check(t, qt.Equals(p.Process.Seccomp, "filter"))
}

// TestGuestUnit runs the command as the unit does: with its capabilities and a read-only machine by
// setpriv and unshare, and, by runc, with its filter of system calls.
func TestGuestUnit(t *testing.T) {
	sampled(t)
	testSandbox(t)
	w := seen(t, contained(t, bundle(t, settings(deployed(t, unit), "CapabilityBoundingSet"), filter(t, unit), watchArgs...)), "")
	complete(t, w)
	qt.Check(t, qt.Equals(w.load.Diagnosis.HowKnown, load.Observed))
}

// filter is a unit's policy for system calls, as a runtime takes it.
func filter(t *testing.T, unit string) json.RawMessage {
	t.Helper()
	var names []string
	qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(deployed(t, unit+".syscalls")), &names)))
	policy, err := json.Marshal(map[string]any{
		"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": int(unix.EPERM), "architectures": []string{"SCMP_ARCH_X86_64"},
		"syscalls": []map[string]any{{"names": names, "action": "SCMP_ACT_ALLOW"}},
	})
	qt.Assert(t, qt.IsNil(err))
	return policy
}

// TestGuestProbeUnit runs httpprobe as its unit does, and as its pod: both sources are up, and
// Prometheus is served.
func TestGuestProbeUnit(t *testing.T) {
	sampled(t)
	qt.Assert(t, qt.IsNil(os.MkdirAll("/etc", 0o755)))
	qt.Assert(t, qt.IsNil(os.WriteFile("/etc/hosts", []byte(hosts), 0o644)))
	m := deployed(t, probeManifest)
	command := in(t, m, "command")
	command[0] = strings.TrimPrefix(command[0], "/")
	caps := settings(deployed(t, probeUnit), "CapabilityBoundingSet")
	args := settings(deployed(t, probeUnit), "ExecStart")
	args[0] = filepath.Base(args[0])
	for name, cmd := range map[string]*exec.Cmd{
		"sandbox": sandboxed(setprivs(caps), args...), "filter": contained(t, withTracing(t, bundle(t, caps, filter(t, probeUnit), args...))),
		"pod": contained(t, bundle(t, added(t, m), runtimeDefault(t), command...)),
	} {
		p := startProbe(t, cmd, "watching by ")
		qt.Check(t, qt.StringContains(p.said, "watching by syscalls ("), qt.Commentf("%s", name))
		qt.Check(t, qt.StringContains(p.said, " and openssl ("), qt.Commentf("%s", name))
		r, err := http.Get("http://localhost:" + args[len(args)-1] + "/metrics")
		qt.Assert(t, qt.IsNil(err))
		b, err := io.ReadAll(r.Body)
		r.Body.Close()
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.StringContains(string(b), `httpprobe_source_up{source="syscalls"} 1`), qt.Commentf("%s", name))
		p.stop(t)
	}
}

// setprivs are capabilities as setpriv has them.
func setprivs(caps []string) string {
	return strings.ToLower(strings.ReplaceAll(strings.Join(caps, ","), "CAP_", "+"))
}

func TestHostUnit(t *testing.T) {
	if os.Geteuid() != 0 || os.Getenv(wire.KernelEnv) != "" {
		t.Skip("needs root, on a host")
	}
	testSandbox(t)
}

func testSandbox(t *testing.T) {
	t.Helper()
	caps := setprivs(settings(deployed(t, unit), "CapabilityBoundingSet"))
	complete(t, seen(t, sandboxed(caps, watchArgs...), ""))
	o := finish(t, sandboxed(caps, "bpfwhy", "node", "--no-probe", "--json"))
	var p node.Profile
	qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(o.stdout), &p)), qt.Commentf("%s", o.stderr))
	qt.Check(t, qt.DeepEquals(slices.Sorted(slices.Values(p.Process.Capabilities)), slices.Sorted(slices.Values(deployedCaps()))))
	qt.Check(t, qt.IsTrue(p.Sysctls[harden] != ""), qt.Commentf("%v", p.Unknown))
}

// sandboxed is a command of this executable's in the sandbox. A shell cannot give argv[0], so that
// the environment says who it is.
func sandboxed(caps string, args ...string) *exec.Cmd {
	cmd := exec.Command("/bin/sh", "testdata/sandbox.sh", caps)
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		panic(err)
	}
	cmd.ExtraFiles = []*os.File{f}
	cmd.Args = append(cmd.Args, "/proc/self/fd/3")
	cmd.Env = append(os.Environ(), argvEnv+"="+strings.Join(args, "\n"))
	return cmd
}

// tools are the host's programs that the guests' tests use.
func tools(t *testing.T) map[string]string {
	files := map[string]string{}
	for _, name := range []string{unit, probeUnit, manifest, probeManifest} {
		files["/deploy/"+name] = "../../../deploy/" + name
	}
	for _, name := range []string{"/usr/sbin/runc", "/usr/bin/setpriv", "/usr/bin/unshare", "/usr/bin/mount", "/usr/bin/env", "/usr/bin/dash"} {
		more, err := vm.Binary(name)
		qt.Assert(t, qt.IsNil(err))
		maps.Copy(files, more)
	}
	files["/bin/sh"] = "/usr/bin/dash"
	files[breaks] = "../../objects/object/testdata/http_270_v2.o"
	for _, name := range []string{"7-0.bpfwhy", "hardened-2.bpfwhy"} {
		files[nodes+name] = "../../fleet/folder/testdata/nodes/" + name
	}
	for _, name := range []string{unit, probeUnit} {
		b, err := json.Marshal(allowed(t, name))
		qt.Assert(t, qt.IsNil(err))
		file := filepath.Join(t.TempDir(), "syscalls")
		qt.Assert(t, qt.IsNil(os.WriteFile(file, b, 0o644)))
		files["/deploy/"+name+".syscalls"] = file
	}
	return files
}
