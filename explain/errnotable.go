// SPDX-License-Identifier: Apache-2.0

package explain

import "github.com/bpfwhy/bpfwhy/internal/abi"

const (
	cmdLoad    = "BPF_PROG_LOAD"
	cmdMap     = "BPF_MAP_CREATE"
	cmdMapElem = "BPF_MAP_*_ELEM"
	cmdBTF     = "BPF_BTF_LOAD"
	cmdAttach  = "attach"
	cmdAny     = "any bpf(2)"
	cmdSeccomp = "seccomp(2), SO_ATTACH_FILTER"
	cmdTestRun = "BPF_PROG_TEST_RUN"
	cmdToken   = "BPF_TOKEN_CREATE"
	cmdObjByID = "BPF_*_GET_NEXT_ID, _GET_FD_BY_ID"
	cmdDetach  = "BPF_PROG_DETACH"
	cmdQuery   = "BPF_PROG_QUERY"
	cmdLimit   = "setrlimit(2)"
	cmdInfo    = "BPF_OBJ_GET_INFO_BY_FD"
	cmdBind    = "bind(2) of an AF_XDP socket"
)

var errnos = grouped(withReasons([]Errno{
	{
		Number: abi.EPERM, Prints: "Operation not permitted",
		Note: "Loaders also print EPERM when they pass a return value of -1 to strerror: then it says nothing. The system call's own result decides.",
		Meanings: []Meaning{
			{cmdLoad, "A capability is missing: CAP_BPF, with CAP_PERFMON for tracing types or CAP_NET_ADMIN for network types; CAP_SYS_ADMIN before 5.8.", []string{"PERM001"}},
			{cmdLoad, "kernel.unprivileged_bpf_disabled closes bpf(2) to loaders without CAP_BPF.", []string{"PERM002"}},
			{cmdLoad, "RLIMIT_MEMLOCK is too low. Only before 5.11, and there even for root.", []string{"PERM007"}},
			{cmdLoad, "A program without CAP_BPF calls a function of its own or a kernel function.", []string{"PERM001", "PERM009"}},
			{cmdMap, "A capability is missing, unprivileged_bpf_disabled is set, or RLIMIT_MEMLOCK is too low (before 5.11).", []string{"PERM001", "PERM002", "PERM007"}},
			{cmdDetach, "Removing a program needs CAP_NET_ADMIN, or CAP_BPF before 5.19, in the initial user namespace.", []string{"PERM001"}},
			{cmdQuery, "Asking what is attached needs CAP_NET_ADMIN, or CAP_SYS_ADMIN, in the initial user namespace: root of a container or of a rootless runtime does not have it.", []string{"PERM001"}},
			{cmdObjByID, "Looking at the objects of others by their ids needs CAP_SYS_ADMIN in the initial user namespace; CAP_BPF is not enough.", []string{"PERM001"}},
			{cmdMapElem, "The map may not be read or written by this descriptor, or it is frozen.", []string{"MAP006"}},
			{cmdMapElem, "The process lacks CAP_BPF, or has given it up, and kernel.unprivileged_bpf_disabled closes bpf(2) to it.", []string{"PERM001", "PERM002"}},
			{cmdToken, "The caller does not have CAP_BPF in the user namespace that the BPF file system belongs to, or is not in it.", []string{"PERM010"}},
			{cmdBind, "A socket of AF_XDP takes CAP_NET_RAW, and loading its program CAP_BPF with CAP_NET_ADMIN, in the initial user namespace.", []string{"PERM001"}},
			{cmdTestRun, "Running a program for a test takes CAP_BPF or CAP_SYS_ADMIN, as opening it by its id does.", []string{"PERM001"}},
			{cmdInfo, "kernel.unprivileged_bpf_disabled closes bpf(2) to processes without CAP_BPF.", []string{"PERM001", "PERM002"}},
			{cmdLimit, "Raising RLIMIT_MEMLOCK takes CAP_SYS_RESOURCE. Only kernels before 5.11 count programs and maps against this limit: on newer ones the loader can do without.", nil},
			{cmdAny, "A seccomp policy forbids bpf(2): the call never starts.", []string{"PERM006"}},
			{cmdAny, "A security module refuses it. BPF LSM programs and some modules answer EPERM rather than EACCES.", []string{"PERM005"}},
		},
	},
	{
		Number: abi.ENOENT, Prints: "No such file or directory",
		Meanings: []Meaning{
			{cmdMapElem, "The key is not in the map: an answer, not a failure. For the next key, or in a batch, it is the end of the map.", nil},
			{cmdBind, "The device has no such queue, or is gone.", nil},
			{cmdQuery, "The device or the control group is gone.", nil},
			{cmdDetach, "No such program is attached here, so there is nothing to remove: harmless where a loader only cleans up.", nil},
			{cmdLoad, "The kernel function that an fentry or LSM program names has no address in the running kernel.", []string{"BTF005"}},
			{cmdLoad, "A kernel function (kfunc) or its module is not there.", []string{"FEAT006"}},
			{cmdObjByID, "No object has this id any more; for the next id it is the end of the list, and no failure.", nil},
		},
	},
	{
		Number: abi.ESRCH, Prints: "No such process",
		Meanings: []Meaning{
			{cmdLoad, "Printed by libbpf, and no answer of bpf(2): a CO-RE relocation could not be resolved.", []string{"BTF001"}},
			{cmdLoad, "Printed by libbpf, and no answer of bpf(2): a function or variable of the kernel that the program names does not exist here.", []string{"FEAT006"}},
			{cmdLoad, "Printed by libbpf, and no answer of bpf(2): the kernel has no BTF of its own, or the loader does not see it.", []string{"BTF003"}},
			{cmdLoad, "Printed by libbpf, and no answer of bpf(2): the function or hook to attach to is not in the kernel's BTF.", []string{"BTF005"}},
			{cmdAttach, "The type or function was not found in the kernel's BTF (libbpf).", []string{"BTF005"}},
		},
	},
	{
		Number: abi.EINTR, Prints: "Interrupted system call",
		Meanings: []Meaning{
			{cmdTestRun, "A signal arrived while the program was repeated.", nil},
			{cmdAny, "A signal arrived before the call began to do anything: call again.", []string{"VER201"}},
		},
	},
	{Number: abi.EIO, Prints: "Input/output error"},
	{
		Number: abi.ENXIO, Prints: "No such device or address",
		Meanings: []Meaning{
			{cmdQuery, "The attach type is none of control groups (TCX, netkit), and the number was taken for that of a device, which does not exist. bpftool 7.4 asks so for every type that it knows: a newer one does not.", nil},
		},
	},
	{
		Number: abi.E2BIG, Prints: "Argument list too long",
		Note: "The words \"Argument list too long\" have nothing to do with it.",
		Meanings: []Meaning{
			{cmdLoad, "The verifier walked 1,000,000 instructions and gave up.", []string{"VER101"}},
			{cmdLoad, "The program has more than 1,000,000 instructions, none at all, or more than 4096 and its loader has no CAP_BPF.", []string{"REQ001", "VER103"}},
			{cmdLoad, "More than 8192 branches were left to be walked (E2BIG on new kernels, EFAULT before): the log says so.", []string{"VER102"}},
			{cmdAny, "The attributes have a field that this kernel does not know, and it is not zero.", []string{"REQ003"}},
			{cmdMap, "key_size, value_size or max_entries is larger than the map type allows.", []string{"MAP001"}},
			{cmdMap, "A value of a per-CPU map has over 32 KiB (ENOMEM on older kernels).", []string{"MAP005"}},
			{cmdMapElem, "The key is not below max_entries (arrays), or the map is full.", []string{"MAP004"}},
			{cmdBTF, "The BTF is larger than 16 MiB.", []string{"BTF002"}},
			{cmdLoad, "Calls nest more than 8 deep.", []string{"VER016"}},
		},
	},
	{Number: abi.ENOEXEC, Prints: "Exec format error"},
	{
		Number: abi.EBADF, Prints: "Bad file descriptor",
		Meanings: []Meaning{
			{cmdLoad, "A map file descriptor in the instructions is not open, or is not a map.", []string{"REQ002"}},
			{cmdLoad, "prog_btf_fd, attach_prog_fd or the token's file descriptor is not open.", []string{"REQ007"}},
			{cmdMap, "inner_map_fd or btf_fd is not open.", []string{"MAP003"}},
			{cmdToken, "bpffs_fd is not a file descriptor of a BPF file system. libbpf only tries whether tokens work: this is not the error.", []string{"PERM010"}},
			{cmdQuery, "The file descriptor is not a directory of a control group of version 2.", []string{"ATT201"}},
			{cmdInfo, "The file descriptor is not open, or does not belong to a program, a map, BTF or a link.", []string{"ATT005"}},
			{cmdMapElem, "The file descriptor is not open, or is not a map.", []string{"ATT005"}},
			{cmdTestRun, "The file descriptor of the program is not open, or is another object's.", []string{"ATT005"}},
			{cmdBind, "The descriptor is not open, or is no socket of AF_XDP with rings and a umem.", []string{"ATT005"}},
		},
	},
	{
		Number: abi.EAGAIN, Prints: "Resource temporarily unavailable",
		Meanings: []Meaning{
			{cmdLoad, "A signal was pending while the verifier ran. Loaders repeat the call.", []string{"VER201"}},
			{cmdLoad, "No program id was left.", []string{"INST002"}},
			{cmdMap, "The kernel does not answer so: a seccomp policy may answer with any errno, or the loader prints another call's.", []string{"PERM006"}},
		},
	},
	{
		Number: abi.ENOMEM, Prints: "Cannot allocate memory",
		Meanings: []Meaning{
			{cmdMap, "The map does not fit into memory: preallocated maps and arrays take all of it at once, per-CPU maps once for each CPU.", []string{"RES001"}},
			{cmdMap, "A value of a per-CPU map has over 32 KiB (E2BIG on newer kernels).", []string{"MAP005"}},
			{cmdLoad, "Memory ran out, or the limit of the loader's control group was reached.", []string{"RES001"}},
			{cmdLoad, "From 7.1: constant blinding failed and reports it as ENOMEM within the kernel.", []string{"BLIND002"}},
			{cmdSeccomp, "The filter does not fit into net.core.optmem_max (socket filters).", []string{"RES002"}},
			{cmdMapElem, "There is no memory for the element (a map without preallocation), or not for the batch: the memory limit of the control group counts.", []string{"RES001"}},
			{cmdBind, "The driver or the kernel has no memory for the rings, or the umem is larger than RLIMIT_MEMLOCK allows without CAP_IPC_LOCK.", []string{"RES001"}},
		},
	},
	{
		Number: abi.EACCES, Prints: "Permission denied",
		Note: "For BPF_PROG_LOAD this is the verifier's usual answer, and seldom a matter of permissions.",
		Meanings: []Meaning{
			{cmdLoad, "The verifier rejects the program: memory access, null pointer, bounds, uninitialised data, return value.", []string{"VER001", "VER002", "VER003", "VER099"}},
			{cmdLoad, "SELinux or another security module forbids it. The verifier's log says nothing about it.", []string{"PERM005"}},
			{cmdLoad, "A loader without CAP_PERFMON would leak a kernel address.", []string{"PERM009"}},
			{cmdObjByID, "A security module such as SELinux forbids this process to use the object of another one (prog_run, map_read).", []string{"PERM005"}},
			{cmdInfo, "A security module such as SELinux forbids it.", []string{"PERM005"}},
			{cmdSeccomp, "The task has neither no_new_privs nor CAP_SYS_ADMIN.", []string{"CBPF002"}},
			{cmdMapElem, "The map's flags forbid this access to programs.", nil},
			{cmdMapElem, "A security module such as SELinux forbids this process the map of another one (map_read, map_write).", []string{"PERM005"}},
			{cmdBind, "A policy (SELinux, AppArmor) forbids sockets of AF_XDP, or the loader lacks CAP_NET_RAW.", []string{"PERM005"}},
		},
	},
	{
		Number: abi.EFAULT, Prints: "Bad address",
		Meanings: []Meaning{
			{cmdAny, "The attributes, or something that they point to, cannot be read or written.", []string{"REQ005"}},
			{cmdMapElem, "A buffer is shorter than the kernel reads or writes. A per-CPU map takes a value, rounded up to 8 bytes, for each possible CPU (/sys/devices/system/cpu/possible), also for those that are offline; a batch takes count times as much.", []string{"REQ005"}},
			{cmdLoad, "More than 8192 branches were left to be walked (before E2BIG was used for it).", []string{"VER102"}},
			{cmdLoad, "The verifier found itself in a state that should not be possible: a bug of the kernel.", []string{"VER099"}},
		},
	},
	{
		Number: abi.EBUSY, Prints: "Device or resource busy",
		Meanings: []Meaning{
			{cmdMap, "The map is frozen, or already tied to a program.", nil},
			{cmdMapElem, "The bucket was locked by an operation that this one interrupted on the same CPU, or the map is frozen or mapped into memory: try again.", nil},
			{cmdDetach, "The link or the program is in use.", nil},
			{cmdBind, "Another AF_XDP socket is bound to this queue of the device: of another process, of this one (a loop that names the same queue each time), or one that was closed a moment ago. Give each socket a queue of its own, or share its memory (XDP_SHARED_UMEM).", []string{"ATT003"}},
		},
	},
	{
		Number: abi.EEXIST, Prints: "File exists",
		Meanings: []Meaning{},
	},
	{
		Number: abi.ENODEV, Prints: "No such device",
		Meanings: []Meaning{
			{cmdLoad, "prog_ifindex names no device, or one that takes no programs.", []string{"REQ007"}},
			{cmdBind, "There is no device of this number in the network namespace of the process.", []string{"ATT305"}},
		},
	},
	{Number: abi.ENOTDIR, Prints: "Not a directory"},
	{
		Number: abi.EINVAL, Prints: "Invalid argument",
		Note: "This errno has the most meanings. Without a log, or without watching the kernel, it proves nothing.",
		Meanings: []Meaning{
			{cmdLoad, "The verifier rejects the program: unknown helper, wrong instruction, unreachable code, unreleased reference.", []string{"FEAT001", "FEAT002", "REQ006", "VER005", "VER099"}},
			{cmdLoad, "The kernel does not know the program type or the attach type, or was built without it (CONFIG_CGROUP_BPF for programs of control groups, CONFIG_BPF_LSM). 'bpftool feature probe' lists the types that it knows.", []string{"FEAT004"}},
			{cmdLoad, "The kernel does not know a flag or another field of the request.", []string{"REQ007"}},
			{cmdLoad, "Lockdown hides a helper, and the verifier calls it unknown: the log says so, and /sys/kernel/security/lockdown whether it is on.", []string{"PERM003", "PERM004"}},
			{cmdLoad, "A CO-RE relocation failed and the loader left poison in its place: the log has 'invalid func unknown#195896080' then.", []string{"BTF001"}},
			{cmdLoad, "The program's func_info, line_info or BTF does not fit its instructions.", []string{"BTF004"}},
			{cmdLoad, "The program shares a prog array with programs of another kind (the log is clean).", []string{"TAIL001"}},
			{cmdLoad, "The log's level, size and address do not go together.", []string{"REQ008"}},
			{cmdMap, "The kernel does not know the map type or a flag, or was built without it: ring buffers came with 5.8, sockmap and sockhash need CONFIG_BPF_STREAM_PARSER. 'bpftool feature probe' lists the types that it knows.", []string{"FEAT005"}},
			{cmdMap, "A size or a flag does not go with the map type.", []string{"MAP001"}},
			{cmdMap, "The map was to be made for a network device (offload), and its driver takes none.", nil},
			{cmdBTF, "The BTF is malformed, or has a kind that this kernel does not know.", []string{"BTF002"}},
			{cmdSeccomp, "The filter does not pass the checker of classic BPF.", []string{"CBPF001"}},
			{cmdSeccomp, "The kernel was built without CONFIG_SECCOMP_FILTER, or does not know a flag of the call: LOG came with 4.14, SPEC_ALLOW with 4.17, listeners with 5.0.", nil},
			{cmdToken, "This kernel does not know BPF tokens (6.9). libbpf tries to create one at every start: this is not the error.", []string{"PERM010"}},
			{cmdDetach, "No such program is attached here, or the kernel has no such attach type (CONFIG_CGROUP_BPF): there is nothing to remove. This is harmless if the loader only cleans up.", nil},
			{cmdQuery, "This kernel does not know the attach type that is asked about, or was built without it (CONFIG_CGROUP_BPF for control groups, 4.15 for devices), or is older than the query itself (4.15).", []string{"ATT002"}},
			{cmdObjByID, "This kernel does not know the command: ids came with 4.13, those of links with 5.8.", nil},
			{cmdInfo, "The size or a pointer of the answer does not fit this kernel, or the descriptor belongs to an object without such an answer.", nil},
			{cmdMapElem, "A flag or a field that this command does not take, a type of map without this operation, or a kernel without the command (batches came with 5.6, lookup and delete with 4.20 for queues and with 5.14 for hashes).", nil},
			{cmdBind, "The queue is not below the number of the device's queues, a ring's size is no power of two, flags exclude each other (XDP_COPY with XDP_ZEROCOPY), or the umem's frames do not fit (size, headroom, huge pages).", nil},
			{cmdBind, "The driver refuses native XDP or zero copy with this setting of the device (MTU, number of queues): the kernel's log may say why.", []string{"ATT302", "ATT303"}},
			{cmdTestRun, "This program type cannot be run for a test, or the context or packet that was passed is too small or too large.", nil},
		},
	},
	{
		Number: abi.ENFILE, Prints: "Too many open files in system",
		Meanings: []Meaning{{cmdAny, "fs.file-max is reached. The program was verified and compiled, and thrown away.", []string{"INST001"}}},
	},
	{
		Number: abi.EMFILE, Prints: "Too many open files",
		Meanings: []Meaning{{cmdAny, "The process has as many file descriptors as RLIMIT_NOFILE allows. The program was verified and compiled, and thrown away.", []string{"INST001"}}},
	},
	{Number: abi.ENOTTY, Prints: "Inappropriate ioctl for device"},
	{
		Number: abi.ENOSPC, Prints: "No space left on device",
		Meanings: []Meaning{
			{cmdQuery, "More programs are attached than the caller made room for: it asks again with more.", nil},
			{cmdMapElem, "A batch (lookup, or lookup and delete) met a bucket of the hash table with more elements than the buffers have room for (count): call again with a larger count. It depends on how the keys are spread, and comes and goes. The map is not full.", nil},
			{cmdInfo, "The buffer for the answer is too short.", nil},
			{cmdBind, "There are not enough buffers for zero copy, or the driver has no free queue for it.", nil},
			{cmdLoad, "The loader's log buffer is too small. The verdict is lost with it: the program may be fine.", []string{"REQ004"}},
			{cmdBTF, "The log buffer for BTF is too small.", []string{"REQ004"}},
			{cmdAny, "All ids are in use.", []string{"INST002"}},
		},
	},
	{Number: abi.EROFS, Prints: "Read-only file system"},
	{
		Number: abi.ERANGE, Prints: "Numerical result out of range",
		Note: "Inside the kernel it says that a jump no longer fits after an instruction was replaced. bpf(2) turns it into ENOTSUPP, or loads the program without compiling it.",
		Meanings: []Meaning{
			{cmdLoad, "A jump no longer fits 16 bits after an instruction was replaced by several.", []string{"BLIND001", "BLIND002", "BLIND003"}},
			{cmdLoad, "A key or value size in BTF is out of range.", []string{"BTF002"}},
		},
	},
	{
		Number: abi.ENOSYS, Prints: "Function not implemented",
		Meanings: []Meaning{
			{cmdAny, "The kernel was built without bpf(2), or a seccomp policy answers ENOSYS in its place.", []string{"PERM006"}},
		},
	},
	{Number: abi.ELOOP, Prints: "Too many levels of symbolic links"},
	{Number: abi.ENOLINK, Prints: "Link has been severed"},
	{Number: abi.EPROTO, Prints: "Protocol error"},
	{Number: abi.EILSEQ, Prints: "Invalid or incomplete multibyte or wide character"},
	{Number: abi.ENOTSOCK, Prints: "Socket operation on non-socket"},
	{
		Number: abi.EOPNOTSUPP, Prints: "Operation not supported",
		Note: "95, also called ENOTSUP. It is not ENOTSUPP, which is 524 and prints the same words in cilium/ebpf.",
		Meanings: []Meaning{
			{cmdToken, "The BPF file system delegates nothing. libbpf tries to create a token at every start: this is not the error.", []string{"PERM010"}},
			{cmdMap, "The map was to be made for a network device (offload), and its driver takes none. Attach in native or generic mode instead.", nil},
			{cmdMapElem, "The map type does not know the operation.", nil},
			{cmdBind, "The driver has no zero copy (bind with XDP_COPY), or no native XDP (attach in generic mode).", []string{"ATT301"}},
			{cmdBind, "The kernel is older than something that the library asks for: sockets of AF_XDP came with 4.18, getsockopt(XDP_OPTIONS) with 5.3, shared memory of several devices with 5.10.", []string{"ATT002"}},
			{cmdLoad, "The JIT of this machine lacks something that the program uses (arenas, exceptions).", []string{"JIT002"}},
		},
	},
	{
		Number: abi.EAFNOSUPPORT, Prints: "Address family not supported by protocol",
		Meanings: []Meaning{{cmdBind, "The kernel was built without sockets of AF_XDP (CONFIG_XDP_SOCKETS).", nil}},
	},
	{Number: abi.EADDRNOTAVAIL, Prints: "Cannot assign requested address"},
	{
		Number: abi.ENOBUFS, Prints: "No buffer space available",
		Meanings: []Meaning{{cmdBind, "The memory of the umem is locked, and RLIMIT_MEMLOCK is too low for it: raise it (ulimit -l), or start with CAP_IPC_LOCK.", []string{"RES001"}}},
	},
	{Number: abi.ENOTCONN, Prints: "Transport endpoint is not connected"},
	{Number: abi.ESTALE, Prints: "Stale file handle"},
	{
		Number: abi.ERESTARTSYS, Prints: "\"Unknown error 512\" (libc), \"errno 512\"",
		Note: "512 is internal to the kernel, which makes such a call again by itself: a process never gets it, a tracer may see it.",
		Meanings: []Meaning{
			{cmdAny, "A signal or an exec interrupted the system call while a seccomp listener held it. bpf(2) had not begun.", []string{"REQ010"}},
		},
	},
	{
		Number: abi.ENOTSUPP, Prints: "\"Unknown error 524\" (libc), \"operation not supported\" (cilium/ebpf), \"errno 524\" (runc, libseccomp)",
		Note: "524 is internal to the kernel: libc has no name for it, it is not EOPNOTSUPP (95), and in Go errors.Is(err, ebpf.ErrNotSupported) is false for it.",
		Meanings: []Meaning{
			{cmdLoad, "Constant blinding made a jump too long, and the kernel may not or cannot fall back to the interpreter.", []string{"BLIND001", "BLIND002"}},
			{cmdLoad, "The memory for compiled programs is used up (net.core.bpf_jit_limit); loaders with CAP_BPF are exempt.", []string{"JIT001"}},
			{cmdLoad, "The JIT of this machine cannot compile the program, and there is no interpreter. The reason, if any, is in the kernel's log.", []string{"JIT002"}},
			{cmdLoad, "The program calls kernel functions (kfuncs) and the JIT of this machine cannot.", []string{"FEAT007"}},
			{cmdSeccomp, "The memory for compiled programs is used up: \"error loading seccomp filter: errno 524\", pods stuck in ContainerCreating.", []string{"JIT001"}},
			{cmdSeccomp, "The JIT of this machine cannot compile the filter (32-bit machines).", []string{"JIT002"}},
			{cmdMap, "An LRU map with BPF_F_NO_PREALLOC.", []string{"MAP002"}},
			{cmdMap, "Key or value BTF on a map type that takes none. libbpf tries again without it: this is not the error.", []string{"MAP003"}},
			{cmdMapElem, "A batch operation or get_next_key on a map type without it.", nil},
			{cmdTestRun, "The program type cannot be run for a test.", nil},
			{cmdToken, "BPF tokens are not supported here.", []string{"PERM010"}},
		},
	},
}))
