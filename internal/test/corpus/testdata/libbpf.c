// SPDX-License-Identifier: Apache-2.0
//
// A loader with libbpf, as its users write them: open, load one program of an object. It prints "errno N", which is what
// libbpf reports (not always the kernel's own).
#define _GNU_SOURCE
#include <bpf/libbpf.h>
#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

// probes asks libbpf what this kernel can do: loads that fail on purpose, without a name.
static int probes(void)
{
	for (int t = BPF_PROG_TYPE_SOCKET_FILTER; t <= BPF_PROG_TYPE_SYSCALL; t++)
		libbpf_probe_bpf_prog_type(t, NULL);
	for (int t = BPF_MAP_TYPE_HASH; t <= BPF_MAP_TYPE_BLOOM_FILTER; t++)
		libbpf_probe_bpf_map_type(t, NULL);
	for (int h = BPF_FUNC_map_lookup_elem; h <= 211; h += 7) {
		libbpf_probe_bpf_helper(BPF_PROG_TYPE_SOCKET_FILTER, h, NULL);
		libbpf_probe_bpf_helper(BPF_PROG_TYPE_KPROBE, h, NULL);
	}
	printf("errno 0\n");
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "probes"))
		return probes();
	if (argc < 3 || argc > 4 || (argc == 4 && strcmp(argv[3], "nobody"))) {
		fprintf(stderr, "usage: libbpf OBJECT PROGRAM [nobody] | probes\n");
		return 2;
	}
	if (argc == 4 && (setgroups(0, NULL) || setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534))) {
		fprintf(stderr, "libbpf: become nobody: %s\n", strerror(errno));
		return 1;
	}
	struct bpf_object *object = bpf_object__open_file(argv[1], NULL);
	if (!object) {
		fprintf(stderr, "libbpf: open %s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	struct bpf_program *program;
	bpf_object__for_each_program(program, object)
		bpf_program__set_autoload(program, !strcmp(bpf_program__name(program), argv[2]));
	program = bpf_object__find_program_by_name(object, argv[2]);
	if (!program) {
		fprintf(stderr, "libbpf: no program %s in %s\n", argv[2], argv[1]);
		return 1;
	}
	int err = bpf_object__load(object);
	printf("errno %d\n", err < 0 ? -err : 0);
	return 0;
}
