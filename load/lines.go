// SPDX-License-Identifier: Apache-2.0

package load

import "time"

// The kinds of lines that are no attempts. A reader passes over kinds that it does not know.
const (
	KindSummary Kind = "summary"
	KindLoss    Kind = "loss"
	KindHang    Kind = "hang"
)

// Summary counts attempts that were like one that was told before: the same failure of the same
// program, in the same process group, which is what runs under one name, executable, user and
// control group. The counts are of what came since the last summary of the group, so that the sum
// over all lines is what happened.
type Summary struct {
	Schema string    `json:"schema"`
	Kind   Kind      `json:"kind"` // KindSummary
	Time   time.Time `json:"time"` // when it was written
	Of     Kind      `json:"of"`   // what was attempted
	// Group is that of the attempt which was told: the same in all lines of one group.
	Group   string   `json:"group"`
	Process Process  `json:"process"` // of the last repeat
	Program *Program `json:"program,omitempty"`
	Map     *Map     `json:"map,omitempty"`
	Outcome Outcome  `json:"outcome"`
	Errno   int      `json:"errno"`
	// ErrnoName, FailedStage and Rule are those of the attempt that was told.
	ErrnoName   string `json:"errno_name,omitempty"`
	FailedStage Stage  `json:"failed_stage,omitempty"`
	Rule        string `json:"rule,omitempty"`
	// Repeats are attempts, and Retries their loaders' further calls for the same load.
	Repeats    uint64    `json:"repeats"`
	Retries    uint64    `json:"retries"`
	Incomplete uint64    `json:"incomplete"` // of Repeats, those that a loss touched
	First      time.Time `json:"first"`      // of Repeats
	Last       time.Time `json:"last"`
}

// Loss counts what was lost since the last such line.
type Loss struct {
	Schema string    `json:"schema"`
	Kind   Kind      `json:"kind"` // KindLoss
	Time   time.Time `json:"time"` // when it was written
	// Loads are failing program loads that are in no attempt and in no summary; at least so many
	// where Unknown has "failing loads".
	Loads uint64 `json:"loads"`
	// Events by what lost them, pieces of attempts that are told all the same among them.
	Events map[string]uint64 `json:"events"`
	// Unknown are counters that could not be read, or that do not say all.
	Unknown []string `json:"unknown,omitempty"`
}

// Attach is what an attempt to attach was about.
type Attach struct {
	Type    string         `json:"type,omitempty"` // BPF_x of enum bpf_attach_type, lower case: "cgroup_inet_ingress"
	Program *AttachProgram `json:"program,omitempty"`
	Target  *AttachTarget  `json:"target,omitempty"`
	Flags   uint64         `json:"flags,omitempty"`
	// Message is what the kernel said beside the errno: a netlink extack, tracefs's error_log, its
	// log.
	Message string `json:"message,omitempty"`
}

// AttachProgram is a loaded program, as far as it is known.
type AttachProgram struct {
	ID         int    `json:"id,omitempty"`
	Name       string `json:"name,omitempty"`
	Type       string `json:"type,omitempty"`
	AttachType string `json:"attach_type,omitempty"` // that it was loaded for
	Tag        string `json:"tag,omitempty"`
	// MaxCtxOffset is the end of the last bytes of its context that the program reads
	// (bpf_prog_aux.max_ctx_offset), 0 when it is not known.
	MaxCtxOffset int `json:"max_ctx_offset,omitempty"`
	// Insns are its instructions after the verifier, 0 when that is not known, and then Overrides
	// is not either: that it calls bpf_override_return.
	Insns     int  `json:"insns,omitempty"`
	Overrides bool `json:"overrides,omitempty"`
}

// AttachTarget is where a program was to be attached: a control group, a network device, a
// function, a tracepoint.
type AttachTarget struct {
	Kind   string `json:"kind"` // cgroup, netdev, netns, function, tracepoint, uprobe, perf_event, socket, map, program, and what comes
	Name   string `json:"name,omitempty"`
	Path   string `json:"path,omitempty"` // of a control group or a file
	ID     uint64 `json:"id,omitempty"`   // of a control group, ifindex, BTF id
	Offset uint64 `json:"offset,omitempty"`
	// Parent is the handle that a filter or qdisc of tc hangs on, as tc writes it: "ffff:fff2".
	Parent string `json:"parent,omitempty"`
	// Size is that of a tracepoint's record in bytes, as its format in tracefs says.
	Size int `json:"size,omitempty"`
}

// NotOpen is the name of a target whose descriptor is not open.
const NotOpen = "no open file"

// Growth is what blinding does to the submitted program, as predicted, in slots.
type Growth struct {
	Before int          `json:"before"`
	After  int          `json:"after"`
	Parts  []GrowthPart `json:"parts,omitempty"` // ascending and without gaps
}

// GrowthPart is a run of instructions that begins at slot Insn.
type GrowthPart struct {
	Insn   int `json:"insn"`
	Before int `json:"before"`
	After  int `json:"after"`
}

// Line is a line of the program's source that matters to the attempt: it grows most, or it failed.
type Line struct {
	Insn int    `json:"insn"` // its first slot
	File string `json:"file"`
	Line int    `json:"line"`
	Text string `json:"text,omitempty"`
	// Before and After are slots of the whole line, where blinding decided.
	Before int `json:"before,omitempty"`
	After  int `json:"after,omitempty"`
}

// Most that an attempt lists.
const (
	MaxGrowthParts = 400
	MaxLines       = 50
)
