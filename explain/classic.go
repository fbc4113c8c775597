// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
)

func classicRules() []Rule {
	return []Rule{cbpf001(), cbpf002(), cbpf003()}
}

func cbpf001() Rule {
	return Rule{
		ID:    "CBPF001",
		Title: "The classic filter is not valid",
		Class: "R6",
		Stage: load.Verifier,
		Text: `A classic filter (seccomp, SO_ATTACH_FILTER) has 1 to 4096 instructions.
It jumps only forward and only inside itself, ends with a return, and does not divide by the
constant zero. Seccomp allows less: only words of the call's data at multiples of four, and no
packet loads.`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:    "libseccomp",
				Title: "Let a library make the filter (libseccomp, libpcap)",
				Price: "A dependency.",
			},
		},
		Match: func(f *Facts) *Match {
			if !f.isClassic() || !f.failed() || f.errno() != abi.EINVAL {
				return nil
			}
			m := &Match{Strength: Possible, How: load.Inferred, Cause: "The checker of classic BPF does not accept the filter.",
				Why: "nothing is seen to be wrong with the filter; " + f.classicRequest()}
			if f.text != nil {
				m.Why = "a filter that is not valid gets this answer: an instruction that classic BPF does not have, a jump out of bounds or backwards, no return at the end"
			}
			n := len(f.ev.Filter) / 8
			if n > 0 {
				m.Evidence = append(m.Evidence, fmt.Sprintf("the filter has %d instructions", n))
			}
			if why := classicDefect(f.ev.Filter, f.kind() == load.Seccomp); why != "" && n > 0 {
				m.Strength = Strong
				m.Cause = "The checker of classic BPF does not accept the filter: " + why + "."
			}
			for _, fn := range []load.Function{load.FnSeccomp, load.FnSockFilter} {
				if s := f.failing(fn); s != nil {
					m.Strength, m.How = max(m.Strength, Likely), load.Observed
					m.Evidence = append(m.Evidence, fmt.Sprintf("%s returned %d (%s)", fn, s.Ret, errnoName(-s.Ret)))
				}
			}
			return m
		},
	}
}

func cbpf002() Rule {
	return Rule{
		ID:    "CBPF002",
		Title: "The filter may not be installed by this process",
		Class: "R1",
		Stage: load.Permission,
		Text: `A seccomp filter needs no_new_privs or CAP_SYS_ADMIN, so that it cannot be
used against set-user-id programs. Without both, the answer is EACCES. A socket whose filter is
locked (SO_LOCK_FILTER) takes no other filter (EPERM).`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:      "no-new-privs",
				Title:   "Set no_new_privs before the filter",
				Price:   "Set-user-id programs started from here gain nothing.",
				Command: "prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)",
			},
			{
				ID:    "new-socket",
				Title: "Attach the filter before the socket is locked, or to a new socket",
				Price: "A lock cannot be taken back; that is what it is for.",
			},
		},
		Match: func(f *Facts) *Match {
			if !f.isClassic() || !f.failed() {
				return nil
			}
			m := &Match{Strength: Likely, How: load.Inferred}
			switch {
			case f.kind() == load.Seccomp && f.errno() == abi.EACCES:
				m.Cause = "The process has neither no_new_privs nor CAP_SYS_ADMIN."
				m.Without = append(m.Without, "new-socket")
			case f.kind() == load.SocketFilter && f.errno() == abi.EPERM:
				m.Cause = "The socket's filter was locked by SO_LOCK_FILTER."
				m.Without = append(m.Without, "no-new-privs")
				if s := f.failing(load.FnSockFilter); s != nil {
					m.How = load.Observed
					m.Evidence = append(m.Evidence, fmt.Sprintf("%s returned %d (%s)", s.Function, s.Ret, errnoName(-s.Ret)))
				} else {
					m.Strength = Possible
					m.Why = "a locked filter answers so; a security module, a seccomp policy, or a BPF program on the cgroup's setsockopt would too"
				}
			default:
				return nil
			}
			return m
		},
	}
}

func cbpf003() Rule {
	return Rule{
		ID:      "CBPF003",
		Title:   "The kernel could not read the filter",
		Class:   "R6",
		Stage:   load.Request,
		Text:    `The filter's address or length is wrong: the kernel could not copy the instructions (EFAULT).`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:    "fix-pointer",
				Title: "Check the pointer and the length in struct sock_fprog",
				Price: "Nothing.",
			},
		},
		Match: func(f *Facts) *Match {
			if !f.isClassic() || !f.failed() || f.errno() != abi.EFAULT {
				return nil
			}
			return &Match{Strength: Strong, How: load.Inferred, Cause: "The filter's instructions cannot be read at the address that the process gave."}
		},
	}
}

// classicRequest names what else EINVAL may be about.
func (f *Facts) classicRequest() string {
	if f.kind() == load.Seccomp {
		return "the flags of seccomp(2), which were not captured, get the same answer"
	}
	return "the length given to setsockopt(2), which was not captured, gets the same answer"
}

// Opcodes of classic BPF, as bpf_check_classic and seccomp_check_filter have them
// (net/core/filter.c, kernel/seccomp.c).
const (
	cbpfLoadWord = 0x20 // at an absolute offset
	cbpfDivK     = 0x34
	cbpfLshK     = 0x64
	cbpfRshK     = 0x74
	cbpfModK     = 0x94
	cbpfJA       = 0x05
	cbpfMemory   = 16 // words
	seccompData  = 64 // bytes of struct seccomp_data
)

var (
	cbpfEverywhere = []uint16{
		0x04, 0x0c, 0x14, 0x1c, 0x24, 0x2c, cbpfDivK, 0x3c, 0x44, 0x4c, 0x54, 0x5c, cbpfLshK, 0x6c, cbpfRshK, 0x7c, 0x84, 0xa4, 0xac,
		cbpfLoadWord, 0x80, 0x81, 0x00, 0x01, 0x60, 0x61, 0x02, 0x03, 0x07, 0x87, 0x06, 0x16,
		cbpfJA, 0x15, 0x1d, 0x25, 0x2d, 0x35, 0x3d, 0x45, 0x4d,
	}
	cbpfPackets = []uint16{cbpfModK, 0x9c, 0x28, 0x30, 0x40, 0x48, 0x50, 0xb1}
	cbpfStores  = []uint16{0x60, 0x61, 0x02, 0x03}
)

// classicDefect says what is wrong with a classic filter, empty when nothing
// is found. It looks for what the kernel's checkers refuse in single instructions.
//
//revive:disable-next-line:cyclomatic the checks of two kernel functions, in their order
func classicDefect(filter []byte, seccomp bool) string {
	n := len(filter) / 8
	if n > 4096 {
		return fmt.Sprintf("it has %d instructions, more than 4096", n)
	}
	const classMask, classJMP, classRET = 0x07, 0x05, 0x06
	for i := range n {
		b := filter[i*8:]
		code := binary.LittleEndian.Uint16(b)
		jt, jf, k := int(b[2]), int(b[3]), binary.LittleEndian.Uint32(b[4:])
		packet := slices.Contains(cbpfPackets, code)
		switch {
		case packet && seccomp:
			return fmt.Sprintf("instruction %d has the opcode %#x, which seccomp does not allow", i, code)
		case !packet && !slices.Contains(cbpfEverywhere, code):
			return fmt.Sprintf("instruction %d has the opcode %#x, which classic BPF does not have", i, code)
		case seccomp && code == cbpfLoadWord && (k >= seccompData || k%4 != 0):
			return fmt.Sprintf("instruction %d loads at %d, where no word of the call's data is", i, k)
		case slices.Contains(cbpfStores, code) && k >= cbpfMemory:
			return fmt.Sprintf("instruction %d uses word %d of the %d words of memory", i, k, cbpfMemory)
		case (code == cbpfLshK || code == cbpfRshK) && k >= 32:
			return fmt.Sprintf("instruction %d shifts 32 bits by %d", i, k)
		case code == cbpfJA && uint64(k) >= uint64(n-i-1):
			return fmt.Sprintf("the jump at %d leaves the filter", i)
		case code&classMask == classJMP && code != cbpfJA && (i+1+jt >= n || i+1+jf >= n):
			return fmt.Sprintf("the jump at %d leaves the filter", i)
		case (code == cbpfDivK || code == cbpfModK) && k == 0:
			return fmt.Sprintf("instruction %d divides by zero", i)
		case i == n-1 && code&classMask != classRET:
			return "its last instruction is not a return"
		}
	}
	return ""
}
