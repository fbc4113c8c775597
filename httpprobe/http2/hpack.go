// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"bytes"
	"slices"
	"strings"

	"golang.org/x/net/http2/hpack"

	"github.com/bpfwhy/bpfwhy/httpprobe/http1"
)

// Bounds of a header table, in the bytes that RFC 7541, section 4.1, counts. Sizes are not needed
// to decode: numbers are counted from the newest entry, and an encoder never names one that it has
// dropped. They bound what is kept.
const (
	defaultTable  = 4096
	maxTable      = 16 << 10
	entryOverhead = 32
	entryBytes    = 2 * 40 // with its place in a list that may be half empty
	staticEntries = 61
)

// name is what a header field is to us. Of others nothing is kept.
type name uint8

const (
	other name = iota
	unknownName
	methodName
	pathName
	statusName
	typeName
	grpcName
)

// names are those that matter. None is longer than longestName.
var names = map[string]name{":method": methodName, ":path": pathName, ":status": statusName, "content-type": typeName, "grpc-status": grpcName}

const longestName = len("content-type")

// field is a header field, or an entry of a table.
type field struct {
	name  name
	num   int16  // status, or status of gRPC; of a type: 1 for gRPC
	size  uint32 // at most that which an encoder counts
	value string // method or path
}

func (f *field) cost() int { return entryBytes + len(f.value) }

// static is the entry of the static table with that number (RFC 7541, appendix A).
func static(i uint64) field {
	switch i {
	case 2:
		return field{name: methodName, value: "GET"}
	case 3:
		return field{name: methodName, value: "POST"}
	case 4:
		return field{name: pathName, value: "/"}
	case 5:
		return field{name: pathName, value: "/index.html"}
	case 8, 9, 10, 11, 12, 13, 14:
		return field{name: statusName, num: [...]int16{200, 204, 206, 304, 400, 404, 500}[i-8]}
	case 31:
		return field{name: typeName}
	}
	return field{}
}

// table is the header table of one direction: what is known of it, the newest last.
type table struct {
	entries []field
	size    uint32 // of them, at most
	limit   uint32 // of size
	why     http1.Reason
}

// allow takes a size that an encoder may use.
func (t *table) allow(size uint32) { t.limit = max(t.limit, min(size, maxTable)) }

// forget makes the table unknown.
func (t *table) forget(b *http1.Budget, why http1.Reason) {
	for i := range t.entries {
		b.Release(t.entries[i].cost())
	}
	t.entries, t.size, t.why, t.limit = nil, 0, why, maxTable
}

// at is the field with that number.
func (t *table) at(i uint64) field {
	switch {
	case i <= staticEntries:
		return static(i)
	case i-staticEntries <= uint64(len(t.entries)):
		return t.entries[len(t.entries)-int(i-staticEntries)]
	}
	return field{name: unknownName}
}

// add makes an entry. Without room for it, none is known any more.
func (t *table) add(f field, b *http1.Budget) {
	if !b.Reserve(f.cost()) {
		t.forget(b, http1.Memory)
		return
	}
	t.entries = append(t.entries, f)
	if t.size += f.size; t.size <= t.limit+t.limit/4 {
		return
	}
	drop := 0
	for ; t.size > t.limit && drop < len(t.entries); drop++ {
		t.size -= t.entries[drop].size
		b.Release(t.entries[drop].cost())
	}
	if drop == len(t.entries) {
		t.entries = nil
		return
	}
	t.entries = slices.Delete(t.entries, 0, drop)
}

// certainty says how much is known of something.
type certainty uint8

const (
	absent certainty = iota
	known
	doubtful // it may be there, or is, with a value that is not known
)

// fields are what a header block has of what matters.
type fields struct {
	method, path string
	hasMethod    certainty
	hasPath      certainty
	hasStatus    certainty
	hasType      certainty
	hasGRPC      certainty
	status       int
	grpc         bool // by its type
	grpcStatus   int16
	bad          bool // not what HTTP allows
	first        bool // the first field has come
}

// decode reads a header block. If it is not whole, its last field may be missing.
func (t *table) decode(b []byte, whole bool, budget *http1.Budget) (f fields) {
	for len(b) > 0 {
		var ok bool
		if b, ok = t.field(b, &f, budget); !ok {
			if whole {
				t.forget(budget, http1.Malformed)
			}
			whole = false
			break
		}
	}
	if !whole {
		f.unknown()
	}
	return f
}

// unknown takes a field of which nothing is known: it may be any that has not come yet.
func (f *fields) unknown() {
	for _, c := range []*certainty{&f.hasMethod, &f.hasPath, &f.hasType, &f.hasGRPC} {
		if *c == absent {
			*c = doubtful
		}
	}
	if !f.first { // the status is the first field of all
		f.hasStatus = doubtful
	}
}

// field reads one field, or whatever else may stand in its place.
func (t *table) field(b []byte, f *fields, budget *http1.Budget) (rest []byte, ok bool) {
	switch c := b[0]; {
	case c&0x80 != 0:
		i, rest, ok := integer(b, 7)
		if ok && i > 0 {
			f.take(t.at(i))
		}
		return rest, ok && i > 0
	case c&0xe0 == 0x20:
		size, rest, ok := integer(b, 5)
		t.limit = uint32(min(size, maxTable))
		return rest, ok
	case c&0xc0 == 0x40:
		e, rest, ok := t.literal(b, 6)
		if ok {
			t.add(e, budget)
			f.take(e)
		}
		return rest, ok
	}
	e, rest, ok := t.literal(b, 4)
	if ok {
		f.take(e)
	}
	return rest, ok
}

// literal reads a field with its value, and perhaps its name.
func (t *table) literal(b []byte, bits uint8) (e field, rest []byte, ok bool) {
	i, b, ok := integer(b, bits)
	if !ok {
		return e, nil, false
	}
	e.name = t.at(i).name
	if i == 0 {
		var s text
		if s, b, ok = readText(b); !ok {
			return e, nil, false
		}
		e.size = s.least()
		if e.name, ok = s.name(); !ok {
			return e, nil, false
		}
	}
	s, b, ok := readText(b)
	if !ok {
		return e, nil, false
	}
	e.size += entryOverhead + s.least()
	return e, b, e.read(s)
}

// text is a string as it was sent.
type text struct {
	b       []byte
	huffman bool
}

func readText(b []byte) (s text, rest []byte, ok bool) {
	if len(b) == 0 {
		return s, nil, false
	}
	s.huffman = b[0]&0x80 != 0
	n, b, ok := integer(b, 7)
	if !ok || n > uint64(len(b)) {
		return s, nil, false
	}
	s.b = b[:n]
	return s, b[n:], true
}

// least is the least number of bytes that it can have. No octet has more than 30 bits.
func (s text) least() uint32 {
	if s.huffman {
		return uint32(len(s.b) * 8 / 30)
	}
	return uint32(len(s.b))
}

// name is the name that it is, if it matters: none of their letters has more than eight bits.
func (s text) name() (name, bool) {
	if len(s.b) > longestName {
		return other, true
	}
	b, ok := s.bytes()
	return names[string(b)], ok
}

func (s text) bytes() ([]byte, bool) {
	if !s.huffman {
		return s.b, true
	}
	var b bytes.Buffer
	_, err := hpack.HuffmanDecode(&b, s.b)
	return b.Bytes(), err == nil
}

// read takes what matters of a value. It is false if the value cannot be read. What is kept of a
// path has no query.
func (f *field) read(s text) bool {
	if f.name <= unknownName {
		return true
	}
	b, ok := s.bytes()
	if !ok {
		return false
	}
	switch f.name {
	case methodName:
		f.value = method(b)
	case pathName:
		f.value = path(b)
	case statusName:
		f.num = number(b, 3, 3)
	case grpcName:
		f.num = number(b, 1, 3)
	case typeName:
		if isGRPC(b) {
			f.num = 1
		}
	}
	return true
}

// isGRPC looks at a content type: application/grpc, perhaps with +proto, or parameters.
func isGRPC(b []byte) bool {
	rest, ok := bytes.CutPrefix(bytes.ToLower(b), []byte("application/grpc"))
	return ok && (len(rest) == 0 || rest[0] == '+' || rest[0] == ';' || rest[0] == ' ')
}

// method is "" for what is none.
func method(b []byte) string {
	if len(b) > http1.MaxMethod || !http1.IsToken(b) {
		return ""
	}
	return string(b)
}

// path keeps of a path what may be kept.
func path(b []byte) string {
	for _, c := range b {
		if c <= ' ' || c == 0x7f {
			return ""
		}
	}
	return http1.CleanPath("", string(b))
}

// number reads so many digits; -1: it is none.
func number(b []byte, least, most int) (n int16) {
	if len(b) < least || len(b) > most || strings.Trim(string(b), "0123456789") != "" {
		return -1
	}
	for _, c := range b {
		n = n*10 + int16(c-'0')
	}
	return n
}

// take adds a field to what is known of a block.
func (f *fields) take(e field) {
	switch e.name {
	case unknownName:
		f.unknown()
	case methodName:
		f.bad = f.bad || f.hasMethod == known || e.value == ""
		f.method, f.hasMethod = e.value, known
	case pathName:
		f.bad = f.bad || f.hasPath == known
		f.path, f.hasPath = e.value, known
	case statusName:
		f.bad = f.bad || f.hasStatus == known || e.num < 100
		f.status, f.hasStatus = int(e.num), known
	case typeName:
		f.grpc, f.hasType = e.num == 1, known
	case grpcName:
		f.grpcStatus, f.hasGRPC = e.num, known
	}
	f.first = true
}

// integer reads a number with a prefix of so many bits (RFC 7541, section 5.1).
func integer(b []byte, bits uint8) (n uint64, rest []byte, ok bool) {
	if len(b) == 0 {
		return 0, nil, false
	}
	most := uint64(1)<<bits - 1
	n, b = uint64(b[0])&most, b[1:]
	if n < most {
		return n, b, true
	}
	for shift := 0; len(b) > 0 && shift <= 28; shift += 7 {
		c := b[0]
		b = b[1:]
		n += uint64(c&0x7f) << shift
		if c&0x80 == 0 {
			return n, b, true
		}
	}
	return 0, nil, false
}
