// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"errors"
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/sys/kmsg"
	"github.com/bpfwhy/bpfwhy/internal/watch/hook"
	"github.com/bpfwhy/bpfwhy/internal/watch/redact"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// decoder turns ring buffer samples into records. The samples come from our own programs, but the
// bytes in them do not: every length is checked, and names are cleaned where they are shown.
// Addresses of the kernel end here: no record holds one.
type decoder struct {
	levels  redact.Levels
	keep    bool // remember objects: the backend does not read the kernel
	all     bool // successful maps and BTF are asked for
	failed  bool // only failures are asked for
	pieces  map[trace.CallID]*pieces
	order   []trace.CallID // oldest first, with some that are gone
	size    int            // bytes of all pieces
	dropped uint64         // calls whose pieces were given up
	// failedLoads are those that arrived and that the programs had counted.
	failedLoads uint64
	objects     objects
	traced      traced
	log         *kmsg.Log // nil where it may not be read
	runtimes    runtimes
}

// view looks at a sample as one of the wire structs. Samples are 8-byte aligned copies.
func view[T any](sample []byte) (*T, bool) {
	var t T
	if len(sample) < int(unsafe.Sizeof(t)) {
		return nil, false
	}
	return (*T)(unsafe.Pointer(unsafe.SliceData(sample))), true
}

// sized is view for a kind of sample whose size is known.
func sized[T any](sample []byte, what string) (*T, error) {
	t, ok := view[T](sample)
	if !ok {
		return nil, fmt.Errorf("decode %s: %d bytes are too few", what, len(sample))
	}
	return t, nil
}

func (d *decoder) add(sample []byte, to *[]trace.Record) error {
	head, err := sized[coreHead](sample, "sample")
	if err != nil {
		return err
	}
	id := trace.CallID{TID: head.Tid, Start: head.Start}
	switch t := coreRecordType(head.Type); t {
	case coreRecordTypeR_CALL:
		return d.addCall(id, sample, to)
	case coreRecordTypeR_SMALL, coreRecordTypeR_MEDIUM, coreRecordTypeR_BIG:
		return d.addChunk(id, sample)
	case coreRecordTypeR_MESSAGE:
		return d.addMessage(id, sample, to)
	case coreRecordTypeR_MAPS:
		return d.addMaps(id, sample)
	case coreRecordTypeR_ATTACH:
		return d.addAttachment(id, sample)
	case coreRecordTypeR_BEGIN:
		b, err := sized[coreBegin](sample, "begin")
		if err != nil {
			return err
		}
		*to = append(*to, trace.Record{Begin: &trace.Begin{ID: id, TGID: b.Tgid}})
		return nil
	case coreRecordTypeR_HELLO:
		return nil
	default:
		return fmt.Errorf("decode sample: unknown type %d", t)
	}
}

// addCall takes the end of a call, and gives what was copied for it before it.
//
//revive:disable-next-line:cyclomatic each piece of a call may be missing
func (d *decoder) addCall(id trace.CallID, sample []byte, to *[]trace.Record) error {
	r, err := sized[coreCallRecord](sample, "call")
	if err != nil {
		return err
	}
	call := decodeCall(r)
	if coreCallFlags(r.Call.Flags)&coreCallFlagsF_COUNTED != 0 {
		d.failedLoads++
	}
	p := d.pieces[id]
	if p == nil {
		p = &pieces{}
	} else {
		delete(d.pieces, id)
		d.size -= p.size()
	}
	p.redact(redact.New(d.levels), call)
	call.Maps, call.Attach = p.maps, p.attach
	if message := text(r.Call.Message[:]); message != "" && call.Attach != nil {
		call.Attach.Message = message
	}
	if d.keep && call.Kind == load.ProgLoad && call.Ret >= 0 && call.Prog == nil {
		call.Prog = loadedProgram(call, p.insns())
	}
	bad := call.Ret < 0 || call.Prog != nil && !call.Prog.JITed
	if bad || !d.keep {
		*to = append(*to, p.chunks...)
	}
	if bad && d.keep {
		describeProcess(call)
	}
	if bad && call.Kind == load.ProgLoad {
		call.Runtime = d.runtimes.of(call)
	}
	d.objects.complete(call, p, to)
	d.completeAttachment(call)
	object := call.Kind == load.MapCreate || call.Kind == load.BTFLoad
	if call.Ret >= 0 && object && !d.all || !bad && d.keep && d.failed && !ofLSM(call) {
		return nil // only of use to others, or not asked for
	}
	if c := license(id, r); c != nil && bad {
		*to = append(*to, trace.Record{Chunk: c})
	}
	*to = append(*to, trace.Record{Call: call})
	return nil
}

// readLog takes the kernel's log between calls, so that its clock is known when one fails.
func (d *decoder) readLog() {
	if d.log != nil {
		d.log.Read(int64(monotonic()))
		d.log.Forget()
	}
}

func (d *decoder) close() error {
	err := d.traced.close()
	if d.log != nil {
		err = errors.Join(err, d.log.Close())
		d.log = nil
	}
	return err
}

// ofLSM reports a call that attached an LSM program. The kernel sends it among failures where it
// never calls them.
func ofLSM(call *trace.Call) bool {
	return call.Attach != nil && call.Attach.Prog != nil && call.Attach.Prog.Type == abi.ProgTypeLSM
}

func (d *decoder) addChunk(id trace.CallID, sample []byte) error {
	c, err := sized[coreChunk](sample, "chunk")
	if err != nil {
		return err
	}
	data := sample[unsafe.Sizeof(*c):]
	d.remember(&trace.Chunk{
		ID: id, What: whatNames[coreWhat(c.What)], Offset: c.Offset, Total: c.Total, Errno: int(-c.Err),
		Data: append([]byte(nil), data[:min(int(c.Len), len(data))]...),
	}, coreWhat(c.What))
	return nil
}

func (d *decoder) addMessage(id trace.CallID, sample []byte, to *[]trace.Record) error {
	s, err := sized[coreMessage](sample, "message")
	if err != nil {
		return err
	}
	m := &trace.Message{ID: id, Format: text(s.Format[:]), Args: s.Args}
	for i := range s.Strings {
		m.Strings[i] = text(s.Strings[i][:])
	}
	redact.New(d.levels).Message(m.Format, &m.Args, &m.Strings)
	*to = append(*to, trace.Record{Message: m})
	return nil
}

func (d *decoder) addMaps(id trace.CallID, sample []byte) error {
	m, err := sized[coreMapList](sample, "maps")
	if err != nil {
		return err
	}
	n := min(int(m.Count), len(m.Maps))
	list := make([]trace.Map, n)
	for i, r := range m.Maps[:n] {
		list[i] = trace.Map{
			ID: r.Id, Type: r.Type, KeySize: r.KeySize, ValueSize: r.ValueSize, MaxEntries: r.MaxEntries, Flags: r.Flags,
			Name: text(r.Name[:]),
		}
	}
	p := d.piecesOf(id)
	d.size -= p.size()
	p.maps = list
	d.size += p.size()
	return nil
}

// maxMessages is MESSAGES_MAX of bpf/wire.h.
const maxMessages = 64

// licenseMax is what the kernel reads of a licence, its NUL with it (bpf_prog_load).
const licenseMax = 128

// license is the licence of a failed load: it travels with the call, for it is short.
func license(id trace.CallID, r *coreCallRecord) *trace.Chunk {
	c := &trace.Chunk{ID: id, What: trace.License}
	switch n := int(r.LicenseLen); {
	case n == 0:
		return nil
	case n < 0:
		c.Total, c.Errno = licenseMax, -n
	default:
		c.Data = []byte(text(r.License[:]))
		c.Total = uint64(len(c.Data))
		if n >= len(r.License) { // cut, or just as long as fits: who knows
			c.Total = licenseMax
		}
	}
	return c
}

var whatNames = map[coreWhat]trace.What{
	coreWhatW_INSNS: trace.Insns, coreWhatW_FUNC_INFO: trace.FuncInfo, coreWhatW_LINE_INFO: trace.LineInfo, coreWhatW_BTF: trace.BTF,
	coreWhatW_LOG: trace.Log, coreWhatW_TRANSLATED: trace.Translated, coreWhatW_FILTER: trace.Filter,
	coreWhatW_BTF_LOG: trace.BTFLog,
}

// The commands of enum bpf_cmd that are watched.
var kinds = map[uint32]load.Kind{
	unix.BPF_PROG_LOAD: load.ProgLoad, unix.BPF_MAP_CREATE: load.MapCreate, unix.BPF_BTF_LOAD: load.BTFLoad,
	abi.CmdLinkUpdate: load.LinkUpdate, abi.CmdObjPin: load.ObjPin, abi.CmdMapUpdateElem: load.MapUpdate,
	unix.BPF_LINK_CREATE: load.LinkCreate, unix.BPF_PROG_ATTACH: load.ProgAttach, unix.BPF_RAW_TRACEPOINT_OPEN: load.RawTPOpen,
	abi.CmdTokenCreate: load.TokenCreate,
}

// Calls that are not bpf(2).
var otherCalls = map[coreCallKind]load.Kind{
	coreCallKindK_SECCOMP: load.Seccomp, coreCallKindK_SOCKFILTER: load.SocketFilter,
	coreCallKindK_PERF_OPEN: load.PerfEventOpen, coreCallKindK_PERF_SET: load.PerfEventSetBPF, coreCallKindK_PROBE_DEF: load.ProbeDefine,
	coreCallKindK_XDP: load.XDPAttach, coreCallKindK_SETLINK: load.XDPAttach, coreCallKindK_TC: load.TCAttach,
	coreCallKindK_SOCKET: load.SocketAttach, coreCallKindK_REUSEPORT: load.SocketAttach,
}

func decodeCall(r *coreCallRecord) *trace.Call {
	k := &r.Call
	flags := coreCallFlags(k.Flags)
	has := func(f coreCallFlags) bool { return flags&f != 0 }
	c := &trace.Call{
		ID:  trace.CallID{TID: k.Head.Tid, Start: k.Head.Start},
		End: k.End, Cmd: k.Cmd, Ret: k.Ret, Kind: load.OtherCommand,
		Flags: trace.CallFlags{
			EnterSeen: has(coreCallFlagsF_ENTER), ExitSeen: has(coreCallFlagsF_EXIT),
			FromKernel: has(coreCallFlagsF_KERNEL), AttrFault: has(coreCallFlagsF_ATTR_FAULT),
			LogDirty: has(coreCallFlagsF_LOG_DIRTY),
		},
		TGID: r.Tgid, NSPID: r.Of.Nspid, UID: r.Uid, GID: r.Gid, Comm: text(r.Comm[:]), FailedInsn: k.FailInsn,
	}
	switch other, is := otherCalls[coreCallKind(k.Kind)]; {
	case is:
		c.Kind = other
	default:
		if kind, ok := kinds[k.Cmd]; ok {
			c.Kind = kind
		}
		if !has(coreCallFlagsF_ATTR_FAULT) {
			c.Attr = append([]byte(nil), k.Attr[:min(int(k.AttrSize), len(k.Attr))]...)
		}
	}
	c.Stages = stages(r)
	c.Failed = spans(r)
	c.Folded = k.Nfailed - uint32(len(c.Failed))
	c.DroppedMessages = k.Messages - min(k.Messages, maxMessages)
	if tag := k.Tag; tag != [8]byte{} {
		c.Tag = tag[:]
	}
	c.Exe = exe(r.Of.Exe[:])
	c.Cgroup2 = groupOf(&r.Of.Cgroup2)
	c.Cgroup1 = groupOf(&r.Of.Cgroup1)
	if has(coreCallFlagsF_CREDS) {
		c.Creds = &trace.Creds{
			CapEffective: r.Caps, UserNSLevel: r.UsernsLevel, SeccompMode: r.Seccomp, Memlock: r.Memlock, Nofile: r.Nofile,
		}
	}
	if has(coreCallFlagsF_PROG) {
		c.Prog = &trace.Prog{
			ID: r.ProgId, Type: r.ProgType, Name: text(r.ProgName[:]), Tag: append([]byte(nil), r.ProgTag[:]...),
			JITed: has(coreCallFlagsF_PROG_JITED), Blinded: has(coreCallFlagsF_PROG_BLINDED),
			JITedLen: r.JitedLen, Len: r.ProgLen, VerifiedInsns: r.VerifiedInsns,
		}
		if has(coreCallFlagsF_BLIND_ASKED) {
			asked := has(coreCallFlagsF_PROG_BLIND_ASKED)
			c.Prog.Asked = &asked
		}
	}
	return c
}

// stages are the executions of each watched function, summed up.
func stages(r *coreCallRecord) []trace.Stage {
	var list []trace.Stage
	for i, s := range r.Call.Stages {
		// Of a function of which only failures are kept, an entry without an exit says nothing.
		open := (s.Entered != 0 || s.Missed != 0) && !isCheck(uint32(i))
		if s.Calls == 0 && s.Missed == 0 && !open {
			continue
		}
		list = append(list, trace.Stage{
			Function: functionOf(uint32(i)), Calls: s.Calls, Failed: s.Failed, First: s.First, Total: s.Total, LastRet: s.LastRet, Open: open,
		})
	}
	return list
}

// spans are the last failing executions.
func spans(r *coreCallRecord) []trace.Span {
	var list []trace.Span
	k := &r.Call
	n := min(int(k.Nfailed), len(k.Failed))
	for i := range n {
		s := k.Failed[(int(k.Nfailed)-n+i)%len(k.Failed)]
		span := trace.Span{Function: functionOf(uint32(s.Hook)), Start: s.Start, End: s.End, Ret: s.Ret, Unjited: s.Unjited != 0}
		if hasNumber(uint32(s.Hook)) {
			span.Arg = int64(int32(s.Arg)) // all are 32 bits wide, and fentry leaves garbage above them
		}
		list = append(list, span)
	}
	return list
}

func functionOf(number uint32) load.Function {
	if h := hook.Numbered(number); h != nil {
		return h.Function
	}
	return ""
}

func isCheck(number uint32) bool {
	h := hook.Numbered(number)
	return h != nil && h.Shape == hook.Check
}

// hasNumber says whether a hook's argument is a number to be told. That of a row which names none
// may be an address of the kernel.
func hasNumber(number uint32) bool {
	h := hook.Numbered(number)
	return h != nil && h.Shape == hook.Check && h.Arg != (hook.Arg{})
}

func groupOf(c *coreCgroupName) *trace.Cgroup {
	if c.Id == 0 {
		return nil
	}
	name := text(c.Name[:])
	if parent := text(c.Parent[:]); parent != "" && parent != "/" {
		name = parent + "/" + name
	}
	return &trace.Cgroup{ID: c.Id, Name: name}
}

// exe joins the parts of a path, leaf first. A path with more parts than fit begins with "…/".
func exe(parts [][40]int8) string {
	var names []string
	for i := range parts {
		p := text(parts[i][:])
		if p == "" || p == "/" {
			return join(names, "/")
		}
		names = append(names, p)
	}
	return join(names, "…/")
}

func join(leafFirst []string, root string) string {
	if len(leafFirst) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString(root)
	for i := len(leafFirst) - 1; i >= 0; i-- {
		b.WriteString(leafFirst[i])
		if i > 0 {
			b.WriteByte('/')
		}
	}
	return b.String()
}

// text reads a C string.
func text[B int8 | uint8](b []B) string {
	out := make([]byte, 0, len(b))
	for _, c := range b {
		if c == 0 {
			break
		}
		out = append(out, byte(c))
	}
	return string(out)
}
