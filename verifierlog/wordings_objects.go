// SPDX-License-Identifier: Apache-2.0

package verifierlog

// anyArgument is how the verifier names an argument: by number, or since 7.1 by its register.
const anyArgument = `(?:R\d+|\*\(R11-\d+\)|[Aa]rg ?#?\d+)`

// objectWordings are about objects with a life of their own: references, locks, dynptrs,
// iterators, fields that the kernel keeps, and what the program allocates.
var objectWordings = []Info{
	wording(ReferenceLeak, `Unreleased reference id=(?P<id>\d+) alloc_insn=(?P<insn_acquired>\d+)`, "Unreleased reference id=2 alloc_insn=7"),
	wording(ReferenceLeak, `Leaking reference id=(?P<id>\d+) alloc_insn=(?P<insn_acquired>\d+)\. Release it first`, "Leaking reference id=2 alloc_insn=7. Release it first."),
	wording(ReferenceLeak, `(?:tail_call|bpf_throw|BPF_EXIT instruction[\w ]*|BPF_LD_\[ABS\|IND\]) would lead to reference leak`, "tail_call would lead to reference leak"),
	wording(ReferenceLeak, `BPF_LD_\[ABS\|IND\] cannot be mixed with socket references`, "BPF_LD_[ABS|IND] cannot be mixed with socket references").printedBy("before 6.13"),
	wording(ArgumentType, `(?:kfunc|func) (?P<name>\w+)#\d+ reference has not been acquired before|arg (?P<arg>\d+) is an unacquired reference`, "func bpf_sk_release#86 reference has not been acquired before").
		note("The program releases something that it did not acquire, or that it has released already.", "Release each object once, on each path, and keep the pointer that acquiring it returned."),
	wording(ArgumentType, `release (?:kernel function|kfunc|helper) (?P<name>\S+) expects ref(?:counted|erenced) PTR_TO_BTF_ID`, "release kernel function bpf_task_release expects refcounted PTR_TO_BTF_ID").
		note("{name} releases a reference, and the pointer that it gets holds none.", "Pass the pointer that acquiring returned, compared with NULL, and not a copy that was read from elsewhere."),
	wording(ArgumentType, `function expects only one referenced object but got (?P<count>\d+)`, "function expects only one referenced object but got 2").
		note("{count} of the arguments hold a reference, and the function takes one such argument.", "Release or store one of them before the call."),

	wording(Lock, `(?:function calls|global function calls) are not allowed (?:while holding a lock|with (?P<what>preemption|interrupts) disabled|inside)`, "function calls are not allowed while holding a lock"),
	wording(Lock, `(?:tail_call|bpf_throw|BPF_EXIT instruction[\w ]*|BPF_LD_\[ABS\|IND\]) cannot be used inside (?P<region>\w+)-ed region`, "tail_call cannot be used inside bpf_spin_lock-ed region"),
	wording(Lock, `bpf_spin_unlock is missing|bpf_rcu_read_unlock is missing|\d+ bpf_preempt_enable\w* (?:is |are )?missing|bpf_preempt_enable is missing`, "bpf_rcu_read_unlock is missing"),
	wording(Lock, `(?P<lock>\w+)_unlock (?:without taking a lock|of different lock|cannot be out of order)`, "bpf_spin_unlock without taking a lock"),
	wording(Lock, `Locking two bpf_spin_locks are not allowed`, "Locking two bpf_spin_locks are not allowed"),
	wording(Lock, `Acquiring the same lock again, AA deadlock detected`, "Acquiring the same lock again, AA deadlock detected").
		note("The program takes a lock that it already holds.", "Release it first."),
	wording(Rejected, `Failed to acquire lock state`, "Failed to acquire lock state").
		note("The verifier had no memory to remember that a lock is held.", "Free memory, and load again.").
		costs("Another attempt."),
	wording(Lock, `(?P<how>nested|unmatched) rcu read (?:un)?lock \(kernel function (?P<name>\w+)\)`, "unmatched rcu read unlock (kernel function bpf_rcu_read_unlock)"),
	wording(Lock, `unmatched attempt to enable preemption \(kernel function (?P<name>\w+)\)`, "unmatched attempt to enable preemption (kernel function bpf_preempt_enable)"),
	wording(Lock, `Calling bpf_rcu_read_\{lock,unlock\} in unnecessary rbtree callback|can't (?:res_)?spin_\{lock,unlock\} in rbtree cb`, "can't spin_{lock,unlock} in rbtree cb").
		note("The comparing function of a tree takes or releases a lock. It runs under the lock of its tree.", "Compare without locks."),
	wording(Lock, `expected an RCU CS when using (?P<name>\w+)|kernel func (?P<func>\w+) requires RCU critical section protection`, "expected an RCU CS when using bpf_iter_task_next").
		note("The function may be called only inside an RCU read section, and a sleepable program has none of its own.", "Call bpf_rcu_read_lock before and bpf_rcu_read_unlock after."),
	wording(Lock, `irq flag acquired by (?P<have>\w+) kfuncs cannot be restored with (?P<want>\w+) kfuncs`, "irq flag acquired by native kfuncs cannot be restored with lock kfuncs").
		note("Interrupts were disabled by one pair of functions ({have}) and are enabled by another ({want}).", "Use the two functions of one pair, with one flag for each pair."),
	wording(Lock, `cannot restore irq state out of order, expected id=\d+ acquired at insn_idx=(?P<insn_acquired>\d+)`, "cannot restore irq state out of order, expected id=2 acquired at insn_idx=7").
		note("Saved interrupts are restored in another order than they were saved; the one saved at instruction {insn_acquired} comes first.", "Restore the last one first."),

	wording(Sleepable, `helper call might sleep in a non-sleepable prog`, "helper call might sleep in a non-sleepable prog").printedBy("5.10 and newer"),
	wording(Sleepable, `program must be sleepable to call sleepable kfunc (?P<name>\S+)`, "program must be sleepable to call sleepable kfunc bpf_fget_task_exe").printedBy("6.1 and newer"),
	wording(Sleepable, `kernel function (?P<name>\w+) is sleepable but the program is not`, "kernel function bpf_copy_from_user_str is sleepable but the program is not"),
	wording(Sleepable, whole(`(?P<name>[\w.]+) is not sleepable`), "bpf_lsm_file_open is not sleepable"),
	wording(Sleepable, `Only fentry/fexit/[\w/,. -]* programs can be sleepable|Syscall programs can only be sleepable|BPF_LSM_CGROUP programs cannot be sleepable|Program of this type cannot be sleepable`, "Only fentry/fexit/fmod_ret, lsm, iter, uprobe, and struct_ops programs can be sleepable"),
	wording(Sleepable, `Sleepable program cannot attach to non-faultable tracepoint (?P<name>\S+)`, "Sleepable program cannot attach to non-faultable tracepoint sched_switch").
		note("The tracepoint {name} fires where nothing may sleep.", "Use a program that does not sleep, or one of the system call tracepoints, which allow it."),
	wording(Sleepable, `(?:sleepable helper|kernel func) (?P<name>\w+?)(?:#\d+)?(?: is sleepable)? (?:in|within) (?P<where>[\w-]+(?: [\w-]+)*)`, "sleepable helper bpf_copy_from_user#148 in rcu_read_lock region").printedBy("6.2 and newer"),
	wording(Sleepable, `sleepable global function (?P<name>\w+)\(\) called in (?P<where>.+)`, "sleepable global function f() called in rcu_read_lock region").
		note("{name} may sleep, and is called where nothing may.", "Call it outside of the section, or make it a static function that does not sleep."),
	wording(Sleepable, `css_task_iter is only allowed in bpf_lsm, bpf_iter and sleepable progs`, "css_task_iter is only allowed in bpf_lsm, bpf_iter and sleepable progs").
		note("The iterator over the tasks of a control group takes a lock that other programs may interrupt.", "Iterate in an LSM, iterator or sleepable program."),

	// A dynptr, an iterator and a saved interrupt flag are structs on the stack that the kernel
	// keeps track of.
	wording(StackObject, `Dynptr has to be an uninitialized dynptr`, "Dynptr has to be an uninitialized dynptr").
		note("A function that sets up a dynptr gets one that is in use.", "Declare a struct bpf_dynptr for each, and release one that holds a reference before using it again."),
	wording(StackObject, `Expected an initialized dynptr as `+anyArgument, "Expected an initialized dynptr as arg #1").
		note("A function that uses a dynptr gets one that was not set up on this path, or that was released.", "Set it up first, and check the result of doing so."),
	wording(StackObject, `Expected a dynptr of type (?P<want>\w+) as `+anyArgument, "Expected a dynptr of type ringbuf as arg #1").
		note("The function takes dynptrs of type {want} only.", "Use the functions that belong to the way in which the dynptr was set up."),
	wording(StackObject, `cannot overwrite referenced dynptr|potential write to dynptr at off=(?P<off>-?\d+) disallowed`, "cannot overwrite referenced dynptr").
		note("Stack memory is written that a dynptr lies in.", "Keep the dynptr in a variable of its own, and submit or discard one that holds a reference first."),
	wording(StackObject, `cannot pass pointer to const bpf_dynptr, the helper mutates it|cannot release unowned const bpf_dynptr|CONST_PTR_TO_DYNPTR cannot be released`, "cannot pass pointer to const bpf_dynptr, the helper mutates it").
		note("The dynptr belongs to the kernel, which lends it to this callback for reading. It cannot be changed or released.", "Make one of your own by bpf_dynptr_clone."),
	wording(StackObject, `(?P<what>dynptr|iter_?\w*|irq_flag|\w+) has to be at a constant offset`, "dynptr has to be at a constant offset").
		note("The {what} is passed by a stack address that is not a constant.", "Pass the address of the variable itself, not of an element of an array by a variable index."),
	wording(StackObject, `cannot pass in (?P<what>\w+) at an offset(?:=(?P<off>-?\d+))?`, "cannot pass in dynptr at an offset=-12").
		note("The address that is passed is not the beginning of a {what}: it lies in the middle of one, or is not aligned to 8 bytes.", "Pass the address of the variable itself."),
	wording(StackObject, anyArgument+` expected pointer to (?P<want>stack or (?:const struct bpf_dynptr|dynptr_ptr)|an iterator on stack)`, "arg#0 expected pointer to stack or const struct bpf_dynptr").
		note("The function wants a dynptr or an iterator, which are variables on the stack.", "Declare a struct bpf_dynptr or struct bpf_iter_... in the function, and pass its address."),
	wording(StackObject, anyArgument+` doesn't point to an irq flag on stack`, "arg#0 doesn't point to an irq flag on stack").
		note("The function wants the flag in which interrupts were saved, a variable on the stack.", "Declare an unsigned long in the function, and pass its address."),
	wording(StackObject, `expected valid iter pointer as `+anyArgument, "expected valid iter pointer as arg #1").
		note("The argument is not an iterator of the kind that the function works on.", "Pass the iterator that the function of the same family (bpf_iter_..._new) set up."),
	wording(StackObject, `expected uninitialized (?P<what>iter_\w+|irq flag) as `+anyArgument, "expected uninitialized iter_num as arg #1").
		note("A function that sets up an {what} gets one that is in use.", "Declare another one, or destroy (restore) this one first."),
	wording(StackObject, `expected an initialized (?P<what>iter_\w+|irq flag) as `+anyArgument, "expected an initialized iter_num as arg #1").
		note("The {what} was not set up on this path, or is no longer in use.", "Set it up before the loop, and destroy (restore) it once."),
	wording(StackObject, `Unsupported reg type (?P<type>\S+) for bpf_dynptr_from_mem data`, "Unsupported reg type fp for bpf_dynptr_from_mem data").
		note("bpf_dynptr_from_mem takes memory of a map value, and gets {type}.", "Put the data into a map value."),
	wording(StackObject, `kfunc (?P<name>\w+)#\d+ conversion of owning ref to non-owning failed`, "kfunc bpf_list_push_front#9 conversion of owning ref to non-owning failed"),

	// Fields of map values and objects that the kernel keeps.
	wording(SpecialField, reg+` doesn't have constant offset\. (?P<what>\w+) has to be at the constant offset`, "R1 doesn't have constant offset. bpf_timer has to be at the constant offset").
		note("The pointer to the {what} has an offset that is not a constant.", "Pass the address of the field, &value->field, and not one that was computed from an index."),
	wording(SpecialField, `(?P<kind>map|\w+) '(?P<name>[^']*)' has to have BTF in order to use (?P<what>\w+)`, "map 'm' has to have BTF in order to use bpf_spin_lock").
		note("The map {name} was created without BTF for its value, so the kernel does not know where in it the {what} is.", "Define the map in a .maps section with __type(value, struct ...), build with -g, and let the loader pass the BTF."),
	wording(SpecialField, `map '(?P<name>[^']*)' has more than (?:one|\d+) (?P<what>.+)`, "map 'm' has more than one 'struct bpf_spin_lock'").
		note("The value of map {name} has more of these fields than are allowed: {what}.", "Spread them over several maps."),
	wording(SpecialField, `(?P<kind>map|\w+) '(?P<name>[^']*)' (?:has no valid|doesn't have) (?P<what>.+)`, "map 'm' has no valid bpf_timer").
		note("The value of map {name} has no {what} in its BTF type.", "Declare the field in the struct that the map's definition names as its value."),
	wording(SpecialField, `map '(?P<name>[^']*)' (?:is not a struct type or (?P<what>\w+) is mangled|has repeating kptr BTF tags)`, "map 'm' is not a struct type or bpf_timer is mangled").
		note("The BTF type of the value of map {name} is not a struct with such a field.", "Use a struct with the field as its value, and tag a kptr once."),
	wording(SpecialField, `off (?P<off>-?\d+) doesn't point to '(?P<what>struct \w+)'`, "off 8 doesn't point to 'struct bpf_spin_lock' that is at 0").
		note("The argument points to byte {off} of the value, and the {what} is elsewhere.", "Pass the address of the field itself."),
	wording(SpecialField, `off=(?P<off>-?\d+) (?:doesn't point to kptr|kptr isn't referenced kptr)|`+reg+` has no valid kptr`, "off=8 doesn't point to kptr").
		note("bpf_kptr_xchg needs the address of a field that is declared as __kptr (before 6.4: __kptr_ref).", "Tag the pointer in the map's value type as __kptr, and pass its address."),
	wording(SpecialField, `(?P<what>kptr|uptr|percpu_kptr|\w+) (?:cannot be accessed indirectly by helper|access cannot have variable offset|access misaligned expected=\d+ off=\d+|access size must be BPF_DW)`, "kptr access size must be BPF_DW").
		note("A {what} in a map value is accessed in part, by an offset that is not a constant, or through a helper that copies the value.", "Read it as a whole, by its name, and change it by bpf_kptr_xchg."),
	wording(SpecialField, `(?P<what>kptr) in map can only be accessed using (?P<how>\S+)|store to (?P<kind>referenced kptr|uptr) disallowed|BPF_ST imm must be 0 when storing to kptr`, "store to referenced kptr disallowed").
		note("A pointer that the map keeps is written directly.", "Exchange it by bpf_kptr_xchg, which returns the old one; the program must release that."),
	wording(SpecialField, `invalid kptr access, `+reg+` type=(?P<type>\S+)`, "invalid kptr access, R1 type=ptr_task_struct expected=ptr_cgroup").
		note("The pointer that is stored ({type}) is not of the type of the field.", "Store an object of the field's type, with a reference of its own."),
	wording(SpecialField, reg+` must point to kernel BTF`, "R1 must point to kernel BTF").
		note("A pointer to an object of the program's own is stored in a field for one of the kernel's.", "Declare the field with the type of the object."),
	wording(SpecialField, `(?P<what>\w+) cannot be accessed directly by load/store`, "bpf_spin_lock cannot be accessed directly by load/store").
		note("The program reads or writes a {what} itself.", "Use its functions only. Do not clear or copy the whole value: set the other fields one by one."),
	wording(SpecialField, `(?P<what>timer|workqueue|bpf_task_work) pointer in R(?P<one>\d) map_uid=\d+ doesn't match map pointer in R(?P<other>\d)`, "timer pointer in R1 map_uid=1 doesn't match map pointer in R2 map_uid=2").
		note("The {what} in R{one} lies in a value of another map than the one in R{other}.", "Pass the map that the value was looked up in."),
	wording(SpecialField, `bpf_timer cannot be used for PREEMPT_RT`, "bpf_timer cannot be used for PREEMPT_RT.").
		note("This kernel is built with PREEMPT_RT, on which BPF timers are not available.", "Use a bpf_wq (6.10), or do the work from user space.").
		costs("A change of the program; a kernel that has them."),
	wording(SpecialField, anyArgument+` no referenced kptr at map value offset=(?P<off>\d+)|`+anyArgument+` (?:BTF type must be a double pointer|must have constant offset|expected pointer to map value$)`, "arg#0 no referenced kptr at map value offset=8").
		note("The function wants the address of a kptr field in a map value.", "Pass &value->field, where the field is tagged __kptr_ref."),
	wording(SpecialField, `unsupported BTF field type: (?P<what>\S+)`, "unsupported BTF field type: bpf_wq"),

	// Objects that the program allocates, and lists and trees of them.
	wording(OwnedObject, `bpf_spin_lock at off=(?P<off>-?\d+) must be held for (?P<what>\w+)`, "bpf_spin_lock at off=0 must be held for bpf_list_head").
		note("A {what} is used while the lock beside it, at offset {off}, is not held.", "Take the bpf_spin_lock of the same struct before, and release it after."),
	wording(OwnedObject, `held lock and object are not in the same allocation`, "held lock and object are not in the same allocation").
		note("A lock is held, and not the one that lies beside the list or tree.", "Take the lock of the same map value or object."),
	wording(OwnedObject, `(?P<what>bpf_\w+|\w+) not found at offset=(?P<off>\d+)`, "bpf_list_head not found at offset=8").
		note("There is no {what} at offset {off} of that object.", "Pass the address of the field itself, and tag a head with __contains(type, field)."),
	wording(OwnedObject, `operation on (?P<root>\w+) expects arg#1 (?P<node>\w+) at offset=(?P<want_off>\d+) in struct (?P<want>\w+), but arg is at offset=(?P<off>\d+) in struct (?P<type>\w+)|arg#1 offset=\d+, but expected \w+ at offset=\d+ in struct \w+`,
		"operation on bpf_list_head expects arg#1 bpf_list_node at offset=8 in struct foo, but arg is at offset=0 in struct bar").
		note("The node is not the one that the head was declared for.", "Let __contains(type, field) of the head name the type and the field of the node that is passed."),
	wording(OwnedObject, `allocated object must be referenced`, "allocated object must be referenced").
		note("The object is borrowed: it is in a list or tree already, or was released.", "Pass an object that the program owns, from bpf_obj_new, bpf_refcount_acquire or a removal."),
	wording(OwnedObject, anyArgument+` expected for bpf_(?:percpu_)?obj_drop`, "arg#0 expected for bpf_obj_drop_impl()").
		note("The object was not allocated by the function that goes with this one: bpf_obj_new with bpf_obj_drop, bpf_percpu_obj_new with bpf_percpu_obj_drop.", "Use the pair."),
	wording(OwnedObject, anyArgument+` (?:expected pointer to (?:map value or )?allocated object|is neither owning or non-owning ref|doesn't point to (?:a type with bpf_refcount field|map value or allocated object))`, "arg#0 expected pointer to allocated object").
		note("The function works on objects of the program's own (bpf_obj_new), or on map values, with the field that it needs.", "Pass such an object, and declare the field (bpf_refcount, bpf_list_node, ...) in its type."),
	wording(OwnedObject, `rbtree_remove node input must be non-owning ref|(?P<name>\w+) can only take non-owning or refcounted bpf_rb_node pointer|(?:rbtree_remove|\w+) not allowed in rbtree cb`, "rbtree_remove node input must be non-owning ref").
		note("A node is removed that is not in a tree as far as the verifier knows, or from inside of the comparing function.", "Remove a node that bpf_rbtree_first or a walk returned, under the lock, outside of callbacks."),
	wording(OwnedObject, `local type ID argument must be in range \[0, U32_MAX\]|bpf_obj_new/bpf_percpu_obj_new (?:requires prog BTF|type ID argument must be of a struct)`, "bpf_obj_new/bpf_percpu_obj_new requires prog BTF").
		note("The type of the object to allocate is not known.", "Call bpf_obj_new(typeof(struct ...)), build with -g, and load with a library that resolves local type ids."),
	wording(OwnedObject, `bpf_percpu_obj_new type (?:size \((?P<size>\d+)\) is greater than (?P<limit>\d+)|ID argument must (?:be of a struct of scalars|not contain special fields))`, "bpf_percpu_obj_new type size (1024) is greater than 512").
		note("bpf_percpu_obj_new allocates small structs of numbers only, without pointers, locks, timers or list nodes.", "Use a smaller struct, or a per-CPU map."),
	wording(OwnedObject, `(?P<name>\w+) cannot be used in tracing programs on types with NMI unsafe fields`, "bpf_obj_drop_impl cannot be used in tracing programs on types with NMI unsafe fields").
		note("{name} is called in a tracing program, which may run in an NMI, for a type with fields that are not safe there.", "Do it in another type of program, or put the object into a map from which that one takes it."),

	// Functions that the kernel calls back, and exceptions.
	wording(Callback, `callback function not static`, "callback function not static").
		note("A callback is a global function.", "Declare it static."),
	wording(Callback, `callback function cannot be the main program`, "callback function cannot be the main program").
		note("The program passes itself as a callback.", "Pass another, static function."),
	wording(Callback, `callback function not allowed for map`, "callback function not allowed for map").
		note("Maps of this type cannot be walked by bpf_for_each_map_elem.", "Use an array, hash or per-CPU map, or look up elements by key."),
	wording(Callback, anyArgument+` expected pointer to func`, "arg1 expected pointer to func").
		note("The function wants a callback, and gets something else.", "Pass the name of a static function."),
	wording(Callback, `kfunc (?P<name>\w+)#\d+ failed callback verification`, "kfunc bpf_rbtree_add_impl#9 failed callback verification").
		note("The callback that is passed to {name} was refused; the lines before say why.", "Read the log upwards from here."),
	wording(Callback, `bpf_throw kfunc \(insn (?P<insn>\d+)\) cannot be called from callback subprog \d+|insn (?P<at>\d+) cannot call exception cb directly|cannot tail call within (?:exception cb|callback)|cannot use BPF_LD_\[ABS\|IND\] within callback`, "cannot tail call within exception cb").
		note("Callbacks and the exception handler may not throw, make tail calls or read packets by LD_ABS, and the handler is called by the kernel only.", "Do it in the main program, after the callback has returned."),
	wording(Callback, `exception cb (?:only supports single integer argument|cannot return void)|multiple exception callback tags for main subprog|exception callback '(?P<name>[^']+)' (?:could not be found in BTF|must have global linkage)|exception callback type id not found in func_info|invalid (?:btf id for main subprog in func_info|exception callback insn_off in func_info)`, "exception cb only supports single integer argument").
		note("The exception handler that the program names (__exception_cb) must be one global function that takes a u64 and returns an int, and be in the object's BTF.", "Mend its declaration."),
	wording(Callback, `frame(?P<frame>\d+) bpf_loop iteration limit reached`, "frame1 bpf_loop iteration limit reached"),
}
