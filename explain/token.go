// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
)

// BPF tokens.

func perm010() Rule {
	return Rule{
		ID:    "PERM010",
		Title: "The BPF token was refused",
		Class: "R11",
		Stage: load.Permission,
		Text: `A BPF token lets processes of a user namespace use bpf(2). The mount
options of the BPF file system say what they may do (delegate_cmds, delegate_maps, delegate_progs,
delegate_attachs). The kernel refuses the token if nothing was delegated, if the process is in
another user namespace, or if the file descriptor is not a token. libbpf tries to create a token at
every start. If it then prints -95 or -2, this is harmless.`,
		Kernels: "Since 6.9.",
		Remedies: []load.Remedy{
			{
				ID:    "delegate",
				Title: "Mount the BPF file system for this user namespace, with the commands, map types, program types and attach types that it needs",
				Price: "Root in the container may then do all of that on the host's kernel. Only a process with CAP_SYS_ADMIN on the host can make the mount.",
			},
			{
				ID:      "no-token",
				Title:   "Load without a token: set LIBBPF_BPF_TOKEN_PATH to an empty string",
				Price:   "The loader needs the capabilities itself.",
				Command: "LIBBPF_BPF_TOKEN_PATH= PROGRAM",
			},
		},
		Match: matchToken,
	}
}

func matchToken(f *Facts) *Match {
	if f.kind() == load.TokenCreate && f.failed() {
		return &Match{Strength: Likely, How: load.Inferred, Cause: "The kernel gave no BPF token. Loaders try this and go on without one: unless something else failed, it is noise."}
	}
	if !f.isLoad() || f.progAttr().ProgFlags&abi.ProgFlagTokenFD == 0 || !f.words.empty() || f.verifierAccepted() {
		return nil
	}
	m := &Match{How: load.Inferred}
	switch f.errno() {
	case abi.EBADF, abi.EINVAL:
		m.Strength = Possible
	case abi.EPERM:
		m.Strength = Likely
	default:
		return nil
	}
	m.Evidence = append(m.Evidence, fmt.Sprintf("the load names a BPF token (file descriptor %d)", int32(f.progAttr().ProgTokenFD)))
	m.Cause = "The load relies on a BPF token that does not cover this command or program type."
	m.Why = "the load names a BPF token"
	return m
}
