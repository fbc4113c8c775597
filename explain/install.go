// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
)

func resourceRules() []Rule {
	return []Rule{res001(), res002()}
}

func res001() Rule {
	return Rule{
		ID:    "RES001",
		Title: "Out of memory",
		Class: "R10",
		Stage: load.Resources,
		Text: `There was no memory, or the memory limit of the loader's control group was
reached. Arrays and preallocated hash maps take all of their memory at once. Per-CPU maps take it
for every possible CPU. The verifier needs memory for each state that it remembers.`,
		Kernels: "All. Charged to the control group since 5.11.",
		Remedies: []load.Remedy{
			{
				ID:    "smaller-map",
				Title: "Lower max_entries, or let a hash map allocate as it fills (BPF_F_NO_PREALLOC)",
				Price: "Fewer entries; or slower updates that may fail later. Not for LRU maps.",
			},
			{
				ID:    "memory-limit",
				Title: "Raise the memory limit of the loader's control group (its pod's limits.memory)",
				Price: "Memory of the node.",
			},
		},
		Match: matchMemory,
	}
}

var simplerProgram = load.Remedy{
	ID:    "simpler-program",
	Title: "If there is memory enough ('free', and the control group's memory.max): make the program smaller, or with fewer branches, so that the verifier has less to remember",
	Price: "A change of the program.",
}

func matchMemory(f *Facts) *Match {
	if !f.failed() || f.errno() != abi.ENOMEM || !f.words.empty() {
		return nil
	}
	for _, fn := range []load.Function{load.FnPatch, load.FnBlind} {
		if f.cause(fn) != nil {
			return nil // from 7.1 blinding reports its failure as ENOMEM
		}
	}
	m := &Match{Strength: Likely, How: load.Inferred, Cause: "The kernel could not get the memory that the call needs."}
	if f.kind() == load.SocketFilter || f.kind() == load.SocketAttach {
		m.Strength = Possible
		m.Why = "ENOMEM, and the filter itself may have been too much"
	}
	if f.kind() != load.MapCreate && f.kind() != load.MapUpdate {
		m.Without = append(m.Without, "smaller-map")
		m.First = append(m.First, simplerProgram)
	}
	if mp := f.Attempt.Map; mp != nil {
		m.Evidence = append(m.Evidence, fmt.Sprintf("the map asks for %d entries with keys of %d and values of %d bytes, %s in all (type %s)",
			mp.MaxEntries, mp.KeySize, mp.ValueSize, bytesText(uint64(mp.MaxEntries)*(uint64(mp.KeySize)+uint64(mp.ValueSize))), printable(mp.Type, 40)))
	}
	return m
}

func res002() Rule {
	return Rule{
		ID:    "RES002",
		Title: "The socket's option memory is used up (net.core.optmem_max)",
		Class: "R5",
		Stage: load.Resources,
		Text: `A filter that is attached to a socket counts as option memory of the
socket. The limit is net.core.optmem_max. A program (SO_ATTACH_BPF) takes 8 bytes for each
instruction after the verifier, including those that blinding adds, and some bytes for itself. 20
KiB are about 2,500 instructions, 128 KiB about 16,000.`,
		Kernels: "All. The default is 20 KiB for the machine, and since 6.8 128 KiB for each network namespace.",
		Remedies: []load.Remedy{
			{
				ID:      "raise-optmem",
				Title:   "Raise net.core.optmem_max",
				Price:   "Each socket may take more kernel memory, on the whole node (or network namespace, since 6.8).",
				Command: "sysctl -w net.core.optmem_max=131072",
			},
			{
				ID:    "smaller-program",
				Title: "Make the program smaller",
				Price: "A change of the program.",
			},
		},
		Match: func(f *Facts) *Match {
			if f.afterLoad() {
				return byReason("RES002")(f)
			}
			if f.kind() != load.SocketFilter || !f.failed() || f.errno() != abi.ENOMEM {
				return nil
			}
			m := &Match{Strength: Likely, How: load.Inferred, Cause: "The filter does not fit into what the socket may take for its options."}
			if v, ok := f.sysctl("net.core.optmem_max"); ok {
				m.Evidence = append(m.Evidence, fmt.Sprintf("net.core.optmem_max was %d bytes", v))
			}
			if n := len(f.ev.Filter) / 8; n > 0 {
				m.Evidence = append(m.Evidence, fmt.Sprintf("the filter has %d instructions", n))
			}
			m.Why = "a socket filter is charged to the socket's option memory"
			return m
		},
	}
}

func bytesText(n uint64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d bytes", n)
}

func installRules() []Rule {
	return []Rule{inst001(), inst002(), tail001()}
}

func inst001() Rule {
	return Rule{
		ID:    "INST001",
		Title: "Too many open files: no file descriptor was left",
		Class: "R6",
		Stage: load.Install,
		Text: `The program was verified and compiled, or the map was created. But no file
descriptor was left for it. The process has as many as RLIMIT_NOFILE allows (EMFILE), or the node
has as many as fs.file-max allows (ENFILE). So the load failed after all.`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:      "raise-nofile",
				Title:   "Raise the limit (LimitNOFILE in the unit, or the soft limit up to the hard one in the loader)",
				Price:   "A descriptor leak takes longer to show.",
				Command: "ulimit -n 65536",
			},
			{
				ID:    "close-fds",
				Title: "Find out which descriptors are open, and close or pin what is not needed",
				Price: "Nothing.",
			},
		},
		Match: func(f *Facts) *Match {
			if !f.failed() || f.errno() != abi.EMFILE && f.errno() != abi.ENFILE {
				return nil
			}
			m := &Match{Strength: Strong, How: load.Inferred}
			if f.verifierOK() || f.cause(load.FnNewFD) != nil {
				m.Strength, m.How = Certain, load.Observed
			}
			if s := f.cause(load.FnNewFD); s != nil {
				m.Evidence = append(m.Evidence, fmt.Sprintf("bpf_prog_new_fd returned %d (%s)", s.Ret, errnoName(-s.Ret)))
			}
			m.Cause = "The process has reached its limit of open files (RLIMIT_NOFILE), so the kernel could not give it a descriptor."
			if f.errno() == abi.ENFILE {
				m.Cause = "The node has reached its limit of open files (fs.file-max), so the kernel could not give out a descriptor."
				m.Without = append(m.Without, "raise-nofile")
			} else {
				if f.ev.LimitsKnown {
					m.Evidence = append(m.Evidence, fmt.Sprintf("RLIMIT_NOFILE was %d", f.ev.NofileLimit))
				}
				if f.Attempt.Process.PID > 0 {
					m.Commands = map[string]string{"close-fds": fmt.Sprintf("ls -l /proc/%d/fd", f.Attempt.Process.PID)}
				}
			}
			if f.kind() == load.ProgLoad {
				m.Cause += " The program itself is fine."
			}
			return m
		},
	}
}

func inst002() Rule {
	return Rule{
		ID:    "INST002",
		Title: "No id was left, or the object could not be registered",
		Class: "R6",
		Stage: load.Install,
		Text: `After a program is compiled, the kernel gives it an id and a file
descriptor. If this fails, there was no id or no memory left, or a security module refused the
descriptor.`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:      "count-programs",
				Title:   "Count the programs and maps of the node, and look for a leak",
				Price:   "Nothing.",
				Command: "bpftool prog show | grep -c '^[0-9]'",
			},
		},
		Match: func(f *Facts) *Match {
			if !f.isLoad() || f.errno() == abi.EMFILE || f.errno() == abi.ENFILE {
				return nil
			}
			s := f.cause(load.FnNewFD)
			if s == nil {
				return nil
			}
			return &Match{Strength: Certain, How: load.Observed,
				Cause:    "The program was verified and compiled, but could not be registered.",
				Evidence: []string{fmt.Sprintf("bpf_prog_new_fd returned %d (%s)", s.Ret, errnoName(-s.Ret))}}
		},
	}
}

func tail001() Rule {
	return Rule{
		ID:    "TAIL001",
		Title: "The program may not share a prog array with the programs in it",
		Class: "R8",
		Stage: load.JIT,
		Text: `The first program that uses a map of type prog_array decides what the map
takes: the program type, whether it is JITed, on newer kernels the attach type, and more. The
kernel refuses a program that differs with EINVAL. The verifier has accepted it before, so the log
is clean. Stable kernels of 2025 compare more than those before.`,
		Kernels: "All. The expected attach type counts since 6.18, and in the stable kernels of 2025.",
		Remedies: []load.Remedy{
			{
				ID:    "array-per-kind",
				Title: "Use one prog array per program type and attach type",
				Price: "More maps; the loader must fill each. Pinned arrays of the old kind must be removed.",
			},
		},
		Match: matchTailCall,
	}
}

func matchTailCall(f *Facts) *Match {
	if !f.isLoad() || f.errno() != abi.EINVAL || !f.verifierAccepted() {
		return nil
	}
	m := &Match{Strength: Possible, How: load.Inferred}
	m.Cause = "The verifier accepted the program, and the kernel then refused it beside the programs that its prog array already belongs to."
	m.Why = "EINVAL after a clean verification"
	const progArray = 3
	for _, mp := range f.ev.Maps {
		if mp.Type == progArray {
			m.Strength = Strong
			m.Evidence = append(m.Evidence, fmt.Sprintf("the program uses the prog array %q (id %d)", printable(mp.Name, 40), mp.ID))
		}
	}
	if m.Strength == Possible {
		calls := false
		for _, in := range f.ev.Insns {
			calls = calls || in.IsHelperCall() && in.Imm == 12
		}
		if f.wholeProgram() && !calls {
			return nil
		}
		if calls {
			m.Strength = Likely
			m.Evidence = append(m.Evidence, "the program makes tail calls")
		}
	}
	return m
}
