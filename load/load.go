// SPDX-License-Identifier: Apache-2.0

// Package load describes one attempt to load a program (or to create a map, a filter, a link) into
// the kernel: who tried, what was submitted, which stages were seen, and how it ended.
//
// Attempt is the noun of the whole module. Its JSON form is the schema "bpfwhy.load/v2"
// (docs/schema/load-v2.schema.json), in which further kinds of lines go with it. The package is a
// leaf: it knows instructions and nothing else.
package load

import (
	"time"
)

// Schema names the JSON form of Attempt. A change that breaks a reader changes the number. SchemaV1
// is the form before, which can still be asked for.
const (
	Schema   = "bpfwhy.load/v2"
	SchemaV1 = "bpfwhy.load/v1"
)

// Kind is what was attempted, or what a line tells that is no attempt. There will be more: a reader
// accepts kinds that it does not know.
type Kind string

// The kinds of attempts. Seccomp and SocketFilter are classic BPF and never call bpf(2).
const (
	ProgLoad     Kind = "prog_load"
	MapCreate    Kind = "map_create"
	BTFLoad      Kind = "btf_load"
	LinkCreate   Kind = "link_create"
	ProgAttach   Kind = "prog_attach"
	RawTPOpen    Kind = "raw_tracepoint_open"
	TokenCreate  Kind = "token_create"
	Seccomp      Kind = "seccomp"
	SocketFilter Kind = "socket_filter"
	OtherCommand Kind = "bpf"
)

// What comes after a load, besides LinkCreate, ProgAttach and RawTPOpen. From PerfEventOpen on they
// are no commands of bpf(2).
const (
	LinkUpdate Kind = "link_update" // BPF_LINK_UPDATE
	ObjPin     Kind = "obj_pin"     // BPF_OBJ_PIN
	MapUpdate  Kind = "map_update"  // BPF_MAP_UPDATE_ELEM, its failures alone
	// PerfEventOpen makes the event of a kprobe, a uprobe or a tracepoint; PerfEventSetBPF is the
	// ioctl(2) that gives it its program.
	PerfEventOpen   Kind = "perf_event_open"
	PerfEventSetBPF Kind = "perf_event_set_bpf"
	XDPAttach       Kind = "xdp_attach"    // by netlink; by a link it is a LinkCreate
	TCAttach        Kind = "tc_attach"     // cls_bpf and act_bpf, by netlink
	SocketAttach    Kind = "socket_attach" // SO_ATTACH_BPF and SO_ATTACH_REUSEPORT_EBPF
	ProbeDefine     Kind = "probe_define"  // a write to kprobe_events or uprobe_events of tracefs
)

// Attaches reports the kinds that attach a program, or make what it is attached to.
func (k Kind) Attaches() bool {
	switch k {
	case LinkCreate, LinkUpdate, ProgAttach, RawTPOpen:
		return true
	}
	return k.AttachesOutside()
}

// AttachesOutside reports those of them that are no commands of bpf(2).
func (k Kind) AttachesOutside() bool {
	switch k {
	case PerfEventOpen, PerfEventSetBPF, XDPAttach, TCAttach, SocketAttach, ProbeDefine:
		return true
	}
	return false
}

// Outcome is how an attempt ended.
type Outcome string

// LoadedNotJITed is a finding, not a success: the program runs in the interpreter.
const (
	Loaded         Outcome = "loaded"
	LoadedNotJITed Outcome = "loaded_not_jited"
	Failed         Outcome = "failed"
)

// Stage is one step of a load, in the order of the constants.
type Stage string

// The stages of a load. docs/stages.md says which stage each early reject belongs to.
const (
	Request    Stage = "request"    // the call itself: attr, sizes, flags, seccomp in front of bpf(2)
	Permission Stage = "permission" // capabilities, tokens, LSMs, lockdown, sysctls
	Resources  Stage = "resources"  // memory, RLIMIT_MEMLOCK
	BTF        Stage = "btf"        // BTF, func_info, line_info, CO-RE, attach target
	Verifier   Stage = "verifier"
	Blinding   Stage = "blinding" // constant blinding for net.core.bpf_jit_harden
	JIT        Stage = "jit"
	Install    Stage = "install" // id, file descriptor
)

// Stages lists all stages in causal order.
var Stages = [...]Stage{Request, Permission, Resources, BTF, Verifier, Blinding, JIT, Install}

// Result is what is known of a stage.
type Result string

// A stage that was not reached is not listed at all.
const (
	OK          Result = "ok"
	StageFailed Result = "failed"
	NotObserved Result = "not_observed"
)

// StageResult is one stage as it was seen. Errno is positive, 0 when the stage did not fail.
type StageResult struct {
	Stage      Stage         `json:"stage"`
	Result     Result        `json:"result"`
	Errno      int           `json:"errno,omitempty"`
	DurationNS time.Duration `json:"duration_ns,omitempty"`
}

// Attempt is one user-visible attempt. A loader's retries of the same load are part of it.
type Attempt struct {
	Schema      string        `json:"schema"`
	Kind        Kind          `json:"kind"`
	Time        time.Time     `json:"time"`
	DurationNS  time.Duration `json:"duration_ns"`
	Process     Process       `json:"process"`
	Program     *Program      `json:"program,omitempty"`
	Map         *Map          `json:"map,omitempty"`
	Outcome     Outcome       `json:"outcome"`
	Errno       int           `json:"errno"` // positive, of the last call, 0 when loaded
	ErrnoName   string        `json:"errno_name,omitempty"`
	Stages      []StageResult `json:"stages"`
	FailedStage Stage         `json:"failed_stage,omitempty"`
	Retries     int           `json:"retries"`
	// Incomplete says that events were lost while the attempt ran, or that a copy was cut short;
	// why is in IncompleteWhy.
	Incomplete    bool        `json:"incomplete"`
	IncompleteWhy []string    `json:"incomplete_why,omitempty"`
	VerifierLog   VerifierLog `json:"verifier_log"`
	Jump          *Jump       `json:"jump,omitempty"`
	Diagnosis     *Diagnosis  `json:"diagnosis,omitempty"`
	// Repair says that the program was loaded in another way than the loader asked for.
	Repair *Repair `json:"repair,omitempty"`
	Replay *Replay `json:"replay,omitempty"`
	// Backend is how it was watched: fentry, kprobe, tracepoint, tp_btf, or none for a prediction.
	Backend string `json:"backend,omitempty"`
	// FeatureProbe names the loader's feature probe that this attempt was recognised as ("" if
	// none).
	FeatureProbe string `json:"feature_probe,omitempty"`
	// Group is the same in attempts that are alike, and in the summaries that count them; only of
	// findings.
	Group  string  `json:"group,omitempty"`
	Attach *Attach `json:"attach,omitempty"`
	Growth *Growth `json:"growth,omitempty"`
	Lines  []Line  `json:"lines,omitempty"`
	// KernelLog is what the kernel wrote to its log meanwhile. It may be about something else.
	KernelLog []string `json:"kernel_log,omitempty"`

	Evidence Evidence `json:"-"`
}

// Process is the thread that made the call, as it was at that moment.
type Process struct {
	PID       int      `json:"pid"` // in the initial pid namespace
	TID       int      `json:"tid"`
	PIDInNS   int      `json:"pid_in_ns,omitempty"` // in its own pid namespace
	UID       int      `json:"uid"`
	GID       int      `json:"gid"`
	Comm      string   `json:"comm"`
	Exe       string   `json:"exe,omitempty"`
	Cgroups   []Cgroup `json:"cgroups,omitempty"`
	Container string   `json:"container,omitempty"`
	// Runtime is RuntimeGo where the executable is known to be in Go. Empty: it is not, or not
	// known.
	Runtime string `json:"runtime,omitempty"`
}

// RuntimeGo: the executable was linked by Go's toolchain.
const RuntimeGo = "go"

// Cgroup is one control group of a process: of the v2 hierarchy, or of the v1 memory controller.
type Cgroup struct {
	Version int    `json:"version"` // 1 or 2
	ID      uint64 `json:"id"`
	Name    string `json:"name,omitempty"` // last path elements
}

// Program is the program of an attempt. It is always present for prog_load.
type Program struct {
	Name       string `json:"name"`
	Type       string `json:"type"` // as BPF_PROG_TYPE_x, lower case, without the prefix: "socket_filter"
	AttachType string `json:"attach_type,omitempty"`
	Insns      int    `json:"insns"` // 8-byte slots submitted
	License    string `json:"license,omitempty"`
	// The rest is known when the program was loaded.
	ID            int    `json:"id,omitempty"`
	Tag           string `json:"tag,omitempty"` // hex
	JITed         *bool  `json:"jited,omitempty"`
	Blinded       *bool  `json:"blinded,omitempty"`
	JITedBytes    int    `json:"jited_bytes,omitempty"`
	VerifiedInsns int    `json:"verified_insns,omitempty"` // instructions the verifier walked (5.16+)
}

// Map is the map of a map_create.
type Map struct {
	Name       string `json:"name"`
	Type       string `json:"type"`
	KeySize    uint32 `json:"key_size"`
	ValueSize  uint32 `json:"value_size"`
	MaxEntries uint32 `json:"max_entries"`
	Flags      uint32 `json:"flags"`
}

// LogOrigin says whose words a verifier log is.
type LogOrigin string

// LogKernel: the loader passed no buffer; the lines were read from the verifier itself. LogReplay:
// nobody had them; they are of a second load of the captured program.
const (
	LogLoader LogOrigin = "loader"
	LogKernel LogOrigin = "kernel"
	LogReplay LogOrigin = "replay"
	LogNone   LogOrigin = "none"
)

// VerifierLog is what is shown of the verifier's log: the last lines, control characters made
// visible.
type VerifierLog struct {
	Origin    LogOrigin `json:"origin"`
	Lines     []string  `json:"lines,omitempty"`
	Truncated bool      `json:"truncated"`
}

// Jump is a jump that constant blinding breaks. From and To are 8-byte slots of the submitted
// program.
type Jump struct {
	From       int    `json:"from"`
	To         int    `json:"to"`
	FromSource string `json:"from_source,omitempty"` // file:line
	ToSource   string `json:"to_source,omitempty"`
	FromText   string `json:"from_text,omitempty"` // the line of source
	ToText     string `json:"to_text,omitempty"`
	Insn       string `json:"insn,omitempty"` // disassembled
	Need       int    `json:"need"`           // the offset it needs after blinding
	Limit      int    `json:"limit"`          // 32767 or -32768
	// Growth of the blinded unit (function, or whole program from 7.1) in slots, before and after.
	Before int `json:"before,omitempty"`
	After  int `json:"after,omitempty"`
	// Approximate says that From and To were mapped back from post-verifier code by alignment and
	// may be off by a few slots.
	Approximate bool `json:"approximate,omitempty"`
}

// What 'bpfwhy run --repair' does to a program that would not load.
const (
	// RepairIslands: jumps that blinding makes too long hop over islands.
	RepairIslands = "islands"
	// RepairWindow: net.core.bpf_jit_harden was lowered from 2 to 1 for a moment (--harden-window).
	RepairWindow = "harden_window"
)

// Repair is what was done to load a program that would not have loaded, or not have been compiled.
// The attempt's instructions are those submitted; ID and tag are those of the program that was
// loaded.
type Repair struct {
	Applied    string `json:"applied"`
	Islands    int    `json:"islands"`
	InsnsAdded int    `json:"insns_added"` // slots, islands included
	// WindowNS is how long hardening was lowered, and Exposed are the ids of the programs that
	// others loaded around that time.
	WindowNS time.Duration `json:"window_ns,omitempty"`
	Exposed  []uint32      `json:"exposed,omitempty"`
	// WholeCall says that this was the whole load, because the kernel reads the setting late
	// (before 6.1).
	WholeCall bool `json:"whole_call,omitempty"`
}

// HowKnown says how a diagnosis is known, strongest first.
type HowKnown string

// Observed: a kernel hook saw it. Reproduced: the captured program was loaded again. Inferred:
// derived from the captured program, sysctls and the kernel's configuration. Predicted: from an
// object file alone.
const (
	Observed   HowKnown = "observed"
	Reproduced HowKnown = "reproduced"
	Inferred   HowKnown = "inferred"
	Predicted  HowKnown = "predicted"
)

// Diagnosis says why an attempt failed and what can be done. Rule is a stable id such as
// "BLIND001", or "UNKNOWN".
type Diagnosis struct {
	Rule  string `json:"rule"`
	Title string `json:"title"`
	// Danger says, before all else, what running the program may do to the machine. Empty as a
	// rule.
	Danger       string        `json:"danger,omitempty"`
	Cause        string        `json:"cause"`
	HowKnown     HowKnown      `json:"how_known"`
	Evidence     []string      `json:"evidence"`
	Alternatives []Alternative `json:"alternatives,omitempty"`
	Remedies     []Remedy      `json:"remedies,omitempty"`
}

// Alternative is another cause that the same evidence fits.
type Alternative struct {
	Rule  string `json:"rule"`
	Title string `json:"title"`
	Why   string `json:"why"`
}

// Remedy is one thing to do, with what it costs.
type Remedy struct {
	ID      string `json:"id"`
	Title   string `json:"title"`
	Price   string `json:"price"`
	Command string `json:"command,omitempty"`
}

// Finding reports whether the attempt is something a user should see: a failure that is not a
// loader's feature probe, a program that loaded without being compiled, or what succeeded and has a
// diagnosis all the same.
func (a *Attempt) Finding() bool {
	return a.FeatureProbe == "" && (a.Outcome != Loaded || a.Diagnosis != nil)
}

// Stage returns what is known of a stage, and whether it is listed at all.
func (a *Attempt) Stage(s Stage) (StageResult, bool) {
	for _, r := range a.Stages {
		if r.Stage == s {
			return r, true
		}
	}
	return StageResult{}, false
}
