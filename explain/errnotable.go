// SPDX-License-Identifier: Apache-2.0

package explain

const (
	cmdLoad     = "BPF_PROG_LOAD"
	cmdMap      = "BPF_MAP_CREATE"
	cmdMapElem  = "BPF_MAP_*_ELEM"
	cmdBTF      = "BPF_BTF_LOAD"
	cmdAttach   = "attach"
	cmdAny      = "any bpf(2)"
	cmdSeccomp  = "seccomp(2), SO_ATTACH_FILTER"
	cmdTestRun  = "BPF_PROG_TEST_RUN"
	cmdToken    = "BPF_TOKEN_CREATE"
	cmdObjByID  = "BPF_*_GET_FD_BY_ID"
	cmdIterPerf = "perf_event_open(2), ioctl"
)

var errnos = grouped([]Errno{
	{
		Number: errEPERM, Name: "EPERM", Prints: "Operation not permitted",
		Note: "Loaders also print EPERM when they pass a return value of -1 to strerror: then it says nothing. The system call's own result decides.",
		Meanings: []Meaning{
			{cmdLoad, "A capability is missing: CAP_BPF, with CAP_PERFMON for tracing types or CAP_NET_ADMIN for network types; CAP_SYS_ADMIN before 5.8.", []string{"PERM001"}},
			{cmdLoad, "kernel.unprivileged_bpf_disabled closes bpf(2) to loaders without CAP_BPF.", []string{"PERM002"}},
			{cmdLoad, "RLIMIT_MEMLOCK is too low. Only before 5.11, and there even for root.", []string{"PERM007"}},
			{cmdLoad, "A program without CAP_BPF calls a function of its own or a kernel function.", []string{"PERM001", "PERM009"}},
			{cmdMap, "A capability is missing, unprivileged_bpf_disabled is set, or RLIMIT_MEMLOCK is too low (before 5.11).", []string{"PERM001", "PERM002", "PERM007"}},
			{cmdAny, "A seccomp policy forbids bpf(2): the call never starts.", []string{"PERM006"}},
			{cmdAny, "A security module says no; BPF LSM programs and some modules answer EPERM rather than EACCES.", []string{"PERM005"}},
			{cmdIterPerf, "kernel.perf_event_paranoid is 3 or 4 (Debian, Ubuntu) and defeats CAP_PERFMON.", nil},
		},
	},
	{
		Number: errENOENT, Name: "ENOENT", Prints: "No such file or directory",
		Meanings: []Meaning{
			{cmdMapElem, "The key is not in the map: an answer, not a failure.", nil},
			{cmdAttach, "The function or tracepoint does not exist: renamed, inlined, or with a suffix such as .isra.0 or .constprop.0.", nil},
			{cmdLoad, "The kernel function that an fentry or LSM program names has no address in the running kernel.", []string{"BTF005"}},
			{cmdLoad, "A kernel function (kfunc) or its module is not there.", []string{"FEAT006"}},
			{cmdObjByID, "No object has this id any more.", nil},
		},
	},
	{
		Number: errESRCH, Name: "ESRCH", Prints: "No such process",
		Meanings: []Meaning{
			{cmdLoad, "Printed by libbpf when a CO-RE relocation or a kernel symbol cannot be resolved; it does not come from bpf(2).", []string{"BTF001", "FEAT006"}},
			{cmdAttach, "The type or function was not found in the kernel's BTF (libbpf).", []string{"BTF005"}},
		},
	},
	{
		Number: errEINTR, Name: "EINTR", Prints: "Interrupted system call",
		Meanings: []Meaning{
			{cmdTestRun, "A signal arrived while the program was repeated.", nil},
			{cmdAny, "A signal arrived before the call began to do anything: call again.", []string{"VER201"}},
		},
	},
	{
		Number: errE2BIG, Name: "E2BIG", Prints: "Argument list too long",
		Note: "The words \"Argument list too long\" have nothing to do with it.",
		Meanings: []Meaning{
			{cmdLoad, "The verifier walked 1,000,000 instructions and gave up.", []string{"VER101"}},
			{cmdLoad, "The program has more than 1,000,000 instructions, none at all, or more than 4096 and its loader has no CAP_BPF.", []string{"REQ001", "VER103"}},
			{cmdLoad, "More than 8192 branches were left to be walked (E2BIG on new kernels, EFAULT before).", []string{"VER102"}},
			{cmdAny, "The attributes have a field that this kernel does not know, and it is not zero.", []string{"REQ003"}},
			{cmdMap, "key_size, value_size or max_entries is larger than the map type allows.", []string{"MAP001"}},
			{cmdMapElem, "The map is full (max_entries).", nil},
			{cmdBTF, "The BTF is larger than 16 MiB.", []string{"BTF002"}},
			{cmdLoad, "Calls nest more than 8 deep.", []string{"VER016"}},
		},
	},
	{
		Number: errEBADF, Name: "EBADF", Prints: "Bad file descriptor",
		Meanings: []Meaning{
			{cmdLoad, "A map file descriptor in the instructions is not open, or is not a map.", []string{"REQ002"}},
			{cmdLoad, "prog_btf_fd, attach_prog_fd or the token's file descriptor is not open.", []string{"REQ007"}},
			{cmdMap, "inner_map_fd or btf_fd is not open.", []string{"MAP003"}},
			{cmdToken, "bpffs_fd is not a file descriptor of a BPF file system. libbpf probes for this: noise.", []string{"PERM010"}},
		},
	},
	{
		Number: errEAGAIN, Name: "EAGAIN", Prints: "Resource temporarily unavailable",
		Meanings: []Meaning{
			{cmdLoad, "A signal was pending while the verifier ran. Loaders repeat the call.", []string{"VER201"}},
			{cmdLoad, "No program id could be had.", []string{"INST002"}},
		},
	},
	{
		Number: errENOMEM, Name: "ENOMEM", Prints: "Cannot allocate memory",
		Meanings: []Meaning{
			{cmdMap, "The map does not fit into memory: preallocated maps and arrays take all of it at once, per-CPU maps once for each CPU.", []string{"RES001"}},
			{cmdLoad, "Memory ran out, or the memory controller of the loader's control group said no.", []string{"RES001"}},
			{cmdLoad, "From 7.1: constant blinding failed and reports it as ENOMEM within the kernel.", []string{"BLIND002"}},
			{cmdSeccomp, "The filter does not fit into net.core.optmem_max (socket filters).", []string{"RES002"}},
			{cmdAttach, "net.core.optmem_max is too small for the socket's programs.", nil},
		},
	},
	{
		Number: errEACCES, Name: "EACCES", Prints: "Permission denied",
		Note: "For BPF_PROG_LOAD this is the verifier's usual answer, and seldom a matter of permissions.",
		Meanings: []Meaning{
			{cmdLoad, "The verifier rejects the program: memory access, null pointer, bounds, uninitialised data, return value.", []string{"VER001", "VER002", "VER003", "VER099"}},
			{cmdLoad, "SELinux or another security module forbids it; nothing stands in the verifier's log.", []string{"PERM005"}},
			{cmdLoad, "A loader without CAP_PERFMON would leak a kernel address.", []string{"PERM009"}},
			{cmdSeccomp, "The task has neither no_new_privs nor CAP_SYS_ADMIN.", []string{"CBPF002"}},
			{cmdMapElem, "The map's flags forbid reading or writing from this side.", nil},
			{cmdIterPerf, "A uprobe: kernels from 6.16 on, and stable ones since July 2025, want CAP_SYS_ADMIN for it.", []string{"PERM012"}},
			{cmdIterPerf, "The loader has no CAP_PERFMON, and kernel.perf_event_paranoid closes it.", []string{"PERM011"}},
		},
	},
	{
		Number: errEFAULT, Name: "EFAULT", Prints: "Bad address",
		Meanings: []Meaning{
			{cmdAny, "The attributes, or something that they point to, cannot be read or written.", []string{"REQ005"}},
			{cmdLoad, "More than 8192 branches were left to be walked (before E2BIG was used for it).", []string{"VER102"}},
			{cmdLoad, "The verifier found itself in a state that should not be possible: a bug of the kernel.", []string{"VER099"}},
		},
	},
	{
		Number: errEBUSY, Name: "EBUSY", Prints: "Device or resource busy",
		Meanings: []Meaning{
			{cmdAttach, "Something is attached here already and the flags do not allow a second one, or an XDP program is already there.", nil},
			{cmdMapElem, "The bucket is locked by an interrupted update on the same CPU.", nil},
			{cmdMap, "The map is frozen, or already tied to a program.", nil},
			{cmdAttach, "The fentry program's target already has as many programs as a trampoline takes (E2BIG on some kernels).", nil},
		},
	},
	{
		Number: errEEXIST, Name: "EEXIST", Prints: "File exists",
		Meanings: []Meaning{
			{cmdMapElem, "BPF_NOEXIST was given and the key is there.", nil},
			{cmdAttach, "An XDP or qdisc object is already there.", nil},
			{"BPF_OBJ_PIN", "The path exists.", nil},
		},
	},
	{
		Number: errENODEV, Name: "ENODEV", Prints: "No such device",
		Meanings: []Meaning{
			{cmdAttach, "No network interface has this index.", nil},
			{cmdLoad, "prog_ifindex names no device, or one that takes no programs.", []string{"REQ007"}},
		},
	},
	{
		Number: errEINVAL, Name: "EINVAL", Prints: "Invalid argument",
		Note: "The most ambiguous of all: without a log or a watched kernel it proves nothing.",
		Meanings: []Meaning{
			{cmdLoad, "The verifier rejects the program: unknown helper, wrong instruction, unreachable code, unreleased reference.", []string{"FEAT001", "FEAT002", "REQ006", "VER005", "VER099"}},
			{cmdLoad, "The kernel does not know the program type, the flags or the attach type.", []string{"FEAT004", "REQ007"}},
			{cmdLoad, "Lockdown hides a helper, and the verifier calls it unknown.", []string{"PERM003", "PERM004"}},
			{cmdLoad, "A CO-RE relocation failed and the loader left poison in its place.", []string{"BTF001"}},
			{cmdLoad, "The program's func_info, line_info or BTF does not fit its instructions.", []string{"BTF004"}},
			{cmdLoad, "The program shares a prog array with programs of another kind (the log is clean).", []string{"TAIL001"}},
			{cmdLoad, "The log's level, size and address do not go together.", []string{"REQ008"}},
			{cmdMap, "The kernel does not know the map type or a flag, or a size is wrong for the type.", []string{"FEAT005", "MAP001"}},
			{cmdBTF, "The BTF is malformed, or has a kind that this kernel does not know.", []string{"BTF002"}},
			{cmdSeccomp, "The filter does not pass the checker of classic BPF.", []string{"CBPF001"}},
			{cmdAttach, "The program's type or expected attach type does not fit the place.", nil},
		},
	},
	{
		Number: errENFILE, Name: "ENFILE", Prints: "Too many open files in system",
		Meanings: []Meaning{{cmdAny, "fs.file-max is reached. The program was verified and compiled, and thrown away.", []string{"INST001"}}},
	},
	{
		Number: errEMFILE, Name: "EMFILE", Prints: "Too many open files",
		Meanings: []Meaning{{cmdAny, "The process has as many file descriptors as RLIMIT_NOFILE allows. The program was verified and compiled, and thrown away.", []string{"INST001"}}},
	},
	{
		Number: errENOSPC, Name: "ENOSPC", Prints: "No space left on device",
		Meanings: []Meaning{
			{cmdLoad, "The loader's log buffer is too small. The verdict is lost with it: the program may be fine.", []string{"REQ004"}},
			{cmdBTF, "The log buffer for BTF is too small.", []string{"REQ004"}},
			{cmdAny, "All ids are in use.", []string{"INST002"}},
		},
	},
	{
		Number: errERANGE, Name: "ERANGE", Prints: "Numerical result out of range",
		Note: "Inside the kernel it is how the patching of an instruction says that a jump no longer fits; bpf(2) turns it into ENOTSUPP, or loads the program un-jited.",
		Meanings: []Meaning{
			{cmdLoad, "A jump no longer fits 16 bits after an instruction was replaced by several.", []string{"BLIND001", "BLIND002", "BLIND003"}},
			{cmdLoad, "A key or value size in BTF is out of range.", []string{"BTF002"}},
		},
	},
	{
		Number: errENOSYS, Name: "ENOSYS", Prints: "Function not implemented",
		Meanings: []Meaning{
			{cmdAny, "The kernel was built without bpf(2), or a seccomp policy answers ENOSYS in its place.", []string{"PERM006"}},
		},
	},
	{
		Number: errEOPNOTSUPP, Name: "EOPNOTSUPP", Prints: "Operation not supported",
		Note: "95, also called ENOTSUP. It is not ENOTSUPP, which is 524 and prints the same words in cilium/ebpf.",
		Meanings: []Meaning{
			{cmdToken, "The BPF file system delegates nothing. libbpf tries to create a token at every start: noise, not the error.", []string{"PERM010"}},
			{cmdAttach, "The network driver has no XDP, or not with this MTU or these features; the reason is in the netlink answer (extack).", nil},
			{cmdMapElem, "The map type does not know the operation.", nil},
			{cmdLoad, "The JIT of this machine lacks something that the program uses (arenas, exceptions).", []string{"JIT002"}},
		},
	},
	{
		Number: errRESTARTSYS, Name: "ERESTARTSYS", Prints: "\"Unknown error 512\" (libc), \"errno 512\"",
		Note: "512 is internal to the kernel, which makes such a call again by itself: a process never gets it, a tracer may see it.",
		Meanings: []Meaning{
			{cmdAny, "A signal or an exec interrupted the system call while a seccomp listener held it. bpf(2) had not begun.", []string{"REQ010"}},
		},
	},
	{
		Number: errENOTSUPP, Name: "ENOTSUPP", Prints: "\"Unknown error 524\" (libc), \"operation not supported\" (cilium/ebpf), \"errno 524\" (runc, libseccomp)",
		Note: "524 is internal to the kernel: libc has no name for it, it is not EOPNOTSUPP (95), and in Go errors.Is(err, ebpf.ErrNotSupported) is false for it.",
		Meanings: []Meaning{
			{cmdLoad, "Constant blinding made a jump too long, and the kernel may not or cannot fall back to the interpreter.", []string{"BLIND001", "BLIND002"}},
			{cmdLoad, "The memory for compiled programs is used up (net.core.bpf_jit_limit); loaders with CAP_BPF are exempt.", []string{"JIT001"}},
			{cmdLoad, "The JIT of this machine cannot compile the program, and there is no interpreter. The reason, if any, is in the kernel's log.", []string{"JIT002"}},
			{cmdLoad, "The program calls kernel functions (kfuncs) and the JIT of this machine cannot.", []string{"FEAT007"}},
			{cmdSeccomp, "The memory for compiled programs is used up: \"error loading seccomp filter: errno 524\", pods stuck in ContainerCreating.", []string{"JIT001"}},
			{cmdSeccomp, "The JIT of this machine cannot compile the filter (32-bit machines).", []string{"JIT002"}},
			{cmdMap, "An LRU map with BPF_F_NO_PREALLOC.", []string{"MAP002"}},
			{cmdMap, "Key or value BTF on a map type that takes none. libbpf retries without: noise.", []string{"MAP003"}},
			{cmdMapElem, "A batch operation or get_next_key on a map type without it.", nil},
			{cmdAttach, "No trampoline on this architecture or kernel: fentry, fexit, LSM and struct_ops need one.", nil},
			{cmdTestRun, "The program type cannot be run for a test.", nil},
			{cmdToken, "BPF tokens are not supported here.", []string{"PERM010"}},
		},
	},
})
