// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// Sockets and maps of sockets.

func socketRules() []Rule {
	return []Rule{att401(), att402(), att403()}
}

var socketReasons = []reason{
	{
		rule: "RES002", at: atSocket, errno: []int{abi.ENOMEM},
		text: "The program is too large for the memory of the socket's options (net.core.optmem_max). It takes 8 bytes for each instruction after the verifier and after blinding, and the socket may hold other options already.",
		tell: "The sysctl and the program's length (bpftool prog show, xlated) tell.",
		look: lookOptmem,
	},
	{
		rule: "ATT401", at: atSocket, errno: []int{abi.EPERM},
		text: "The socket's filter is locked (SO_LOCK_FILTER).",
	},
	{
		rule: "ATT402", at: atSocket, errno: []int{abi.EINVAL}, rare: true,
		text: "SO_ATTACH_REUSEPORT_EBPF needs a socket with SO_REUSEPORT set before bind(2).",
		tell: "strace shows the order of the calls.",
		look: func(f *Facts, m *Match) Strength {
			option := f.target().Name
			switch f.attached().Type {
			case "sk_reuseport":
				return Likely
			case "socket_filter":
				switch option {
				case "SO_ATTACH_REUSEPORT_EBPF":
					return Likely
				case "SO_ATTACH_BPF":
					return 0
				}
				return m.Strength
			case "":
				return m.Strength
			}
			return 0
		},
	},
	{
		rule: "ATT402", at: atSocket, errno: []int{abi.ENOTSUPP},
		text: "A program of the type sk_reuseport can be attached only to TCP and UDP sockets over IPv4 and IPv6.",
	},
	{
		rule: "ATT403", at: atSockmap, call: []load.Kind{load.MapUpdate}, errno: []int{abi.EOPNOTSUPP},
		text: "The socket is not in a state, or not of a kind, that a sockmap takes: TCP must be connected or listening, UDP bound, Unix sockets connected.",
	},
	{
		rule: "ATT403", at: atSockmap, call: []load.Kind{load.MapUpdate}, errno: []int{abi.EINVAL, abi.EBADF, abi.ENOTSOCK}, rare: true,
		text: "The value is not the descriptor of an open socket.",
	},
	{at: atSockmap, call: attachCalls, errno: []int{abi.EOPNOTSUPP}, text: "The map takes no programs of this kind, or the kernel was built without them (CONFIG_BPF_STREAM_PARSER)."},
}

// progBytes is the kernel's struct bpf_prog, without instructions.
const progBytes = 72

// lookOptmem compares the program's size with the limit, where both are known. What the socket
// holds already is not.
func lookOptmem(f *Facts, m *Match) Strength {
	limit, known := f.sysctl("net.core.optmem_max")
	if known {
		m.Evidence = append(m.Evidence, fmt.Sprintf("net.core.optmem_max was %d bytes, room for about %d instructions", limit, limit/8))
	} else if f.doesNot(node.OptmemPerNamespace) {
		m.Evidence = append(m.Evidence, "the default of net.core.optmem_max on this kernel is 20480 bytes, room for about 2500 instructions")
		limit = 20480
	}
	n := f.attached().Insns
	if n == 0 {
		return m.Strength
	}
	size := progBytes + 8*n
	m.Evidence = append(m.Evidence, fmt.Sprintf("the program has %d instructions after the verifier: %d bytes", n, size))
	switch {
	case known && int64(size) > int64(limit) && f.doesNot(node.OptmemPerNamespace):
		return Strong
	case limit > 0 && int64(size) < int64(limit)/2:
		return Possible // unless the socket holds much
	}
	return m.Strength
}

func att401() Rule {
	return Rule{
		ID:    "ATT401",
		Title: "The filter of the socket is locked (SO_LOCK_FILTER)",
		Class: "R5",
		Stage: load.Permission,
		Text: `SO_LOCK_FILTER makes the filter of a socket permanent. Nobody can attach
another filter or remove it, not even root. It is meant for sockets that are given to a process
with fewer rights. The answer is EPERM.`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:    "before-lock",
				Title: "Attach before the socket is locked, or use another socket",
				Price: "A change of the program that locks the socket.",
			},
		},
		Match: byReason("ATT401"),
	}
}

func att402() Rule {
	return Rule{
		ID:    "ATT402",
		Title: "SO_REUSEPORT is not set on the socket, or the program does not fit the socket",
		Class: "R5",
		Stage: load.Request,
		Text: `SO_ATTACH_REUSEPORT_EBPF attaches a program to a group of sockets that
share a port. SO_REUSEPORT must be set on the socket before it is bound (EINVAL). For a program of
the type sk_reuseport, the socket must be TCP or UDP over IPv4 or IPv6 (ENOTSUPP).`,
		Kernels: "Since 4.5; sk_reuseport since 4.19.",
		Remedies: []load.Remedy{
			{
				ID:    "reuseport-first",
				Title: "Set SO_REUSEPORT on every socket of the group before bind(2), then attach to one of them",
				Price: "A change of the program.",
			},
		},
		Match: byReason("ATT402"),
	}
}

func att403() Rule {
	return Rule{
		ID:    "ATT403",
		Title: "The socket cannot be added to the sockmap",
		Class: "R5",
		Stage: load.Request,
		Text: `A sockmap or sockhash takes TCP sockets that are established or listening,
UDP sockets that are bound, and Unix and vsock sockets that are connected. The kernel answers
EOPNOTSUPP for a socket that is not yet in this state, that is closed, or that has another
protocol. It does so too if something else has taken over the socket's protocol (MPTCP, older
TLS).`,
		Kernels: "TCP since 4.14, UDP since 5.13, Unix since 5.15, vsock since 6.4.",
		Remedies: []load.Remedy{
			{
				ID:    "when-established",
				Title: "Add the socket when the connection is established: in sock_ops (BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB), or after connect(2) or accept(2)",
				Price: "A change of the loader or its program.",
			},
		},
		Match: byReason("ATT403"),
	}
}
