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
	moved    string // differs as soon as the thread has run
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

// Still returns those of a list that have not run since: they wait in the same call.
func Still(before []Thread) []Thread {
	var list []Thread
	for _, t := range before {
		dir := "/proc/" + strconv.Itoa(t.PID) + "/task/" + strconv.Itoa(t.TID) + "/"
		if now, ok := look(dir, t.PID, t.TID); ok && now.moved == t.moved {
			list = append(list, t)
		}
	}
	return list
}

func look(dir string, pid, tid int) (Thread, bool) {
	c, ok := parseCall(read(dir + "syscall"))
	if !ok || !c.loads() {
		return Thread{}, false
	}
	t := Thread{PID: pid, TID: tid, Comm: strings.TrimSuffix(read(dir+"comm"), "\n"), Call: c.String(), moved: c.rest}
	for line := range strings.Lines(read(dir + "status")) {
		if strings.Contains(line, "ctxt_switches:") {
			t.moved += line
		}
	}
	// when it started: the number may be another thread's by then
	stat := read(dir + "stat")
	if f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:]); len(f) > 19 {
		t.moved += f[19]
	}
	return t, true
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
