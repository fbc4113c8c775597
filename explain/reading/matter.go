// SPDX-License-Identifier: Apache-2.0

package reading

import (
	"slices"
	"sync"
)

// matters is what a line has that makes it worth reading.
type matters struct {
	topic   bool // BPF, or what programs are attached to
	failure bool // something did not work
	alone   bool // words that no other subject has
	endsLog bool // the end of a verifier's log
}

func (m matters) any() bool { return m.alone || m.endsLog || m.topic && m.failure }

const (
	topicBit = 1 << iota
	failureBit
	aloneBit
	endBit
)

// Words to look for, in small letters. Short ones that are part of many others have a blank.
var (
	topicWords = []string{
		"bpf", "xdp", "btf", "kprobe", "uprobe", "kretprobe", "uretprobe", "tracepoint", "fentry", "fexit", "fmod_ret", "tracefs", "tracing", "verifier",
		"perf event", "perf_event", "perf-event", "seccomp", "so_attach", "attach_filter", "struct_ops", "struct ops", "sched_ext", "cgroup", "netlink", "rtnetlink", "clsact",
		"ksym", "kfunc", "core relo", "co-re", "lsm", "ringbuf", "ring buffer", "map ", "map:", "map'", "maps", "prog", "attach", "probe", "filter", "usdt", "skeleton", "tcx", "netkit", "tc ",
		"pin", "memlock", "trampoline", "lockdown", "insn", "instruction", "relocation", "section", "helper", "kallsyms", "debugfs", "iterator", "qdisc", "sockmap", "link", "xsk", "umem",
		"find device", "network interface", "find interface", "interface '", "interface \"", "guessing",
	}
	failureWords = []string{
		"fail", "error", "cannot", "can't", "could not", "couldn't", "unable", "denied", "invalid", "not support", "unsupported", "not permitted", "errno", "err=", "err ",
		"no such", "not found", "reject", "refus", "exceed", "too ", "missing", "mismatch", "incompatible", "unknown", "doesn't", "does not", "not allowed", "bad ", "busy",
		"= -1", ": -", "(-", "not exist", "already", "exists", "out of", "omitted", "caused by", "try raising", "must ", "not enabled", "not available", "expect", "einval", "eperm", "eacces", "enot", "enoent",
		"ebusy", "enomem", "e2big", "eexist", "efault", "ebadf", "eopnot", "enosys", "eilseq", "eaddr", "erange", "enospc", "esrch", "enodev", "eagain", "illegal", "not implemented", "abort", "not a ", "warning:", "not in ", "unrecogni", "bailing out", "cannot be", "detected",
	}
	aloneWords = []string{
		"load program", "loading program", "program load", "prog load", "!read_ok", "mem access", "unbounded memory", " 524", "-524", "=524", "(524", " min value", " max value", "leaks addr", "pointer arithmetic", "offset is outside", " expected=", "avc: ", "syscall=", "lockdown: ", "bpf_jit", "trace_kprobe:", "trace_uprobe:", "trace_probe:",
		"setting perf", "opening kprobe", "opening uprobe", "perf_event_open", "bpf(bpf_", "bpf_prog_", "bpf_map_", "bpf_link_", "bpf_btf_", "kprobe_events", "uprobe_events", "begin prog load log", "begin dump log",
		"back-edge", "unreachable insn", "reference leak", "unreleased reference", "kernel error message", "caller passes", "seccomp filter",
		"verification failed", "should have been in", "invalid access to", "setsockopt(", "xdp expects", "in native mode", "kernel function",
	}
	endWords = []string{"processed ", "end prog load log", "end log", "end load log"}
)

// automaton finds which of many words a line has in one pass over its bytes (Aho and Corasick), as
// 100 MB of text need it. Capitals are small letters to it.
type automaton struct {
	class [256]uint8
	size  int      // classes
	next  []uint16 // by state and class
	says  []uint8  // by state
}

var words = sync.OnceValue(func() *automaton {
	topics := slices.Clone(topicWords)
	for _, s := range slices.Concat(sentences, phrasesOf) {
		topics = append(topics, s.needs...)
	}
	return newAutomaton(map[uint8][]string{topicBit: topics, failureBit: failureWords, aloneBit: aloneWords, endBit: endWords})
})

func newAutomaton(lists map[uint8][]string) *automaton {
	a := &automaton{size: 1}
	for _, list := range lists {
		for _, w := range list {
			for i := range len(w) {
				if a.class[w[i]] == 0 {
					a.class[w[i]] = uint8(a.size)
					a.size++
				}
			}
		}
	}
	for c := byte('a'); c <= 'z'; c++ {
		a.class[c-'a'+'A'] = a.class[c]
	}
	state := func() uint16 {
		a.next = append(a.next, make([]uint16, a.size)...)
		a.says = append(a.says, 0)
		return uint16(len(a.says) - 1)
	}
	state()
	for bit, list := range lists {
		for _, w := range list {
			at := uint16(0)
			for i := range len(w) {
				to := int(at)*a.size + int(a.class[w[i]])
				if a.next[to] == 0 {
					n := state() // moves a.next
					a.next[to] = n
				}
				at = a.next[to]
			}
			a.says[at] |= bit
		}
	}
	a.link()
	return a
}

// link adds where to go on when a word does not.
func (a *automaton) link() {
	fail := make([]uint16, len(a.says))
	var queue []uint16
	for c := range a.size {
		if n := a.next[c]; n != 0 {
			queue = append(queue, n)
		}
	}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		a.says[at] |= a.says[fail[at]]
		for c := range a.size {
			i := int(at)*a.size + c
			other := a.next[int(fail[at])*a.size+c]
			if a.next[i] == 0 {
				a.next[i] = other
				continue
			}
			fail[a.next[i]] = other
			queue = append(queue, a.next[i])
		}
	}
}

func (a *automaton) in(line []byte) (found uint8) {
	at := 0
	for _, c := range line {
		at = int(a.next[at*a.size+int(a.class[c])])
		found |= a.says[at]
	}
	return found
}

func matter(line []byte) matters {
	found := words().in(line)
	return matters{found&topicBit != 0, found&failureBit != 0, found&aloneBit != 0, found&endBit != 0}
}
