// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"slices"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
)

// Why an attachment is left out somewhere.
const (
	unseenPerf    = "the kernel lets nothing be hooked there, and watching the end of every system call is for single processes, and for tp_btf, which does it anyway"
	unseenTracefs = "the kernel lets nothing be hooked there, and from outside a write(2) to tracefs looks like all others"
	unseenNetlink = "it takes a function inside the kernel: from outside it is a message to a socket"
	unseenSocket  = "it takes a function inside the kernel: these backends watch classic filters of sockets alone"
	onlyOutside   = "the machine has tracepoints alone"
	onlyLab       = "it would change what others on the machine use"
	unseenEPERM   = "an update that fails with EPERM may have met a policy in front of the call, and updates that work are not watched at all"
	unseenType    = "the call succeeds, and tp_btf may not read there what the program is"
	unseenClosed  = "tp_btf looks at the descriptor after the call, and this loader may have closed it by then"
	noKprobes     = "built without kprobes for BPF"
	noClsact      = "clsact and the BPF filter are modules, and the lab's machines have none"
	noBPFFS       = "no bpffs is mounted"
	noVeth        = "its driver is a module, and the lab's machines have none"
)

// attachCases are failures behind the load, each made by raw calls: see plays.
func attachCases() []Case {
	return slices.Concat(cgroupCases(), netCases(), socketCases(), tracingCases(), mapCases())
}

func attachCase(name string, kind load.Kind, errno int, stage load.Stage, rule string) Case {
	return Case{Name: "att-" + name, Loader: Attach, Args: []string{name}, Want: fails(errno, stage, rule).of(kind)}
}

// but gives a case another fate on some kernels.
func (c Case) but(w Want, kernels ...string) Case {
	c.On = merge(on(w, kernels...), c.On)
	return c
}

// without leaves a case out at some places.
func (c Case) without(why string, where ...string) Case {
	more := map[string]string{}
	for _, w := range where {
		more[w] = why
	}
	c.Except = merge(more, c.Except)
	return c
}

// unseen leaves out backends that do not reach what the case needs, and say so.
func (c Case) unseen(hook load.Function, why string, backends ...string) Case {
	c.Hook = hook
	for _, b := range backends {
		c = c.without(why, "*/"+b)
	}
	return c.without(onlyOutside, Host)
}

// What cannot be seen from where. The errno is still that of the kernel: the loaders say it.
func (c Case) ofPerf() Case {
	return c.unseen(load.FnPerfEvent, unseenPerf, "fentry", "kprobe", "tracepoint")
}
func (c Case) ofTracefs() Case {
	return c.unseen(load.FnProbeDef, unseenTracefs, "fentry", "kprobe", "tracepoint", "tp_btf")
}
func (c Case) ofNetlink() Case {
	return c.unseen(load.FnXDPChange, unseenNetlink, "tracepoint", "tp_btf")
}
func (c Case) ofTC() Case {
	return c.unseen(load.FnTCFilter, unseenNetlink, "tracepoint", "tp_btf")
}

func (c Case) ofSocket() Case {
	return c.unseen(load.FnSockAttach, unseenSocket, "tracepoint", "tp_btf")
}

// quiet: from outside, where descriptors cannot be looked at, the errno fits several causes.
func (c Case) quiet() Case { c.Quiet = true; return c }

// open: what can be known fits several causes, and the true one must be among them.
func (c Case) open() Case { c.Open = true; return c }

func cgroupCases() []Case {
	attach := func(name string, errno int, stage load.Stage, rule string) Case {
		return attachCase(name, load.ProgAttach, errno, stage, rule).without(onlyLab, Host)
	}
	link := func(name string, errno int, stage load.Stage, rule string) Case {
		return attachCase(name, load.LinkCreate, errno, stage, rule).without(onlyLab, Host)
	}
	replace := func(name string, errno int) Case {
		return attachCase(name, load.LinkUpdate, errno, load.Request, "ATT007").without(onlyLab, Host)
	}
	return []Case{
		attachCase("cgroup-folder", load.ProgAttach, abi.EBADF, load.Request, "ATT201"),
		link("cgroup-v1", abi.EBADF, load.Request, "ATT201").without(unseenClosed, "*/tp_btf"),
		link("cgroup-file", abi.EBADF, load.Request, "ATT201"),
		attachCase("cgroup-closed", load.LinkCreate, abi.EBADF, load.Request, "ATT005").quiet(),
		link("cgroup-link-flags", abi.EINVAL, load.Request, "ATT202"),
		attach("cgroup-type", abi.EINVAL, load.Request, "ATT001").quiet(),
		// EPERM in the kernel, and EINVAL to the caller.
		attach("cgroup-net-admin", abi.EINVAL, load.Permission, "ATT203").quiet(),
		link("cgroup-link-net-admin", abi.EPERM, load.Permission, "ATT203").quiet(),
		attach("cgroup-exclusive", abi.EPERM, load.Install, "ATT204").quiet(),
		attach("cgroup-twice", abi.EINVAL, load.Install, "ATT003").open(),
		replace("link-update-type", abi.EINVAL), replace("link-update-old", abi.EPERM).quiet(),
	}
}

func netCases() []Case {
	link := func(name string, errno int, stage load.Stage, rule string) Case {
		return attachCase(name, load.LinkCreate, errno, stage, rule)
	}
	xdp := func(name string, errno int, stage load.Stage, rule string) Case {
		return attachCase("xdp-netlink-"+name, load.XDPAttach, errno, stage, rule).ofNetlink()
	}
	tc := func(name string, errno int, stage load.Stage, rule string) Case {
		return attachCase("tc-"+name, load.TCAttach, errno, stage, rule).ofTC()
	}
	// Where cls_bpf and clsact are not modules, which the lab's machines have none of.
	builtIn := func(c Case) Case { return c.without(noClsact, "5.10", "6.1", "6.12", "7") }
	veth := func(c Case) Case { return c.without(noVeth, "5.10", "6.1", "6.12", "7") }
	// tcx came with 6.6.
	tcx := func(c Case) Case {
		return c.but(fails(abi.EINVAL, load.Request, "ATT002").of(c.Want.Kind), "5.10", "6.1", "hardened")
	}
	return []Case{
		link("xdp-native", abi.EOPNOTSUPP, load.Install, "ATT301"),
		link("xdp-no-device", abi.EINVAL, load.Request, "ATT305"),
		link("xdp-twice", abi.EBUSY, load.Install, "ATT304"),
		veth(link("xdp-modes", abi.EEXIST, load.Install, "ATT304")),
		veth(link("xdp-mtu", abi.ERANGE, load.Install, "ATT303")),
		link("xdp-flags", abi.EINVAL, load.Request, "ATT006"),
		xdp("native", abi.EOPNOTSUPP, load.Install, "ATT301"), xdp("no-device", abi.ENODEV, load.Request, "ATT305"),
		xdp("twice", abi.EBUSY, load.Install, "ATT304"),
		veth(xdp("mtu", abi.ERANGE, load.Install, "ATT303")),
		tcx(link("tcx-no-device", abi.ENODEV, load.Request, "ATT305")),
		tcx(attachCase("tcx-twice", load.ProgAttach, abi.EEXIST, load.Install, "ATT003")),
		tcx(link("tcx-type", abi.EINVAL, load.Request, "ATT001").quiet()),
		tc("no-clsact", abi.EINVAL, load.Request, "ATT306"), tc("no-device", abi.ENODEV, load.Request, "ATT305"),
		tc("no-qdisc", abi.ENOENT, load.Request, "ATT307").but(Want{Kind: load.TCAttach, Outcome: load.Loaded}, "hardened").without(onlyLab, Host),
		builtIn(tc("taken", abi.EEXIST, load.Install, "ATT304")), builtIn(tc("type", abi.EINVAL, load.Request, "ATT001")),
		// What every loader meets that adds clsact before it looks.
		builtIn(Case{Name: "att-tc-clsact-twice", Loader: Attach, Args: []string{"tc-clsact-twice"},
			Want: Want{Kind: load.TCAttach, Outcome: load.Loaded, Errno: abi.EEXIST}}),
		link("netns-link", abi.E2BIG, load.Resources, "ATT004"),
		link("netns-taken", abi.EEXIST, load.Install, "ATT003"),
	}
}

func socketCases() []Case {
	socket := func(name string, errno int, stage load.Stage, rule string) Case {
		return attachCase("socket-"+name, load.SocketAttach, errno, stage, rule).ofSocket()
	}
	return []Case{
		socket("type", abi.EINVAL, load.Request, "ATT001"), socket("optmem", abi.ENOMEM, load.Resources, "RES002"),
		socket("locked", abi.EPERM, load.Permission, "ATT401"), socket("reuseport", abi.EINVAL, load.Request, "ATT402"),
		attachCase("sockmap-unconnected", load.MapUpdate, abi.EOPNOTSUPP, load.Request, "ATT403").quiet(),
	}
}

func tracingCases() []Case {
	open := func(name string, errno int, stage load.Stage, rule string) Case {
		return attachCase(name, load.PerfEventOpen, errno, stage, rule).ofPerf().without(noKprobes, Host)
	}
	set := func(name string, errno int, stage load.Stage, rule string) Case {
		return attachCase(name, load.PerfEventSetBPF, errno, stage, rule).ofPerf().without(noKprobes, Host)
	}
	define := func(name string, errno int, rule string) Case {
		return attachCase("tracefs-"+name, load.ProbeDefine, errno, load.Request, rule).ofTracefs().without(noKprobes, Host)
	}
	raw := func(name string, errno int, rule string) Case {
		return attachCase("raw-"+name, load.RawTPOpen, errno, load.Request, rule)
	}
	link := func(name string, errno int, stage load.Stage, rule string) Case {
		return attachCase(name, load.LinkCreate, errno, stage, rule).without(noKprobes, Host)
	}
	return []Case{
		open("kprobe-no-function", abi.ENOENT, load.Request, "ATT105"),
		open("kprobe-twins", abi.EADDRNOTAVAIL, load.Request, "ATT106"),
		open("kprobe-forbidden", abi.EINVAL, load.Install, "ATT107"),
		open("kprobe-boundary", abi.EILSEQ, load.Install, "ATT107"),
		set("kprobe-taken", abi.EEXIST, load.Install, "ATT003"), set("kprobe-type", abi.EINVAL, load.Request, "ATT001").quiet(),
		// It came with 5.18, and Debian's 6.1 is built without fprobes.
		link("kprobe-multi", abi.ESRCH, load.Request, "ATT105").
			but(fails(abi.EINVAL, load.Request, "ATT002").of(load.LinkCreate), "5.10").
			but(fails(abi.EOPNOTSUPP, load.Request, "ATT002").of(load.LinkCreate), "6.1"),
		define("twice", abi.EEXIST, "ATT113"),
		// Newer kernels look for the name while they read the definition.
		define("no-function", abi.ENOENT, "ATT105").but(fails(abi.EINVAL, load.Request, "ATT105").of(load.ProbeDefine), "6.12", "7"),
		define("long-name", abi.EINVAL, "ATT111"),
		// 5.10's list of security modules, as Debian has it, lacks bpf.
		Case{Name: "att-lsm-idle", Loader: Attach, Args: []string{"lsm-idle"}, Want: Loads}.without(noKprobes, Host).but(Want{Kind: load.RawTPOpen, Rule: "ATT501",
			Outcome: load.Loaded}, "5.10").without(unseenType, "5.10/tp_btf"),
		attachCase("fentry-no-site", load.RawTPOpen, abi.EBUSY, load.Install, "ATT114").
			without(noKprobes, Host).without("its BTF has no function without a site", "5.10"),
		set("tracepoint-record", abi.EACCES, load.Request, "ATT101"), set("tracepoint-taken", abi.EEXIST, load.Install, "ATT003"),
		// Links of perf events came with 5.15.
		link("tracepoint-record-link", abi.EACCES, load.Request, "ATT101").
			but(fails(abi.EINVAL, load.Request, "ATT002").of(load.LinkCreate), "5.10"),
		open("perf-paranoid", abi.EACCES, load.Permission, "PERM011"),
		raw("missing", abi.ENOENT, "ATT102"), raw("group", abi.ENOENT, "ATT102"), raw("arguments", abi.EINVAL, "ATT101"),
		raw("type", abi.EINVAL, "ATT001").quiet(),
		open("uprobe-no-file", abi.ENOENT, load.Request, "ATT110"), open("uprobe-offset", abi.EINVAL, load.Request, "ATT110"),
		open("uprobe-trap", abi.ENOTSUPP, load.Install, "ATT112"), open("uprobe-data", abi.ENOEXEC, load.Install, "ATT112"),
		open("uprobe-sys-admin", abi.EACCES, load.Permission, "PERM012"),
	}
}

func mapCases() []Case {
	update := func(name string, errno int, stage load.Stage, rule string) Case {
		return attachCase("map-"+name, load.MapUpdate, errno, stage, rule)
	}
	create := func(name string, errno int, rule string) Case {
		return attachCase("create-"+name, load.MapCreate, errno, load.Request, rule)
	}
	pin := func(name string, errno int, stage load.Stage, rule string) Case {
		return attachCase("pin-"+name, load.ObjPin, errno, stage, rule)
	}
	return []Case{
		update("index", abi.E2BIG, load.Resources, "MAP004"), update("full", abi.E2BIG, load.Resources, "MAP004"),
		update("owner", abi.EINVAL, load.Request, "MAP007").quiet(), update("no-program", abi.EBADF, load.Request, "MAP007").quiet(),
		update("frozen", abi.EPERM, load.Request, "MAP006").without(unseenEPERM, "*/tracepoint", "*/tp_btf", Host),
		create("ringbuf-size", abi.EINVAL, "MAP001"), create("ringbuf-key", abi.EINVAL, "MAP001"), create("array-key", abi.EINVAL, "MAP001"),
		create("queue-key", abi.EINVAL, "MAP001"), create("lpm", abi.EINVAL, "MAP001"), create("stack-trace", abi.EINVAL, "MAP001"),
		create("devmap", abi.EINVAL, "MAP001"),
		// ENOMEM before 5.10.227, 6.1.113 and 6.12.
		create("percpu-value", abi.E2BIG, "MAP005"), create("no-inner", abi.EBADF, "MAP001").open(),
		pin("outside", abi.EPERM, load.Request, "ATT601").quiet(), pin("dot", abi.EPERM, load.Request, "ATT601").quiet().without(noBPFFS, Host),
		pin("no-folder", abi.ENOENT, load.Permission, "ATT602"), pin("taken", abi.EEXIST, load.Install, "ATT603").without(noBPFFS, Host),
		pin("file", abi.EINVAL, load.Request, "ATT601").open(),
	}
}
