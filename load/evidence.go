// SPDX-License-Identifier: Apache-2.0

package load

import (
	"maps"
	"strconv"
	"time"

	"github.com/bpfwhy/bpfwhy/insn"
)

// Evidence is what the rules reason from. It is not part of the JSON schema: recorded traces carry
// it in the form in which it was captured.
type Evidence struct {
	Attr []byte // union bpf_attr as submitted

	// Insns are the submitted instructions; State says how far they can be trusted.
	Insns      []insn.Instruction
	InsnsState InsnsState
	// Translated is the post-verifier code of the unit whose blinding failed (one function up to
	// 6.18, the whole program from 7.1), nil when it was not seen.
	Translated []insn.Instruction
	// What the loader passed by pointer beside the instructions, each nil when it was not copied
	// whole. License is without its NUL.
	License, BTF, FuncInfo, LineInfo []byte
	// Filter is a classic BPF filter (struct sock_filter), 8 bytes an instruction.
	Filter []byte

	Log string // the loader's log buffer, with a hole marked in its middle when it was huge
	// LogUnproven: the buffer held text before the call, and nothing shows that the kernel wrote to
	// it. Log may be of an earlier call, or the process's own.
	LogUnproven bool
	// LogStale says why a text in the buffer is known not to be of this call, and was left out of
	// Log.
	LogStale   string
	LogLevel   uint32   // as the loader asked
	LogSize    uint32   // the loader's buffer, bytes
	Messages   []string // the verifier's own words, read from the kernel when the loader passed no buffer
	FailedInsn int      // env->insn_idx when do_check failed, -1 when not seen

	Spans []Span // every failing span inside the last call, in the order of their ends
	Calls []Call // all calls of the attempt, the last one included
	Maps  []MapRef
	Lines []SourceLine // ascending by Insn

	Caps          uint64 // cap_effective
	CapsKnown     bool
	UserNSLevel   int // 0 is the initial user namespace, -1 unknown
	SeccompMode   int // 0 none, 2 filter, -1 unknown
	MemlockLimit  uint64
	NofileLimit   uint64
	LimitsKnown   bool
	EnterSeen     bool // the start of the call was seen (a seccomp denial shows only its end)
	Harden        int  // net.core.bpf_jit_harden near the time of the attempt, -1 unknown
	BlindingAsked *bool
	Sysctls       map[string]string // as read near the time of the attempt, where that was later than the profile
	Observed      map[Stage]bool    // stages that the hooks in place could see
}

// JITUsed is the name, among Evidence.Sysctls and the records of a trace, of what is no sysctl but
// changes like one: the bytes that compiled programs hold, of the budget net.core.bpf_jit_limit.
const JITUsed = "jit_used_bytes"

// InsnsState says how far Evidence.Insns can be trusted.
type InsnsState string

// InsnsVerified: the kernel's tag of the program matches the copy.
const (
	InsnsNone       InsnsState = ""
	InsnsVerified   InsnsState = "verified"
	InsnsUnverified InsnsState = "unverified" // no tag to compare with, or it differs
	InsnsTruncated  InsnsState = "truncated"
)

// Function is a kernel function (or group of functions) that capture watches.
type Function string

// The watched functions. The names are those of 6.12; other kernels' variants carry the same name.
const (
	FnSyscall     Function = "bpf"                       // __sys_bpf
	FnLoad        Function = "bpf_prog_load"             //
	FnCheck       Function = "bpf_check"                 //
	FnDoCheck     Function = "do_check_common"           //
	FnJITSubprogs Function = "jit_subprogs"              //
	FnSelect      Function = "bpf_prog_select_runtime"   //
	FnJIT         Function = "bpf_int_jit_compile"       // Ret is 0; Unjited says the program came back un-jited
	FnBlind       Function = "bpf_jit_blind_constants"   //
	FnAttach      Function = "bpf_check_attach_target"   // what a program names to attach to
	FnPatch       Function = "bpf_patch_insn_single"     // Arg is off, the failing instruction of the blinded unit
	FnModmem      Function = "bpf_jit_charge_modmem"     // JIT memory limit
	FnCapable     Function = "security_capable"          // Arg is the capability
	FnLockdown    Function = "security_locked_down"      // Arg is enum lockdown_reason
	FnLSM         Function = "security_bpf"              // Arg is the bpf command
	FnLSMLoad     Function = "security_bpf_prog_load"    // 6.9+
	FnNewFD       Function = "bpf_prog_new_fd"           //
	FnSeccomp     Function = "bpf_prog_create_from_user" // seccomp(2), prctl(PR_SET_SECCOMP)
	FnSockFilter  Function = "sk_attach_filter"          // SO_ATTACH_FILTER
	// What attaches without bpf(2), or inside it.
	FnXDPAttach  Function = "dev_xdp_attach"          // XDP, however it is attached
	FnXDPChange  Function = "dev_change_xdp_fd"       // XDP by netlink
	FnSockAttach Function = "sk_attach_bpf"           // SO_ATTACH_BPF
	FnReuseport  Function = "sk_reuseport_attach_bpf" // SO_ATTACH_REUSEPORT_EBPF
	FnTCFilter   Function = "tc_new_tfilter"          // a filter of tc by netlink
	FnSetLink    Function = "rtnl_setlink"            // what of XDP by netlink is refused before
	FnTCQdisc    Function = "tc_modify_qdisc"         // clsact, which it hangs on
	FnPerfEvent  Function = "perf_event_open"         // and PERF_EVENT_IOC_SET_BPF
	FnProbeDef   Function = "kprobe_events"           // and uprobe_events: writes to tracefs

	FnVerbose Function = "verbose"            // the verifier's messages
	FnDenied  Function = "__secure_computing" // a seccomp policy in front of bpf(2)
)

// Span is one execution of a watched function inside a call. Parent is an index into the same
// slice, -1 for none. Benign says that the failure did not make its parent fail.
type Span struct {
	Function Function
	Start    time.Duration // since the call's start
	Duration time.Duration
	Ret      int // negative errno, or 0
	Arg      int64
	Unjited  bool
	Cause    bool // the causal rule holds: it is the last failing child before its parent failed
}

// Call is one bpf(2) of an attempt. Ret is the value the call returned.
type Call struct {
	Time     time.Time
	Duration time.Duration
	Ret      int
	LogLevel uint32
	LogSize  uint32
}

// MapRef is a map that the program uses.
type MapRef struct {
	ID         uint32
	Name       string
	Type       uint32
	KeySize    uint32
	ValueSize  uint32
	MaxEntries uint32
	Flags      uint32
}

// SourceLine is one entry of the program's line_info. Insn is an 8-byte slot of the submitted
// program.
type SourceLine struct {
	Insn int
	File string
	Line int
	Col  int
	Text string
}

// Source returns the line that the instruction at slot i belongs to; ok is false when the program
// carries none.
func (e *Evidence) Source(i int) (SourceLine, bool) {
	best, ok := SourceLine{}, false
	for _, l := range e.Lines {
		if l.Insn > i {
			break
		}
		best, ok = l, true
	}
	return best, ok
}

// Settings are the sysctls as they were seen near the attempt, with what was seen of
// net.core.bpf_jit_harden. They count for more than a profile, which was read at another time.
func (e *Evidence) Settings() map[string]string {
	seen := map[string]string{}
	maps.Copy(seen, e.Sysctls)
	delete(seen, JITUsed)
	if e.Harden >= 0 {
		seen["net.core.bpf_jit_harden"] = strconv.Itoa(e.Harden)
	}
	return seen
}
