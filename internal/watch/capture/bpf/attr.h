/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What callers hand to bpf(2). */
#ifndef BPFWHY_ATTR_H
#define BPFWHY_ATTR_H

/* struct bpf_prog_load's part of union bpf_attr (user space ABI: these offsets never move) */
struct load_attr {
	u32 prog_type;
	u32 insn_cnt;
	u64 insns;
	u64 license;
	u32 log_level;
	u32 log_size;
	u64 log_buf;
	u32 kern_version;
	u32 prog_flags;
	char prog_name[16];
	u32 prog_ifindex;
	u32 expected_attach_type;
	u32 prog_btf_fd;
	u32 func_info_rec_size;
	u64 func_info;
	u32 func_info_cnt;
	u32 line_info_rec_size;
	u64 line_info;
	u32 line_info_cnt;
	u32 attach_btf_id;
	u32 attach_prog_fd;
	u32 core_relo_cnt;
	u64 fd_array;
	u64 core_relos;
	u32 core_relo_rec_size;
	u32 log_true_size; /* 6.4 */
};

struct btf_attr {
	u64 btf;
	u64 btf_log_buf;
	u32 btf_size;
	u32 btf_log_size;
	u32 btf_log_level;
	u32 btf_log_true_size; /* 6.4 */
};

#endif
