// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/repair/guardian"
	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/wire"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

func TestMain(m *testing.M) {
	Main()
	guardian.Main()
	os.Exit(m.Run())
}

// The backends that every kernel of the lab has. Confidentiality leaves one.
var backends = []string{"fentry", "kprobe", "tracepoint", "tp_btf", Following}

func backendsUnder(t testing.TB, lockdown string) []string {
	only := narrowed(t, backendsEnv)
	if slices.Equal(only, []string{"none"}) { // the loaders alone, and what they say themselves
		return only
	}
	all := backends
	if lockdown == "confidentiality" {
		all = []string{"tp_btf"}
	}
	return slices.DeleteFunc(slices.Clone(all), func(b string) bool { return only != nil && !slices.Contains(only, b) })
}

// What the guests are told, and where they find the tools.
const (
	lockdownEnv = "CORPUS_LOCKDOWN"
	onlyEnv     = "CORPUS_ONLY"     // names or parts of names, by comma: for developing
	backendsEnv = "CORPUS_BACKENDS" // the same for backends
	guestDir    = "/corpus"
	resultsFile = "runs.jsonl"
)

func narrowed(t testing.TB, env string) []string {
	v := os.Getenv(env)
	if v == "" {
		return nil
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s=%s: CI runs all of the corpus", env, v)
	}
	return strings.Split(v, ",")
}

// The lab's machines. Integrity takes one helper away and changes nothing else, so that everything
// runs there.
var lockdowns = []string{"integrity", "confidentiality"}

// selected returns the cases of a machine.
func selected(t testing.TB, lockdown string) []Case {
	only := narrowed(t, onlyEnv)
	return slices.DeleteFunc(Cases(), func(c Case) bool {
		return c.Lockdown != lockdown && (c.Lockdown != "" || lockdown == "confidentiality") || c.HostOnly && os.Getenv(wire.KernelEnv) != "" || only != nil && !slices.ContainsFunc(only, func(o string) bool { return strings.Contains(c.Name, o) })
	})
}

// sampled reports whether a case runs on a kernel: each on one of the five, in turn, and everywhere
// in the long tests. What depends on the kernel most, demo runs on those that differ most.
func sampled(kernel string, c Case) bool {
	all := vm.Kernels()
	i := place(Cases(), c.Name)
	return vmtest.Long() || kernel == all[i%len(all)].ID
}

// TestLab runs the corpus in every kernel, and what lockdown=confidentiality decides in machines of
// their own.
func TestLab(t *testing.T) {
	vmtest.Need(t)
	tools := build(t)
	files := map[string]string{}
	for _, program := range []string{tools.Python, tools.Bpftrace, tools.Bpftool} {
		needed, err := vm.Binary(program)
		qt.Assert(t, qt.IsNil(err))
		maps.Copy(files, needed)
	}
	maps.Copy(files, pythonLibrary(t, tools.Python))
	files[guestDir] = tools.Dir

	results := newResults()
	for _, lockdown := range lockdowns {
		if len(backendsUnder(t, lockdown)) == 0 {
			continue
		}
		kernels := slices.DeleteFunc(vmtest.Kernels(t), func(kernel string) bool {
			return !slices.ContainsFunc(selected(t, lockdown), func(c Case) bool { return sampled(kernel, c) })
		})
		if len(kernels) == 0 {
			continue
		}
		name := "lockdown=" + lockdown
		m := vm.Machine{
			Files:      files,
			KernelArgs: []string{name},
			Sysctls:    map[string]string{"kernel.unprivileged_bpf_disabled": "2"},
			Env: []string{
				lockdownEnv + "=" + lockdown, onlyEnv + "=" + os.Getenv(onlyEnv), backendsEnv + "=" + os.Getenv(backendsEnv),
				"CORPUS_PYTHON=" + tools.Python, "CORPUS_BPFTRACE=" + tools.Bpftrace, "CORPUS_BPFTOOL=" + tools.Bpftool,
			},
			Timeout: 8 * time.Minute,
		}
		if lockdown == "confidentiality" {
			m.Files = map[string]string{guestDir: tools.Dir} // two cases need no more
		}
		t.Run(name, func(t *testing.T) {
			vmtest.RunIn(t, kernels, "^TestGuest", m, func(t *testing.T, kernel string, r *vm.Result) {
				results.judge(t, kernel, lockdown, r.Files[resultsFile])
				t.Logf("%v in all", r.Duration.Round(time.Second))
			})
		})
	}
	results.table(t)
}

// TestGuestCorpus runs the cases of one machine with every backend and hands the runs out. The host
// judges them.
func TestGuestCorpus(t *testing.T) {
	kernel := vmtest.Guest(t)
	if _, err := os.Stat(wire.SpecPath); err != nil || os.Getppid() != 1 {
		t.Fatal("sysctls are set below: only in a machine of the lab")
	}
	lockdown := os.Getenv(lockdownEnv)
	tools := Tools{Dir: guestDir, Python: os.Getenv("CORPUS_PYTHON"), Bpftrace: os.Getenv("CORPUS_BPFTRACE"), Bpftool: os.Getenv("CORPUS_BPFTOOL")}
	out, err := os.Create(filepath.Join(wire.OutDir, resultsFile))
	qt.Assert(t, qt.IsNil(err))
	defer out.Close()
	watched := backendsUnder(t, lockdown)
	cases := slices.DeleteFunc(selected(t, lockdown), func(c Case) bool {
		return !sampled(kernel, c) || !slices.ContainsFunc(watched, func(b string) bool { return c.skip(kernel, b) == "" })
	})
	if watched[0] == "none" {
		watched = nil
	}
	start := time.Now()
	runs, err := Observe(t.Context(), Watch{Kernel: kernel, Backends: watched, Tools: tools, Sysctls: setSysctls, Log: func(s string) { t.Log(s) }}, cases)
	qt.Check(t, qt.IsNil(err))
	took := map[string]float64{}
	sum := 0.0
	for _, r := range runs {
		if _, ok := took[r.Case]; !ok {
			sum += r.Seconds
		}
		took[r.Case] = r.Seconds
		b, err := json.Marshal(r)
		qt.Assert(t, qt.IsNil(err))
		_, err = out.Write(append(b, '\n'))
		qt.Assert(t, qt.IsNil(err))
	}
	slowest := slices.SortedFunc(maps.Keys(took), func(a, b string) int { return cmp.Compare(took[b], took[a]) })
	s := ""
	for _, name := range slowest[:min(12, len(slowest))] {
		s += fmt.Sprintf(" %s %.1fs", name, took[name])
	}
	t.Logf("%d cases in %.1f s, of it %.1f s in loaders:%s", len(cases), time.Since(start).Seconds(), sum, s)
}

// setSysctls sets sysctls of a lab machine.
func setSysctls(_ context.Context, values map[string]string) (restore func() error, err error) {
	old := map[string]string{}
	set := func(values map[string]string) error {
		for name, v := range values {
			path := "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if _, ok := old[name]; !ok {
				old[name] = strings.TrimSpace(string(b))
			}
			if err := os.WriteFile(path, []byte(v), 0); err != nil {
				return err
			}
		}
		return nil
	}
	return func() error { return set(maps.Clone(old)) }, set(values)
}

// TestHost runs what needs no machine of its own on this one, with the best backend that it has.
func TestHost(t *testing.T) {
	if os.Getenv(wire.KernelEnv) != "" {
		t.Skip("the lab's machines run TestGuestCorpus")
	}
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	profile := node.Host()
	if always, _ := profile.JITAlwaysOn(); !always || profile.Reached(6, 14) != node.Yes || profile.Reached(6, 19) != node.No {
		t.Skipf("the fates are those of Linux 6.14 to 6.18 without an interpreter, this is %s", profile.Release)
	}
	tools := build(t)
	cases := slices.DeleteFunc(selected(t, ""), func(c Case) bool { return c.inLab() || c.skip(Host, "") != "" })
	runs, err := Observe(t.Context(), Watch{Kernel: Host, Backends: []string{""}, Tools: tools, Followed: true, Sysctls: raiseHarden, Log: func(s string) { t.Log(s) }}, cases)
	qt.Assert(t, qt.IsNil(err))
	counts := map[Judgement]int{}
	for _, r := range runs {
		c := cases[place(cases, r.Case)]
		j, wrong := c.Judge(Host, r)
		counts[j]++
		for _, w := range wrong {
			t.Errorf("%s, %s: %s", c.Name, r.Backend, w)
		}
	}
	t.Logf("%d right, %d among the alternatives, %d wrong", counts[Right], counts[Among], counts[Wrong])
	slices.SortFunc(runs, func(a, b Run) int { return cmp.Compare(place(cases, a.Case), place(cases, b.Case)) })
	hostTable(t, cases, runs, profile)
}

func place(cases []Case, name string) int {
	return slices.IndexFunc(cases, func(c Case) bool { return c.Name == name })
}

// raiseHarden is all that may be set on a machine that is not the lab's.
func raiseHarden(ctx context.Context, values map[string]string) (func() error, error) {
	if !maps.Equal(values, hardened2) {
		return nil, fmt.Errorf("set sysctls %v: not on this machine", values)
	}
	raised, err := guardian.RaiseHarden(ctx, 2)
	if err != nil {
		return nil, err
	}
	return func() error { _, err := raised.Restore(); return err }, nil
}

// pythonLibrary is the part of Python's library that ctypes needs.
func pythonLibrary(t *testing.T, python string) map[string]string {
	t.Helper()
	lib := "/usr/lib/" + filepath.Base(python)
	files := map[string]string{}
	for _, name := range []string{"encodings", "ctypes", "codecs.py", "io.py", "abc.py", "struct.py", "types.py", "os.py", "stat.py",
		"posixpath.py", "genericpath.py", "_collections_abc.py", "lib-dynload"} {
		files[filepath.Join(lib, name)] = filepath.Join(lib, name)
	}
	modules, err := filepath.Glob(filepath.Join(lib, "lib-dynload", "_ctypes.*.so"))
	qt.Assert(t, qt.IsNil(err))
	for _, m := range modules {
		needed, err := vm.Binary(m)
		qt.Assert(t, qt.IsNil(err))
		maps.Copy(files, needed)
	}
	return files
}

// The corpus is as large as it claims to be, and its cases are well formed.
func TestCases(t *testing.T) {
	seen := map[string]bool{}
	makes := map[Loader]int{}
	failing := 0
	for _, c := range Cases() {
		qt.Check(t, qt.IsFalse(seen[c.Name]), qt.Commentf("%s twice", c.Name))
		seen[c.Name] = true
		fates := []Want{c.Want}
		for _, w := range c.On {
			fates = append(fates, w)
		}
		if slices.ContainsFunc(fates, func(w Want) bool { return w.Outcome != load.Loaded }) {
			failing++
			makes[c.Loader]++
		}
	}
	qt.Check(t, qt.IsTrue(failing >= 40))
	for _, l := range []Loader{Failing, C, Libbpf, Cilium, Python, Bpftrace} {
		qt.Check(t, qt.IsTrue(makes[l] > 0), qt.Commentf("%s", l))
	}
}
