// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"encoding/binary"
	"fmt"

	"github.com/bpfwhy/bpfwhy/load"
)

func classicRules() []Rule {
	return []Rule{
		{
			ID:    "CBPF001",
			Title: "The classic filter is not valid",
			Class: "R6",
			Stage: load.Verifier,
			Text: `A classic filter (seccomp, SO_ATTACH_FILTER) has 1 to 4096 instructions, jumps forward only and to places inside itself, ends with a
return, and divides by no constant zero. Seccomp allows a subset: words of the call's data at multiples of four, and no packet loads.`,
			Kernels: "All.",
			Remedies: []load.Remedy{
				{
					ID:    "libseccomp",
					Title: "Let a library make the filter (libseccomp, libpcap)",
					Price: "A dependency.",
				},
			},
			Match: func(f *Facts) *Match {
				if !f.isClassic() || !f.failed() || f.errno() != errEINVAL {
					return nil
				}
				m := &Match{Strength: Likely, How: load.Inferred, Cause: "The checker of classic BPF does not accept the filter."}
				n := len(f.ev.Filter) / 8
				if n > 0 {
					m.Evidence = append(m.Evidence, fmt.Sprintf("the filter has %d instructions", n))
				}
				if why := classicDefect(f.ev.Filter); why != "" && n > 0 {
					m.Strength = Strong
					m.Cause = "The checker of classic BPF does not accept the filter: " + why + "."
				}
				for _, fn := range []load.Function{load.FnSeccomp, load.FnSockFilter} {
					if s := f.failing(fn); s != nil {
						m.How = load.Observed
						m.Evidence = append(m.Evidence, fmt.Sprintf("%s returned %d (%s)", fn, s.Ret, errnoName(-s.Ret)))
					}
				}
				return m
			},
		},
		{
			ID:    "CBPF002",
			Title: "The filter may not be installed by this process",
			Class: "R1",
			Stage: load.Permission,
			Text: `A seccomp filter needs no_new_privs, so that it cannot be used against set-user-id programs, or CAP_SYS_ADMIN (EACCES without). A socket
whose filter was locked (SO_LOCK_FILTER) takes no other one (EPERM).`,
			Kernels: "All.",
			Remedies: []load.Remedy{
				{
					ID:      "no-new-privs",
					Title:   "Set no_new_privs before the filter",
					Price:   "Set-user-id programs started from here gain nothing.",
					Command: "prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)",
				},
			},
			Match: func(f *Facts) *Match {
				if !f.isClassic() || !f.failed() {
					return nil
				}
				m := &Match{Strength: Likely, How: load.Inferred}
				switch {
				case f.kind() == load.Seccomp && f.errno() == errEACCES:
					m.Cause = "The process has neither no_new_privs nor CAP_SYS_ADMIN."
				case f.kind() == load.SocketFilter && f.errno() == errEPERM:
					m.Cause = "The socket's filter was locked by SO_LOCK_FILTER."
					m.Without = append(m.Without, "no-new-privs")
				default:
					return nil
				}
				return m
			},
		},
		{
			ID:      "CBPF003",
			Title:   "The kernel could not read the filter",
			Class:   "R6",
			Stage:   load.Request,
			Text:    `The filter's address or length is wrong: the kernel could not copy the instructions (EFAULT).`,
			Kernels: "All.",
			Remedies: []load.Remedy{
				{
					ID:    "fix-pointer",
					Title: "Look at the pointer and length in struct sock_fprog",
					Price: "Nothing.",
				},
			},
			Match: func(f *Facts) *Match {
				if !f.isClassic() || !f.failed() || f.errno() != errEFAULT {
					return nil
				}
				return &Match{Strength: Strong, How: load.Inferred, Cause: "The filter's instructions cannot be read at the address that the process gave."}
			},
		},
	}
}

// classicDefect says what is wrong with a classic filter, empty when nothing
// is found. It looks for what the kernel's checker refuses in every filter.
func classicDefect(filter []byte) string {
	n := len(filter) / 8
	if n > 4096 {
		return fmt.Sprintf("it has %d instructions, more than 4096", n)
	}
	const (
		classMask, classJMP, classRET = 0x07, 0x05, 0x06
		ja                            = 0x05
		divK, modK                    = 0x34, 0x94
	)
	for i := 0; i < n; i++ {
		b := filter[i*8:]
		code := binary.LittleEndian.Uint16(b)
		jt, jf, k := int(b[2]), int(b[3]), binary.LittleEndian.Uint32(b[4:])
		switch {
		case code == ja && uint64(k) >= uint64(n-i-1):
			return fmt.Sprintf("the jump at %d leaves the filter", i)
		case code&classMask == classJMP && code != ja && (i+1+jt >= n || i+1+jf >= n):
			return fmt.Sprintf("the jump at %d leaves the filter", i)
		case (code == divK || code == modK) && k == 0:
			return fmt.Sprintf("instruction %d divides by zero", i)
		case i == n-1 && code&classMask != classRET:
			return "its last instruction is not a return"
		}
	}
	return ""
}
