// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/demo/failing"
	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
)

// The kernels of the lab: each boots once for all of this, and once more for each lockdown, which
// is for a boot. Without the long tests these are the oldest and the newest. lockdown=integrity
// changes nothing for us: it is left to the corpus, which runs under it.
func TestKernels(t *testing.T) {
	vmtest.Need(t)
	table := newTable()
	for _, lockdown := range []string{"", "integrity", "confidentiality"} {
		m := vm.Machine{Timeout: 10 * time.Minute, Sysctls: map[string]string{"kernel.unprivileged_bpf_disabled": "2"}}
		name, pattern := "open", "^TestGuest"
		if lockdown != "" {
			name, pattern = lockdown, "^TestLocked$"
			m.KernelArgs = []string{"lockdown=" + lockdown}
		}
		kernels := vmtest.Sample()
		if lockdown == "integrity" && !vmtest.Long() {
			continue
		}
		t.Run(name, func(t *testing.T) {
			vmtest.RunIn(t, kernels, pattern, m, updateSamples, func(t *testing.T, kernel string, r *vm.Result) {
				table.add(t, kernel, lockdown, r.Files[outcomesFile])
			})
		})
	}
	table.check(t)
}

var backends = []backend{fentry, kprobe, tracepoint, tpBTF}

// inside reports whether a backend sees functions of the kernel.
func inside(b backend) bool { return b == fentry || b == kprobe }

func setSysctl(t *testing.T, name, value string) {
	t.Helper()
	inLab(t)
	path := "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
	old, err := os.ReadFile(path)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.WriteFile(path, []byte(value), 0)))
	t.Cleanup(func() { qt.Check(t, qt.IsNil(os.WriteFile(path, old, 0))) })
}

func programOf(t *testing.T, name string) string {
	t.Helper()
	p, err := failing.Find(name)
	qt.Assert(t, qt.IsNil(err))
	return p.Program
}

// scene is something that happens on the machine, and what a watcher must have seen of it.
type scene struct {
	name  string
	play  func(t *testing.T) // loads
	check func(t *testing.T, v story)
}

// story is what one watcher saw.
type story struct {
	kernel  string
	backend backend
	header  trace.Header
	seen
	followed bool // only followed processes are watched
}

// Every backend tells the same story of the same loads, as far as it can see, with all four
// watching at once.
func TestGuestScenes(t *testing.T) {
	kernel := vmtest.Guest(t)
	setSysctl(t, "net.core.bpf_jit_harden", "2")
	before := kernelObjects(t)
	t.Run("all", func(t *testing.T) { playAll(t, kernel) })
	eventually(t, func() bool { return kernelObjects(t) == before })
}

func playAll(t *testing.T, kernel string) {
	space := kernelSpaceOf(t)
	var watchers []*watcher
	for _, b := range backends {
		watchers = append(watchers, watch(t, place{Options: Options{Backend: string(b)}}))
	}
	scenes := []scene{nullMapValue(), works(t), unprivileged(), denied(), cutShort(), noTarget(), farJump(), kernelSide(), controlCharacters(), killed(), tooMany(), longLog(), i386Calls(), dirtyLog(saysLogSize(t)), addresses(), moved()}
	scenes = append(scenes, lies()...)
	scenes = append(scenes, attachScene(t)) // last: those before end threads, by which callers are told
	for _, sc := range scenes {
		start := time.Now()
		if !t.Run("play "+sc.name, sc.play) {
			return
		}
		t.Logf("%s: %v", sc.name, time.Since(start).Round(time.Millisecond))
	}
	var outcomes []outcome
	for _, w := range watchers {
		outcomes = append(outcomes, outcome{Backend: w.header.Backend, Hooks: w.header.Hooks})
	}
	handOut(t, outcomes)
	for i, w := range watchers {
		eventually(t, func() bool { return w.ask("calls") == 0 })
		v := story{kernel, backends[i], w.header, w.stop(), false}
		t.Run(string(v.backend), func(t *testing.T) {
			qt.Check(t, qt.Equals(v.header.Backend, string(v.backend)))
			qt.Check(t, qt.Equals(w.first.Mounts, ""))
			end := v.seen[len(v.seen)-1].End
			qt.Assert(t, qt.IsNotNil(end))
			qt.Check(t, qt.Equals(end.Lost, v.lost()))
			qt.Check(t, qt.Equals(end.Calls, uint64(len(v.calls(func(*trace.Call) bool { return true })))))
			if v.lost() > 0 {
				t.Logf("lost: %s", describe(slices.DeleteFunc(slices.Clone(v.seen), func(r trace.Record) bool { return r.Loss == nil })))
			}
			for _, sc := range scenes {
				t.Run(sc.name, func(t *testing.T) { sc.check(t, v) })
			}
			// Nothing that is recorded or printed of any of these scenes tells where the kernel is.
			qt.Check(t, qt.HasLen(space.inRecording(t, v.header, v.seen), 0))
			qt.Check(t, qt.HasLen(space.inJSON(t, v.header, v.seen), 0))
		})
	}
}
