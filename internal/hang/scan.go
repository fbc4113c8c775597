// SPDX-License-Identifier: Apache-2.0

package hang

import (
	"os"
	"strconv"
	"strings"
)

// Thread is one that waits inside a load.
type Thread struct {
	PID, TID int
	Comm     string
	Call     string // BPF_PROG_LOAD, a seccomp filter
	// same is what stays while it waits: the call with its arguments, when the thread was started. cpu is the time that it has run, in ticks.
	same string
	cpu  uint64
}

// A signal wakes a thread that waits for a page for a moment, and the wait goes on.
const wakes = 5

// waits reports whether a thread has waited in the same call since it was looked at before.
func (t *Thread) waits(before *Thread) bool {
	return t.same == before.same && t.cpu-before.cpu <= wakes
}

// Scan lists the threads of this pid namespace that wait inside a load, a filter or an attach, without any hook: also those that began before
// anybody watched. It needs CAP_SYS_PTRACE for the threads of others. How long they wait is not to be had: see Still.
func Scan() []Thread {
	var list []Thread
	for _, pid := range numbers("/proc") {
		if pid == os.Getpid() {
			continue
		}
		dir := "/proc/" + strconv.Itoa(pid) + "/task"
		for _, tid := range numbers(dir) {
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
	c, ok := parseCall(read(dir + "syscall"))
	if !ok || !c.loads() {
		return Thread{}, false
	}
	t := Thread{PID: pid, TID: tid, Comm: strings.TrimSuffix(read(dir+"comm"), "\n"), Call: c.String(), same: c.rest}
	started, ran, ok := stat(dir)
	if !ok {
		return Thread{}, false
	}
	t.same += started // the number may be another thread's by then
	t.cpu = ran.user + ran.system
	return t, true
}

// stat is when a thread was started, and how long it has run.
func stat(dir string) (started string, ran ticks, ok bool) {
	// the name, in parentheses, may contain anything
	text := read(dir + "stat")
	f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(f) < 20 {
		return "", ticks{}, false
	}
	var err, err2 error
	ran.user, err = strconv.ParseUint(f[11], 10, 64)
	ran.system, err2 = strconv.ParseUint(f[12], 10, 64)
	return f[19], ran, err == nil && err2 == nil
}

func numbers(dir string) (list []int) {
	d, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil {
			list = append(list, n)
		}
	}
	return list
}
