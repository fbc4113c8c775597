// SPDX-License-Identifier: Apache-2.0

package hang

import (
	"os"
	"strconv"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/sys/proc"
)

// Thread is one that waits inside a load.
type Thread struct {
	PID, TID int
	Comm     string
	Call     string // BPF_PROG_LOAD, a seccomp filter
	// same is what stays while it waits: the call with its arguments, when the thread was started.
	// cpu is the time that it has run, in ticks.
	same string
	cpu  uint64
}

// A signal wakes a thread that waits for a page for a moment, and the wait goes on.
const wakes = 5

// waits reports whether a thread has waited in the same call since it was looked at before.
func (t *Thread) waits(before *Thread) bool {
	return t.same == before.same && t.cpu-before.cpu <= wakes
}

// Scan lists the threads of this pid namespace that wait inside a load, a filter or an attach,
// without any hook: also those that began before anybody watched. It needs CAP_SYS_PTRACE for the
// threads of others. How long they wait is not to be had: see Still.
func Scan() []Thread {
	var list []Thread
	pids, _ := proc.Numbers("/proc")
	for _, pid := range pids {
		if pid == os.Getpid() {
			continue
		}
		dir := "/proc/" + strconv.Itoa(pid) + "/task"
		tids, _ := proc.Numbers(dir)
		for _, tid := range tids {
			if t, ok := look(dir+"/"+strconv.Itoa(tid)+"/", pid, tid); ok {
				list = append(list, t)
			}
		}
	}
	return list
}

// Still returns those of a list that wait in the same call as before.
func Still(before []Thread) []Thread {
	var list []Thread
	for _, t := range before {
		dir := "/proc/" + strconv.Itoa(t.PID) + "/task/" + strconv.Itoa(t.TID) + "/"
		if now, ok := look(dir, t.PID, t.TID); ok && now.waits(&t) {
			list = append(list, now)
		}
	}
	return list
}

func look(dir string, pid, tid int) (Thread, bool) {
	c, ok := parseCall(proc.Read(dir + "syscall"))
	if !ok || !c.loads() {
		return Thread{}, false
	}
	t := Thread{PID: pid, TID: tid, Comm: strings.TrimSuffix(proc.Read(dir+"comm"), "\n"), Call: c.String(), same: c.rest}
	s, ok := proc.ReadStat(dir)
	if !ok {
		return Thread{}, false
	}
	t.same += strconv.FormatUint(s.Start, 10) // the number may be another thread's by then
	t.cpu = s.User + s.System
	return t, true
}
