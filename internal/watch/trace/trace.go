// SPDX-License-Identifier: Apache-2.0

// Package trace holds what capture saw, record by record, and the file that carries it. A recorded
// file is as good a source as a kernel: everything to the right of it is pure.
package trace

import (
	"slices"

	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// Schema names the file format: gzip (or plain) JSON Lines, a Header first, then one Record a line.
const Schema = "bpfwhy.trace/v1"

// Record is one line of a trace. Exactly one field is set.
type Record struct {
	Header  *Header  `json:"header,omitempty"`
	Begin   *Begin   `json:"begin,omitempty"`
	Call    *Call    `json:"call,omitempty"`
	Chunk   *Chunk   `json:"chunk,omitempty"`
	Message *Message `json:"say,omitempty"`
	Loss    *Loss    `json:"loss,omitempty"`
	Sysctl  *Sysctl  `json:"sysctl,omitempty"`
	Hang    *Hang    `json:"hang,omitempty"`
	End     *End     `json:"end,omitempty"`
}

// Header opens a trace.
type Header struct {
	Schema  string       `json:"schema"`
	Tool    string       `json:"tool"` // version of bpfwhy
	Node    node.Profile `json:"node"`
	Backend string       `json:"backend"`
	Hooks   []Hook       `json:"hooks"`
	// Levels are the page tables' (4, 5), by which kernel addresses were taken out as it was
	// recorded; 0: a version recorded that left them in.
	Levels int `json:"levels,omitempty"`
	// All says that healthy maps, links and other calls were recorded too, and not loads and
	// failures alone.
	All bool `json:"all,omitempty"`
	// Epoch is the wall-clock time, in ns since 1970, at which the kernel's monotonic clock read
	// zero.
	Epoch int64 `json:"epoch"`
}

// Watched reports whether a function is watched.
func (h *Header) Watched(f load.Function) bool {
	return slices.ContainsFunc(h.Hooks, func(k Hook) bool { return k.Function == f && k.Via != "" })
}

// Hook is one watched function and how it is watched.
type Hook struct {
	Function load.Function `json:"function"`
	Symbol   string        `json:"symbol,omitempty"` // the kernel's own name for it
	Via      string        `json:"via,omitempty"`    // fentry, kprobe, tracepoint, tp_btf; empty: not watched
	Why      string        `json:"why,omitempty"`    // why it is not watched
}

// CallID joins the records of one call: the thread, and the monotonic time (ns) at which the call
// began.
type CallID struct {
	TID   uint32 `json:"tid"`
	Start uint64 `json:"start"`
}

// Begin says that a program load is under way: a loader's second try at what has just failed is
// known only when it ends, and that can take seconds.
type Begin struct {
	ID   CallID `json:"id"`
	TGID uint32 `json:"tgid"`
}

// Call is one finished bpf(2), kernel-side load, or classic filter.
type Call struct {
	ID              CallID    `json:"id"`
	End             uint64    `json:"end"` // monotonic ns
	Kind            load.Kind `json:"kind"`
	Cmd             uint32    `json:"cmd"` // enum bpf_cmd
	Ret             int64     `json:"ret"` // what the kernel returned: fd or negative errno
	Flags           CallFlags `json:"flags"`
	Attr            []byte    `json:"attr,omitempty"`
	Stages          []Stage   `json:"stages,omitempty"` // one per watched function that ran
	Failed          []Span    `json:"failed,omitempty"` // failing executions, in the order of their ends
	Folded          uint32    `json:"folded,omitempty"` // failing executions that did not fit
	DroppedMessages uint32    `json:"unsaid,omitempty"` // messages of the verifier that were not copied

	TGID    uint32  `json:"tgid"`
	NSPID   uint32  `json:"nspid,omitempty"`
	UID     uint32  `json:"uid"`
	GID     uint32  `json:"gid"`
	Comm    string  `json:"comm"`
	Exe     string  `json:"exe,omitempty"`
	Runtime string  `json:"runtime,omitempty"` // load.RuntimeGo, of failed program loads
	Cgroup2 *Cgroup `json:"cgroup2,omitempty"`
	Cgroup1 *Cgroup `json:"cgroup1,omitempty"`
	Creds   *Creds  `json:"creds,omitempty"`

	Prog       *Prog  `json:"prog,omitempty"`
	Maps       []Map  `json:"maps,omitempty"`
	FailedInsn int32  `json:"failed_insn"` // -1 when not seen
	Tag        []byte `json:"tag,omitempty"`

	Attach *Attach `json:"attach,omitempty"` // of calls that attach, pin, or update a map
}

// Attach is what was seen of the program and the target of a call that attaches. Its attr says the
// rest.
type Attach struct {
	Prog *AttachProg `json:"prog,omitempty"`
	File *File       `json:"file,omitempty"` // the descriptor of the target, nil: not open, or not seen
	// Looked says that it was looked at, so that without File it was not open.
	Looked bool   `json:"looked,omitempty"`
	Device string `json:"device,omitempty"` // the name that the device has in the caller's namespace
	NetNS  uint32 `json:"netns,omitempty"`  // of the caller, where it was asked for a device
	// What follows is of calls that have no attr.
	Ifindex  uint32 `json:"ifindex,omitempty"`
	Parent   uint32 `json:"parent,omitempty"` // that a filter of tc hangs on
	Flags    uint32 `json:"flags,omitempty"`
	TargetFD int32  `json:"target_fd,omitempty"`
	ProgFD   int32  `json:"prog_fd,omitempty"`
	// Message is what the kernel said beside the errno.
	Message string `json:"message,omitempty"`
	// Lines are what it wrote to its log meanwhile, for whomever.
	Lines []string `json:"lines,omitempty"`
	Link  uint32   `json:"link,omitempty"` // the id of the link that was to be updated or pinned
	Map   *Map     `json:"map,omitempty"`  // that was to be updated, pinned, or attached
	Event *Event   `json:"event,omitempty"`
	// Function is that of a kprobe, or that the program was loaded for.
	Function string `json:"function,omitempty"`
	// Text is a path, or the name of a raw tracepoint, as the caller gave it.
	Text string `json:"text,omitempty"`
	// Symbols are the first of Count; Addresses says that they were given as numbers.
	Symbols   []string `json:"symbols,omitempty"`
	Count     uint32   `json:"count,omitempty"`
	Addresses bool     `json:"addresses,omitempty"`
	Offset    uint64   `json:"offset,omitempty"`
}

// Clip bounds what a record can make its reader hold, and returns about how many bytes it holds:
// lists and texts are as long as capture makes them.
func (a *Attach) Clip() int {
	if a == nil {
		return 0
	}
	const symbols, lines, tag, text, fixed = 16, 16, 32, 4096, 512
	a.Lines = a.Lines[:min(len(a.Lines), lines)]
	a.Symbols = a.Symbols[:min(len(a.Symbols), symbols)]
	if a.Prog != nil {
		a.Prog.Tag = a.Prog.Tag[:min(len(a.Prog.Tag), tag)]
	}
	size := fixed
	for _, s := range a.texts() {
		*s = (*s)[:min(len(*s), text)]
		size += len(*s)
	}
	return size
}

func (a *Attach) texts() []*string {
	list := []*string{&a.Device, &a.Function, &a.Text, &a.Message}
	for _, some := range [][]string{a.Symbols, a.Lines} {
		for i := range some {
			list = append(list, &some[i])
		}
	}
	if a.Prog != nil {
		list = append(list, &a.Prog.Name)
	}
	if a.Map != nil {
		list = append(list, &a.Map.Name)
	}
	if a.Event != nil {
		list = append(list, &a.Event.System, &a.Event.Name)
	}
	if a.File != nil {
		list = append(list, &a.File.FS, &a.File.Path)
	}
	return list
}

// AttachProg is the program of a call that attaches.
type AttachProg struct {
	ID         uint32 `json:"id,omitempty"`
	Type       uint32 `json:"type"`
	AttachType uint32 `json:"attach_type,omitempty"` // expected_attach_type
	Name       string `json:"name,omitempty"`
	Tag        []byte `json:"tag,omitempty"`
	// What follows is known where the kernel was read.
	MaxCtxOffset uint32 `json:"max_ctx_offset,omitempty"`
	AttachBTFID  uint32 `json:"attach_btf_id,omitempty"`
	Len          uint32 `json:"len,omitempty"`       // instructions after the verifier
	Overrides    bool   `json:"overrides,omitempty"` // calls bpf_override_return
}

// File is the open file behind a descriptor.
type File struct {
	FS        string `json:"fs"` // the type of its file system
	Path      string `json:"path,omitempty"`
	Inode     uint64 `json:"inode,omitempty"`
	Directory bool   `json:"dir,omitempty"`
	// Cgroup is the id of a control group of version 2.
	Cgroup uint64 `json:"cgroup,omitempty"`
}

// Event is an event of perf.
type Event struct {
	Type   uint32 `json:"type"`
	Config uint64 `json:"config"`
	System string `json:"system,omitempty"`
	Name   string `json:"name,omitempty"`
	// Size is that of a tracepoint's record in bytes, as its format says.
	Size uint32 `json:"size,omitempty"`
}

// CallFlags are facts about a call that are not numbers.
type CallFlags struct {
	EnterSeen  bool `json:"enter,omitempty"`
	FromKernel bool `json:"kernel,omitempty"`     // the attr is the kernel's own (light skeletons)
	ExitSeen   bool `json:"exit,omitempty"`       // false: only bpf_prog_load's own return was seen
	AttrFault  bool `json:"attr_fault,omitempty"` // the attr could not be read
	// LogDirty: the log buffer did not begin with NUL when the call began, and the kernel is not
	// known to have written to it.
	LogDirty bool `json:"log_dirty,omitempty"`
	// TagMatched: the instructions held kernel addresses, which were taken out, and matched the tag
	// before.
	TagMatched bool `json:"tag_matched,omitempty"`
}

// Stage sums up the executions of one watched function inside a call.
type Stage struct {
	Function load.Function `json:"fn"`
	Calls    uint32        `json:"calls"`
	Failed   uint32        `json:"failed,omitempty"`
	First    uint64        `json:"first"` // monotonic ns of the first start
	Total    uint64        `json:"total"` // ns, all executions
	LastRet  int32         `json:"last_ret"`
	// Open says that the start or the end of an execution was missed.
	Open bool `json:"open,omitempty"`
}

// Span is one failing execution of a watched function.
type Span struct {
	Function load.Function `json:"fn"`
	Start    uint64        `json:"start"`
	End      uint64        `json:"end"`
	Ret      int32         `json:"ret"`
	Arg      int64         `json:"arg,omitempty"`
	Unjited  bool          `json:"unjited,omitempty"`
}

// Cgroup identifies a control group.
type Cgroup struct {
	ID   uint64 `json:"id"`
	Name string `json:"name,omitempty"`
}

// Creds are the caller's rights and limits, read from its task.
type Creds struct {
	CapEffective uint64 `json:"cap_eff"`
	UserNSLevel  uint32 `json:"userns_level"`
	SeccompMode  uint32 `json:"seccomp"`
	Memlock      uint64 `json:"memlock"`
	Nofile       uint64 `json:"nofile"`
}

// Prog is the loaded program as the kernel has it.
type Prog struct {
	ID      uint32 `json:"id"`
	Type    uint32 `json:"type"`
	Name    string `json:"name,omitempty"`
	Tag     []byte `json:"tag"`
	JITed   bool   `json:"jited"`
	Blinded bool   `json:"blinded"`
	// BlindedUnknown: the program was described through its descriptor, which does not tell.
	BlindedUnknown bool   `json:"blinded_unknown,omitempty"`
	Asked          *bool  `json:"blinding_requested,omitempty"` // nil before 5.11
	JITedLen       uint32 `json:"jited_len,omitempty"`
	Len            uint32 `json:"len"`
	VerifiedInsns  uint32 `json:"verified,omitempty"`
}

// Map is a map that the verifier found in the program.
type Map struct {
	ID         uint32 `json:"id"`
	Type       uint32 `json:"type"`
	KeySize    uint32 `json:"key"`
	ValueSize  uint32 `json:"value"`
	MaxEntries uint32 `json:"max"`
	Flags      uint32 `json:"flags,omitempty"`
	Name       string `json:"name,omitempty"`
}

// What says which bytes a Chunk carries.
type What string

// The byte ranges that are copied, only on failure.
const (
	Insns      What = "insns"
	FuncInfo   What = "func_info"
	LineInfo   What = "line_info"
	BTF        What = "btf"
	Log        What = "log"
	Translated What = "translated" // post-verifier code of the unit whose blinding failed
	Filter     What = "filter"     // classic BPF
	License    What = "license"
	BTFLog     What = "btf_log"
)

// Chunk is a piece of a byte range. Total is the length of the whole range as the submitter gave
// it, which may be a lie; Offset+len(Data) < Total at the last chunk means that the copy was cut
// short (Errno says why, 0: by the cap).
type Chunk struct {
	ID     CallID `json:"id"`
	What   What   `json:"what"`
	Offset uint64 `json:"offset"`
	Total  uint64 `json:"total"`
	Errno  int    `json:"errno,omitempty"`
	Data   []byte `json:"data,omitempty"`
}

// Message is one message of the verifier to a loader that asked for no log: the format and its
// first four arguments, each with the string it points to if it is a pointer.
type Message struct {
	ID      CallID    `json:"id"`
	Format  string    `json:"format"`
	Args    [4]uint64 `json:"args"`
	Strings [4]string `json:"strings"`
}

// LostLoads is the mechanism of failing program loads that are in no record, whatever the reason.
// Others count events, which may be pieces of loads that are recorded.
const LostLoads = "failing loads"

// LostSyscalls is that of ends of system calls, of any, at which perf events and definitions of
// probes are looked for. bpf(2) is none of them.
const LostSyscalls = "recursion in task_syscall"

// Loss reports events that were lost by one mechanism (ring, inflight, recursion, kretprobe)
// between two monotonic times.
type Loss struct {
	Mechanism string `json:"mechanism"`
	Count     uint64 `json:"count"`
	// Unknown says that the counter could not be read: Count is 0 and means nothing.
	Unknown bool   `json:"unknown,omitempty"`
	From    uint64 `json:"from"`
	To      uint64 `json:"to"`
}

// Sysctl is a value that decides loads, read again when a load failed: a sysctl, or load.JITUsed.
type Sysctl struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	At    uint64 `json:"at"` // monotonic ns
}

// Hang are calls that have not come back for longer than After; none: those that were told of
// before have.
type Hang struct {
	At    uint64        `json:"at"`    // monotonic ns
	After uint64        `json:"after"` // ns
	Calls []HangingCall `json:"calls"` // the oldest first
	More  int           `json:"more,omitempty"`
}

// HangingCall is a call without an end. Functions are where it waits, the innermost first; From is
// the file of /proc that says so.
type HangingCall struct {
	ID        CallID    `json:"id"`
	TGID      uint32    `json:"tgid,omitempty"`
	Comm      string    `json:"comm,omitempty"`
	Cgroup2   *Cgroup   `json:"cgroup2,omitempty"`
	Kind      load.Kind `json:"kind"`
	Program   string    `json:"program,omitempty"`
	Functions []string  `json:"functions,omitempty"`
	From      string    `json:"from,omitempty"`
	// Earlier: it began before anybody watched; ID.Start is when that was.
	Earlier bool `json:"earlier,omitempty"`
	// Unsure: its end was not seen, and its thread could not be looked at: the call may be over.
	Unsure bool `json:"unsure,omitempty"`
}

// End closes a trace that was not cut off.
type End struct {
	Calls uint64 `json:"calls"`
	Lost  uint64 `json:"lost"`
}
