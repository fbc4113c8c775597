// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/sys/freeing"
	"github.com/bpfwhy/bpfwhy/internal/watch/redact"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/node"
	"golang.org/x/sys/unix"
)

// Row is one behaviour of this kernel: what the table of releases says of it, and what was seen.
type Row struct {
	Name  node.Behaviour `json:"name"`
	Table string         `json:"table"` // yes, no, unknown
	Seen  string         `json:"seen"`
	How   string         `json:"how"` // what was tried and what came of it, or why nothing was
}

// ProofSchema names the JSON form of Proof. A change that breaks a reader changes the number.
const ProofSchema = "bpfwhy.prove/v1"

// Proof is what 'bpfwhy doctor --prove' writes down (docs/schema/prove-v1.schema.json). It holds
// neither addresses of the kernel nor names of hosts.
type Proof struct {
	Schema string        `json:"schema"`
	Bpfwhy string        `json:"bpfwhy"` // the version that wrote it
	Node   node.Document `json:"node"`   // with what was proven: node.Decode reads it from here
	Hooks  []trace.Hook  `json:"hooks"`
	Rows   []Row         `json:"rows"`
}

// Encode writes the record. Its sentences come from many places, some from the kernel: addresses
// are taken out of every string, and the name of the host out of every sentence.
func (p Proof) Encode(host string) ([]byte, error) {
	b, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	var doc any
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&doc); err != nil {
		return nil, err
	}
	name := regexp.MustCompile(`(?i)\b` + regexp.QuoteMeta(cmp.Or(host, "localhost")) + `\b`)
	b, err = json.MarshalIndent(cleaned(doc, "", name), "", " ")
	return append(b, '\n'), err
}

// cleaned is a value of a record, below its key, without addresses and the host's name. What
// uname(2) and /etc/os-release say of the kernel stays, and so does what is no sentence.
func cleaned(v any, key string, host *regexp.Regexp) any {
	switch v := v.(type) {
	case map[string]any:
		for k, w := range v {
			v[k] = cleaned(w, k, host)
		}
	case []any:
		for i, w := range v {
			v[i] = cleaned(w, key, host)
		}
	case string:
		b := []byte(v)
		redact.Free(b)
		s := string(b)
		if strings.ContainsAny(s, " /") && !slices.Contains([]string{"release", "version", "distro", "schema"}, key) {
			s = host.ReplaceAllLiteralString(s, "(host)")
		}
		return s
	}
	return v
}

// sight is what one try has shown. The zero answer is unknown.
type sight struct {
	answer node.Answer
	how    string
}

// Prove tries this kernel's behaviours, writes what it saw into p.Proven, and returns the rows. It
// loads programs whose fate tells, and closes each at once: none is ever run or attached. p should
// be fresh; what p says of net.core.bpf_jit_harden decides which tries of blinding can be made. It
// needs CAP_BPF.
func Prove(ctx context.Context, p *node.Profile) []Row {
	t := tries{p: p, bound: new(freeing.Bound)}
	var rows []Row
	Blinding(p)
	for _, b := range node.Behaviours() {
		s := sight{how: "not tried: no load of ours tells"}
		if try, ok := proofs[b]; ok {
			if ctx.Err() != nil {
				s.how = "not tried: interrupted"
			} else if t.err != nil {
				s.how = "not tried: " + t.err.Error()
			} else {
				s = try(&t)
			}
		}
		rows = append(rows, Row{b, p.Dated(b).String(), s.answer.String(), s.how})
		if s.answer != node.Unknown {
			if p.Proven == nil {
				p.Proven = map[node.Behaviour]node.Proof{}
			}
			p.Proven[b] = node.Proof{Does: s.answer == node.Yes, Seen: s.how}
		}
	}
	return rows
}

var proofs = map[node.Behaviour]func(*tries) sight{
	node.MillionInstructions: func(t *tries) sight {
		return t.taken("a program of 4,097 instructions", abi.ProgLoad{ProgType: abi.ProgTypeSocketFilter}, plain(4097), unix.E2BIG)
	},
	node.BoundedLoops: func(t *tries) sight {
		return t.taken("a loop of two rounds", abi.ProgLoad{ProgType: abi.ProgTypeSocketFilter}, loop(1), unix.EINVAL)
	},
	node.LoadAcquire: func(t *tries) sight {
		return t.taken("a load-acquire", abi.ProgLoad{ProgType: abi.ProgTypeSocketFilter}, acquire(), unix.EINVAL)
	},
	node.LogWithoutBuffer: func(t *tries) sight {
		return t.taken("a log level without a buffer", abi.ProgLoad{ProgType: abi.ProgTypeSocketFilter, LogLevel: 1}, plain(2), unix.EINVAL)
	},
	node.SmallLog: func(t *tries) sight {
		log := make([]byte, 64)
		a := t.load(abi.ProgLoad{ProgType: abi.ProgTypeSocketFilter}, plain(2), log)
		const what = "a log buffer of 64 bytes"
		if a.errno == unix.ENOSPC { // the log is longer, and was begun
			return sight{node.Yes, what + ": " + a.String()}
		}
		return a.sight(what, unix.EINVAL)
	},
	node.BlindsWholeProgram: func(t *tries) sight {
		if b := t.p.Blinding; b != nil {
			return sight{node.Known(b.WholeProgram), b.From}
		}
		return sight{how: t.p.Unknown["blinding"]}
	},
	node.RefusesJITOnly: func(t *tries) sight {
		if i := t.p.Interpreter; i != nil {
			return sight{node.Known(i.Refuses), i.From}
		}
		return sight{how: t.p.Unknown["interpreter"]}
	},
	node.HardenSparesCapBPF: (*tries).spared,
	node.AlwaysFallsBack:    (*tries).fallsBack,
	node.ChecksWrap:         (*tries).checksWrap,
}

// tries are loads of this process.
type tries struct {
	p     *node.Profile
	bound *freeing.Bound
	err   error // nothing more is loaded
}

// outcome is what came of a load.
type outcome struct {
	errno unix.Errno
	jited bool
}

func (o outcome) String() string {
	switch {
	case o.errno != 0:
		return fmt.Sprintf("refused with %d (%s)", int(o.errno), abi.ErrnoName(int(o.errno)))
	case o.jited:
		return "loaded and compiled"
	}
	return "loaded, not compiled"
}

// sight is that of a load which the kernel takes, or refuses with one errno.
func (o outcome) sight(what string, refusal unix.Errno) sight {
	s := sight{how: what + ": " + o.String()}
	switch o.errno {
	case 0:
		s.answer = node.Yes
	case refusal:
		s.answer = node.No
	}
	return s
}

func (t *tries) taken(what string, at abi.ProgLoad, prog []insn.Instruction, refusal unix.Errno) sight {
	return t.load(at, prog, nil).sight(what, refusal)
}

func (t *tries) load(at abi.ProgLoad, prog []insn.Instruction, log []byte) outcome {
	var o outcome
	fd, errno := open(at, prog, log)
	if o.errno = errno; errno == 0 {
		o.jited = compiled(fd)
		unix.Close(fd)
	}
	if err := t.bound.Closed(); err != nil && t.err == nil {
		t.err = err
	}
	return o
}

const errNotSupp = unix.Errno(abi.ENOTSUPP)

// compiled reads jited_prog_len of struct bpf_prog_info.
func compiled(fd int) bool {
	var info struct {
		typ, id uint32
		tag     [8]byte
		jited   uint32
	}
	at := struct {
		fd, size uint32
		info     uint64
	}{uint32(fd), uint32(unsafe.Sizeof(info)), 0}
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&info)
	at.info = uint64(uintptr(unsafe.Pointer(&info)))
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_OBJ_GET_INFO_BY_FD, uintptr(unsafe.Pointer(&at)), unsafe.Sizeof(at))
	return errno == 0 && info.jited > 0
}

// hardened says why blinding cannot be seen at work, "" where all programs are blinded.
func (t *tries) hardened() string {
	h, ok := t.p.Sysctl("net.core.bpf_jit_harden")
	switch on, known := t.p.Sysctl("net.core.bpf_jit_enable"); {
	case known && on == 0:
		return "not tried: net.core.bpf_jit_enable is 0"
	case !ok:
		return "not tried: net.core.bpf_jit_harden is not known"
	case h != 2:
		return fmt.Sprintf("not tried: net.core.bpf_jit_harden is %d, and 2 is needed (--allow-sysctl)", h)
	}
	return ""
}

func (t *tries) fallsBack() sight {
	if why := t.hardened(); why != "" {
		return sight{how: why}
	}
	if on, known := t.p.JITAlwaysOn(); on {
		return sight{how: "not tried: the kernel has no interpreter (CONFIG_BPF_JIT_ALWAYS_ON)"}
	} else if !known {
		return sight{how: "not tried: whether the kernel has an interpreter is not known"}
	}
	o := t.load(abi.ProgLoad{ProgType: abi.ProgTypeSocketFilter}, farForward(), nil)
	s := sight{how: "a program that cannot be blinded: " + o.String()}
	switch {
	case o.errno == errNotSupp:
		s.answer = node.No
	case o.errno == 0 && !o.jited:
		s.answer = node.Yes
	}
	return s
}

// checksWrap loads a program with a jump that would wrap. What the kernel makes of it jumps to
// another place of the program, and is closed.
func (t *tries) checksWrap() sight {
	if why := t.hardened(); why != "" {
		return sight{how: why}
	}
	wraps, fits := wrapping()
	if o := t.load(abi.ProgLoad{ProgType: abi.ProgTypeSocketFilter}, fits, nil); o.errno != 0 || !o.jited {
		return sight{how: "not tried: the same program with a jump that fits: " + o.String()}
	}
	o := t.load(abi.ProgLoad{ProgType: abi.ProgTypeSocketFilter}, wraps, nil)
	s := sight{how: "a program with a jump that would wrap: " + o.String()}
	switch {
	case o.errno == 0 && o.jited:
		s.answer = node.No
	case o.errno == 0, o.errno == errNotSupp, o.errno == unix.EINVAL, o.errno == unix.ENOMEM:
		s.answer = node.Yes
	}
	return s
}

// spared loads what cannot be blinded, as a loader with CAP_BPF alone, at 1.
func (t *tries) spared() sight {
	if h, ok := t.p.Sysctl("net.core.bpf_jit_harden"); !ok || h != 1 {
		return sight{how: "not tried: net.core.bpf_jit_harden is not 1"}
	}
	done := make(chan outcome)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread, which has lost a capability, ends with the goroutine
		var o outcome
		if o.errno = dropSysAdmin(); o.errno == 0 {
			o = t.load(abi.ProgLoad{ProgType: abi.ProgTypeSocketFilter}, farForward(), nil)
		}
		done <- o
	}()
	o := <-done
	s := sight{how: "a program that cannot be blinded, by a loader with CAP_BPF and without CAP_SYS_ADMIN: " + o.String()}
	switch {
	case o.errno == 0:
		s.answer = node.Known(o.jited)
	case o.errno == errNotSupp:
		s.answer = node.No
	}
	return s
}

// dropSysAdmin takes CAP_SYS_ADMIN out of this thread's effective capabilities.
func dropSysAdmin() unix.Errno {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err := unix.Capget(&header, &data[0])
	if err == nil {
		data[0].Effective &^= uint32(abi.CapSet(abi.CapSysAdmin))
		err = unix.Capset(&header, &data[0])
	}
	var errno unix.Errno
	errors.As(err, &errno)
	return errno
}

// The programs. Registers 3 and 4 are numbers in all of them, and most instructions hold no
// constant, so that blinding is quick.
var (
	number3  = insn.Instruction{Code: insn.ClassALU64 | insn.OpMOV, Dst: 3}
	number4  = insn.Instruction{Code: insn.ClassALU64 | insn.OpMOV, Dst: 4}
	addX     = insn.Instruction{Code: insn.ClassALU64 | insn.OpADD | insn.SourceX, Dst: 3, Src: 4}
	addK     = insn.Instruction{Code: insn.ClassALU64 | insn.OpADD, Dst: 3, Imm: 7}
	return0  = insn.Instruction{Code: insn.ClassALU64 | insn.OpMOV}
	exit     = insn.Instruction{Code: insn.OpcodeExit}
	constant = 30 // instructions with one, in a body
)

// body is n instructions, of which some grow.
func body(n int) []insn.Instruction {
	out := make([]insn.Instruction, n)
	for i := range out {
		out[i] = addX
		if i < constant {
			out[i] = addK
		}
	}
	return out
}

// plain is a program of n instructions.
func plain(n int) []insn.Instruction {
	out := make([]insn.Instruction, n)
	for i := range out {
		out[i] = return0
	}
	out[n-1] = exit
	return out
}

func acquire() []insn.Instruction {
	return []insn.Instruction{
		{Code: insn.ClassST | insn.ModeMEM | insn.SizeDW, Dst: insn.RegFP, Off: -8},
		{Code: insn.ClassSTX | insn.ModeATOMIC | insn.SizeDW, Dst: 1, Src: insn.RegFP, Off: -8, Imm: insn.AtomicLoadAcq},
		return0, exit,
	}
}

// farForward jumps over a body that blinding makes too long for it.
func farForward() []insn.Instruction {
	const length = blinding.MaxOffset - 20
	prog := []insn.Instruction{
		number3, number4,
		{Code: insn.ClassLDX | insn.ModeMEM | insn.SizeW, Dst: 2, Src: 1}, // skb->len, which nobody knows
		{Code: insn.ClassJMP | insn.OpJEQ | insn.SourceX, Dst: 2, Src: 3, Off: length},
	}
	return append(append(prog, body(length)...), return0, exit)
}

// loop goes twice over a body of n instructions.
func loop(n int) []insn.Instruction {
	prog := []insn.Instruction{number3, number4, {Code: insn.ClassALU64 | insn.OpMOV, Dst: 5}}
	top := len(prog)
	prog = append(prog, insn.Instruction{Code: insn.ClassALU64 | insn.OpADD, Dst: 5, Imm: 1})
	prog = append(prog, body(n)...)
	prog = append(prog, insn.Instruction{Code: insn.ClassJMP | insn.OpJNE, Dst: 5, Imm: 2, Off: int16(top - len(prog) - 1)})
	if n > constant { // where a jump that has wrapped goes to must be in the program
		prog = append(prog, slices.Repeat([]insn.Instruction{addX}, blinding.MaxOffset+500)...)
	}
	// Nothing behind the jump grows: there the kernel would look at it again.
	return append(prog, insn.Instruction{Code: insn.ClassALU64 | insn.OpMOV | insn.SourceX, Src: 4}, exit)
}

// wrapping makes a program whose loop wraps where the kernel does not look, and one that just fits.
func wrapping() (wraps, fits []insn.Instruction) {
	n := blinding.MaxOffset - 2*constant - 20
	for ; ; n++ {
		prog := loop(n)
		v, err := blinding.Check(prog, blinding.Kernel{})
		if err != nil || !v.Fits {
			if err == nil && v.Wraps {
				wraps = prog
			}
			return wraps, fits
		}
		fits = prog
	}
}
