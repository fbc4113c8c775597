/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What user space is told: event.go's counterpart. */
#ifndef HTTPPROBE_WIRE_H
#define HTTPPROBE_WIRE_H

/* Bytes copied of one call. */
#define DATA_MAX 1024

enum kind {
	KIND_DATA = 1,
	KIND_OPEN,
	KIND_CLOSE,
	KIND_SHUT,
};

enum direction {
	DIR_IN,
	DIR_OUT,
};

/* captured bytes follow */
struct event {
	u64 time;
	u64 id;
	u64 born;
	u64 pos;
	u64 len;
	u64 cgroup;
	u32 tgid, tid;
	u16 local_port, remote_port;
	u16 captured;
	u8 kind;
	u8 dir;
	u8 fresh;
	u8 pad[7];
	char comm[16];
};

/* event.Loss's counterpart */
struct losses {
	u64 ring;
	u64 map;
	u64 fault;
};

#endif
