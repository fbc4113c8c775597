// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/repair/hardenwindow"
	"github.com/bpfwhy/bpfwhy/internal/repair/surrogate"
	"github.com/bpfwhy/bpfwhy/internal/sys/freeing"
	"github.com/bpfwhy/bpfwhy/rewrite"
	"golang.org/x/sys/unix"
)

// outcome is the answer to a load. One without a program is left to the kernel.
type outcome struct {
	fd       int // ours, -1 for none
	given    bool
	theirs   int // once given, its number in the thread
	log      []byte
	trueSize uint32               // log_true_size, 0 where the kernel wrote none
	repair   *rewrite.Result      // nil: as submitted
	window   *hardenwindow.Report // nil: hardening was left alone
	info     progInfo
	began    time.Time
	took     time.Duration
}

type progInfo struct {
	id    uint32
	tag   [8]byte
	jited uint32 // bytes
}

var passThrough = outcome{fd: -1}

func (o *outcome) close() {
	if o.fd >= 0 {
		unix.Close(o.fd)
		o.fd = -1
	}
}

// load loads a suspect as its thread would, and repaired when blinding broke it.
func (p *Proxy) load(s *snapshot, h *handles) (o outcome) {
	began := time.Now()
	defer func() { o.began, o.took = began, time.Since(began) }()
	c := &climb{p: p, s: s, h: h, key: s.key(), outcome: passThrough}
	var known *entry
	for {
		if known = p.cache.get(c.key); known != nil {
			break
		}
		wait, first := p.first(c.key)
		if first {
			defer p.finish(c.key)
			break
		}
		<-wait
		// If it is not known by now, it was not blinding; or it was left alone.
	}
	if known != nil && known.result != nil {
		o, err := p.try(s, h, known.result, true)
		if err == nil && o.info.jited > 0 {
			return o
		}
		o.close()
		if errors.Is(err, freeing.ErrStuck) {
			return passThrough
		}
	}
	p.before(loading)
	if s.again != nil && s.readAgain() != nil {
		return passThrough
	}
	c.up(known != nil && known.result == nil)
	return c.outcome
}

// first reports whether nobody is finding out yet what helps a program, or gives a channel that is
// closed when it is found.
func (p *Proxy) first(key [32]byte) (<-chan struct{}, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if wait := p.flights[key]; wait != nil {
		return wait, false
	}
	p.flights[key] = make(chan struct{})
	return nil, true
}

func (p *Proxy) finish(key [32]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.flights[key])
	delete(p.flights, key)
}

// key is what decides how a program is repaired, and whether it has to be. Users have keys of their
// own: what one does to the process that loads for him, nobody else waits for.
func (s *snapshot) key() [32]byte {
	h := sha256.New()
	var b [24]byte
	binary.NativeEndian.PutUint64(b[:], s.who.caps)
	binary.NativeEndian.PutUint32(b[8:], s.attr.ProgType)
	binary.NativeEndian.PutUint32(b[12:], s.attr.ExpectedAttachType)
	binary.NativeEndian.PutUint32(b[16:], uint32(s.who.uid[0]))
	binary.NativeEndian.PutUint32(b[20:], uint32(s.who.uid[1]))
	h.Write(b[:])
	h.Write(insn.Encode(s.insns))
	return [32]byte(h.Sum(nil))
}

// try makes one load as the thread: of the program as submitted when r is nil. The error is the
// kernel's, or says why it was not made.
func (p *Proxy) try(s *snapshot, h *handles, r *rewrite.Result, withLog bool) (outcome, error) {
	o := outcome{fd: -1, repair: r}
	l, err := p.newLoad(s, h, r, withLog)
	if err != nil {
		return o, err
	}
	if err := p.closed(); err != nil {
		return o, err
	}
	if !p.processors.enter(s.user(), 1, patience) {
		p.countProcess(errRoom)
		return o, errRoom
	}
	makeWay := sync.OnceFunc(func() { p.processors.leave(s.user(), 1) })
	defer makeWay()
	process, err := p.source.New(l)
	if err != nil {
		p.countProcess(err)
		return o, err
	}
	defer process.Close()
	limits := surrogate.Limits{Total: longestLoad, Still: longStandstill, Pause: standstill, Turn: longTurn, MakeWay: makeWay, Ran: p.progress}
	if p.options.without.deadline {
		limits = surrogate.Limits{Total: time.Hour, Still: time.Hour}
	}
	o.fd, err = process.Result(limits)
	if err != nil {
		// Of a verifier that was told to stop, too: no other signal reaches the process.
		if _, ofKernel := err.(unix.Errno); !ofKernel || err == unix.EAGAIN {
			p.countProcess(err)
			return o, err
		}
	}
	o.takeLog(s, process)
	if err != nil {
		return o, err
	}
	if err := o.ask(); err != nil {
		o.close()
		return o, err
	}
	return o, nil
}

// closed is called before each load of ours, most of which leave a program that is closed or
// refused: there are not to be many that the kernel has not freed yet. Where it frees none, no load
// of ours is made any more.
func (p *Proxy) closed() error {
	waited := make(chan error, 1)
	go func() { waited <- p.free() }() // by a load of its own, which may hang as well
	limit := time.NewTimer(longStandstill)
	defer limit.Stop()
	var err error
	select {
	case err = <-waited:
	case <-limit.C:
		err = freeing.ErrStuck
	}
	if err != nil {
		p.count(func(l *Unrepaired) { l.Stuck++ })
	}
	return err
}

// progress lets those who wait for room wait on.
func (p *Proxy) progress() {
	p.memory.progress()
	p.processors.progress()
}

// takeLog copies what the verifier wrote, if anything.
func (o *outcome) takeLog(s *snapshot, process *surrogate.Process) {
	if log := process.Log(); len(log) > 0 {
		if end := bytes.IndexByte(log, 0); end >= 0 {
			o.log = bytes.Clone(log[:end+1])
		}
	}
	if size := abi.Read[attr](process.Attr()).LogTrueSize; size != s.attr.LogTrueSize {
		o.trueSize = size
	}
}

// ask finds out about the program: as ourselves, for the thread may not be told.
func (o *outcome) ask() error {
	info, err := objInfo[abi.ProgInfo](o.fd)
	if err != nil {
		return err
	}
	o.info = progInfo{id: info.ID, tag: info.Tag, jited: info.JitedProgLen}
	return nil
}

// newLoad is a load as its thread made it, with our descriptors; r, unless nil, is the program in
// another form.
//
//revive:disable-next-line:cyclomatic each pointer of the attributes is moved
func (p *Proxy) newLoad(s *snapshot, h *handles, r *rewrite.Result, withLog bool) (*surrogate.Load, error) {
	a := s.attr
	l := &surrogate.Load{As: s.who.as(p.we.caps), Objects: h.fds, CodeAt: int(unsafe.Offsetof(a.Insns)), LogAt: int(unsafe.Offsetof(a.LogBuf))}
	moved := func(slot int) int { return slot }
	program := s.insns
	if r != nil {
		moved = func(slot int) int { return r.New[slot] }
		program = r.Program
	}
	number := func(fd int) uint32 {
		if i, ok := h.of[fd]; ok {
			return uint32(surrogate.Object(i))
		}
		return ^uint32(0) // none
	}
	l.Code = insn.Encode(program)
	for _, ref := range s.refs {
		at := moved(ref.slot)*insn.Size + 4
		binary.LittleEndian.PutUint32(l.Code[at:], number(ref.fd))
	}
	a.InsnCnt = uint32(len(program))
	l.Parts = append(l.Parts, surrogate.Part{At: int(unsafe.Offsetof(a.License)), Bytes: s.license})
	for i, rec := range recordsOf(&a) {
		moving := bytes.Clone(s.records[i])
		if r != nil {
			if err := move(moving, int(rec.size), rec.unit, r.New); err != nil {
				return nil, err
			}
		}
		if len(moving) > 0 || rec.at != 0 {
			l.Parts = append(l.Parts, surrogate.Part{At: int(rec.pointer), Bytes: moving})
		}
	}
	if len(s.fdArray) > 0 {
		array := make([]byte, 4*len(s.fdArray))
		for i, fd := range s.fdArray {
			binary.NativeEndian.PutUint32(array[4*i:], number(int(fd)))
		}
		l.Parts = append(l.Parts, surrogate.Part{At: int(unsafe.Offsetof(a.FDArray)), Bytes: array})
	}
	if fd := int(int32(a.ProgBTFFD)); h.has(fd) {
		a.ProgBTFFD = number(fd)
	}
	if fd := int(int32(a.AttachFD)); fd != 0 && h.has(fd) {
		a.AttachFD = number(fd)
	}
	switch {
	case !withLog:
		a.LogLevel, a.LogSize, a.LogBuf = 0, 0, 0
	case a.LogBuf != 0:
		l.LogSize = int(max(a.LogSize, 1))
	}
	l.Attr = abi.Bytes(&a)[:min(s.size, attrSize)]
	return l, nil
}

// move lets the offsets at the start of records follow the code.
func move(records []byte, size, unit int, to []int) error {
	for ; len(records) >= size && size > 0; records = records[size:] {
		old := int(binary.NativeEndian.Uint32(records))
		if old%unit != 0 || old/unit >= len(to)-1 {
			return fmt.Errorf("a record says instruction %d of %d", old/unit, len(to)-1)
		}
		binary.NativeEndian.PutUint32(records, uint32(to[old/unit]*unit))
	}
	return nil
}
