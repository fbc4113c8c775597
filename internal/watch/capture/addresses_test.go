// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/watch/assemble"
	"github.com/bpfwhy/bpfwhy/internal/watch/redact"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
)

// kernelSpace are the ranges in which this machine's kernel lives, read without
// internal/watch/redact.
type kernelSpace struct{ data, image [2]uint64 }

func kernelSpaceOf(t *testing.T) kernelSpace {
	t.Helper()
	s := kernelSpace{data: [2]uint64{0xffff8880_00000000, 0xfffffe80_00000000}}
	info, err := os.ReadFile("/proc/cpuinfo")
	qt.Assert(t, qt.IsNil(err))
	if regexp.MustCompile(`(?m)^flags.* la57( |$)`).Match(info) {
		s.data[0] = 0xff110000_00000000
	}
	symbols, err := os.ReadFile("/proc/kallsyms")
	qt.Assert(t, qt.IsNil(err))
	for line := range strings.Lines(string(symbols)) {
		v, err := strconv.ParseUint(strings.Fields(line)[0], 16, 64)
		qt.Assert(t, qt.IsNil(err))
		if v < 0xffffffff_80000000 {
			continue // of the processors' own, before 6.15
		}
		if s.image[0] == 0 || v < s.image[0] {
			s.image[0] = v
		}
		s.image[1] = max(s.image[1], v)
	}
	qt.Assert(t, qt.IsTrue(s.image[0] != 0), qt.Commentf("no symbols: kptr_restrict?"))
	return s
}

func (s kernelSpace) has(v uint64) bool {
	return v >= s.data[0] && v < s.data[1] || v >= s.image[0] && v < s.image[1]
}

// inBytes lists the addresses among 8-byte words, and among the two halves of 64-bit loads.
func (s kernelSpace) inBytes(b []byte) (found []string) {
	for i := 0; i+8 <= len(b); i += 8 {
		v := binary.LittleEndian.Uint64(b[i:])
		if s.has(v) {
			found = append(found, fmt.Sprintf("%#x at %d", v, i))
		}
		if b[i] == 0x18 && i+16 <= len(b) {
			if v := uint64(binary.LittleEndian.Uint32(b[i+4:])) | uint64(binary.LittleEndian.Uint32(b[i+12:]))<<32; s.has(v) {
				found = append(found, fmt.Sprintf("instruction %d: %#x", i/8, v))
			}
		}
		// the verifier's own per-CPU variables
		if b[i] == 0xb4 && i+16 <= len(b) && b[i+8] == 0xbf && binary.LittleEndian.Uint16(b[i+10:]) == 0xffff {
			if v := uint64(int64(int32(binary.LittleEndian.Uint32(b[i+4:])))); s.has(v) {
				found = append(found, fmt.Sprintf("instruction %d: %#x per CPU", i/8, v))
			}
		}
	}
	return found
}

var numbersInText = regexp.MustCompile(`0x[0-9a-fA-F]+|[0-9a-fA-F]{16}|-?[0-9]{9,}`)

func (s kernelSpace) inText(text string) (found []string) {
	for _, n := range numbersInText.FindAllString(text, -1) {
		var values []uint64
		if v, err := strconv.ParseUint(strings.TrimPrefix(n, "0x"), 16, 64); err == nil && (len(n) == 16 || n[1] == 'x') {
			values = append(values, v)
		}
		if v, err := strconv.ParseUint(n, 10, 64); err == nil {
			values = append(values, v)
		}
		if v, err := strconv.ParseInt(n, 10, 64); err == nil && v < 0 {
			values = append(values, uint64(v))
		}
		if slices.ContainsFunc(values, s.has) {
			found = append(found, n)
		}
	}
	return found
}

// large are pieces of the scenes that are about sizes: they hold one instruction and one line over
// and over, and take an emulated machine long to look at.
func large(r trace.Record) bool { return r.Chunk != nil && r.Chunk.Total > 1<<20 }

// inRecording writes records to a file, as --record does, and looks at every line and every range
// of bytes in it.
func (s kernelSpace) inRecording(t *testing.T, h trace.Header, records []trace.Record) (found []string) {
	t.Helper()
	var file bytes.Buffer
	w, err := trace.NewWriter(&file, h)
	qt.Assert(t, qt.IsNil(err))
	for _, r := range records {
		if large(r) {
			continue
		}
		qt.Assert(t, qt.IsNil(w.Write(r)))
	}
	unpacked, err := gzip.NewReader(&file)
	qt.Assert(t, qt.IsNil(err))
	lines := bufio.NewScanner(unpacked)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r trace.Record
		qt.Assert(t, qt.IsNil(json.Unmarshal(lines.Bytes(), &r)))
		at := ""
		var here []string
		switch c := r.Chunk; {
		case c != nil && (c.What == trace.Log || c.What == trace.BTFLog):
			at, here = string(c.What), s.inText(string(c.Data))
		case c != nil:
			at, here = string(c.What), s.inBytes(c.Data)
		case r.Call != nil:
			at, here = progNameOf(r.Call), append(s.inBytes(r.Call.Attr), s.inText(lines.Text())...)
		default:
			here = s.inText(lines.Text())
		}
		for _, f := range here {
			found = append(found, at+": "+f)
		}
	}
	return found
}

// inJSON looks at what becomes of the records: attempts with their diagnoses.
func (s kernelSpace) inJSON(t *testing.T, h trace.Header, records []trace.Record) (found []string) {
	t.Helper()
	records = slices.DeleteFunc(slices.Clone(records), large)
	copied, err := json.Marshal(records) // the assembler takes them over
	qt.Assert(t, qt.IsNil(err))
	records = nil
	qt.Assert(t, qt.IsNil(json.Unmarshal(copied, &records)))
	a := assemble.New(h)
	for _, r := range records {
		for at := range a.Add(r) {
			explain.Conclude(at, &h.Node)
			if at.Program != nil {
				at.Program.Tag = "" // a hash, which may look like anything: that of one of our own programs does
			}
			b, err := json.Marshal(at)
			qt.Assert(t, qt.IsNil(err))
			found = append(found, s.inText(string(b))...)
		}
	}
	return found
}

// Programs with addresses in all that is recorded of them: submitted, in the log, after the
// verifier, in the arguments.
func addresses() scene {
	var symbol uint64
	return scene{"addresses", func(t *testing.T) {
		mapAttr := struct{ typ, key, value, entries, flags, innerFD, node uint32 }{2, 4, 8, 1, 0, 0, 0}
		m := bpf(unix.BPF_MAP_CREATE, unsafe.Pointer(&mapAttr), unsafe.Sizeof(mapAttr))
		qt.Assert(t, qt.IsTrue(m >= 0), qt.Commentf("%d", m))
		defer unix.Close(m)
		symbol = symbolOf(t, "bpf_prog_load")
		wide := func(reg, src byte, low, high uint32) []byte {
			b := []byte{0x18, src<<4 | reg, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
			binary.LittleEndian.PutUint32(b[4:], low)
			binary.LittleEndian.PutUint32(b[12:], high)
			return b
		}
		// r1 = the map; r2 = its value; r3 = an address from kallsyms, plus 8, as loaders put it
		// for a symbol without a type
		objects := slices.Concat(wide(1, 1, uint32(m), 0), wide(2, 2, uint32(m), 0), wide(3, 0, uint32(symbol), uint32(symbol>>32)), mustHex("0703000008000000"))
		bad := slices.Concat(objects, mustHex("bf50000000000000"), smallProgram[8:]) // r0 = r5, never written
		qt.Check(t, qt.Equals(loadLogged(t, "addr_log", bad), -int(unix.EACCES)))
		qt.Check(t, qt.Equals(rawLoad("addr_nolog", bad), -int(unix.EACCES)))
		// the processor's number, which newer verifiers read from its memory themselves; then, by
		// chance, a jump as long as they go, over 100 constants, with which blinding makes it too
		// long
		far := slices.Concat(objects, mustHex("8500000008000000"), mustHex("8500000007000000"), mustHex("1500bc7f00000000"),
			bytes.Repeat(mustHex("bf00000000000000"), 32600), bytes.Repeat(mustHex("0700000001000000"), 100), smallProgram)
		if fd := rawLoad("addr_far", far); fd < 0 {
			qt.Check(t, qt.Equals(fd, -524))
		}
	}, func(t *testing.T, v story) {
		c := v.one(t, "addr_log")
		log, _ := v.bytes(c.ID, trace.Log)
		qt.Check(t, qt.StringContains(string(log), "(18) r1 = 0x*"))
		qt.Check(t, qt.StringContains(string(log), "(18) r3 = 0x****************"))
		code, _ := v.bytes(c.ID, trace.Insns)
		qt.Check(t, qt.Equals(code[0], 0x18))
		qt.Check(t, qt.Equals(binary.LittleEndian.Uint32(code[36:]), redact.Placeholder&0xffffffff))
		if !inside(v.backend) {
			return
		}
		// An attempt is as sure of its instructions as before.
		qt.Check(t, qt.IsTrue(c.Flags.TagMatched))
		prog, err := insn.Decode(code)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.IsFalse(insn.MatchesTag(prog, [8]byte(c.Tag))))
		after, _ := v.bytes(v.one(t, "addr_far").ID, trace.Translated)
		qt.Check(t, qt.IsTrue(bytes.Contains(after, wideHalf)), qt.Commentf("%x", after[:min(64, len(after))]))
	}}
}

// wideHalf is what is left of a map's address after the verifier: r1 = the placeholder.
var wideHalf = binary.LittleEndian.AppendUint32(mustHex("18010000d7adad0b00000000"), redact.Placeholder>>32)

func symbolOf(t *testing.T, name string) uint64 {
	t.Helper()
	b, err := os.ReadFile("/proc/kallsyms")
	qt.Assert(t, qt.IsNil(err))
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); f[2] == name {
			v, err := strconv.ParseUint(f[0], 16, 64)
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsTrue(v != 0))
			return v
		}
	}
	t.Fatalf("no symbol %s", name)
	return 0
}

func loadLogged(t *testing.T, name string, code []byte) int {
	t.Helper()
	buf, license := make([]byte, 1<<20), []byte("GPL\x00")
	var pin runtime.Pinner
	defer pin.Unpin()
	for _, b := range [][]byte{code, buf, license} {
		pin.Pin(&b[0])
	}
	a := socketFilter(name, code)
	a.license, a.logLevel, a.logSize, a.logBuf = addr(license), 2, uint32(len(buf)), addr(buf)
	return bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(a), unsafe.Sizeof(*a))
}
