/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What travels through the ring buffer. bpf2go makes the Go side of these structs from this object's own BTF. */
#ifndef BPFWHY_WIRE_H
#define BPFWHY_WIRE_H

#include "functions.h"

enum record_type {
	R_CALL = 1,
	R_SMALL, /* struct small_chunk */
	R_MEDIUM,
	R_BIG,
	R_MESSAGE,
	R_MAPS,
	R_HELLO,
	R_BEGIN,
	R_ATTACH,
};

enum what {
	W_INSNS = 1,
	W_FUNC_INFO,
	W_LINE_INFO,
	W_BTF,
	W_LOG,
	W_TRANSLATED,
	W_FILTER,
	W_BTF_LOG,
	W_NEW_BTF, /* loaded just now, for programs to come */
	W_MASK = 0xff,
	W_KERNEL = 0x100, /* source is kernel memory */
	W_STRING = 0x200, /* ends at a NUL */
};

enum call_kind {
	K_BPF,
	K_SECCOMP,
	K_SOCKFILTER,
	K_PERF_OPEN,
	K_PERF_SET,
	K_XDP,
	K_SOCKET,
	K_PROBE_DEF,
	K_TC,
	K_SETLINK, /* XDP that is refused before it is looked at: the device is missing, the flags are wrong */
	K_REUSEPORT,
};

enum call_flags {
	F_ENTER = 1,       /* its start was seen */
	F_EXIT = 2,        /* its end was seen, not only that of bpf_prog_load */
	F_KERNEL = 4,      /* attr is in kernel memory */
	F_ATTR_FAULT = 8,  /* attr could not be read */
	F_CREDS = 16,
	F_PROG = 32,
	F_BLIND_ASKED = 64,       /* the kernel has prog->blinding_requested */
	F_PROG_BLIND_ASKED = 128, /* and it is set */
	F_PROG_JITED = 256,
	F_PROG_BLINDED = 512,
	F_UNJITED = 1024,  /* the JIT gave a program back un-jited */
	F_LOADING = 2048,  /* bpf_prog_load was entered */
	F_MAPS = 4096,     /* the maps were sent */
	F_EVIDENCE = 8192, /* what it was about was sent too */
	F_LOG_DIRTY = 16384, /* something was in the log buffer before, and the kernel does not say that it wrote there */
	F_COUNTED = 32768,   /* L_FAILED counts it */
};

#define ATTR_MAX 256
#define FAILED_MAX 16
#define MAPS_MAX 64
#define MESSAGES_MAX 64
#define SMALL_MAX 1024
#define MEDIUM_MAX 16384
#define BIG_MAX 131072
#define NAME_MAX 128
#define ARGS_MAX 4
#define MESSAGE_MAX 96
#define EXE_PARTS 8
#define EXE_PART 40
#define LICENSE_MAX 32 /* the longest that counts as GPL, "GPL and additional rights", has 25 */

/* Of struct bpf_pidns_info: this object takes no header of the kernel's. */
struct bpf_pidns_info {
	u32 pid;
	u32 tgid;
};

struct head {
	u32 type;
	u32 tid;
	u64 start;
};

/* A load is under way: user space waits for its end before it calls the one before it final. */
struct begin {
	struct head head;
	u32 tgid;
	u32 pad;
};

struct stage {
	u64 first;
	u64 total;
	u64 entered; /* start of the running execution, 0 for none */
	u64 arg;
	u32 calls;
	u32 failed;
	s32 last_ret;
	u32 missed; /* ends without a start */
};

struct span {
	u64 start;
	u64 end;
	s64 arg;
	s32 ret;
	u8 hook;
	u8 unjited;
	u16 pad;
};

/* A call in flight. Sent as it is, with who made it. */
struct call {
	struct head head;
	u64 end;
	s64 ret;
	u64 uattr;
	u64 prog; /* struct bpf_prog: as it left the JIT, and then as it was loaded */
	u32 cmd;
	u32 kind;
	u32 flags;
	u32 attr_size;
	u8 attr[ATTR_MAX];
	u32 nfailed;
	s32 fail_insn;
	u32 messages;
	u32 pad;
	u8 tag[8];
	u64 args[ARGS_MAX]; /* of an attacher: addresses of the kernel, never told */
	char message[MESSAGE_MAX]; /* of the kernel, beside the errno */
	struct stage stages[STEPS];
	struct span failed[FAILED_MAX];
};

struct cgroup_name {
	u64 id;
	char name[NAME_MAX];
	char parent[NAME_MAX];
};

/* Whose a process is. */
struct belongs {
	u32 nspid;
	u32 pad;
	char exe[EXE_PARTS][EXE_PART]; /* leaf first */
	struct cgroup_name cgroup2;
	struct cgroup_name cgroup1;
};

struct call_record {
	struct call call;
	u32 tgid;
	u32 uid;
	u32 gid;
	u32 pad;
	char comm[16];
	struct belongs of;
	u64 caps;
	u64 memlock;
	u64 nofile;
	u32 userns_level;
	u32 seccomp;
	u32 prog_id;
	u32 prog_type;
	u32 prog_len;
	u32 jited_len;
	u32 verified_insns;
	s32 license_len; /* its NUL with it; negative when it could not be read, 0 when it was not */
	u8 prog_tag[8];
	char prog_name[16];
	char license[LICENSE_MAX];
};

struct chunk {
	struct head head;
	u32 what;
	s32 err;
	u64 offset;
	u64 total;
	u32 len;
	u32 pad;
};

struct small_chunk {
	struct chunk chunk;
	u8 data[SMALL_MAX];
};

struct medium_chunk {
	struct chunk chunk;
	u8 data[MEDIUM_MAX];
};

struct big_chunk {
	struct chunk chunk;
	u8 data[BIG_MAX];
};

struct message {
	struct head head;
	char format[160];
	u64 args[4];
	char strings[4][64];
};

struct map_ref {
	u32 id;
	u32 type;
	u32 key_size;
	u32 value_size;
	u32 max_entries;
	u32 flags;
	char name[16];
};

struct map_list {
	struct head head;
	u32 count;
	u32 pad;
	struct map_ref maps[MAPS_MAX];
};

enum attach_seen {
	A_PROG = 1,      /* the program was read from the kernel */
	A_FILE = 2,      /* the descriptor of the target is open, and was looked at */
	A_DIRECTORY = 4, /* and is one */
	A_EVENT = 8,     /* of perf */
	A_MAP = 16,
	A_NETNS = 32,    /* the caller's network namespace was looked into */
	A_ADDRESSES = 64, /* the symbols were given by their addresses */
	A_LOOKED = 128,   /* the kernel was asked what the descriptors are */
	A_OVERRIDES = 256, /* the program calls bpf_override_return */
};

#define SYMBOLS_MAX 4
#define SYMBOL_MAX 64

/* What a call was to attach, and where to. */
struct attachment {
	struct head head;
	u32 seen;
	u32 prog_id;
	u32 prog_type;
	u32 expected_attach_type;
	u32 max_ctx_offset;
	u32 attach_btf_id;
	u8 prog_tag[8];
	char prog_name[16];
	u32 netns;
	u32 link_id;
	u32 ifindex;
	u32 flags;
	s32 target_fd; /* of a call without an attr */
	s32 prog_fd;
	u32 tc_parent; /* the handle of the qdisc or class that a filter hangs on */
	u32 prog_len;  /* as the verifier left it, blinded or not */
	u64 inode;
	u64 cgroup; /* of version 2 */
	u64 event_config;
	u32 event_type;
	u32 symbols_count; /* as the caller says */
	struct map_ref map;
	char device[16];
	char fs[16]; /* the file system of the descriptor */
	char file[NAME_MAX];
	char parent[NAME_MAX];
	u64 offset;
	char function[SYMBOL_MAX]; /* that the program was loaded for, or that a kprobe is on */
	char system[32];           /* of an event of perf */
	char text[256];            /* a path, or the name of a tracepoint */
	char symbols[SYMBOLS_MAX][SYMBOL_MAX];
};

/* Counters that only ever grow: what was lost, by mechanism, and what there was to lose. */
enum loss {
	L_RING,     /* the ring buffer was full: a piece of a call */
	L_INFLIGHT, /* too many calls in flight */
	L_STALE,    /* a call's end was never seen (a missed kretprobe) */
	L_FOLLOW,   /* too many followed processes */
	L_CALL,     /* the ring buffer was full: a call */
	L_FAILED,   /* no loss: program loads that failed, whatever became of their records */
	L_UNMARKED, /* too many calls in flight: those without a place are not known either, and their ends may not be told from others */
	L_MAX,
};

#endif
