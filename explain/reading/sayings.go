// SPDX-License-Identifier: Apache-2.0

package reading

import (
	"fmt"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
	"github.com/bpfwhy/bpfwhy/load"
)

// role is what a line tells of a failure.
type role int

const (
	nothing role = iota
	// attempted says what is done, and not that it failed.
	attempted
	// noise looks like a failure and is none: it happens at every start.
	noise
	// tolerated did fail, and the program goes on without.
	tolerated
	// aftermath follows from a failure that another line tells.
	aftermath
	// detail is the reason of a failure that another line tells.
	detail
	failure
)

// place is a kind of places that programs are attached to, and what is known with it.
type place struct {
	target     string // load.AttachTarget.Kind
	program    string // load.AttachProgram.Type
	attachType string // load.Attach.Type
}

// netlinkCall is an answer by netlink: what was asked for stands elsewhere.
const netlinkCall load.Kind = "netlink"

var (
	nowhere       = place{}
	kprobe        = place{target: "function", program: "kprobe"}
	kprobeMulti   = place{"function", "kprobe", "trace_kprobe_multi"}
	uprobe        = place{target: "uprobe", program: "kprobe"}
	uprobeMulti   = place{"uprobe", "kprobe", "trace_uprobe_multi"}
	tracepoint    = place{target: "tracepoint", program: "tracepoint"}
	rawTracepoint = place{target: "raw_tracepoint", program: "raw_tracepoint"}
	traced        = place{target: "function"} // by a trampoline: fentry and its kin, or LSM
	tracing       = place{target: "function", program: "tracing"}
	fentry        = place{"function", "tracing", "trace_fentry"}
	fexit         = place{"function", "tracing", "trace_fexit"}
	fmodRet       = place{"function", "tracing", "modify_return"}
	rawTracing    = place{"raw_tracepoint", "tracing", "trace_raw_tp"}
	iterator      = place{"", "tracing", "trace_iter"}
	lsm           = place{"function", "lsm", "lsm_mac"}
	xdp           = place{"netdev", "xdp", "xdp"}
	tc            = place{target: "netdev", program: "sched_cls"}
	device        = place{target: "netdev"}
	tcx           = place{"netdev", "sched_cls", "tcx_ingress"}
	netkit        = place{"netdev", "sched_cls", "netkit_primary"}
	cgroup        = place{target: "cgroup"}
	cgroupDevice  = place{"cgroup", "cgroup_device", "cgroup_device"}
	netns         = place{target: "netns"}
	netfilter     = place{"netns", "netfilter", "netfilter"}
	perfEvent     = place{target: "perf_event"}
	counter       = place{target: "perf_event", program: "perf_event"}
	socket        = place{target: "socket", program: "socket_filter"}
	sockmap       = place{target: "map", program: "sk_skb"}
	structOps     = place{"map", "struct_ops", "struct_ops"}
	freplace      = place{target: "program", program: "ext"}
)

// progDetach is told with what attaches: it is the end of the same.
const progDetach = "bpf(BPF_PROG_DETACH)"

// saying is a sentence of a loader, or a call in it, and what it says was attempted.
//
// Groups of the expression: prog, map, maptype; word (a kind of places, which wins over place);
// target, file, dev, ifindex, cgroup, path; said (the kernel's own words).
type saying struct {
	role  role
	kind  load.Kind
	place place
	says  *lazyregexp.Regexp
	// needs are words of which a line has one if the expression matches it, in small letters.
	// Looking for them first costs a hundredth.
	needs []string
	// open says that the line must tell of a failure elsewhere.
	open bool
	// word says that the expression is one word, which others say too.
	word bool
	// because says that the sentence is a reason, and not only that something failed.
	because bool
	// call names a call that is no kind of attempts.
	call string
}

func says(r role, kind load.Kind, p place, expression string, needs ...string) saying {
	return saying{role: r, kind: kind, place: p, says: lazyregexp.New(`(?i)` + expression), needs: needs}
}

// because is says for a sentence that has the reason in it.
func because(kind load.Kind, p place, expression string, needs ...string) saying {
	s := says(failure, kind, p, expression, needs...)
	s.because = true
	return s
}

// mentions is names for a word that the verifier has as well.
func mentions(kind load.Kind, p place, expression string, needs ...string) saying {
	s := names(failure, kind, p, expression, needs...)
	s.word = true
	return s
}

// names is says for an expression that names what is done, and not that it failed.
func names(r role, kind load.Kind, p place, expression string, needs ...string) saying {
	s := says(r, kind, p, expression, needs...)
	s.open = true
	return s
}

// calling is names for a call that is no kind of attempts.
func calling(name, expression string, needs ...string) saying {
	s := names(failure, load.OtherCommand, nowhere, expression, needs...)
	s.call = name
	return s
}

func (s *saying) match(line, lower string) []int {
	for _, n := range s.needs {
		if strings.Contains(lower, n) {
			return s.says.Compiled().FindStringSubmatchIndex(line)
		}
	}
	return nil
}

const (
	name   = `(?:b?['"\x60]?(?P<prog>[A-Za-z_][\w.:/-]*)(?:['"\x60:,.]|$))`
	anyMap = `(?:b?['"\x60]?(?P<map>[A-Za-z_.][\w./@-]*)(?:['"\x60:,.]|$))`
	probes = `(?P<word>k(?:ret)?probe(?:[. _-]?multi)?|u(?:ret)?probe(?:[. _-]?multi)?|usdt)`
	failed = `(?:fail|cannot|can't|could ?n[o']t|unable|error|errno|not supported|denied)`
)

// sentences are what loaders print, one by one. In a chain of errors the last one of them that
// matches says what failed, and those before it where.
var sentences = []saying{
	// libbpf.
	says(failure, load.ProgLoad, nowhere, `prog '(?P<prog>[^']*)': (?:BPF program load failed|failed to load\b)`, "prog '"),
	says(failure, load.ProgLoad, nowhere, `load bpf program failed|failed to load program '?(?P<prog>[\w.]*)`, "program failed", "load program"),
	says(failure, load.ProgLoad, nowhere, `Error in bpf_object__(?:probe_loading|probe_name)\(\)|Couldn't load (?:trivial|basic '[^']*') BPF program`, "bpf_object__probe", "couldn't load"),
	says(failure, load.MapCreate, nowhere, `Error in bpf_object__probe_global_data\(\)|Couldn't create simple array map`, "probe_global_data", "simple array"),
	because(load.ProgLoad, nowhere, `object file (?:doesn't|does not) contain any bpf program`, "contain any"),
	says(aftermath, "", nowhere, `failed to load (?:BPF )?(?:object|skeleton)|failed to (?:open and(?:/or)? )?load (?:and verify )?(?:the )?(?:BPF |eBPF )?(?:skeleton|object)|loading BPF object\(s\) failed|failed to open and load|load skeleton failed`, "load", "skeleton"),
	says(failure, load.MapCreate, nowhere, `map '(?P<map>[^']*)': failed to create\b`, "map '"),
	says(failure, load.MapCreate, nowhere, `(?:failed to create|Error creating|could not create|cannot create|can't create|unable to create) (?:the |a )?(?:bpf |ebpf )?map:? `+anyMap+`|(?:failed to|cannot|could not|unable to|error) creat\w* (?:the |a )?(?:\w+ )?map of type|failed to create (?:\w+ )?maps?(?:$|[:,.]|\s*['"(])`, "map"),
	says(failure, load.MapUpdate, nowhere, `map '(?P<map>[^']*)': failed to (?:set initial contents|initialize slot|update)`, "map '"),
	says(failure, load.LinkCreate, structOps, `map '(?P<map>[^']*)': failed to (?:auto-)?attach\b`, "map '"),
	says(detail, "", nowhere, `permission error while running as root; try raising 'ulimit -l'`, "ulimit -l"),
	says(tolerated, load.MapCreate, nowhere, `retrying without BTF`, "retrying without"),
	says(tolerated, load.BTFLoad, nowhere, `BTF is optional|Kernel doesn't support BTF, skipping|Error loading ELF section \.BTF(?:\.ext)?: `, "btf is optional", "support btf", "elf section .btf"),
	says(noise, "", nowhere, `failed \(-?\w+\) to create BPF token|failed to create BPF token|BPF token .*optional|skipping optional step|BPF token delegation set up|to open BPF FS mount at`, "bpf token", "optional step", "bpf fs mount"),
	// Old kernels have no such file: loaders define the probe in tracefs then.
	says(tolerated, "", nowhere, `^(?:\[pid +\d+\] )?(?:open|openat|access|stat)\w*\(.*event_source/devices/[ku]probe/\w+.*= -1 ENOENT`, "event_source"),
	says(noise, "", nowhere, `\bgot (?:an? |the )?expected (?:error|failure)|\b(?:failed|fails|rejected|refused|error) as expected\b|\bexpected (?:failure|rejection)\b`, "expected"),
	// systemd asks so whether the kernel could.
	says(noise, "", nowhere, `prog 'sd_\w+': failed to attach to cgroup: (?:Bad file descriptor|-EBADF)`, "prog 'sd_"),
	// Shared libraries, of whatever name.
	says(noise, "", nowhere, `cannot load (?:(?:default )?library )?\S+\.so\b|error while loading shared librar|cannot open shared object file|ImportError: |ModuleNotFoundError: |could not open bpf module:? `, "cannot load", "shared", "importerror", "modulenotfound", "bpf module"),
	// Compilers and linkers: nothing was loaded.
	says(noise, "", nowhere, `^(?:clang|clang-\d+|gcc|cc|c\+\+|ld|collect2|make|cmake|cargo|rustc)(?:\[\d+\])?: (?:\*\*\* |fatal |error|warning)|cannot find -l\w|fatal error: '[^']*' file not found|undefined reference to`, "clang", "gcc", "cc:", "ld:", "collect2", "make", "cargo", "rustc", "find -l", "file not found", "undefined reference"),
	says(noise, "", nowhere, `Got EBADF when using BPF_F_ALLOW_MULTI`, "got ebadf"),
	says(noise, "", nowhere, `elf: skipping (?:un\w+ )?(?:data )?section|skipping (?:unrecognized|relo)\b`, "skipping"),
	calling("bind(AF_XDP)", `\bbind\w*\b[^:]{0,40}\b(?:SockaddrXDP|sockaddr_xdp|AF_XDP|xsk)\b|\bbind\([^)]*AF_XDP|(?:AF_XDP|\bxsk)[^:]{0,40}\bbind\w*|\bbind\(.{0,60}\bsxdp\b|\bxsk_(?:socket|umem)__create|\b(?:AF_XDP|xsk|XDP) (?:socket|umem)|\bumem (?:create|creation|reg)|\bXDP_UMEM_REG\b`, "xdp", "xsk", "umem"),
	names(failure, load.BTFLoad, nowhere, `Error loading \.BTF into kernel|(?:load|loading) (?:the )?BTF\b.*`+failed+`|load BTF: |BPF_BTF_LOAD|`+failed+`\w* (?:to )?load(?:ing)? BTF`, "btf"),
	says(failure, load.PerfEventOpen, nowhere, `prog '(?P<prog>[^']*)': failed to create `+probes+` '(?P<target>[^']*)' perf event`, "perf event"),
	says(failure, load.PerfEventOpen, tracepoint, `(?:prog '(?P<prog>[^']*)': )?failed to (?:create|determine) tracepoint '(?P<target>[^']*)' perf event|tracepoint '(?P<target2>[^']*)' perf_event_open\(\) failed`, "tracepoint '"),
	says(failure, load.LinkCreate, nowhere, `prog '(?P<prog>[^']*)': failed to attach to `+probes+` '(?P<target>[^']*)'`, "attach to"),
	says(failure, load.PerfEventSetBPF, tracepoint, `prog '(?P<prog>[^']*)': failed to attach to tracepoint '(?P<target>[^']*)'`, "attach to tracepoint"),
	says(failure, load.RawTPOpen, rawTracepoint, `prog '(?P<prog>[^']*)': failed to attach to raw[ _]tracepoint '(?P<target>[^']*)'`, "attach to raw"),
	says(failure, load.PerfEventSetBPF, nowhere, `(?:prog '(?P<prog>[^']*)': )?failed to (?:create BPF link for perf_event FD|(?:attach to|enable) (?:perf_event FD|pfd))`, "perf_event fd", "pfd"),
	says(failure, load.ProbeDefine, nowhere, `failed to add legacy `+probes+` event for '(?P<target>[^']*)'|failed to determine legacy (?P<word2>[ku]probe) event id for '?(?P<target2>[^':]*)`, "legacy"),
	says(failure, load.LinkCreate, uprobeMulti, `failed to attach multi-uprobe`, "multi-uprobe"),
	says(failure, load.LinkCreate, nowhere, `prog '(?P<prog>[^']*)': failed to attach to (?P<word>cgroup|netns|xdp|tcx|netkit|sockmap|iterator|netfilter|struct_ops|freplace|lsm)`, "attach to"),
	// libbpf attaches by a trampoline with these words; kprobe.multi has them too.
	says(failure, load.LinkCreate, traced, `prog '(?P<prog>[^']*)': failed to attach: `, "failed to attach"),
	says(aftermath, load.LinkCreate, nowhere, `(?:prog '(?P<prog>[^']*)': )?failed to auto-attach\b|failed to attach (?:the )?(?:BPF |eBPF )?(?:skeleton|programs?\b:?$)`, "attach"),
	because(load.ObjPin, nowhere, `couldn't reuse pinned map at '(?P<path>[^']*)'`, "reuse pinned"),
	says(failure, load.ObjPin, nowhere, `failed to (?:auto-)?pin (?:the )?(?:map|prog\w*|link|at)\b(?:.*(?P<path3>/sys/fs/bpf[^\s:']*))?|map '(?P<map>[^']*)': failed to auto-pin at '(?P<path2>[^']*)'`, "pin"),
	because(load.ObjPin, nowhere, `map '(?P<map>[^']*)': error reusing pinned map`, "reusing pinned"),
	because(load.ProgLoad, nowhere, `extern \((?:func|var) ksym\) '(?P<ksym>[^']*)'(?:: not|: \w*proto|: incompat|: module|: resolution is|: failed)|extern '[^']*' \(strong\): not resolved`, "extern"),
	because(load.ProgLoad, traced, `(?:prog '(?P<prog>[^']*)': )?failed to find kernel BTF type ID of '(?P<target>[^']*)'`, "kernel btf type id"),
	because(load.ProgLoad, nowhere, `prog '(?P<prog>[^']*)': relo #\d+: .*(?:no matching targets|failed)|failed to perform CO-RE relocations|CO-RE relocation.*(?:failed|not found)|bad CO-RE relocation|apply(?:ing)? CO-RE relocations`, "relo"),
	because(load.ProgLoad, nowhere, `failed to find valid kernel BTF|kernel BTF is missing at|failed to parse target BTF|Error loading vmlinux BTF|no BTF found for kernel|vmlinux BTF is not found|load(?:ing)? BTF (?:for|of) (?:kmod|kernel module|module) \S+`, "btf"),
	names(failure, load.ProgLoad, nowhere, failed+`\w* (?:to )?load(?:ing)? (?:kernel|module|vmlinux) BTF`, "btf"),
	because(load.ProgLoad, nowhere, `elf: sec '[^']*': to use global __arena variables|legacy map definitions in 'maps' section|failed to guess program type from ELF section|prog '(?P<prog>[^']*)': missing BPF prog type`, "elf", "legacy map", "guess program"),
	because(load.ProgLoad, nowhere, `libxdp: Couldn't find a BPF file with name`, "find a bpf file"),
	says(failure, load.MapCreate, nowhere, `libpman: .*\bmap type is not supported`, "map type is not"),
	because(load.LinkCreate, structOps, `struct_ops init_kern\b.*cannot find (?:member|type|struct)`, "init_kern"),
	says(detail, load.TCAttach, tc, `^(?:libbpf: )?Kernel error message: (?P<said>.*(?:filter|qdisc|chain|parent|exclusivity).*)`, "kernel error message"),
	says(detail, load.XDPAttach, xdp, `^(?:libbpf: )?Kernel error message: (?P<said>.*(?:XDP|\b[TR]X (?:ring|queue)|\bLRO\b|\bGRO\b|\bMTU\b|^virtio_net).*)`, "kernel error message"),
	says(detail, "", nowhere, `^(?:libbpf: )?Kernel error message: (?P<said>.+)`, "kernel error message"),
	says(failure, load.PerfEventOpen, perfEvent, `invalid perf event FD|perf (?:buffer|ring|reader)\b.*`+failed+`|`+failed+`\w* [^:]*perf (?:buffer|ring|reader|map)\b`, "perf "),

	// katran.
	names(failure, load.LinkCreate, device, `\breceiving netlink message\b`, "receiving netlink"),
	says(failure, load.LinkCreate, device, `(?:can'?t|cannot|could not|failed to|unable to) attach (?:the )?(?:main )?(?:e?bpf )?(?:prog\w* )?to (?:the )?(?:main )?(?:interface|inteface|device|nic)\b(?: (?P<dev>[\w.-]+))?`, "attach"),

	// bpftool.
	says(failure, load.ProgAttach, nowhere, `\binterface (?P<word>xdp\w*|tcx_\w+) (?:attach|detach) failed`, "interface xdp", "interface tcx"),

	// libxdp and xdp-tools.
	says(tolerated, load.ObjPin, nowhere, `Couldn't open pin directory`, "pin directory"),
	says(aftermath, "", nowhere, `Compatibility check for dispatcher program failed`, "compatibility check"),
	says(failure, load.LinkCreate, freplace, `failed to attach (?:test )?(?:program )?(?P<prog>[\w.]+)? ?to dispatcher`, "to dispatcher"),
	says(failure, load.XDPAttach, xdp, `Error attaching XDP program to ifindex (?P<ifindex>\d+)|couldn't attach XDP program on iface '(?P<dev>[^']*)'|(?:failed|unable|cannot|couldn't) (?:to )?(?:set|attach|install)\w* (?:the )?(?:link )?xdp(?: \w+){0,3}`, "xdp"),
	because(load.XDPAttach, xdp, `^(?:Error|Warning): (?P<said>(?-i:[^:]*(?:: )?[^:]*\bXDP\b[^:]*(?:page|MTU|mtu|mode|LRO|GRO|queue|ring|header|supported|features|offload|already).*))`, "xdp"),

	because(load.PerfEventOpen, uprobe, `elf: failed to find symbol '(?P<target>[^']*)' in '(?P<path>[^']*)'|usdt: no USDTs for '(?P<target2>[^']*)' found in '(?P<path2>[^']*)'`, "failed to find symbol", "no usdts"),
	because(load.PerfEventOpen, uprobe, `symbol [\x60'"]?(?P<target>[\w.@:$-]+)[\x60'"]?:? (?:was |is )?(?:symbol )?not found in (?:(?:the )?(?:binary|executable|file|library|object|elf)|[\x60'"]?(?P<path>/[^\x60'" :]+))`, "not found in"),

	because(load.PerfEventOpen, uprobe, `\b(?:u(?:ret)?probe|usdt) target file ['"]?(?P<path>[^'"\s]+)['"]? does(?: not|n't) exist`, "target file"),

	// cilium/ebpf. A field of the caller's struct stands in a chain of errors and nowhere else.
	says(failure, load.ProgLoad, nowhere, `\bfield \w+: program (?P<prog>[\w./-]+) ?: `, "field "),
	says(failure, load.MapCreate, nowhere, `\bfield \w+: map (?P<map>[\w./-]+) ?: `, "field "),
	names(failure, load.ProgLoad, nowhere, `(?:program `+name+` )?load program:`, "load program:"),
	names(failure, load.MapCreate, nowhere, `(?:map `+anyMap+` )?map create(?: without BTF)?:`, "map create"),
	names(failure, load.MapUpdate, nowhere, `(?:^|: )(?:update|put|batch update|update batch|update element|map update)(?: failed)?: |key too big for map|\bbpf_map_update_elem\b|failed to update (?:the )?(?:bpf |ebpf )?map|map '?`+`(?P<map>[\w.-]+)'?: update`, "updat", "put", "key too big"),
	because(load.ProgLoad, traced, `program `+name+` attach (?:Tracing|LSM|Extension)/\w+: (?:raw_tp |fentry |\w+ )?(?P<target>\w+)`, "attach tracing", "attach lsm", "attach extension"),
	because(load.ProgLoad, traced, `find target for (?P<word>\w+) (?P<target>[\w.]+)|multiple candidates for \*btf\.Func`, "find target", "multiple candidates"),
	names(failure, load.PerfEventOpen, nowhere, `opening `+probes+` perf event|(?:creating|create) perf_(?P<word2>[ku]probe) PMU|opening (?P<word3>k(?:ret)?probe|u(?:ret)?probe|tracepoint)(?: \S+)?: opening perf event`, "perf event", "pmu"),
	names(failure, load.PerfEventOpen, counter, `\b(?:open|bpf_open|attach)\w* (?:bpf |the )?perf[ _-]?event\b.*\b(?:cpu[_-]?cycles?|cpu[_-]?instr\w*|(?:ref-?)?cycles|instructions|cache[_-]?(?:miss\w*|ref\w*)|branch[_-]?\w*)\b|\bPERF_(?:TYPE|COUNT)_HW|PERF_TYPE_HARDWARE|bpf_open_perf_event|\bopen bpf perf event|\bhardware (?:counters?|events?|perf)\b`, "perf", "hardware"),
	names(failure, load.PerfEventOpen, nowhere, `(?:open|opening|create|creating) (?:a )?perf[ _-]event`, "perf"),
	names(failure, load.PerfEventSetBPF, nowhere, `(?:opening `+probes+`: )?setting perf event bpf program|PERF_EVENT_IOC_SET_BPF|\bioctl\(\d+, 0x40042408\b`, "setting perf event", "ioc_set_bpf", "0x40042408"),
	names(failure, load.ProbeDefine, nowhere, `creating (?:trace|tracefs) event|writing '(?P<define>[^']*)' to '`, "event", "writing"),
	names(failure, load.RawTPOpen, rawTracepoint, `bpf_attach_raw_tracepoint ?\((?P<target>[^)]*)\)`, "attach_raw_tracepoint"),
	names(failure, load.RawTPOpen, traced, `create raw tracepoint|raw_tracepoint_open|BPF_RAW_TRACEPOINT_OPEN`, "raw"),
	names(failure, load.LinkCreate, tracing, `create tracing link|attach tracing`, "tracing"),
	names(failure, load.LinkCreate, nowhere, `create (?:bpf )?link|bpf_link_create|BPF_LINK_CREATE|link create`, "link"),
	names(failure, load.LinkUpdate, nowhere, `bpf_link_update|BPF_LINK_UPDATE|updat(?:e|ing) (?:the )?(?:bpf |pinned )?link(?:$|[:'"]| /| (?:for|of) (?:the )?(?:bpf |ebpf )?prog| failed)`, "link"),
	names(failure, load.ProgAttach, cgroup, `attach program to cgroup (?P<cgroup>[^:\s]+)`, "to cgroup"),
	names(failure, load.ProgAttach, nowhere, `attach program|bpf_prog_attach|BPF_PROG_ATTACH`, "attach"),
	names(failure, load.ObjPin, nowhere, `(?:pin|pinning|creating pin path|create pin path|save pinned|use pinned|load pinned) [^:]*?(?P<path>/[^:\s']*)|\b(?:pin|pinning|save pinned|use pinned|load pinned) (?:the )?(?:map|prog\w*|link)\b|map spec is incompatible|\bBPF_OBJ_(?:PIN|GET)\b|bpf_obj_pin|bpf_obj_get\b|bpf obj get\b(?: ?\((?P<path3>/[^:\s)]*)\))?|get object (?P<path2>/[^:\s]*)`, "pin", "incompatible", "bpf_obj", "obj get", "get object"),
	names(failure, load.ObjPin, nowhere, `(?:mkdir|mount|statfs|open|stat|unlink|remove|rename|create) (?P<path>/sys/fs/bpf[^:\s]*)|(?P<path2>/sys/fs/bpf\S*) is not (?:on )?(?:a )?(?:BPF|bpffs|mounted)|not a bpf(?:fs| file ?system)`, "/sys/fs/bpf", "bpffs", "bpf file", "bpf fs"),

	// aya, by the names of its calls.
	names(failure, load.ProgLoad, nowhere, `BPF_PROG_LOAD|bpf_prog_load|bpf_program__load|bpf_load_program`, "prog_load", "program__load", "load_program"),
	names(failure, load.MapCreate, nowhere, `BPF_MAP_CREATE|bpf_map_create|bpf_create_map\w*(?:\((?P<map>[^)]*)\))?|failed to create map \x60(?P<map2>[^\x60]*)\x60`, "map"),
	names(failure, load.MapUpdate, nowhere, `BPF_MAP_UPDATE_(?:ELEM|BATCH)`, "map_update"),
	says(failure, load.TCAttach, tc, `netlink error while attaching (?:ebpf|bpf) program to tc`, "to tc"),
	says(failure, load.XDPAttach, xdp, `netlink error while attaching XDP program`, "netlink error"),
	names(failure, load.PerfEventOpen, nowhere, `perf_event_open`, "perf_event_open"),
	names(failure, load.TCAttach, tc, `\b(?:filter|qdisc|classifier|SchedCLS|SchedACT)\b.*: netlink(?: receive| error)?: `, "netlink"),
	names(failure, load.TCAttach, tc, `(?:failed|error|cannot|could not|unable)[^:]*\b(?:clsact|qdisc|tc[ -](?:filter|program|prog|classifier|hook|bpf))|\bclsact\b|no clsact|adding tc filter|tc filter (?:add|replace)`, "clsact", "qdisc", "tc ", "tc-"),

	// bcc and bpftrace.
	says(aftermath, load.ProgLoad, nowhere, `(?:failed to|could not|couldn't|unable to) load (?:the |any |all )?(?:BPF |eBPF )(?:programs|probes?|code|objects|modules?)\b`, "load"),
	says(failure, load.ProgLoad, nowhere, `failed to load (?:the )?(?:BPF |eBPF )?(?:program|prog)\b ?`+name+`?|(?:error|failed)[^:]* loading (?:the )?(?:BPF |eBPF )?(?:program|prog)\b(?: for)?:? `+name+`?|could not load (?:the )?(?:BPF|eBPF) program|unable to load (?:the )?(?:BPF |eBPF )?program`, "program", "prog"),
	says(failure, load.ProgLoad, nowhere, `(?:unable|failed|could not|cannot) (?:to )?initiali[sz]e (?:the )?(?:\w+ )?e?BPF (?:program|module|object|probe)s?\b`, "initialize", "initialise"),
	says(failure, load.ProgLoad, nowhere, `error while loading "(?P<prog>[^"]*)"`, "error while loading"),
	because(load.PerfEventOpen, uprobe, `could not (?:determine address of|resolve) (?:symbol|address):? (?P<target>\S+)`, "could not determine", "could not resolve"),
	because(load.PerfEventOpen, kprobe, `could not resolve symbol (?P<target>\w+)\. Use BPFTRACE_VMLINUX`, "bpftrace_vmlinux"),
	names(failure, load.PerfEventOpen, tracepoint, `/tracing/events/(?P<target>(?:[\w-]+)/\w+)/(?:id|format|enable)`, "/events/"),
	names(failure, load.PerfEventOpen, tracepoint, `\bevent ['"]?(?P<target>[a-z_0-9]+[/:](?:sys_(?:enter|exit)\w*|[a-z]+_\w+))`, "event "),
	says(failure, load.MapCreate, nowhere, `could not open bpf map(?:: `+anyMap+`)?`, "open bpf map"),
	says(failure, load.LinkCreate, nowhere, `(?:cannot|failed to|could not|unable to|error) attach(?:ing)? (?:to )?(?:the )?(?:BPF |eBPF )?(?:program |prog |to )*(?:b?'(?P<prog>[^']*)' )?(?:to |probe:? )?['"]?`+probes+`(?:[ :/]b?['"]?(?P<target>[\w./:+-]*))?`, "attach"),
	names(failure, load.ProbeDefine, nowhere, `(?P<word2>[ku]probe)_events`, "probe_events"),
	says(failure, load.LinkCreate, nowhere, `error attaching probe:? '?(?P<word>\w+):(?P<target>[^'\s]+)`, "attaching probe"),
	names(failure, load.ProbeDefine, nowhere, `\bwrite\(\d+, "[pr]\d*:[\w/]+ `, "write("),
	says(tolerated, "", nowhere, `couldn't set RLIMIT_MEMLOCK`, "rlimit_memlock"),
	calling("setrlimit(RLIMIT_MEMLOCK)", `(?:set|rais|remov|bump|increas|adjust|lift)\w*\b[^:]{0,40}\b(?:memlock|rlimit)\w*\b|\bp?rlimit(?:64)?\([^)]*RLIMIT_MEMLOCK`, "memlock", "rlimit"),
	says(tolerated, "", nowhere, `mocked ioctl`, "mocked"),
	because(load.PerfEventOpen, tracepoint, `tracepoint not found: (?P<target>\S+)|no such tracepoint`, "tracepoint"),
	names(failure, load.SocketAttach, socket, `SO_ATTACH_BPF|SO_ATTACH_REUSEPORT_EBPF|bpf_attach_socket|attach(?:ing)? socket filter`, "so_attach", "attach_socket", "socket filter"),
	names(failure, load.SocketAttach, socket, `\battach\w* (?:(?:a|an|the|our) )?(?:e?bpf|prog(?:ram)?|filter)(?: prog(?:ram)?| filter)? to (?:(?:a|an|the) )?(?:(?:raw|packet|udp|tcp) )?socket\b(?:$|[:,.;)]|\s+(?:failed|failure))`, " socket"),
	says(failure, load.SocketFilter, socket, `\bSO_ATTACH_FILTER\b.*: No error information|attach_filter.*: No error information`, "no error information"),
	says(failure, load.SocketFilter, socket, `Kernel filter failed|can't attach kernel filter`, "kernel filter"),
	says(aftermath, load.TCAttach, tc, `\btc cannot attach filter\b`, "tc cannot"),
	says(aftermath, load.ProgLoad, nowhere, `failed to load ebpf programs: unexpected exit code`, "exit code"),
	names(failure, load.SocketFilter, socket, `SO_ATTACH_FILTER|attach_filter|attach filter|pcap_setfilter|so_attach_reuseport_cbpf`, "filter", "cbpf"),

	// iproute2.
	says(failure, load.ProgLoad, nowhere, `Prog section '(?P<prog>[^']*)' (?:\(.*?\) )?rejected|Error fetching program/map|Unable to load program`, "rejected", "program"),
	says(failure, load.MapCreate, nowhere, `Map '(?P<map>[^']*)' rejected`, "rejected"),
	says(tolerated, load.BTFLoad, nowhere, `BTF debug data section '\.BTF' rejected`, "rejected"),
	because(load.ProgLoad, nowhere, `Tail call map owned by prog type \d+`, "tail call map"),
	because(load.ObjPin, nowhere, `Map specification differs from pinned file|Map '(?P<map>[^']*)' self-check failed`, "pinned file", "self-check"),
	because(netlinkCall, nowhere, `^(?:Error|Warning): (?P<said>(?-i:Specified qdisc|Exclusivity flag|Parent Qdisc|Qdisc not classful|Class doesn't support|Filter with specified|TC classifier not found|Cannot find specified|Specified filter).*)`, "qdisc", "exclusivity", "class", "filter"),
	names(failure, netlinkCall, nowhere, `RTNETLINK answers|We have an error talking to the kernel|\bNetlinkError\b`, "rtnetlink", "talking to the kernel", "netlinkerror"),

	// Container runtimes, systemd, sshd. libseccomp finds out what the kernel knows by calls that
	// fail.
	says(noise, "", nowhere, `seccomp\(SECCOMP_SET_MODE_(?:STRICT|FILTER), [^)]*\bNULL\) = -1`, "seccomp_set_mode"),
	names(failure, load.Seccomp, nowhere, `seccomp filter|SECCOMP_SET_MODE_FILTER|PR_SET_SECCOMP|load seccomp|loading seccomp|ssh_sandbox|seccomp_load|install seccomp`, "seccomp", "ssh_sandbox"),
	calling("bpf(BPF_PROG_QUERY)", `bpf_prog_query|BPF_PROG_QUERY|quer(?:y|ying) (?:bpf |ebpf )?(?:attached )?prog`, "quer"),
	calling(progDetach, `\bdetach(?:ing|ed)? (?:\w+ ){0,3}(?:BPF |eBPF )?prog(?:ram)?\b|BPF_PROG_DETACH|bpf_prog_detach`, "detach"),
	calling("bpf(BPF_OBJ_GET_INFO_BY_FD)", `\b(?:link|map|prog(?:ram)?) info:|get info by fd|BPF_OBJ_GET_INFO_BY_FD|bpf_obj_get_info_by_fd`, "info"),
	calling("bpf(BPF_PROG_GET_NEXT_ID)", `can't get next (?:prog|map|link|btf)|BPF_\w+_GET_NEXT_ID`, "get next", "get_next_id"),
	calling("bpf(BPF_*_GET_FD_BY_ID)", `BPF_\w+_GET_FD_BY_ID|can't get (?:prog|map|link|btf) by id`, "by_id", "by id"),
	calling("bpf(BPF_PROG_TEST_RUN)", `BPF_PROG_(?:TEST_)?RUN|test[ _]run|bpf_prog_test_run`, "run"),
	calling("bpf(BPF_MAP_GET_NEXT_KEY)", `(?:^|: )(?:get )?next key: |\bget(?:ting)? next key\b|(?-i:BPF_MAP_GET_NEXT_KEY)|bpf_map_get_next_key`, "next key", "next_key"),
	calling("bpf(BPF_MAP_LOOKUP_ELEM)", `\bmaps?\b.*: (?:batch )?(?:lookup|delete|lookup and delete): `, "lookup", "delete"),
	calling("bpf(BPF_MAP_LOOKUP_ELEM)", `(?-i:BPF_MAP_(?:LOOKUP|DELETE)\w*)|bpf_map_(?:lookup|delete)\w*(?:\(\))?(?: failed|: )`, "map_"),
	calling("bpf(BPF_MAP_LOOKUP_ELEM)", `failed to (?:batch )?(?:get|lookup|look up|delete) (?:and delete )?(?:lookup )?(?:keys?|values?|batch) [^:]*\b(?:from|in|of) map [^\s:]+: `, " map "),
	calling("bpf(BPF_TOKEN_CREATE)", `BPF_TOKEN_CREATE|bpf_token_create|create bpf token`, "token"),
	says(failure, load.ProgLoad, nowhere, `(?:load|initiali[sz])\w* (?:the )?device control (?:e?bpf )?program\b`, "device control"),
	names(failure, load.ProgAttach, cgroupDevice, `attaching device control BPF program to cgroup (?P<cgroup>\S+) failed|(?:device (?:cgroup|control|controller|filter))[^:]*(?:e?bpf|program)|e?bpf device (?:filter|program|cgroup)`, "device"),
	says(failure, load.ProgAttach, cgroup, `attaching (?:custom )?(?:ingress|egress|\w+) BPF program to cgroup (?P<cgroup>\S+) failed|bpf attach \x60`, "attach"),
	names(failure, load.ProgAttach, nowhere, `can't attach`, "attach"),
	says(failure, load.ProgAttach, cgroupDevice, `eBPF not supported`, "ebpf not supported"),
	names(failure, load.ProgLoad, nowhere, `bpf create \x60`, "bpf create"),
	says(failure, load.ProgLoad, nowhere, `bpf-(?:lsm|firewall|restrict-fs): [^:]*\bload[^:]*fail|failed to load BPF object`, "bpf"),
	says(aftermath, "", cgroup, `BPF/cgroup firewalling|procHooks process`, "firewalling", "prochooks"),
	mentions(load.LinkCreate, structOps, `(?:^|[^-\w])struct[_ ]ops?\b`, "struct"),
	because(load.LinkCreate, structOps, `\b(?:another|a different|other) (?:sched_ext|scx) scheduler is (?:already )?running`, "scheduler is"),
	says(failure, load.LinkCreate, structOps, `attach sched_ext|attach(?:ing)? (?:scx|sched_ext)`, "sched_ext", "scx"),
	says(detail, load.LinkCreate, structOps, `^(?P<said>sched_ext: .*(?:fail|error|exceed|inval|requires|not compatible|unsupported|must|too ).*)`, "sched_ext: "),

	// The kernel's log.
	says(detail, load.ProbeDefine, kprobe, `^trace_kprobe: (?:error: )?(?P<said>.+)`, "trace_kprobe"),
	says(detail, load.ProbeDefine, uprobe, `^trace_uprobe: (?:error: )?(?P<said>.+)`, "trace_uprobe"),
	says(detail, load.ProbeDefine, nowhere, `^trace_(?:probe|events?): (?:error: )?(?P<said>.+)`, "trace_"),
	says(detail, "", nowhere, `^(?:Lockdown: .*\b(?:bpf|kprobes|tracefs|perf)\b.*|bpf_jit: ?.*|\*\*\* NOT YET: opcode.*)$`, "lockdown", "bpf_jit", "not yet"),
	says(failure, load.MapCreate, nowhere, `avc:\s+denied +\{[^}]*map_create[^}]*\}.*tclass=bpf`, "avc:"),
	says(failure, load.ProgLoad, nowhere, `avc:\s+denied .*tclass=bpf`, "avc:"),
	says(failure, load.ProgLoad, nowhere, `avc:\s+denied .*lockdown_reason="[^"]*\bbpf\b.*tclass=lockdown`, "avc:"),
	// Clearing up: what is removed is not there.
	says(tolerated, "", nowhere, `-:(?:[ku]probes/)?[\w./-]+`, "-:"),
	// What a driver says of its queues, its MTU or its offloads.
	says(detail, load.XDPAttach, xdp, DriverRecord, "virtio_net", "request", "mtu", "lro", "xdp"),
	says(detail, "", nowhere, SeccompRecord, "syscall="),
	says(detail, load.PerfEventOpen, perfEvent, SeccompPerfRecord, "syscall="),
	says(detail, "", nowhere, `apparmor="DENIED".*(?:bpf|tracefs|debugfs|/sys/kernel/(?:debug|tracing))`, "apparmor"),
	says(detail, "", nowhere, `MEMLOCK may be too low|raise (?:the )?memlock|RemoveMemlock|ulimit -l[^\n]`, "memlock", "ulimit"),
}

// phrasesOf are the words of people and of less known loaders: what was done to what. They count
// where no sentence does.
var phrasesOf = []saying{
	names(failure, load.ProgLoad, nowhere, `\b(?:load|loading|loads|inject|verify|verifying)\b[^:]*\b(?:e?bpf|xdp|program|prog|object|probe)s?\b|\b(?:e?bpf|xdp|prog(?:ram)?)\b[^:]*\b(?:load|loading|loaded)\b`, "load", "inject", "verif"),
	names(failure, load.MapCreate, nowhere, `\bcreat\w* (?:\S+ ){0,4}?maps?\b|\bmaps?\b[^:]*\bcreat`, "map"),
	names(failure, load.MapUpdate, nowhere, `\b(?:updat\w*|insert\w*|writ(?:e|ing)|populat\w*|stor(?:e|ing)) [^:]{0,40}\bmaps?\b|\b(?:put|add|sett?)(?:ing)? [^:]{0,40}\bmaps?[ -](?:entr|elem|value|key|item)\w*|\b(?:put|add|sett?)(?:ing)? [^:]{0,30}\b(?:entr|elem|value|key|item)\w*\b[^:]{0,30}\bmaps?\b`, "map"),
	names(failure, load.ObjPin, nowhere, `\bpin(?:ned|ning)?\b`, "pin"),
	names(failure, load.LinkCreate, uprobeMulti, `\bu(?:ret)?probe[. _-]?multi`, "probe"),
	names(failure, load.LinkCreate, kprobeMulti, `\bk(?:ret)?probe[. _-]?multi`, "probe"),
	names(failure, load.LinkCreate, uprobe, `\b(?:u(?:ret)?probes?|usdt)\b`, "probe", "usdt"),
	names(failure, load.LinkCreate, kprobe, `\bk(?:ret)?probes?\b`, "probe"),
	names(failure, load.LinkCreate, fentry, `\bfentry\b`, "fentry"),
	names(failure, load.LinkCreate, fexit, `\bfexit\b`, "fexit"),
	names(failure, load.LinkCreate, fmodRet, `\bfmod_ret\b`, "fmod_ret"),
	names(failure, load.LinkCreate, lsm, `\b(?:attach\w*|link|bpf|e?bpf)(?: to )?[- ]?lsm\b|\blsm\b[^:]*\b(?:attach|hook|link|prog)`, "lsm"),
	names(failure, load.RawTPOpen, rawTracepoint, `\braw[ _-]?(?:tracepoint|tp)s?\b`, "raw"),
	names(failure, load.PerfEventSetBPF, tracepoint, `\btracepoints?\b|\btp/`, "tracepoint", "tp/"),
	names(failure, load.LinkCreate, tcx, `\btcx\b`, "tcx"),
	names(failure, load.LinkCreate, netkit, `\bnetkit\b`, "netkit"),
	names(failure, load.TCAttach, tc, `\battach\w* [^:]*\btc\b|\btc\b[^:]*\battach|\bclsact\b|\b(?:attach|add|replac|creat)\w*\b[^:]*\bclassifiers?\b|\b(?:add|replac|creat|assign|updat)\w*\b[^:]*\be?bpf filter|\bfilter add:|e?bpf[^:]*: netlink receive: |\bnetlink receive: .*bpf`, "tc", "clsact", "classifier", "filter", "netlink"),
	names(failure, load.TCAttach, tc, `\bSchedC(?:LS|T)\b|\bsched_cls\b|\bcls_bpf\b`, "schedcls", "sched_cls", "cls_bpf"),
	names(failure, load.XDPAttach, xdp, `\bxdp\b`, "xdp"),
	names(failure, load.LinkCreate, cgroup, `\battach\w*\b[^:]*\bcgroup|\bcgroup\b.{0,60}\b(?:attach|link)|\bcgroup\b[^:]*\bbpf|\bbpf\b[^:]*\bcgroup`, "cgroup"),
	names(failure, load.LinkCreate, sockmap, `\bsock(?:map|hash)\b`, "sock"),
	names(failure, load.SocketAttach, socket, `\bsocket filter`, "socket filter"),
	names(failure, load.LinkCreate, netns, `\battach\w*\b[^:]*\bnetns|flow_dissector|sk_lookup`, "netns", "flow_dissector", "sk_lookup"),
	names(failure, load.LinkCreate, netfilter, `\bnetfilter\b`, "netfilter"),
	names(failure, load.LinkCreate, iterator, `\biterator|\biter\b`, "iter"),
	names(failure, load.LinkCreate, freplace, `\bfreplace\b`, "freplace"),
	names(failure, load.PerfEventOpen, perfEvent, `\bperf[ _-]events?\b`, "perf"),
	names(failure, load.LinkCreate, nowhere, `\battach`, "attach"),
}

// places are the words that name a place.
var places = map[string]place{
	"kprobe": kprobe, "kretprobe": kprobe, "uprobe": uprobe, "uretprobe": uprobe, "usdt": uprobe, "tracepoint": tracepoint,
	"kprobemulti": kprobeMulti, "kretprobemulti": kprobeMulti, "uprobemulti": uprobeMulti, "uretprobemulti": uprobeMulti,
	"cgroup": cgroup, "netns": netns, "xdp": xdp, "tcx": tcx, "netkit": netkit, "sockmap": sockmap, "iterator": iterator, "netfilter": netfilter,
	"struct_ops": structOps, "freplace": freplace, "lsm": lsm, "fentry": fentry, "fexit": fexit, "fmod_ret": fmodRet, "kfunc": fentry, "kretfunc": fexit,
	"rawtracepoint": rawTracepoint, "raw_tracepoint": rawTracepoint, "rawtp": rawTracepoint, "t": tracepoint, "k": kprobe, "u": uprobe, "tp_btf": rawTracing,
}

func placeOf(word string) (place, bool) {
	word = strings.ToLower(word)
	switch {
	case strings.HasPrefix(word, "tcx_"):
		return place{"netdev", "sched_cls", word}, true
	case strings.HasPrefix(word, "xdp"):
		return xdp, true
	}
	p, ok := places[word]
	if !ok {
		p, ok = places[strings.NewReplacer(".", "", " ", "", "_", "", "-", "").Replace(word)]
	}
	return p, ok
}

// DriverRecord is what a network driver says in the kernel's log when it does not take a program.
const DriverRecord = `^(?:kernel: )?(?P<said>\w+ [\w:.-]*\d[\w:.-]* (?P<dev>[\w.@-]{2,16}): (?:request \d+ queues but max is +\d+|.*\b(?:XDP|xdp)\b.*\b(?:not|fail\w*|unsupported|too|larger|exceeds?|requires?|only|can't|cannot|invalid|disable|insufficient)\b.*|.*\bMTU\b.*\b(?:XDP|xdp)\b.*|.*\b(?:LRO|GRO_HW)\b.*\b(?:XDP|xdp)\b.*))$`

// SeccompRecord is the audit log's record of a bpf(2) that a seccomp filter did not let through,
// and SeccompPerfRecord that of a perf_event_open(2); code is what the filter answered, and neither
// a log (0x7ffc0000) nor an allowance.
var (
	SeccompRecord     = seccompRecord("bpf", func(c abi.AuditCalls) int { return c.BPF })
	SeccompPerfRecord = seccompRecord("perf_event_open", func(c abi.AuditCalls) int { return c.PerfEventOpen })
)

// seccompRecord matches a call by its number on each machine, and by its name.
func seccompRecord(call string, number func(abi.AuditCalls) int) string {
	var numbers []string
	for _, c := range abi.AllAuditCalls() {
		numbers = append(numbers, fmt.Sprintf("arch=%x syscall=%d", c.Arch, number(c)))
	}
	const (
		record = `(?:type=1326|type=SECCOMP) .*`
		code   = `code=0x(?:5\w{4}|0|80000000)\b`
		word   = `code=(?:kill|errno|trap|0x5\w{4})`
	)
	return record + `(?:(?:` + strings.Join(numbers, "|") + `) .*` + code + `|\bsyscall=` + call + ` .*` + word + `)`
}
