// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bpfwhy/bpfwhy/load"
)

// The rules for loads that do not come back. They match no attempt, which has an end: see Hang.
func hangRules() []Rule {
	return []Rule{hang001(), hang002()}
}

func hang001() Rule {
	return Rule{
		ID:    "HANG001",
		Title: "Loads and the freeing of programs wait for each other: BPF stands still on this machine",
		Class: "R12",
		Stage: load.JIT,
		Text: `From 5.18 on, compiled programs share pages of memory. A lock (pack_mutex)
guards these pages. A load that needs a new page takes the lock, and keeps it while it waits for the
kernel to flush old mappings (set_memory_rox, vm_unmap_aliases, flush_work). The kernel flushes them
in one of its work queues. The same queue frees programs that were closed, and to free one, it needs
the lock. If many programs are closed at once, all workers of the queue wait for the lock. Then no
worker is left to flush the mappings that the load waits for.

From then on, every load that needs the JIT hangs, and so do the seccomp filters of new containers.
What runs already goes on. Loads that hang cannot be killed. The machine does not recover, and must
be restarted. Some tens of processes that load and close small programs in a loop can cause this
within seconds.`,
		Kernels: "Seen on 6.18, with two processors. Kernels from 5.18 on have the lock. It takes a storm of loads to get there.",
		Remedies: []load.Remedy{
			{
				ID:    "restart-machine",
				Title: "Move important work to another node, and restart this machine",
				Price: "A restart. Processes that hang do not end, so an orderly shutdown may hang too.",
			},
			{
				ID:      "stop-storm",
				Title:   "After the restart, find the process that loads and closes programs in a loop. This report names the processes that hang",
				Price:   "Nothing. It does not help the loads that hang already.",
				Command: "timeout -s INT 60 bpfwhy watch --json | grep -o '\"comm\":\"[^\"]*\"' | sort | uniq -c | sort -rn | head",
			},
			{
				ID:    "bound-loads",
				Title: "In the loader: after every few hundred closed programs, wait until the kernel has freed them",
				Price: "Some tens of milliseconds each time.",
			},
		},
		Match: never,
	}
}

func hang002() Rule {
	return Rule{
		ID:    "HANG002",
		Title: "Loads do not come back",
		Class: "R12",
		Stage: load.Request,
		Text: `A load takes microseconds to seconds. A load that is in the kernel for
longer waits for something that does not happen. It may wait for a lock whose holder waits too, for
a page of its own memory that nobody provides (userfaultfd, a file on a server that is gone), or for
the answer of a seccomp listener. Or the machine is too busy. A very large program at
net.core.bpf_jit_harden=2 can take that long as well, but its load comes back.

The place where a load waits tells what it waits for. It is shown as a list of kernel functions, the
innermost first. With handle_userfault, it waits for a page that another process must provide. With
seccomp_do_user_notification, it waits for a process that watches the loader's system calls. With
mutex_lock or down_write, it waits for a lock, and the next function tells which one. If the
innermost functions are those of bpf_check, the verifier is still at work.`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:      "read-stack",
				Title:   "See where it waits, as root",
				Price:   "Nothing.",
				Command: "cat /proc/PID/task/*/stack",
			},
			{
				ID:    "end-loader",
				Title: "End the loader, or the process that it waits for",
				Price: "The loader's work ends with it. A loader that waits for a lock inside the kernel cannot be ended.",
			},
			{
				ID:      "blocked-tasks",
				Title:   "Make the kernel log all tasks that wait for locks, and find the task that has the lock",
				Price:   "Many lines in the kernel's log.",
				Command: "echo w > /proc/sysrq-trigger; dmesg",
			},
		},
		Match: never,
	}
}

// packLock are functions that wait for the lock of compiled programs' memory, queue those that wait
// for the system's queue while they have it.
var (
	packLock = []string{"bpf_prog_pack_alloc", "bpf_prog_pack_free"}
	queue    = []string{"flush_work", "__flush_work", "__purge_vmap_area_lazy", "_vm_unmap_aliases", "vm_unmap_aliases"}
)

// HangRule is the id of the rule that explains loads that hang in these places, each the innermost
// function first.
func HangRule(places [][]string) string {
	rule, _ := hangRule(places)
	return rule
}

// hangRule says also how sure it is: Certain, when a load that has the lock is seen waiting for the
// queue; Likely, when all that is seen is loads that wait for the lock.
func hangRule(places [][]string) (id string, s Strength) {
	has := func(f []string, any []string) bool {
		return slices.ContainsFunc(f, func(name string) bool { return slices.Contains(any, strings.TrimSuffix(name, ".isra.0")) })
	}
	waits := false
	for _, f := range places {
		switch {
		case has(f, packLock) && has(f, queue):
			return "HANG001", Certain
		case has(f, packLock):
			waits = true
		}
	}
	if waits {
		return "HANG001", Likely
	}
	return "HANG002", Certain
}

// Hang sets the diagnosis of loads that do not come back.
func Hang(h *load.Hang) {
	if h.Calls == 0 {
		return
	}
	var places [][]string
	for _, p := range h.Places {
		places = append(places, p.Functions)
	}
	id, strength := hangRule(places)
	r, _ := ByID(id)
	d := &load.Diagnosis{Rule: id, Title: r.Title, HowKnown: load.Observed, Remedies: slices.Clone(r.Remedies)}
	subject := fmt.Sprintf("%d loads have", h.Calls)
	if h.Calls == 1 {
		subject = "One load has"
	}
	since := fmt.Sprintf("since %s", h.Since.Format(time.RFC3339))
	if h.Earlier {
		since = "since before watching began"
	}
	d.Cause = fmt.Sprintf("%s not come back, the oldest %s (%v ago).", subject, since, h.OldestNS.Round(time.Second))
	if h.Earlier {
		d.Cause = fmt.Sprintf("%s not come back, the oldest %s (more than %v ago).", subject, since, h.OldestNS.Round(time.Second))
	}
	if strength < Certain {
		d.HowKnown = load.Inferred
		generic, _ := ByID("HANG002")
		d.Alternatives = []load.Alternative{{Rule: generic.ID, Title: generic.Title,
			Why: "that they wait for the lock was seen, and not what its holder waits for"}}
	}
	for _, p := range h.Places {
		d.Evidence = append(d.Evidence, fmt.Sprintf("%d in %s", p.Calls, Where(p)))
	}
	if h.Unsure > 0 {
		d.Evidence = append(d.Evidence, fmt.Sprintf("%d may have ended unseen: the kernel's tracing can miss the end of a call, and their threads cannot be looked at", h.Unsure))
	}
	if h.Unsure >= h.Calls {
		d.HowKnown = load.Inferred
	}
	h.Diagnosis = d
}

// Where says in words where calls wait.
func Where(p load.HangPlace) string {
	where := "a place that the kernel does not tell"
	if n := len(p.Functions); n > 0 {
		const most = 12
		where = strings.Join(p.Functions[:min(n, most)], " < ")
		if n > most {
			where += " < …"
		}
		where += " (" + p.From + ")"
	} else if p.From != "" {
		where = "the kernel, by /proc/…/" + p.From
	}
	var who []string
	for _, q := range p.Processes {
		who = append(who, fmt.Sprintf("%s[%d]", cmp.Or(q.Comm, "?"), q.PID))
	}
	if len(who) > 0 {
		where += ": " + strings.Join(who, ", ")
	}
	return where
}
