// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// The kinds of targets.
const (
	onCgroup     = "cgroup"
	onNetdev     = "netdev"
	onNetns      = "netns"
	onFunction   = "function"
	onTracepoint = "tracepoint"
	onUprobe     = "uprobe"
	onPerfEvent  = "perf_event"
	onMap        = "map"
	onLink       = "link"
	onPin        = "pin"
	onIterator   = "iterator"
	onNetfilter  = "netfilter"
	onFile       = "file"
	onSocket     = "socket"
)

// putsInPlace reports kinds of calls that attach what was loaded, or put it where it is used.
func putsInPlace(k load.Kind) bool {
	return k.Attaches() || k == load.ObjPin || k == load.MapUpdate
}

// attachment is what a call was to attach, and where to. Nothing that was recorded is trusted.
func (c *call) attachment() *load.Attach {
	rec := c.rec.Attach
	if rec == nil {
		rec = &trace.Attach{}
	}
	a := &load.Attach{Program: attachedProgram(rec.Prog), Message: clip(visible(rec.Message), 1024)}
	switch c.kind {
	case load.LinkCreate:
		l := c.attr.linkCreate()
		a.Flags = uint64(l.Flags)
		a.Type, a.Target = c.typed(rec, l.AttachType, l.TargetFD)
	case load.ProgAttach:
		p := c.attr.progAttach()
		a.Flags = uint64(p.AttachFlags)
		a.Type, a.Target = c.typed(rec, p.AttachType, p.TargetFD)
	case load.RawTPOpen:
		if a.Target = (&load.AttachTarget{Kind: onTracepoint, Name: name(rec.Text)}); rec.Text == "" {
			a.Target = functionOf(rec)
		}
	case load.LinkUpdate:
		a.Flags = uint64(abi.Read[abi.LinkUpdate](c.attr).Flags)
		a.Target = &load.AttachTarget{Kind: onLink, ID: uint64(rec.Link)}
	case load.ObjPin:
		a.Flags = uint64(abi.Read[abi.ObjPin](c.attr).FileFlags)
		a.Target = &load.AttachTarget{Kind: onPin, Path: path(rec.Text), Name: pinned(rec)}
	case load.PerfEventOpen, load.PerfEventSetBPF:
		a.Target = eventTarget(rec)
	case load.XDPAttach:
		a.Flags, a.Type = uint64(rec.Flags), abi.AttachTypeName(abi.AttachXDP)
		a.Target = &load.AttachTarget{Kind: onNetdev, Name: name(rec.Device), ID: uint64(rec.Ifindex)}
	case load.TCAttach:
		a.Target = &load.AttachTarget{Kind: onNetdev, Name: name(rec.Device), ID: uint64(rec.Ifindex), Parent: handle(rec.Parent)}
	case load.SocketAttach:
		a.Target = &load.AttachTarget{Kind: onSocket, Name: name(rec.Text)} // the option
	case load.ProbeDefine:
		a.Target = definition(rec)
	case load.MapUpdate:
		a.Flags = abi.Read[abi.MapElem](c.attr).Flags
		a.Target = mapTarget(rec)
	}
	return a
}

// handle is a handle of tc as its commands write it.
func handle(h uint32) string { return fmt.Sprintf("%x:%x", h>>16, h&0xffff) }

// kernelLog is what the kernel wrote to its log during the call.
func (c *call) kernelLog() (lines []string) {
	if rec := c.rec.Attach; rec != nil {
		for _, l := range rec.Lines[:min(len(rec.Lines), 16)] {
			lines = append(lines, clip(visible(l), 256))
		}
	}
	return lines
}

func attachedProgram(p *trace.AttachProg) *load.AttachProgram {
	if p == nil {
		return nil
	}
	a := &load.AttachProgram{
		ID: int(p.ID), Name: name(p.Name), Type: abi.ProgTypeName(p.Type), Tag: hex.EncodeToString(p.Tag[:min(len(p.Tag), 32)]),
		MaxCtxOffset: int(p.MaxCtxOffset), Insns: int(min(p.Len, 1<<24)), Overrides: p.Overrides,
	}
	if p.Type != abi.ProgTypeStructOps && (p.AttachType != 0 || p.Type == abi.ProgTypeCgroupSKB) {
		a.AttachType = abi.AttachTypeName(p.AttachType)
	}
	return a
}

// typed are the attach type, and the target that goes with it. Programs that name their target as
// they are loaded are attached without a type, which then is 0.
//
//revive:disable-next-line:cyclomatic a case for each kind of target
func (c *call) typed(rec *trace.Attach, attachType, target uint32) (string, *load.AttachTarget) {
	if p := rec.Prog; p != nil && attachType == 0 {
		switch p.Type {
		case abi.ProgTypeTracing, abi.ProgTypeLSM, abi.ProgTypeExt:
			return "", functionOf(rec)
		}
	}
	typ := abi.AttachTypeName(attachType)
	if strings.HasPrefix(typ, onCgroup) {
		return typ, cgroupTarget(rec)
	}
	switch attachType {
	case abi.AttachLSMCgroup:
		return typ, cgroupTarget(rec)
	case abi.AttachXDP, abi.AttachTCXIngress, abi.AttachTCXEgress, abi.AttachNetkitPrimary, abi.AttachNetkitPeer:
		return typ, &load.AttachTarget{Kind: onNetdev, Name: name(rec.Device), ID: uint64(target)}
	case abi.AttachFlowDissector, abi.AttachSkLookup:
		t := fileTarget(onNetns, rec)
		if rec.File != nil && rec.File.FS == "nsfs" {
			t = &load.AttachTarget{Kind: onNetns, ID: rec.File.Inode}
		}
		return typ, t
	case abi.AttachSkSKBStreamParser, abi.AttachSkSKBStreamVerdict, abi.AttachSkSKBVerdict, abi.AttachSkMsgVerdict, abi.AttachStructOps:
		return typ, mapTarget(rec)
	case abi.AttachPerfEvent:
		return typ, eventTarget(rec)
	case abi.AttachTraceKprobeMulti, abi.AttachTraceKprobeSession:
		return typ, &load.AttachTarget{Kind: onFunction, Name: probedSymbols(rec)}
	case abi.AttachTraceUprobeMulti, abi.AttachTraceUprobeSession:
		return typ, &load.AttachTarget{Kind: onUprobe, Path: path(rec.Text), Offset: rec.Offset}
	case abi.AttachTraceIter:
		return typ, &load.AttachTarget{Kind: onIterator, Name: name(rec.Function)}
	case abi.AttachTraceRawTP:
		return typ, &load.AttachTarget{Kind: onTracepoint, Name: name(rec.Function)}
	case abi.AttachNetfilter:
		return typ, &load.AttachTarget{Kind: onNetfilter}
	case abi.AttachLircMode2:
		return typ, fileTarget(onFile, rec)
	}
	return typ, functionOf(rec)
}

// functionOf is the function, or raw tracepoint, that a program named as it was loaded.
func functionOf(rec *trace.Attach) *load.AttachTarget {
	t := &load.AttachTarget{Kind: onFunction, Name: name(rec.Function)}
	if rec.Prog != nil {
		t.ID = uint64(rec.Prog.AttachBTFID)
		if rec.Prog.Type == abi.ProgTypeTracing && rec.Prog.AttachType == abi.AttachTraceRawTP {
			t.Kind = onTracepoint
		}
	}
	return t
}

// cgroupTarget is a control group, or what the descriptor is instead of one.
func cgroupTarget(rec *trace.Attach) *load.AttachTarget {
	if rec.File != nil && rec.File.Cgroup != 0 {
		return &load.AttachTarget{Kind: onCgroup, ID: rec.File.Cgroup, Path: path(rec.File.Path)}
	}
	return fileTarget(onCgroup, rec)
}

// fileTarget is a descriptor that was to be a target of a kind: Name says what it is.
func fileTarget(kind string, rec *trace.Attach) *load.AttachTarget {
	t := &load.AttachTarget{Kind: kind}
	f := rec.File
	switch {
	case f == nil && rec.Looked:
		t.Name = load.NotOpen
	case f == nil:
	case f.FS == "anon_inodefs":
		t.Name = name(f.Path)
	case f.Directory:
		t.Path, t.Name = path(f.Path), "directory of "+name(cmp.Or(f.FS, "another file system"))
	default:
		t.Path, t.Name = path(f.Path), "file of "+name(cmp.Or(f.FS, "another file system"))
	}
	return t
}

func mapTarget(rec *trace.Attach) *load.AttachTarget {
	if rec.Map == nil {
		return fileTarget(onMap, rec)
	}
	return &load.AttachTarget{Kind: onMap, ID: uint64(rec.Map.ID), Name: name(rec.Map.Name)}
}

// eventTarget is what an event of perf is of.
func eventTarget(rec *trace.Attach) *load.AttachTarget {
	e := rec.Event
	switch {
	case e == nil:
		return fileTarget(onPerfEvent, rec)
	case e.Type == abi.PerfTypeTracepoint:
		t := &load.AttachTarget{Kind: onTracepoint, Name: name(e.Name), ID: e.Config, Size: int(min(e.Size, 1<<20))}
		if e.System != "" && e.Name != "" {
			t.Name = name(e.System + "/" + e.Name)
		}
		return t
	case e.System == "kprobes", e.System == "kprobe":
		if rec.Addresses {
			return &load.AttachTarget{Kind: onFunction, Name: probedSymbols(rec)}
		}
		return &load.AttachTarget{Kind: onFunction, Name: name(rec.Function), Offset: rec.Offset}
	case e.System == "uprobes", e.System == uprobeEvents:
		return &load.AttachTarget{Kind: onUprobe, Path: path(rec.Text), Offset: rec.Offset}
	}
	return &load.AttachTarget{Kind: onPerfEvent, ID: e.Config, Name: abi.PerfTypeName(e.Type)}
}

// probedSymbols are the functions of a kprobe on several, as far as they were copied.
func probedSymbols(rec *trace.Attach) string {
	if rec.Addresses {
		return fmt.Sprintf("%d addresses", rec.Count)
	}
	list := make([]string, 0, len(rec.Symbols))
	for _, s := range rec.Symbols[:min(len(rec.Symbols), 16)] {
		list = append(list, name(s))
	}
	s := strings.Join(list, ", ")
	if more := int64(rec.Count) - int64(len(list)); more > 0 && len(list) > 0 {
		s += fmt.Sprintf(" and %d more", more)
	}
	return s
}

// definition is what a line written to kprobe_events or uprobe_events of tracefs probes:
// "p:group/name place arguments".
func definition(rec *trace.Attach) *load.AttachTarget {
	line, _, _ := strings.Cut(rec.Text, "\n")
	fields := strings.Fields(line)
	t := &load.AttachTarget{Kind: onFunction, Name: name(strings.Join(fields, " "))}
	if len(fields) < 2 {
		return t
	}
	place := fields[1]
	if file, offset, ok := strings.Cut(place, ":"); ok && strings.HasPrefix(place, "/") {
		offset, _, _ = strings.Cut(offset, "(") // of a reference counter
		n, _ := strconv.ParseUint(offset, 0, 64)
		return &load.AttachTarget{Kind: onUprobe, Path: path(file), Offset: n}
	}
	t.Name = place
	if function, offset, ok := strings.Cut(place, "+"); ok {
		t.Name = function
		t.Offset, _ = strconv.ParseUint(offset, 0, 64)
	}
	t.Name = name(t.Name)
	return t
}

// pinned says what was to be pinned.
func pinned(rec *trace.Attach) string {
	switch {
	case rec.Map != nil:
		return "map " + name(rec.Map.Name)
	case rec.Prog != nil:
		return "program " + name(rec.Prog.Name)
	case rec.Link != 0:
		return fmt.Sprintf("link %d", rec.Link)
	case rec.File != nil:
		return name(rec.File.Path)
	case rec.Looked:
		return load.NotOpen
	}
	return ""
}

func name(s string) string { return clip(visible(s), 128) }
func path(s string) string { return clip(visible(s), 4096) }

// attachedMap is the map that an update was for.
func (c *call) attachedMap() *load.Map {
	if c.rec.Attach == nil || c.rec.Attach.Map == nil {
		return nil
	}
	m := c.rec.Attach.Map
	return &load.Map{
		Name: name(m.Name), Type: abi.MapTypeName(m.Type), KeySize: m.KeySize, ValueSize: m.ValueSize, MaxEntries: m.MaxEntries, Flags: m.Flags,
	}
}

// inferAttach is the stage of a failed attachment without a hook that saw it. EACCES of an event of
// perf is about what the program reads of its context, and not about rights.
func (c *call) inferAttach() load.Stage {
	event := c.kind == load.PerfEventSetBPF || c.kind == load.LinkCreate && c.attr.linkCreate().AttachType == abi.AttachPerfEvent
	switch errno := c.errno(); {
	case errno == abi.EPERM, errno == abi.EACCES && !event:
		return load.Permission
	case errno == abi.ENOMEM:
		return load.Resources
	case errno == abi.EMFILE, errno == abi.ENFILE:
		return load.Install
	}
	return load.Request
}

// refusedSKB reports the answer of BPF_PROG_ATTACH to who may not attach a cgroup_skb program: the
// kernel asked for CAP_NET_ADMIN, and says EINVAL (bpf_prog_attach_check_attach_type).
func (c *call) refusedSKB(asked int64) bool {
	return c.kind == load.ProgAttach && c.errno() == abi.EINVAL && (asked == abi.CapNetAdmin || asked == abi.CapSysAdmin) &&
		c.rec.Attach != nil && c.rec.Attach.Prog != nil && c.rec.Attach.Prog.Type == abi.ProgTypeCgroupSKB
}
