// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/sys/tracefs"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// Filters act in the kernel: what is not asked for does not come. One machine, a watcher for each
// filter, the same loads for all. The kernel's addresses are hidden meanwhile.
func TestGuestFilters(t *testing.T) {
	vmtest.Once(t)
	setSysctl(t, "kernel.kptr_restrict", "2")
	const group = "/sys/fs/cgroup/capture-test"
	qt.Assert(t, qt.IsNil(os.MkdirAll(group+"/below", 0o755)))
	var st unix.Stat_t
	qt.Assert(t, qt.IsNil(unix.Stat(group, &st)))

	first, second, grouped, below := startNest(t), startNest(t), startNest(t), startNest(t)
	join := func(n *nest, dir string) {
		qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(n.pid())), 0)))
	}
	join(grouped, group)
	join(below, group+"/below")
	first.do("start ok") // is there before it is followed

	followed := []string{"ok", "bad_opcode", "no_exit", "endless_loop"}
	watchers := map[string]*watcher{
		"followed":         watch(t, place{Options: Options{Backend: "fentry", PIDs: []int{first.pid()}}}),
		"followed, tp_btf": watch(t, place{Options: Options{Backend: "tp_btf", PIDs: []int{first.pid()}}}),
		"followed, no BTF": watch(t, place{Options: Options{PIDs: []int{first.pid()}}, NoBTF: true}),
		"comm":             watch(t, place{Options: Options{Backend: "tp_btf", Comm: "unreachable", FailedOnly: true}}),
		"cgroup":           watch(t, place{Options: Options{Backend: "tp_btf", CgroupID: st.Ino}}),
		"all":              watch(t, place{Options: Options{Backend: "tp_btf", All: true}}),
	}
	want := map[string][]string{
		"followed": followed, "followed, tp_btf": followed, "followed, no BTF": followed,
		"comm": {"unreachable"}, "cgroup": {"unknown_helper", "bad_prog_type"},
		"all": slices.Concat(followed, []string{"unreachable", "unknown_helper", "bad_prog_type", "works", "fails", "ok_map"}),
	}
	for name := range watchers {
		if strings.HasPrefix(name, "followed") {
			watchers[name].ask("follow " + strconv.Itoa(second.pid()))
		}
	}
	first.do("start bad-opcode", "start-ns no-exit", "go")
	second.do("start endless-loop", "go")
	run(t, "unreachable")
	run(t, "ok-map")
	as(t, "unreachable", func() { qt.Check(t, qt.IsTrue(rawLoad("works", smallProgram) >= 0)) })
	as(t, "unreachable2", func() { qt.Check(t, qt.Equals(rawLoad("fails", smallProgram[8:]), -int(unix.EACCES))) })
	grouped.do("start unknown-helper", "go")
	below.do("start bad-prog-type", "go")

	for name, w := range watchers {
		t.Run(name, func(t *testing.T) {
			s := w.stop()
			var got []string
			for _, c := range s.calls(func(c *trace.Call) bool { return c.Kind == load.ProgLoad && !isProbe(c) }) {
				got = append(got, progNameOf(c))
			}
			slices.Sort(got)
			slices.Sort(want[name])
			qt.Check(t, qt.DeepEquals(got, want[name]), qt.Commentf("%s", describe(s)))
			made := s.calls(func(c *trace.Call) bool { return c.Kind == load.MapCreate && c.Ret >= 0 })
			qt.Check(t, qt.Equals(len(made) > 0, name == "all"), qt.Commentf("%s", describe(s)))
			switch name {
			case "followed":
				qt.Check(t, qt.Equals(s.one(t, "no_exit").NSPID, 1)) // in a pid namespace of its own
				h := hookOf(w.header, load.FnVerbose)
				qt.Check(t, qt.IsTrue(h.Via == "kprobe" || strings.Contains(h.Why, "kptr_restrict")), qt.Commentf("%+v", h))
				t.Logf("verbose under kptr_restrict=2: %+v", h)
			case "followed, no BTF":
				checkPlain(t, w.header, s)
			case "cgroup":
				qt.Check(t, qt.Equals(s.one(t, "unknown_helper").Cgroup2.ID, st.Ino))
			}
		})
	}
}

// isProbe reports whether a load is one by which cilium/ebpf asks what the kernel can.
func isProbe(c *trace.Call) bool { return progNameOf(c) == "" }

// Without BTF: attr, instructions, errno, log.
func checkPlain(t *testing.T, h trace.Header, s seen) {
	t.Helper()
	qt.Check(t, qt.Equals(h.Backend, "tracepoint"))
	qt.Check(t, qt.StringContains(hookOf(h, load.FnCheck).Why, "BTF"))
	c := s.one(t, "endless_loop")
	qt.Check(t, qt.IsTrue(c.Ret == -int64(unix.EINVAL)), qt.Commentf("%d", c.Ret))
	code, total := s.bytes(c.ID, trace.Insns)
	qt.Check(t, qt.DeepEquals(code, mustHex("b700000000000000"+"0500feff00000000"+"9500000000000000")))
	qt.Check(t, qt.Equals(total, 24))
	log, _ := s.bytes(c.ID, trace.Log)
	qt.Check(t, qt.Not(qt.HasLen(log, 0)))
	qt.Check(t, qt.IsNil(c.Prog))
}

// What a process takes from the kernel it gives back, and what a killed one leaves the next one
// removes.
func TestGuestNothingIsLeftBehind(t *testing.T) {
	vmtest.Guest(t)
	tracefs, err := tracefs.Root()
	qt.Assert(t, qt.IsNil(err))
	defer tracefs.Close()
	probes := func() []string {
		b, err := tracefs.ReadFile("kprobe_events")
		qt.Assert(t, qt.IsNil(err))
		return slices.DeleteFunc(strings.Split(string(b), "\n"), func(line string) bool { return line == "" })
	}
	qt.Assert(t, qt.HasLen(probes(), 0))
	objects := kernelObjects(t)

	w := watch(t, place{Options: Options{Backend: "kprobe"}})
	qt.Assert(t, qt.IsNil(w.cmd.Process.Kill()))
	w.cmd.Wait()
	left := probes()
	qt.Check(t, qt.Not(qt.HasLen(left, 0)))
	for _, line := range left { // "r1024:bpfwhy/bpf_check_123 bpf_check": returns alone are made through tracefs
		qt.Check(t, qt.Matches(line, `r1024:bpfwhy/\S+_\d+ \S+`))
	}
	eventually(t, func() bool { return kernelObjects(t) == objects })

	held := holdings()
	c, err := Open(t.Context(), Options{Backend: "kprobe"})
	qt.Assert(t, qt.IsNil(err))
	now := probes()
	qt.Check(t, qt.HasLen(now, len(left)))
	for _, line := range left {
		qt.Check(t, qt.IsFalse(slices.Contains(now, line)), qt.Commentf("%s", line))
	}
	qt.Check(t, qt.IsTrue(kernelObjects(t) > objects))
	name := programOf(t, "null-map-value-nolog")
	run(t, "null-map-value-nolog")
	saveSamples(t, c, name)
	for _, name := range []string{"ok", "bad-opcode", "unprivileged"} {
		run(t, name)
	}
	qt.Assert(t, qt.IsNil(c.Close()))
	qt.Check(t, qt.IsNil(c.Close()))
	s := drain(t, c)
	for _, name := range []string{"ok", "bad_opcode", "unprivileged"} {
		s.one(t, name)
	}
	for _, r := range s {
		// With nobody else about. Only where the kernel preempts programs (7.x) may one miss a run.
		if r.Loss != nil && !strings.HasPrefix(r.Loss.Mechanism, "recursion") {
			t.Errorf("lost %d by %s: %s", r.Loss.Count, r.Loss.Mechanism, describe(s))
		}
	}
	qt.Check(t, qt.IsNotNil(s[len(s)-1].End))
	qt.Check(t, qt.HasLen(probes(), 0))
	eventually(t, func() bool { return kernelObjects(t) == objects })
	// What the library keeps for good, such as the kernel's BTF, is no descriptor.
	eventually(t, func() bool { return holdings() == held })
}

// drain reads what is left after Close, up to io.EOF.
func drain(t *testing.T, c *Capture) seen {
	t.Helper()
	var s seen
	for {
		r, err := c.Next()
		if errors.Is(err, io.EOF) {
			_, err = c.Next()
			qt.Check(t, qt.Equals(err, io.EOF)) // and it stays so
			return s
		}
		qt.Assert(t, qt.IsNil(err))
		s = append(s, r)
	}
}

// A reader that does not read: what does not fit is counted, and what comes later is seen.
func TestGuestLosses(t *testing.T) {
	vmtest.Sampled(t)
	c, err := Open(t.Context(), Options{Backend: "tp_btf"})
	qt.Assert(t, qt.IsNil(err))
	flood := exec.Command("/proc/self/exe")
	flood.Args = []string{floodArgv0, "12"}
	out, err := flood.CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
	var s seen
	for lost := false; !lost; {
		r, err := c.Next()
		qt.Assert(t, qt.IsNil(err))
		s = append(s, r)
		lost = r.Loss != nil
	}
	run(t, "ok")
	for len(s.loads("ok")) == 0 {
		r, err := c.Next()
		qt.Assert(t, qt.IsNil(err))
		s = append(s, r)
	}
	qt.Assert(t, qt.IsNil(c.Close()))
	s = append(s, drain(t, c)...)
	whole := 0
	for _, c := range s.loads("flood") {
		if b, _ := s.bytes(c.ID, trace.Insns); len(b) == copyMax {
			whole++
		}
	}
	qt.Check(t, qt.IsTrue(whole > 0 && whole < 12), qt.Commentf("%d", whole))
	i := slices.IndexFunc(s, func(r trace.Record) bool { return r.Loss != nil && r.Loss.Mechanism == "ring buffer full" })
	qt.Assert(t, qt.IsTrue(i >= 0), qt.Commentf("%s", describe(s)))
	qt.Check(t, qt.IsTrue(s[i].Loss.Count >= uint64(12-whole)))
	end := s[len(s)-1].End
	qt.Assert(t, qt.IsNotNil(end))
	qt.Check(t, qt.Equals(end.Lost, s.lost()))
	s.one(t, "ok")
}

// floodMain makes loads of a million instructions and one, which are refused at once.
func floodMain(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	code := bytes.Repeat(smallProgram[:8], 1000001)
	a := socketFilter("flood", code)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&code[0])
	license := []byte("GPL\x00")
	pin.Pin(&license[0])
	a.license = addr(license)
	for range n {
		if ret := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(a), unsafe.Sizeof(*a)); ret != -int(unix.E2BIG) {
			return errors.New(strconv.Itoa(ret))
		}
	}
	return nil
}

// Places where not everything is to be had.
func TestGuestBadPlaces(t *testing.T) {
	vmtest.Sampled(t)
	t.Run("no tracefs", func(t *testing.T) {
		w := watch(t, place{NoTracefs: true, NoBTF: true}) // tracepoints alone are left, and they are in tracefs
		qt.Check(t, qt.Equals(w.header.Backend, "tracepoint"))
		qt.Check(t, qt.Equals(w.first.Mounts, ""))
		run(t, "uninit-register")
		qt.Check(t, qt.Equals(w.stop().one(t, "uninit_register").Ret, -int64(unix.EACCES)))
	})
	t.Run("no BTF, forced", func(t *testing.T) {
		for _, b := range []backend{fentry, kprobe, tpBTF} {
			_, err := tryWatch(t, place{Options: Options{Backend: string(b)}, NoBTF: true})
			qt.Check(t, qt.ErrorMatches(err, "watch bpf.2.: "+string(b)+": read the kernel's BTF: .*"))
		}
	})
	t.Run("no root", func(t *testing.T) {
		for _, b := range append(backends, "") {
			_, err := tryWatch(t, place{Options: Options{Backend: string(b)}, UID: 65534})
			// Then each backend says what the kernel refused.
			qt.Check(t, qt.ErrorMatches(err, `(?s)needs CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN \(missing: CAP_BPF and CAP_PERFMON\): watch bpf\(2\): .*`), qt.Commentf("%s", b))
		}
	})
	t.Run("no such backend", func(t *testing.T) {
		_, err := Open(t.Context(), Options{Backend: "ptrace"})
		qt.Check(t, qt.ErrorMatches(err, `backend "ptrace": know fentry, kprobe, tracepoint, tp_btf`))
		_, err = Open(t.Context(), Options{Comm: "a name of 16 bytes"})
		qt.Check(t, qt.ErrorMatches(err, "comm .*at most 15 bytes"))
	})
}
