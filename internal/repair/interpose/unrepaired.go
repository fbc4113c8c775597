// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"fmt"
	"strings"
	"time"
)

// Unrepaired counts loads that blinding may have broken and that were left to the kernel all the
// same, by the reason.
type Unrepaired struct {
	NoRoom   int // too many at a time
	Timeout  int // the command's memory did not come in time
	Own      int // the thread may have descriptors of its own
	Process  int // the process that loads was stopped, or ended
	Stuck    int // the kernel does not free what is closed
	Dumpable int // fs.suid_dumpable is 1
	Window   int // no window could be opened, or it did not help
	Vain     Vain
	// Unseen are loads at which nobody looked, as bpfwhy was stopped for some seconds. Blinding may
	// have broken some of them.
	Unseen int
	// Why, the first time.
	ProcessErr, WindowErr error
}

// Vain are the windows that were open for loads that failed all the same.
type Vain struct {
	Windows    int
	Open       time.Duration // in all
	WholeCalls int           // loads with the window open all the time
}

func (v Vain) String() string {
	if v.Windows == 0 {
		return ""
	}
	s := fmt.Sprintf("; windows that did not help: %d, open for %v in all", v.Windows, v.Open.Round(time.Microsecond))
	if v.WholeCalls > 0 {
		s += fmt.Sprintf(", for the whole call of %d", v.WholeCalls)
	}
	return s
}

func (l Unrepaired) String() string {
	var why []string
	add := func(n int, what string) {
		if n > 0 {
			why = append(why, fmt.Sprintf("%d %s", n, what))
		}
	}
	add(l.NoRoom, "because there was no room")
	add(l.Timeout, "because the command's memory did not come in time")
	add(l.Own, "because "+errOwn.Error())
	if l.Process > 0 {
		add(l.Process, fmt.Sprintf("because the process that loads was stopped or ended (%v)", l.ProcessErr))
	}
	add(l.Stuck, "because the kernel does not free the programs that are closed")
	add(l.Dumpable, "because fs.suid_dumpable is 1")
	if l.Window > 0 {
		add(l.Window, fmt.Sprintf("because no window helped (%v%v)", l.WindowErr, l.Vain))
	}
	add(l.Unseen, "that bpfwhy did not look at, because it was stopped or had no processor for some seconds")
	return strings.Join(why, ", ")
}

// Unrepaired says what was not repaired although it might have been. The zero value means: nothing.
func (p *Proxy) Unrepaired() Unrepaired {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.unrepaired
	l.Unseen = int(p.slots.pulse().unseen.Load())
	return l
}

func (p *Proxy) count(f func(*Unrepaired)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.unrepaired)
}

// countProcess counts a process that did not answer, or that could not be started.
func (p *Proxy) countProcess(err error) {
	p.count(func(l *Unrepaired) {
		if wantsRoom(err) {
			l.NoRoom++
			return
		}
		if l.Process++; l.ProcessErr == nil {
			l.ProcessErr = err
		}
	})
}
