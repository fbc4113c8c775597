// SPDX-License-Identifier: Apache-2.0

package explain

import "github.com/bpfwhy/bpfwhy/load"

func btf006Fixtures() []fixture {
	refused := func(words string) *load.Attempt {
		return progLoad(22, progType("tracing"), unhooked(), log(words+"\nprocessed 0 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0\n"))
	}
	return []fixture{
		{
			name:    "fexit on a function that never returns, 6.17",
			attempt: refused("Attaching fexit/fmod_ret to __noreturn function 'do_exit' is rejected."),
			node:    lab("6.17.1"),
			rule:    "BTF006", how: load.Observed, stage: load.BTF,
			evidence: []string{"the end of do_exit, which never returns", "the verifier's log says"},
		},
		{
			name:    "fexit on a function that never returns, 6.15: without its name",
			attempt: refused("Attaching fexit/fmod_ret to __noreturn functions is rejected."),
			node:    lab("6.15.2"),
			rule:    "BTF006", how: load.Observed, stage: load.BTF,
			evidence: []string{"the end of the function, which never returns"},
		},
		{
			name:    "fentry on a function that every program needs",
			attempt: refused("Attaching tracing programs to function 'migrate_disable' is rejected."),
			node:    lab("6.17.1"),
			rule:    "BTF006", how: load.Observed, stage: load.BTF,
			evidence: []string{"may not be attached to migrate_disable: tracing itself needs it"},
		},
		{
			name:    "near miss: EINVAL for a function that is not there",
			attempt: refused("The address of function do_exit2 cannot be found"),
			node:    lab("6.17.1"),
			rule:    "BTF005", how: load.Observed, stage: load.BTF,
		},
	}
}
