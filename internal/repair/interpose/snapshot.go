// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/repair/ladder"
)

// Bounds of what is looked at. What is beyond them is left to the kernel.
const (
	maxAttr    = 4096
	maxLog     = 64 << 20
	maxRecord  = 64   // bytes; today's are 8, 16 and 16
	maxFDArray = 1024 // entries
	maxLicense = 128  // bytes, as the kernel reads them
)

// snapshot is one load as the thread submitted it. It is read once; what the thread, or others who
// share its memory, change later has no effect on what is loaded.
type snapshot struct {
	tid        int
	attr       attr
	size       int
	code       []byte             // as read
	insns      []insn.Instruction // descriptors in 64-bit loads are zero: see refs
	refs       []reference
	idents     []ident   // by index into refs, then of the descriptors of attr
	records    [3][]byte // see recordsOf
	fdArray    []int32   // -1 where nobody looks
	license    []byte    // with the final zero
	who        identity
	prediction blinding.Prediction
	again      *memory // for tests: from where the instructions are read once more
}

// user is whose load it is.
func (s *snapshot) user() int { return s.who.uid[0] }

// reference is a descriptor in the code: the immediate of a slot.
type reference struct {
	slot int
	fd   int
}

// readAttr reads the attributes, and reports false where they say already that there is nothing to
// repair, or nothing that we understand.
func readAttr(n *notification, m *memory) (a attr, ok bool) {
	size := int(n.size)
	if size < attrMinSize || size > maxAttr {
		return a, false
	}
	// One read, most often of the whole.
	b, err := m.read(n.attr, size)
	if err != nil {
		return a, false
	}
	if len(bytes.TrimLeft(abi.Tail[attr](b), "\x00")) > 0 {
		return a, false
	}
	a = abi.Read[attr](b)
	return a, ladder.Fits(int(a.InsnCnt)) && understood(&a)
}

// understood reports whether the attributes hold nothing that ties the program to its exact bytes
// or to its loader's surroundings.
func understood(a *attr) bool {
	return a.ProgIfindex == 0 && // a device of the thread's network namespace
		a.Signature == 0 && a.SignatureSize == 0 && a.KeyringID == 0 && // signed
		a.ProgTokenFD == 0 && a.ProgFlags&abi.ProgFlagTokenFD == 0 && // a token stands for a user namespace
		a.LogSize <= maxLog
}

// What a load costs in memory at most: a slot with all that is made of it, what else is read with
// all its copies, and the log as the kernel writes it and as we keep it.
const (
	slotBytes    = 100
	recordCopies = 4 // as read, moved, in a script, in a process
	logCopies    = 2
)

// weight is what a load costs us in memory, in slots of a program.
func weight(a *attr) int64 {
	n := int64(a.InsnCnt)
	bytes := logCopies * int64(a.LogSize)
	for _, r := range recordsOf(a) {
		bytes += recordCopies * min(int64(r.cnt), n) * min(int64(r.size), maxRecord)
	}
	return n + bytes/slotBytes
}

// readProgram reads the instructions.
func readProgram(n *notification, a *attr, m *memory) (*snapshot, error) {
	s := &snapshot{tid: n.tid, attr: *a, size: int(n.size)}
	var err error
	if s.code, err = m.read(a.Insns, int(a.InsnCnt)*insn.Size); err != nil {
		return nil, err
	}
	return s, nil
}

// predict reports whether blinding could break the program. known, unless nil, is what the thread
// tried to load before: what was found out about the same instructions need not be found out again.
func (s *snapshot) predict(known *snapshot) bool {
	var err error
	if s.insns, err = insn.Decode(s.code); err != nil {
		return false
	}
	if known != nil && known.attr == s.attr && bytes.Equal(known.code, s.code) {
		s.prediction = known.prediction
		return true
	}
	suspect := ladder.Suspect(s.insns, nil, s.programType(), blinding.AnyKernel())
	if suspect == nil {
		return false
	}
	s.prediction = suspect.Prediction
	return true
}

// readAgain takes the instructions as they are by now.
func (s *snapshot) readAgain() error {
	code, err := s.again.read(s.attr.Insns, len(s.code))
	if err == nil {
		s.insns, err = insn.Decode(code)
	}
	return err
}

func (s *snapshot) programType() string { return abi.ProgTypeName(s.attr.ProgType) }

// hasTrueSize reports whether the kernel would have written log_true_size.
func (s *snapshot) hasTrueSize(o *outcome) bool { return o.trueSize != 0 && s.size >= trueSizeAt+4 }

// readRest reads all else that the load refers to, but for its descriptors, and returns what memory
// of the thread it is made of.
func (s *snapshot) readRest(m *memory) ([]span, error) {
	a := &s.attr
	spans := []span{{a.Insns, len(s.code)}}
	var err error
	if s.license, err = m.text(a.License, maxLicense); err != nil {
		return nil, err
	}
	spans = append(spans, span{a.License, len(s.license)})
	for i, r := range recordsOf(a) {
		count, size := int(r.cnt), int(r.size)
		if count == 0 {
			continue
		}
		if size < r.least || size > maxRecord || size%r.aligned != 0 || count > len(s.insns) {
			return nil, fmt.Errorf("%d records of %d bytes", count, size)
		}
		if s.records[i], err = m.read(r.at, count*size); err != nil {
			return nil, err
		}
		spans = append(spans, span{r.at, len(s.records[i])})
	}
	if err := s.readReferences(m); err != nil {
		return nil, err
	}
	return append(spans, span{a.FDArray, 4 * len(s.fdArray)}), nil
}

// readReferences finds the descriptors that the code names, directly or as indexes into fd_array.
//
//revive:disable-next-line:cyclomatic a case for each way to name a descriptor
func (s *snapshot) readReferences(m *memory) error {
	highest := int(s.attr.FDArrayCnt) - 1
	var used map[int]bool
	use := func(i int) {
		if used == nil {
			used = map[int]bool{}
		}
		used[i] = true
		highest = max(highest, i)
	}
	for i := range s.insns {
		in := &s.insns[i]
		switch {
		case in.Code == insn.OpcodeGotox:
			return fmt.Errorf("slot %d jumps through an instruction array", i)
		case in.IsKfuncCall() && in.Off != 0:
			use(int(uint16(in.Off)))
		case in.Code != insn.OpcodeLoadImm64 || insn.IsSecondHalf(s.insns, i):
		case in.Src == insn.PseudoMapFD || in.Src == insn.PseudoMapValue:
			s.refs = append(s.refs, reference{i, int(in.Imm)})
			in.Imm = 0
		case in.Src == insn.PseudoMapIdx || in.Src == insn.PseudoMapIdxValue:
			use(int(in.Imm))
		case in.Src == insn.PseudoBTFID && i+1 < len(s.insns) && s.insns[i+1].Imm != 0:
			s.refs = append(s.refs, reference{i + 1, int(s.insns[i+1].Imm)})
			s.insns[i+1].Imm = 0
		}
	}
	if highest < 0 {
		return nil
	}
	if highest >= maxFDArray || s.attr.FDArray == 0 {
		return fmt.Errorf("an array of %d descriptors", highest+1)
	}
	b, err := m.read(s.attr.FDArray, 4*(highest+1))
	if err != nil {
		return err
	}
	s.fdArray = make([]int32, highest+1)
	for i := range s.fdArray {
		s.fdArray[i] = int32(binary.NativeEndian.Uint32(b[4*i:]))
		if i >= int(s.attr.FDArrayCnt) && !used[i] {
			s.fdArray[i] = -1
		}
	}
	return nil
}

func (s *snapshot) hasRecords() bool {
	return slices.ContainsFunc(s.records[:], func(b []byte) bool { return len(b) > 0 })
}

// descriptors are all descriptors of the thread that the load names, each once.
func (s *snapshot) descriptors() []int {
	var fds []int
	seen := map[int]bool{}
	add := func(fd int) {
		if fd >= 0 && !seen[fd] {
			seen[fd] = true
			fds = append(fds, fd)
		}
	}
	for _, r := range s.refs {
		add(r.fd)
	}
	for _, fd := range s.fdArray {
		add(int(fd))
	}
	if fd := int(int32(s.attr.AttachFD)); fd != 0 {
		add(fd)
	}
	// Zero is a descriptor too, but where nothing needs BTF it stands for none.
	if fd := int(int32(s.attr.ProgBTFFD)); fd != 0 || s.hasRecords() {
		add(fd)
	}
	return fds
}

// same reports whether two snapshots are one load: what was made of one is what would be made of
// the other.
func (s *snapshot) same(o *snapshot) bool {
	return s.attr == o.attr && s.size == o.size && s.who.same(&o.who) && bytes.Equal(s.code, o.code) &&
		slices.Equal(s.fdArray, o.fdArray) && slices.Equal(s.idents, o.idents) && bytes.Equal(s.license, o.license) &&
		slices.EqualFunc(s.records[:], o.records[:], bytes.Equal)
}
