/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The watched functions inside a call: one line for each row of internal/watch/hook, in the same order. From it come the function's number,
 * H_NAME, and its programs. SPAN: its start and its end are watched, the exit by the function that is named. CHECK: its failures alone.
 * FILTER: it begins a call of its own, of the kind that is named. ATTACHER: so does it, with arguments that are
 * looked at as it ends; inside another call it is not watched.
 */
#ifndef BPFWHY_FUNCTIONS_H
#define BPFWHY_FUNCTIONS_H

#define WATCHED(SYSCALL, SPAN, CHECK, FILTER, ATTACHER)         \
	SYSCALL(sys_bpf)                                        \
	SPAN(bpf_prog_load, exit_hook)                          \
	SPAN(bpf_check, exit_check)                             \
	SPAN(do_check_common, exit_docheck)                     \
	SPAN(jit_subprogs, exit_hook)                           \
	SPAN(bpf_prog_select_runtime, exit_select)              \
	SPAN(bpf_int_jit_compile, exit_jit)                     \
	SPAN(bpf_jit_blind_constants, exit_blind)               \
	CHECK(bpf_check_attach_target)                          \
	CHECK(bpf_patch_insn_single)                            \
	CHECK(bpf_jit_charge_modmem)                            \
	CHECK(security_capable)                                 \
	CHECK(security_locked_down)                             \
	CHECK(security_bpf)                                     \
	CHECK(security_bpf_prog_load)                           \
	SPAN(bpf_prog_new_fd, exit_hook)                        \
	FILTER(bpf_prog_create_from_user, K_SECCOMP)            \
	FILTER(sk_attach_filter, K_SOCKFILTER)                  \
	SPAN(dev_xdp_attach, exit_extack)                       \
	ATTACHER(dev_change_xdp_fd, K_XDP)                      \
	ATTACHER(sk_attach_bpf, K_SOCKET)                       \
	ATTACHER(sk_reuseport_attach_bpf, K_REUSEPORT)          \
	ATTACHER(tc_new_tfilter, K_TC)                          \
	ATTACHER(tc_modify_qdisc, K_TC)                         \
	ATTACHER(rtnl_setlink, K_SETLINK)

#define NUMBER(name, ...) H_##name,

enum hook {
	WATCHED(NUMBER, NUMBER, NUMBER, NUMBER, NUMBER)
	H_MAX,
};

/* The attachers are no steps of a call, so they come last. */
#define STEPS H_dev_change_xdp_fd

#endif
