// SPDX-License-Identifier: Apache-2.0
//
// A loader in plain C, static, without a library. The instructions come from a file and name their map as descriptor 100. It forks: the child
// loads, runs the program on packets of 64, 100 and 200 bytes, and says what came of it.
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int bpf(int cmd, union bpf_attr *attr, unsigned size)
{
	return syscall(SYS_bpf, cmd, attr, size);
}

static int load(const char *file)
{
	int in = open(file, O_RDONLY);
	struct stat st;
	if (in < 0 || fstat(in, &st))
		return 1;
	// Pages that nobody has touched yet.
	void *insns = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, in, 0);

	union bpf_attr attr = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 8, .max_entries = 1};
	int map = bpf(BPF_MAP_CREATE, &attr, 72);
	if (map < 0 || dup2(map, 100) < 0)
		return 1;

	memset(&attr, 0, sizeof(attr));
	attr.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
	attr.insn_cnt = st.st_size / 8;
	attr.insns = (uintptr_t)insns;
	attr.license = (uintptr_t) "GPL";
	strcpy(attr.prog_name, "from_c");
	int prog = bpf(BPF_PROG_LOAD, &attr, 72);
	printf("errno %d", prog < 0 ? errno : 0);
	if (prog < 0)
		return puts("") < 0;

	struct bpf_prog_info info = {0};
	memset(&attr, 0, sizeof(attr));
	attr.info.bpf_fd = prog;
	attr.info.info_len = 48;
	attr.info.info = (uintptr_t)&info;
	if (bpf(BPF_OBJ_GET_INFO_BY_FD, &attr, 16))
		return 1;
	printf(" jited %d ran", info.jited_prog_len > 0);
	if (!info.jited_prog_len) // the interpreter could crash the machine
		return puts("") < 0;

	static const unsigned sizes[] = {64, 100, 200};
	for (int i = 0; i < 3; i++) {
		static char packet[256];
		memset(&attr, 0, sizeof(attr));
		attr.test.prog_fd = prog;
		attr.test.data_in = (uintptr_t)packet;
		attr.test.data_size_in = 14 + sizes[i];
		if (bpf(BPF_PROG_TEST_RUN, &attr, 48))
			return 1;
		printf(" %u", attr.test.retval);
	}
	uint32_t key = 0;
	uint64_t value = 0;
	memset(&attr, 0, sizeof(attr));
	attr.map_fd = map;
	attr.key = (uintptr_t)&key;
	attr.value = (uintptr_t)&value;
	if (bpf(BPF_MAP_LOOKUP_ELEM, &attr, 32))
		return 1;
	printf(" count %llu\n", (unsigned long long)value);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc != 2)
		return 2;
	pid_t pid = fork();
	if (pid == 0) {
		int status = load(argv[1]);
		fflush(stdout);
		_exit(status);
	}
	int status;
	return pid < 0 || waitpid(pid, &status, 0) != pid || status != 0;
}
