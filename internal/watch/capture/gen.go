// SPDX-License-Identifier: Apache-2.0

package capture

// The objects are committed; `make generate` needs clang and libbpf's headers, and CI checks that
// the committed objects are what the sources give (clang 14, Debian bookworm). A program and the
// functions that it calls have 512 bytes of stack together. The longest chain is that of 5.10's
// entry points: whoever adds a function tries that kernel first. A global function is verified
// again for each program that reaches it: that is most of the time that Open takes.

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -go-package capture -target amd64 -cc clang -no-global-types -cflags "-O2 -g -mcpu=v2 -Wall -Werror" -type call_record -type small_chunk -type medium_chunk -type big_chunk -type chunk -type message -type map_list -type head -type begin -type stage -type span -type cgroup_name -type belongs -type map_ref -type attachment -type attach_seen -type hook -type record_type -type what -type call_kind -type call_flags -type loss core bpf/core.bpf.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -go-package capture -target amd64 -cc clang -no-global-types -cflags "-O2 -g -mcpu=v2 -Wall -Werror" plain bpf/plain.bpf.c
