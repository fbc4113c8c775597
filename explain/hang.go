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
	never := func(*Facts) *Match { return nil }
	return []Rule{
		{
			ID:    "HANG001",
			Title: "Loads and the freeing of programs wait for each other: BPF stands still on this machine",
			Class: "R12",
			Stage: load.JIT,
			Text: `From 5.18 on compiled programs share pages of memory, and a lock (pack_mutex) guards them. A load that needs a new page keeps the
lock and waits until the kernel has flushed old mappings, which is work for the system's common queue (set_memory_rox, vm_unmap_aliases, flush_work).
Programs that were closed are freed by the same queue, and freeing needs the lock. When many are closed at once, all of the queue's places are taken
by work that waits for the lock, and the work that the load waits for gets none.

From then on every load that needs the JIT hangs, and so do the seccomp filters of new containers. Nothing that runs already is harmed. What hangs cannot
be killed, and the machine does not recover: it has to be restarted. Some tens of processes that load and close small programs in a loop can do it
within seconds.`,
			Kernels: "Seen on 6.18, with two processors. Kernels from 5.18 on have the lock; it takes a storm of loads to get there.",
			Remedies: []load.Remedy{
				{
					ID:    "restart-machine",
					Title: "Move what matters to another node and restart the machine",
					Price: "A restart. Processes that hang do not end, so that an orderly shutdown may not either.",
				},
				{
					ID:      "stop-storm",
					Title:   "Find who loads and closes programs in a loop, before it does it again: the lines of this report name who hangs",
					Price:   "Nothing. It does not bring back what hangs already.",
					Command: "bpfwhy watch --json | grep -o '\"comm\":\"[^\"]*\"' | sort | uniq -c | sort -rn | head",
				},
				{
					ID:    "bound-loads",
					Title: "In the loader: wait after every few hundred programs that were closed until the kernel has freed them",
					Price: "Some tens of milliseconds each time.",
				},
			},
			Match: never,
		},
		{
			ID:    "HANG002",
			Title: "Loads do not come back",
			Class: "R12",
			Stage: load.Request,
			Text: `A load of a program takes microseconds to seconds. One that is in the kernel for longer waits for something that does not
happen: a lock whose holder waits too, memory of the loader's own that nobody provides (userfaultfd, a file on a server that is gone), an answer
of a seccomp listener, or a machine that is too busy. A very large program at net.core.bpf_jit_harden=2 can take that long as well, and comes back.

Where it waits says what for. The functions are those of the kernel, the innermost first. handle_userfault: a page that another process is to provide.
seccomp_do_user_notification: a process that watches the system calls of the loader. mutex_lock, down_write: a lock, which the function behind it
names. bpf_check and no further: the verifier is still at work.`,
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
					Price: "What the loader does ends with it. One that waits for a lock inside the kernel cannot be ended.",
				},
				{
					ID:      "blocked-tasks",
					Title:   "Let the kernel write all tasks that wait for locks into its log, and look for who has the lock",
					Price:   "Many lines in the kernel's log.",
					Command: "echo w > /proc/sysrq-trigger; dmesg",
				},
			},
			Match: never,
		},
	}
}

// packLock are functions that wait for the lock of compiled programs' memory, queue those that wait for the system's queue while they
// have it.
var (
	packLock = []string{"bpf_prog_pack_alloc", "bpf_prog_pack_free"}
	queue    = []string{"flush_work", "__flush_work", "__purge_vmap_area_lazy", "_vm_unmap_aliases", "vm_unmap_aliases"}
)

// HangRule is the id of the rule that explains loads that hang in these places, each the innermost function first.
func HangRule(places [][]string) string {
	rule, _ := hangRule(places)
	return rule
}

// hangRule says also how sure it is: Certain, when a load that has the lock is seen waiting for the queue; Likely, when all that is
// seen is loads that wait for the lock.
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
		since = "since before anybody watched"
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
		d.Evidence = append(d.Evidence, fmt.Sprintf("of %d the end was not seen, which the kernel's tracing may have left out: their threads cannot be looked at", h.Unsure))
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
