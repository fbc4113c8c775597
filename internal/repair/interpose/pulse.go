// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/bpfwhy/bpfwhy/internal/sys/fdinfo"
)

// pulse lies behind the slots, in the memory that proxy and guardian share. A proxy can be stopped
// as well as killed: by it the guardian knows.
type pulse struct {
	beats  atomic.Uint64 // of the proxy
	unseen atomic.Uint64 // loads that the guardian left to the kernel since the proxy did not beat

	unheeded  atomic.Bool   // nobody stands in for a proxy that does not beat: guards.pulse
	stoodIn   atomic.Bool   // the guardian receives, or has received, beside the proxy
	receiving atomic.Uint32 // who is at it: nobody, proxy or guardian
}

func (s *slots) pulse() *pulse { return (*pulse)(unsafe.Pointer(&s.memory[maxWaiting*slotSize])) }

const (
	beat = time.Second
	// stillBeats is how many a proxy may leave out.
	stillBeats = 5
)

const (
	byNobody = iota
	byProxy
	byGuardian
)

// receive is receive for two who do it: errGone when the other was first, where the kernel would
// wait for the next load.
func (p *pulse) receive(who uint32, listener int, slot []byte) error {
	for tries := 0; !p.receiving.CompareAndSwap(byNobody, who); tries++ {
		if tries == 100 { // the other was stopped there, or killed
			p.receiving.Store(who)
			break
		}
		time.Sleep(beat / 100)
	}
	defer p.receiving.CompareAndSwap(who, byNobody)
	if p.stoodIn.Load() {
		if what, err := wait(listener, -1, 0); err != nil || what != aLoad {
			return errGone
		}
	}
	return receive(listener, slot)
}

// beat shows that the proxy is at work.
func (p *Proxy) beat() {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for {
		p.slots.pulse().beats.Add(1)
		select {
		case <-p.done:
			return
		case <-tick.C:
		}
	}
}

// await waits until the proxy is gone, or does not move.
func (p *pulse) await(leash int) (gone bool) {
	last := p.beats.Load()
	for still := 0; still < stillBeats; {
		start := time.Now()
		if fdinfo.Readable(leash, beat) { // nobody holds its other end
			return true
		}
		switch now := p.beats.Load(); {
		case now != last:
			last, still = now, 0
		case time.Since(start) < 2*beat && !p.unheeded.Load(): // else nobody gets a processor, nor may the proxy
			still++
		}
	}
	return false
}
