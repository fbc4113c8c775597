// SPDX-License-Identifier: Apache-2.0
//
// A loader with libbpf: it loads the one program of an object, runs it on packets of 64, 100 and 200 bytes, and says what came of it.
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <stdint.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	struct bpf_object *object = argc == 2 ? bpf_object__open_file(argv[1], NULL) : NULL;
	if (!object)
		return 2;
	int err = bpf_object__load(object);
	printf("errno %d", -err);
	if (err)
		return puts("") < 0;

	int prog = bpf_program__fd(bpf_object__next_program(object, NULL));
	struct bpf_prog_info info = {0};
	uint32_t len = sizeof(info);
	if (bpf_obj_get_info_by_fd(prog, &info, &len))
		return 1;
	printf(" jited %d ran", info.jited_prog_len > 0);
	if (!info.jited_prog_len) // the interpreter could crash the machine
		return puts("") < 0;

	static const unsigned sizes[] = {64, 100, 200};
	for (int i = 0; i < 3; i++) {
		static char packet[256];
		LIBBPF_OPTS(bpf_test_run_opts, o, .data_in = packet, .data_size_in = 14 + sizes[i]);
		if (bpf_prog_test_run_opts(prog, &o))
			return 1;
		printf(" %u", o.retval);
	}
	uint32_t key = 0;
	uint64_t value = 0;
	if (bpf_map_lookup_elem(bpf_map__fd(bpf_object__next_map(object, NULL)), &key, &value))
		return 1;
	printf(" count %llu\n", (unsigned long long)value);
	return 0;
}
