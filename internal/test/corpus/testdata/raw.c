// SPDX-License-Identifier: Apache-2.0
//
// A loader in plain C: bpf(2), seccomp(2) and setsockopt(2) without a library. Each load is wrong in one way. It prints
// "errno N" as the kernel answered, 0 for a load that worked.
#define _GNU_SOURCE
#include <errno.h>
#include <grp.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ARRAY(a) a, sizeof(a) / sizeof(*(a))

// Instructions, as include/uapi/linux/bpf.h numbers them.
#define INSN(c, d, s, o, i) {.code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i)}
#define MOV_K(d, i) INSN(0xb7, d, 0, 0, i)
#define MOV_X(d, s) INSN(0xbf, d, s, 0, 0)
#define ADD_K(d, i) INSN(0x07, d, 0, 0, i)
#define MUL_K(d, i) INSN(0x27, d, 0, 0, i)
#define LDX_W(d, s, o) INSN(0x61, d, s, o, 0)
#define LDX_DW(d, s, o) INSN(0x79, d, s, o, 0)
#define ST_W(d, o, i) INSN(0x62, d, 0, o, i)
#define ST_DW(d, o, i) INSN(0x7a, d, 0, o, i)
#define JEQ_K(d, i, o) INSN(0x15, d, 0, o, i)
#define JNE_K(d, i, o) INSN(0x55, d, 0, o, i)
#define JLT_K(d, i, o) INSN(0xa5, d, 0, o, i)
#define CALL(f) INSN(0x85, 0, 0, 0, f)
#define CALL_SUB(rel) INSN(0x85, 0, 1, 0, rel)
#define LD_MAP(d, fd) INSN(0x18, d, 1, 0, fd), INSN(0, 0, 0, 0, 0)
#define EXIT() INSN(0x95, 0, 0, 0, 0)

// The map of a program that uses one is put at this descriptor, so that programs are constants.
#define MAP 100
#define LOOKUP ST_W(10, -4, 0), MOV_X(2, 10), ADD_K(2, -4), LD_MAP(1, MAP), CALL(BPF_FUNC_map_lookup_elem)

static const struct bpf_insn ok[] = {MOV_K(0, 0), EXIT()};
static const struct bpf_insn null_map[] = {LOOKUP, LDX_DW(0, 0, 0), EXIT()};
static const struct bpf_insn no_value[] = {EXIT()};
static const struct bpf_insn uninit_r5[] = {MOV_X(0, 5), EXIT()};
static const struct bpf_insn uninit_key[] = {MOV_X(2, 10), ADD_K(2, -4), LD_MAP(1, MAP),
	CALL(BPF_FUNC_map_lookup_elem), MOV_K(0, 0), EXIT()};
static const struct bpf_insn endless[] = {MOV_K(0, 0), JEQ_K(0, 0, -1), EXIT()};
static const struct bpf_insn returns_5[] = {MOV_K(0, 5), EXIT()};
static const struct bpf_insn ctx_times_2[] = {MUL_K(1, 2), MOV_K(0, 0), EXIT()};
static const struct bpf_insn write_value[] = {LOOKUP, JEQ_K(0, 0, 1), ST_DW(0, 0, 1), MOV_K(0, 0), EXIT()};
static const struct bpf_insn unbounded_size[] = {LDX_W(4, 1, 0), MOV_X(3, 10), ADD_K(3, -64), MOV_K(2, 0),
	CALL(BPF_FUNC_skb_load_bytes), MOV_K(0, 0), EXIT()};
static const struct bpf_insn number_as_key[] = {MOV_K(2, 7), LD_MAP(1, MAP), CALL(BPF_FUNC_map_lookup_elem), MOV_K(0, 0), EXIT()};
static const struct bpf_insn number_as_pointer[] = {MOV_K(1, 5), LDX_DW(0, 1, 0), EXIT()};
static const struct bpf_insn deep_stack[] = {ST_DW(10, -320, 0), CALL_SUB(2), MOV_K(0, 0), EXIT(),
	ST_DW(10, -320, 0), MOV_K(0, 0), EXIT()};

struct load {
	const char *name; // of the case; the program's own is the same with _, unless anonymous
	const struct bpf_insn *insns;
	unsigned count;
	enum bpf_prog_type type; // socket_filter if unspecified
	enum bpf_attach_type attach;
	bool log, anonymous;
	bool untouched; // the instructions lie in pages of a file that the process has never touched
	bool fault_license;
	const char *prog_name;
	uint32_t map_flags;
	bool int80; // through the 32-bit entry
	uint32_t attach_btf_id;
};

static const struct load loads[] = {
	{"ok", ARRAY(ok), .log = true},
	{"null-map", ARRAY(null_map), .log = true},
	{"null-map-nolog", ARRAY(null_map), .untouched = true},
	{"no-value", ARRAY(no_value), .untouched = true, .log = true},
	{"nameless", ARRAY(uninit_r5), .anonymous = true},
	{"uninit-key", ARRAY(uninit_key), .log = true},
	{"endless", ARRAY(endless), .log = true},
	{"endless-nolog", ARRAY(endless), .log = false},
	{"return-range", ARRAY(returns_5), .type = BPF_PROG_TYPE_CGROUP_SOCK, .attach = BPF_CGROUP_INET_SOCK_CREATE, .log = true},
	{"pointer-arithmetic", ARRAY(ctx_times_2), .log = true},
	{"read-only-map", ARRAY(write_value), .map_flags = BPF_F_RDONLY_PROG, .log = true},
	{"unbounded-size", ARRAY(unbounded_size), .log = true},
	{"argument-type", ARRAY(number_as_key), .log = true},
	{"not-a-pointer", ARRAY(number_as_pointer), .log = true},
	{"not-a-pointer-nolog", ARRAY(number_as_pointer), .log = false},
	{"deep-stack", ARRAY(deep_stack), .log = true},
	{"bad-name", ARRAY(ok), .prog_name = "two words"},
	{"bad-attach-type", ARRAY(ok), .type = BPF_PROG_TYPE_CGROUP_SOCK_ADDR},
	{"license-fault", ARRAY(ok), .fault_license = true},
	{"attach-id", ARRAY(ok), .type = BPF_PROG_TYPE_TRACING, .attach = BPF_TRACE_FENTRY, .attach_btf_id = 0xffff0, .log = true},
	{"compat", ARRAY(null_map), .int80 = true},
};

static char log_buf[1 << 16];

static int bpf(int cmd, void *attr, unsigned size)
{
	return syscall(SYS_bpf, cmd, attr, size);
}

static int answer(long ret)
{
	printf("errno %d\n", ret < 0 ? errno : 0);
	return 0;
}

static int cannot(const char *what)
{
	fprintf(stderr, "raw: %s: %s\n", what, strerror(errno));
	return 1;
}

static int new_map(uint32_t type, uint32_t key, uint32_t value, uint32_t entries, uint32_t flags)
{
	union bpf_attr attr = {.map_type = type, .key_size = key, .value_size = value, .max_entries = entries, .map_flags = flags,
		.map_name = "values"};
	return bpf(BPF_MAP_CREATE, &attr, sizeof(attr));
}

// low returns memory that a 32-bit pointer reaches.
static void *low(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	return p == MAP_FAILED ? NULL : p;
}

static const void *in_file(const void *data, size_t size)
{
	int fd = memfd_create("insns", 0);
	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		return NULL;
	void *p = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
	return p == MAP_FAILED ? NULL : p;
}

static int load(const struct load *l)
{
	if (l->insns == null_map || l->insns == uninit_key || l->insns == write_value || l->insns == number_as_key) {
		int fd = new_map(BPF_MAP_TYPE_HASH, 4, 8, 1, l->map_flags);
		if (fd < 0 || dup2(fd, MAP) < 0)
			return cannot("create map");
	}
	union bpf_attr attr = {
		.prog_type = l->type ? l->type : BPF_PROG_TYPE_SOCKET_FILTER,
		.expected_attach_type = l->attach,
		.attach_btf_id = l->attach_btf_id,
		.insn_cnt = l->count,
		.insns = (uintptr_t)l->insns,
		.license = (uintptr_t) "GPL",
	};
	if (l->untouched)
		attr.insns = (uintptr_t)in_file(l->insns, l->count * sizeof(*l->insns));
	if (!attr.insns)
		return cannot("map instructions");
	if (l->fault_license)
		attr.license = 4096;
	if (!l->anonymous) {
		const char *name = l->prog_name ? l->prog_name : l->name;
		for (unsigned i = 0; i + 1 < sizeof(attr.prog_name) && name[i]; i++)
			attr.prog_name[i] = name[i] == '-' ? '_' : name[i];
	}
	if (l->log) {
		attr.log_level = 1;
		attr.log_buf = (uintptr_t)log_buf;
		attr.log_size = sizeof(log_buf);
	}
	if (!l->int80)
		return answer(bpf(BPF_PROG_LOAD, &attr, sizeof(attr)));

	char *p = low(8192);
	if (!p)
		return cannot("map memory below 4 GiB");
	struct bpf_insn *insns = (void *)(p + 4096);
	memcpy(insns, l->insns, l->count * sizeof(*insns));
	attr.insns = (uintptr_t)insns;
	attr.license = (uintptr_t)strcpy(p + 2048, "GPL");
	memcpy(p, &attr, sizeof(attr));
	long ret = 357; // bpf in the 32-bit table
	__asm__ volatile("int $0x80" : "+a"(ret) : "b"(BPF_PROG_LOAD), "c"(p), "d"(sizeof(attr)) : "memory", "r8", "r9", "r10", "r11");
	if (ret < 0) {
		errno = -ret;
		ret = -1;
	}
	return answer(ret);
}

static int become_nobody(void)
{
	return setgroups(0, NULL) || setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534);
}

// What is not a bpf(2) program load with a plain attr.

static int attr_too_large(void)
{
	static union {
		union bpf_attr attr;
		char bytes[8192];
	} a = {.attr = {.prog_type = BPF_PROG_TYPE_SOCKET_FILTER, .insn_cnt = 2, .prog_name = "too_large"}};
	a.attr.insns = (uintptr_t)ok;
	a.attr.license = (uintptr_t) "GPL";
	return answer(bpf(BPF_PROG_LOAD, &a, sizeof(a)));
}

static int attr_tail(void)
{
	static union {
		union bpf_attr attr;
		char bytes[1024];
	} a = {.attr = {.prog_type = BPF_PROG_TYPE_SOCKET_FILTER, .insn_cnt = 2, .prog_name = "attr_tail"}};
	a.attr.insns = (uintptr_t)ok;
	a.attr.license = (uintptr_t) "GPL";
	a.bytes[1000] = 1; // a field that no kernel knows
	return answer(bpf(BPF_PROG_LOAD, &a, sizeof(a)));
}

// A million rounds, of which the verifier walks 250. The long body makes for few states to compare.
static int too_complex(void)
{
	static struct bpf_insn insns[4004];
	insns[0] = (struct bpf_insn)MOV_K(1, 0);
	for (int i = 1; i <= 4000; i++)
		insns[i] = (struct bpf_insn)MOV_X(2, 1);
	insns[4001] = (struct bpf_insn)ADD_K(1, 1);
	insns[4002] = (struct bpf_insn)JLT_K(1, 1000000, -4002);
	insns[4003] = (struct bpf_insn)EXIT();
	union bpf_attr attr = {.prog_type = BPF_PROG_TYPE_SOCKET_FILTER, .insn_cnt = 4004, .insns = (uintptr_t)insns,
		.license = (uintptr_t) "GPL", .prog_name = "too_complex"};
	return answer(bpf(BPF_PROG_LOAD, &attr, sizeof(attr)));
}

static int attr_fault(void)
{
	return answer(bpf(BPF_PROG_LOAD, (void *)4096, 120));
}

static int lru_no_prealloc(void)
{
	return answer(new_map(BPF_MAP_TYPE_LRU_HASH, 4, 8, 16, BPF_F_NO_PREALLOC));
}

static int map_bad_type(void)
{
	return answer(new_map(9999, 4, 8, 16, 0));
}

static int map_no_key(void)
{
	return answer(new_map(BPF_MAP_TYPE_HASH, 0, 8, 16, 0));
}

static int map_as_nobody(void)
{
	if (become_nobody())
		return cannot("become nobody");
	return answer(new_map(BPF_MAP_TYPE_ARRAY, 4, 8, 1, 0));
}

static int btf_garbage(void)
{
	static char btf[64] = "this is no BTF";
	union bpf_attr attr = {.btf = (uintptr_t)btf, .btf_size = sizeof(btf)};
	return answer(bpf(BPF_BTF_LOAD, &attr, sizeof(attr)));
}

static struct sock_filter bad_classic[] = {{0xffff, 0, 0, 0}, {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW}};

static int seccomp_bad(void)
{
	struct sock_fprog prog = {2, bad_classic};
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return cannot("set no_new_privs");
	return answer(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog));
}

static int prctl_bad(void)
{
	struct sock_fprog prog = {2, bad_classic};
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return cannot("set no_new_privs");
	return answer(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog, 0, 0));
}

static int attach_filter(struct sock_filter *filter, unsigned short len)
{
	struct sock_fprog prog = {len, filter};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (fd < 0)
		return cannot("open socket");
	return answer(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)));
}

static int socket_bad(void)
{
	return attach_filter(bad_classic, 2);
}

static int socket_fault(void)
{
	return attach_filter((void *)4096, 2);
}

// More than the 20 KiB of net.core.optmem_max before 6.8.
static int socket_optmem(void)
{
	static struct sock_filter filter[4096];
	for (int i = 0; i < 4095; i++)
		filter[i] = (struct sock_filter){BPF_LD | BPF_IMM, 0, 0, i};
	filter[4095] = (struct sock_filter){BPF_RET | BPF_K, 0, 0, 0};
	return attach_filter(filter, 4096);
}

static const struct {
	const char *name;
	int (*run)(void);
} others[] = {
	{"too-complex", too_complex},
	{"attr-too-large", attr_too_large},
	{"attr-tail", attr_tail},
	{"attr-fault", attr_fault},
	{"lru-no-prealloc", lru_no_prealloc},
	{"map-bad-type", map_bad_type},
	{"map-no-key", map_no_key},
	{"map-as-nobody", map_as_nobody},
	{"btf-garbage", btf_garbage},
	{"seccomp-bad", seccomp_bad},
	{"prctl-bad", prctl_bad},
	{"socket-bad", socket_bad},
	{"socket-fault", socket_fault},
	{"socket-optmem", socket_optmem},
};

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: raw LOAD\n");
		return 2;
	}
	for (unsigned i = 0; i < sizeof(loads) / sizeof(*loads); i++)
		if (!strcmp(loads[i].name, argv[1]))
			return load(&loads[i]);
	for (unsigned i = 0; i < sizeof(others) / sizeof(*others); i++)
		if (!strcmp(others[i].name, argv[1]))
			return others[i].run();
	fprintf(stderr, "raw: no load %s\n", argv[1]);
	return 2;
}
