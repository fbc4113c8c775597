// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/load"
)

// hangFixtures are stacks of kernels, innermost first. The first is of a 6.18 that stood still.
var hangFixtures = []struct {
	name   string
	places [][]string
	rule   string
	how    load.HowKnown
}{
	{"the holder of the lock, and who waits for it", [][]string{
		{"mutex_lock", "bpf_prog_pack_alloc", "bpf_jit_binary_pack_alloc", "bpf_int_jit_compile"},
		{"__flush_work", "flush_work", "__purge_vmap_area_lazy", "_vm_unmap_aliases", "vm_unmap_aliases", "change_page_attr_set_clr", "set_memory_rox",
			"alloc_new_pack", "bpf_prog_pack_alloc", "bpf_jit_binary_pack_alloc", "bpf_int_jit_compile", "bpf_prog_select_runtime", "bpf_prog_load"},
	}, "HANG001", load.Observed},
	{"only who waits", [][]string{{"bpf_prog_pack_alloc"}}, "HANG001", load.Inferred},
	{"a page that never comes", [][]string{{"handle_userfault", "do_anonymous_page", "handle_mm_fault", "exc_page_fault", "copy_from_user", "bpf_prog_load"}}, "HANG002", load.Observed},
	{"a queue, and no lock of the JIT's", [][]string{{"__flush_work", "bpf_prog_load"}}, "HANG002", load.Observed},
	{"not told", [][]string{nil}, "HANG002", load.Observed},
}

func TestHang(t *testing.T) {
	for _, fx := range hangFixtures {
		h := &load.Hang{Calls: 12, AfterNS: 30 * time.Second, OldestNS: 95 * time.Second, Since: time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)}
		for _, f := range fx.places {
			h.Places = append(h.Places, load.HangPlace{Calls: 1, Functions: f, From: "stack", Processes: []load.Process{{PID: 7, Comm: "agent"}}})
		}
		Hang(h)
		qt.Check(t, qt.Equals(h.Diagnosis.Rule, fx.rule), qt.Commentf("%s", fx.name))
		qt.Check(t, qt.Equals(h.Diagnosis.HowKnown, fx.how), qt.Commentf("%s", fx.name))
		qt.Check(t, qt.Equals(len(h.Diagnosis.Alternatives) > 0, fx.how == load.Inferred), qt.Commentf("%s", fx.name))
		qt.Check(t, qt.Equals(h.Diagnosis.Cause, "12 loads have not come back, the oldest since 2026-05-04T03:02:01Z (1m35s ago)."))
		qt.Check(t, qt.HasLen(h.Diagnosis.Evidence, len(fx.places)))
	}
	// Calls whose ends may have been missed are not said to have been seen hanging.
	unsure := &load.Hang{Calls: 2, Unsure: 2, Places: []load.HangPlace{{Calls: 2}}}
	Hang(unsure)
	qt.Check(t, qt.Equals(unsure.Diagnosis.HowKnown, load.Inferred))
	qt.Check(t, qt.HasLen(unsure.Diagnosis.Evidence, 2))
	unsure = &load.Hang{Calls: 2, Unsure: 1}
	Hang(unsure)
	qt.Check(t, qt.Equals(unsure.Diagnosis.HowKnown, load.Observed))
	qt.Check(t, qt.StringContains(unsure.Diagnosis.Evidence[0], "1 may have ended unseen"))
	back := &load.Hang{}
	Hang(back)
	qt.Check(t, qt.IsNil(back.Diagnosis))
}
