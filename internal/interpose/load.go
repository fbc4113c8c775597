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
	"runtime"
	"time"
	"unsafe"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/guardian"
	"github.com/bpfwhy/bpfwhy/internal/hardenwindow"
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
func (p *Proxy) load(s *snapshot, h handles) (o outcome) {
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
			return p.inWindow(s, h)
		}
		o, err := p.try(s, h, known.result, true)
		if err == nil && o.info.jited > 0 {
			return o
		}
		o.close()
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
func (p *Proxy) find(s *snapshot, h handles, key [32]byte) outcome {
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
	return p.inWindow(s, h)
}

// inWindow loads what no rewriting helps with hardening lowered for a moment, when that was asked for.
func (p *Proxy) inWindow(s *snapshot, h handles) outcome {
	if p.options.Window == nil || p.hardened.read() != 2 {
		return leave
	}
	l, err := newCall(s, h, nil, true)
	if err != nil {
		return leave
	}
	defer l.free()
	who := s.who
	who.caps &= p.we.caps
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	fd, r, err := hardenwindow.Load(ctx, hardenwindow.Loader{
		Code: l.code,
		Load: func(code uintptr, gate *os.File) (fd int, err error) {
			asErr := who.as(func() {
				if err = guardian.Pass(gate); err != nil {
					return
				}
				if code == 0 {
					fd, err = l.do()
				} else {
					fd, err = l.doAt(code)
				}
			})
			if err = errors.Join(asErr, err); err != nil {
				return -1, err
			}
			return fd, nil
		},
		Works: func(fd int) bool {
			o := outcome{fd: fd}
			return o.ask() == nil && o.info.jited > 0
		},
	}, *p.options.Window)
	o := outcome{fd: fd, window: &r}
	if err != nil {
		o.close()
		return leave
	}
	if err := o.ask(); err != nil {
		o.close()
		return leave
	}
	o.takeLog(s, l)
	return o
}

// key is what decides how a program is repaired, and whether it has to be.
func (s *snapshot) key() [32]byte {
	h := sha256.New()
	var b [16]byte
	binary.NativeEndian.PutUint64(b[:], s.who.caps)
	binary.NativeEndian.PutUint32(b[8:], s.attr.u32(offProgType))
	binary.NativeEndian.PutUint32(b[12:], s.attr.u32(offAttachType))
	h.Write(b[:])
	h.Write(insn.Encode(s.insns))
	return [32]byte(h.Sum(nil))
}

// try makes one load as the thread: of the program as submitted when r is nil. The error is the kernel's, or says why it was not made.
func (p *Proxy) try(s *snapshot, h handles, r *rewrite.Result, withLog bool) (outcome, error) {
	o := outcome{fd: -1, repair: r}
	l, err := newCall(s, h, r, withLog)
	if err != nil {
		return o, err
	}
	defer l.free()
	who := s.who
	who.caps &= p.we.caps
	var loadErr error
	p.processors <- struct{}{}
	err = who.as(func() { o.fd, loadErr = l.do() })
	<-p.processors
	if err != nil {
		return o, err
	}
	o.takeLog(s, l)
	if loadErr != nil {
		return o, loadErr
	}
	if err := o.ask(); err != nil {
		o.close()
		return o, err
	}
	return o, nil
}

// takeLog copies what the verifier wrote, if anything.
func (o *outcome) takeLog(s *snapshot, l *call) {
	if len(l.log) > 0 && l.attr.u32(offLogLevel) != 0 {
		if end := bytes.IndexByte(l.log, 0); end >= 0 {
			o.log = bytes.Clone(l.log[:end+1])
		}
	}
	if size := l.attr.u32(offLogTrueSize); size != s.attr.u32(offLogTrueSize) {
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

// call is the attributes of a load in our own memory, and what they point to.
type call struct {
	attr     attr
	size     int
	pointers []pointer64
	code     []byte
	log      []byte // mapped
}

type pointer64 struct {
	off int
	to  unsafe.Pointer
}

func newCall(s *snapshot, h handles, r *rewrite.Result, withLog bool) (*call, error) {
	l := &call{attr: s.attr, size: min(s.size, attrSize)}
	moved := func(slot int) int { return slot }
	program := s.insns
	if r != nil {
		moved = func(slot int) int { return r.New[slot] }
		program = r.Program
	}
	code := insn.Encode(program)
	for _, ref := range s.refs {
		at := moved(ref.slot)*insn.Size + 4
		binary.LittleEndian.PutUint32(code[at:], h.number(ref.fd))
	}
	l.attr.putU32(offInsnCnt, uint32(len(program)))
	l.code = code
	l.point(offLicense, s.license)
	for _, a := range []struct {
		records  []byte
		off, rec int
		unit     int // of the offset, in bytes
	}{
		{s.funcInfo, offFuncInfo, offFuncInfoRecSize, 1},
		{s.lineInfo, offLineInfo, offLineInfoRecSize, 1},
		{s.coreRelos, offCoreRelos, offCoreReloRecSize, insn.Size},
	} {
		records := bytes.Clone(a.records)
		if r != nil {
			if err := move(records, int(s.attr.u32(a.rec)), a.unit, r.New); err != nil {
				return nil, err
			}
		}
		l.point(a.off, records)
	}
	if len(s.fdArray) > 0 {
		array := make([]byte, 4*len(s.fdArray))
		for i, fd := range s.fdArray {
			binary.NativeEndian.PutUint32(array[4*i:], h.number(int(fd)))
		}
		l.point(offFDArray, array)
	}
	for _, off := range []int{offProgBTFFD, offAttachFD} {
		if fd, ok := h[s.attr.fd(off)]; ok && (off == offProgBTFFD || s.attr.fd(off) != 0) {
			l.attr.putU32(off, uint32(fd))
		}
	}
	switch size := s.attr.u32(offLogSize); {
	case !withLog:
		l.attr.putU32(offLogLevel, 0)
		l.attr.putU32(offLogSize, 0)
		l.attr.putU64(offLogBuf, 0)
	case s.attr.u64(offLogBuf) != 0:
		// Pages that the kernel does not write to cost nothing.
		log, err := unix.Mmap(-1, 0, int(max(size, 1)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
		if err != nil {
			return nil, fmt.Errorf("map %d bytes for a log: %w", size, err)
		}
		l.log = log
		l.pointers = append(l.pointers, pointer64{offLogBuf, unsafe.Pointer(&log[0])})
	}
	return l, nil
}

func (l *call) point(off int, b []byte) {
	var p unsafe.Pointer
	if len(b) > 0 {
		p = unsafe.Pointer(&b[0])
	}
	if p != nil || l.attr.u64(off) != 0 {
		l.pointers = append(l.pointers, pointer64{off, p})
	}
}

func (l *call) free() {
	if l.log != nil {
		_ = unix.Munmap(l.log)
	}
}

func (l *call) do() (int, error) {
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&l.code[0])
	return l.doAt(uintptr(unsafe.Pointer(&l.code[0])))
}

// doAt makes the load with the instructions at an address.
func (l *call) doAt(code uintptr) (int, error) {
	// The attributes as words, so that the fields can be pointed at.
	words := new([attrSize / 8]uint64)
	bytesOf := (*attr)(unsafe.Pointer(words))
	*bytesOf = l.attr
	pointers := make([]pointer, len(l.pointers))
	for i, p := range l.pointers {
		pointers[i] = pointer{&words[p.off/8], p.to}
	}
	words[offInsns/8] = uint64(code)
	fd, err := bpfWith(unix.BPF_PROG_LOAD, unsafe.Pointer(words), uintptr(l.size), pointers...)
	if l.size >= offLogTrueSize+4 {
		l.attr.putU32(offLogTrueSize, bytesOf.u32(offLogTrueSize))
	}
	return fd, err
}

// number is our descriptor for one of the thread's, and none for none.
func (h handles) number(fd int) uint32 {
	if n, ok := h[fd]; ok {
		return uint32(n)
	}
	return ^uint32(0)
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
