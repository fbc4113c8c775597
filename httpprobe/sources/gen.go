// SPDX-License-Identifier: Apache-2.0

package sources

// The objects are committed; `make generate` needs clang and libbpf's headers, and CI checks that
// the committed objects are what the sources give (clang 14, Debian bookworm).

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -go-package sources -target amd64 -cc clang -no-global-types -cflags "-O2 -g -mcpu=v2 -Wall -Werror" -type event -type losses syscalls bpf/syscalls.bpf.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -go-package sources -target amd64 -cc clang -no-global-types -cflags "-O2 -g -mcpu=v2 -Wall -Werror" packets bpf/packets.bpf.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -go-package sources -target amd64 -cc clang -no-global-types -cflags "-O2 -g -mcpu=v2 -Wall -Werror" openssl bpf/openssl.bpf.c
