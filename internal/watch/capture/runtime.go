// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"os"
	"strings"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/sys/buildinfo"
	"github.com/bpfwhy/bpfwhy/internal/watch/enrich"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// runtimes finds out what loaders are written in, of which some remedies depend. The zero value is
// ready.
type runtimes struct {
	asked  bool
	who    executable
	answer string
	busy   chan struct{}
}

// executable is what a call tells of one.
type executable struct {
	tgid uint32
	path string
}

// patience is how long a file may take to be read. Executables are in memory; one on a file system
// that does not answer must not keep what is watched waiting.
const patience = 100 * time.Millisecond

// of is the runtime of a call's process, "" where it is not known. A process is asked for once, and
// nobody while an earlier answer is still awaited.
func (r *runtimes) of(call *trace.Call) string {
	who := executable{call.TGID, call.Exe}
	if r.asked && r.who == who {
		return r.answer
	}
	if r.busy == nil {
		r.busy = make(chan struct{}, 1)
	}
	select {
	case r.busy <- struct{}{}:
	default:
		return ""
	}
	told, got := *call, make(chan string, 1)
	go func() {
		answer := runtimeOf(&told)
		<-r.busy
		got <- answer
	}()
	select {
	case r.answer = <-got:
		r.asked, r.who = true, who
		return r.answer
	case <-time.After(patience):
		return ""
	}
}

// runtimeOf looks at the executable of the process that made a call. Loaders often end as soon as a
// load has failed: then at the file that it had, unless the path is that of a container.
func runtimeOf(call *trace.Call) string {
	dir := procOf(call)
	path := dir + "exe"
	f, err := os.Open(path)
	if err == nil && !isCaller(call, dir) {
		f.Close()
		err = os.ErrNotExist
	}
	if err != nil {
		if !strings.HasPrefix(call.Exe, "/") || contained(call) {
			return ""
		}
		if info, err := os.Stat(call.Exe); err != nil || !info.Mode().IsRegular() {
			return ""
		}
		if f, err = os.Open(call.Exe); err != nil {
			return ""
		}
	}
	defer f.Close()
	if buildinfo.IsGo(f) {
		return load.RuntimeGo
	}
	return ""
}

// contained reports whether a call's process ran in a container.
func contained(call *trace.Call) bool {
	for _, g := range []*trace.Cgroup{call.Cgroup2, call.Cgroup1} {
		if g == nil {
			continue
		}
		if _, ok := enrich.Parse(g.Name); ok {
			return true
		}
	}
	return false
}
