// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/freeing"
	"github.com/bpfwhy/bpfwhy/internal/hardenwindow"
	"github.com/bpfwhy/bpfwhy/internal/surrogate"
	"github.com/bpfwhy/bpfwhy/rewrite"
	"golang.org/x/sys/unix"
)

// enotsupp is the kernel's own errno for a program that it must compile and cannot.
const enotsupp = unix.Errno(524)

// outcome is the answer to a load. One without a program is left to the kernel.
type outcome struct {
	fd       int // ours, -1 for none
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

var leave = outcome{fd: -1}

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
	key := s.key()
	for {
		known := p.cache.get(key)
		if known == nil {
			wait, first := p.first(key)
			if first {
				defer p.land(key)
				break
			}
			<-wait
			if known = p.cache.get(key); known == nil {
				continue // it was not blinding; or it was left alone
			}
		}
		if known.result == nil {
			return p.inWindow(s, h, key)
		}
		o, err := p.try(s, h, known.result, true)
		if err == nil && o.info.jited > 0 {
			return o
		}
		o.close()
		if errors.Is(err, freeing.ErrStuck) {
			return leave
		}
		break
	}
	return p.find(s, h, key)
}

// first reports whether nobody is finding out yet what helps a program, or gives a channel that is closed when it is found.
func (p *Proxy) first(key [32]byte) (<-chan struct{}, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if wait := p.flights[key]; wait != nil {
		return wait, false
	}
	p.flights[key] = make(chan struct{})
	return nil, true
}

func (p *Proxy) land(key [32]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.flights[key])
	delete(p.flights, key)
}

// find loads a program as it was submitted, and when blinding breaks it, in the form in which it does not.
func (p *Proxy) find(s *snapshot, h *handles, key [32]byte) outcome {
	first, err := p.try(s, h, nil, true)
	switch {
	case err == nil && first.info.jited > 0 && !s.prediction.Verdict.Wraps && !s.prediction.MayWrap:
		return first
	case err == nil:
		first.close()
	case !errors.Is(err, enotsupp):
		return leave
	}
	hopeless := true
	for _, limit := range p.options.limits {
		// The verdict on the result is a proof; that the kernel compiles it is found out below.
		r, err := rewrite.Rewrite(s.insns, rewrite.Options{Kernel: blinding.AnyKernel(), Limit: limit})
		if err != nil {
			break
		}
		if !r.Changed() {
			continue
		}
		o, err := p.try(s, h, r, false)
		if err == nil && o.info.jited > 0 {
			// The log is the one of the program as it was submitted, with its own numbering.
			o.log, o.trueSize = first.log, first.trueSize
			p.cache.put(key, r)
			return o
		}
		o.close()
		if err != nil && !errors.Is(err, enotsupp) {
			hopeless = false
			break
		}
	}
	if !hopeless {
		return leave
	}
	p.cache.put(key, nil)
	return p.inWindow(s, h, key)
}

var (
	errVain = errors.New("the kernel refused the same program in an open window before")
	// At 1 the kernel would do to this loader's program what it does at 2.
	errNotSpared = errors.New("net.core.bpf_jit_harden=1 does not spare a loader without CAP_SYS_ADMIN on this kernel")
)

// inWindow loads what no rewriting helps with hardening lowered for a moment, when that was asked for.
func (p *Proxy) inWindow(s *snapshot, h *handles, key [32]byte) outcome {
	if p.options.Window == nil || p.hardening() != 2 {
		return leave
	}
	if !p.options.without.spared && !hardenwindow.Spares(p.release, s.who.caps&p.we.caps) {
		return p.noWindow(errNotSpared, nil)
	}
	// Each takes a guardian, and windows take turns on the whole machine anyway.
	if !p.window.enter(s.user(), 1, hardenwindow.Turns) {
		p.countProcess(errRoom)
		return leave
	}
	defer p.window.leave(s.user(), 1)
	if p.cache.vain(key) { // found out by one that was before us, perhaps
		return p.noWindow(errVain, nil)
	}
	l, err := p.newLoad(s, h, nil, true)
	if err != nil || p.closed() != nil {
		return leave
	}
	var process *surrogate.Process // that of the window which is open, or was
	defer func() {
		if process != nil {
			process.Close()
		}
	}()
	start := func(missing bool) (err error) {
		if process != nil {
			process.Close()
		}
		l.Gated, l.Missing = true, missing
		process, err = p.source.New(l)
		return err
	}
	o := outcome{fd: -1}
	ctx, cancel := context.WithTimeout(context.Background(), hardenwindow.Turns)
	defer cancel()
	p.windows.Add(1)
	defer p.windows.Add(-1)
	fd, r, err := hardenwindow.Load(ctx, hardenwindow.Loader{
		Code: l.Code,
		Missing: func(int) (fd int, address uintptr, err error) {
			if err := start(true); err != nil {
				return -1, 0, err
			}
			return process.Missing(time.Now().Add(moment))
		},
		Load: func(address uintptr, gate *os.File) (int, error) {
			if address == 0 {
				if err := start(false); err != nil {
					return -1, err
				}
			}
			if err := process.Gate(gate); err != nil {
				return -1, err
			}
			fd, err := process.Result(surrogate.Limits{Total: longestInWindow, Still: standstillInWindow})
			o.takeLog(s, process)
			return fd, err
		},
		Works: func(fd int) bool {
			o := outcome{fd: fd}
			return o.ask() == nil && o.info.jited > 0
		},
	}, *p.options.Window)
	o.fd, o.window = fd, &r
	if err == nil {
		err = o.ask()
	}
	if err != nil {
		o.close()
		if refusedOpen(err, &r) {
			p.cache.inVain(key)
		}
		return p.noWindow(err, &r)
	}
	return o
}

// refusedOpen reports whether the kernel refused a load although a window was open for it.
func refusedOpen(err error, r *hardenwindow.Report) bool {
	if r.Windows == 0 || r.Overdue {
		return false
	}
	errno, ofKernel := err.(unix.Errno)
	return errors.Is(err, hardenwindow.ErrNotCompiled) || ofKernel && errno != unix.EAGAIN && errno != unix.ENOMEM
}

// noWindow leaves a load to the kernel that no window helped. r is what was open all the same, if anything.
func (p *Proxy) noWindow(err error, r *hardenwindow.Report) outcome {
	p.count(func(l *Left) {
		if l.Window++; l.WindowErr == nil {
			l.WindowErr = err
		}
		if r != nil && r.Windows > 0 {
			l.Vain.Windows += r.Windows
			l.Vain.Open += r.Open
			if r.WholeCall {
				l.Vain.WholeCalls++
			}
		}
	})
	return leave
}

// key is what decides how a program is repaired, and whether it has to be. Users have keys of their own: what one does to the process that loads
// for him, nobody else waits for.
func (s *snapshot) key() [32]byte {
	h := sha256.New()
	var b [24]byte
	binary.NativeEndian.PutUint64(b[:], s.who.caps)
	binary.NativeEndian.PutUint32(b[8:], s.attr.u32(offProgType))
	binary.NativeEndian.PutUint32(b[12:], s.attr.u32(offAttachType))
	binary.NativeEndian.PutUint32(b[16:], uint32(s.who.uid[0]))
	binary.NativeEndian.PutUint32(b[20:], uint32(s.who.uid[1]))
	h.Write(b[:])
	h.Write(insn.Encode(s.insns))
	return [32]byte(h.Sum(nil))
}

// try makes one load as the thread: of the program as submitted when r is nil. The error is the kernel's, or says why it was not made.
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

// closed is called before each load of ours, most of which leave a program that is closed or refused: there are not to be many that the
// kernel has not freed yet. Where it frees none, no load of ours is made any more.
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
		p.count(func(l *Left) { l.Stuck++ })
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
	var a attr
	copy(a[:], process.Attr())
	if size := a.u32(offLogTrueSize); size != s.attr.u32(offLogTrueSize) {
		o.trueSize = size
	}
}

// ask finds out about the program: as ourselves, for the thread may not be told.
func (o *outcome) ask() error {
	var info [8]uint32
	if err := objInfo(o.fd, &info); err != nil {
		return err
	}
	o.info = progInfo{id: info[1], jited: info[4]}
	binary.NativeEndian.PutUint32(o.info.tag[:], info[2])
	binary.NativeEndian.PutUint32(o.info.tag[4:], info[3])
	return nil
}

// newLoad is a load as its thread made it, with our descriptors; r, unless nil, is the program in another form.
func (p *Proxy) newLoad(s *snapshot, h *handles, r *rewrite.Result, withLog bool) (*surrogate.Load, error) {
	a := s.attr
	l := &surrogate.Load{As: s.who.as(p.we.caps), Objects: h.fds, CodeAt: offInsns, LogAt: offLogBuf}
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
	a.putU32(offInsnCnt, uint32(len(program)))
	l.Parts = append(l.Parts, surrogate.Part{At: offLicense, Bytes: s.license})
	for _, rec := range []struct {
		records   []byte
		off, size int
		unit      int // of the offset, in bytes
	}{
		{s.funcInfo, offFuncInfo, offFuncInfoRecSize, 1},
		{s.lineInfo, offLineInfo, offLineInfoRecSize, 1},
		{s.coreRelos, offCoreRelos, offCoreReloRecSize, insn.Size},
	} {
		records := bytes.Clone(rec.records)
		if r != nil {
			if err := move(records, int(a.u32(rec.size)), rec.unit, r.New); err != nil {
				return nil, err
			}
		}
		if len(records) > 0 || a.u64(rec.off) != 0 {
			l.Parts = append(l.Parts, surrogate.Part{At: rec.off, Bytes: records})
		}
	}
	if len(s.fdArray) > 0 {
		array := make([]byte, 4*len(s.fdArray))
		for i, fd := range s.fdArray {
			binary.NativeEndian.PutUint32(array[4*i:], number(int(fd)))
		}
		l.Parts = append(l.Parts, surrogate.Part{At: offFDArray, Bytes: array})
	}
	for _, off := range []int{offProgBTFFD, offAttachFD} {
		fd := s.attr.fd(off)
		if _, ok := h.of[fd]; ok && (off == offProgBTFFD || fd != 0) {
			a.putU32(off, number(fd))
		}
	}
	switch size := a.u32(offLogSize); {
	case !withLog:
		a.putU32(offLogLevel, 0)
		a.putU32(offLogSize, 0)
		a.putU64(offLogBuf, 0)
	case a.u64(offLogBuf) != 0:
		l.LogSize = int(max(size, 1))
	}
	l.Attr = a[:min(s.size, attrSize)]
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
