// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/sys/cgroup"
	"github.com/bpfwhy/bpfwhy/internal/sys/proc"
	"github.com/bpfwhy/bpfwhy/internal/watch/redact"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

func (d *decoder) addAttachment(id trace.CallID, sample []byte) error {
	a, err := sized[coreAttachment](sample, "attachment")
	if err != nil {
		return err
	}
	p := d.piecesOf(id)
	d.size -= p.size()
	p.attach = decodeAttachment(a)
	d.size += p.size()
	return nil
}

func decodeAttachment(r *coreAttachment) *trace.Attach {
	has := func(s coreAttachSeen) bool { return coreAttachSeen(r.Seen)&s != 0 }
	a := &trace.Attach{
		Device: text(r.Device[:]), NetNS: r.Netns, Ifindex: r.Ifindex, Parent: r.TcParent, Flags: r.Flags, TargetFD: r.TargetFd, ProgFD: r.ProgFd, Link: r.LinkId, Function: text(r.Function[:]), Text: text(r.Text[:]),
		Count: r.SymbolsCount, Offset: r.Offset, Addresses: has(coreAttachSeenA_ADDRESSES), Looked: has(coreAttachSeenA_LOOKED),
	}
	if has(coreAttachSeenA_PROG) {
		a.Prog = &trace.AttachProg{
			ID: r.ProgId, Type: r.ProgType, AttachType: r.ExpectedAttachType, Name: text(r.ProgName[:]),
			Tag: append([]byte(nil), r.ProgTag[:]...), MaxCtxOffset: r.MaxCtxOffset, AttachBTFID: r.AttachBtfId,
			Len: r.ProgLen, Overrides: has(coreAttachSeenA_OVERRIDES),
		}
	}
	if has(coreAttachSeenA_FILE) {
		path := text(r.File[:])
		if parent := text(r.Parent[:]); parent != "" && parent != "/" && path != "/" {
			path = parent + "/" + path
		}
		a.File = &trace.File{FS: text(r.Fs[:]), Path: path, Inode: r.Inode, Directory: has(coreAttachSeenA_DIRECTORY), Cgroup: r.Cgroup}
	}
	if has(coreAttachSeenA_MAP) {
		m := &r.Map
		a.Map = &trace.Map{
			ID: m.Id, Type: m.Type, KeySize: m.KeySize, ValueSize: m.ValueSize, MaxEntries: m.MaxEntries, Flags: m.Flags, Name: text(m.Name[:]),
		}
	}
	if has(coreAttachSeenA_EVENT) {
		a.Event = &trace.Event{Type: r.EventType, Config: r.EventConfig, System: text(r.System[:])}
	}
	for i := range r.Symbols {
		if s := text(r.Symbols[i][:]); s != "" {
			a.Symbols = append(a.Symbols, s)
		}
	}
	return a
}

// completeAttachment adds what user space knows better: whole paths, and, where the kernel was not
// read, what /proc tells of the caller's descriptors. A caller that is gone by now leaves the call
// as it is.
func (d *decoder) completeAttachment(call *trace.Call) {
	a := call.Attach
	if a == nil {
		return
	}
	if dir := procOf(call); isCaller(call, dir) {
		told := d.askCaller(call, dir)
		if isCaller(call, dir) { // still
			*a = told
		}
	}
	if call.Ret < 0 {
		d.traced.complete(call)
		a.Lines = d.logged(call)
	}
	if f := a.File; f != nil && f.Cgroup != 0 && call.Ret < 0 && !strings.HasPrefix(f.Path, "/") {
		if root, err := cgroup.Root(); err == nil {
			if g, err := cgroup.ByID(f.Cgroup, root); err == nil {
				f.Path = g.Path
			}
		}
	}
}

// unseenStart is about how long system calls take of which only the end is seen, in ns.
const unseenStart = 100e6

// logged is what the kernel wrote to its log during a call. The two clocks are not known well
// enough to tell lines of the next call from those of this one. So where it is known what the
// call is about, only lines that name it count.
func (d *decoder) logged(call *trace.Call) []string {
	if d.log == nil {
		return nil
	}
	start := int64(call.ID.Start)
	switch call.Kind {
	case load.PerfEventOpen, load.PerfEventSetBPF, load.ProbeDefine:
		start -= unseenStart
	}
	d.log.Read(int64(monotonic()))
	names := namesOf(call.Attach)
	var lines []string
	for _, l := range d.log.Between(start, int64(call.End)) {
		if len(names) > 0 && !slices.ContainsFunc(names, func(n string) bool { return hasWord(l, n) }) {
			continue
		}
		b := []byte(l)
		redact.Free(b)
		lines = append(lines, string(b))
	}
	return lines
}

// namesOf are the names of what a program was to be attached to.
func namesOf(a *trace.Attach) (names []string) {
	for _, n := range append([]string{a.Function, a.Device, a.Text}, a.Symbols...) {
		if n != "" {
			names = append(names, n)
		}
	}
	return names
}

// hasWord reports whether a line has a name in it that is not a part of a longer one.
func hasWord(line, name string) bool {
	inName := func(s string, i int) bool {
		if i < 0 || i >= len(s) {
			return false
		}
		c := s[i]
		return c == '_' || '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
	}
	for at := 0; ; {
		i := strings.Index(line[at:], name)
		if i < 0 {
			return false
		}
		at += i
		if !inName(line, at-1) && !inName(line, at+len(name)) {
			return true
		}
		at++
	}
}

// askCaller is what was seen of a call with what /proc says of its process now.
func (d *decoder) askCaller(call *trace.Call, dir string) trace.Attach {
	told := *call.Attach
	if told.File != nil {
		file := *told.File
		told.File = &file
	}
	target, prog := descriptors(call)
	if d.keep && !told.Looked {
		d.lookAtDescriptors(call, &told, dir, target, prog)
	}
	if told.File != nil && target >= 0 {
		completePath(told.File, dir, target)
	}
	if i := ifindex(call); i != 0 && told.Device == "" {
		told.Device, told.NetNS = deviceIn(dir, i)
	}
	return told
}

// descriptors are those of the target and the program of a call, -1 where it names none.
func descriptors(call *trace.Call) (target, prog int32) {
	switch call.Kind {
	case load.LinkCreate:
		l := abi.Read[abi.LinkCreate](call.Attr)
		switch {
		case l.AttachType == abi.AttachStructOps:
			return int32(l.ProgFD), -1
		case l.TargetFD == 0 || namesDevice(l.AttachType):
			return -1, int32(l.ProgFD)
		}
		return int32(l.TargetFD), int32(l.ProgFD)
	case load.ProgAttach:
		p := abi.Read[abi.ProgAttach](call.Attr)
		if namesDevice(p.AttachType) {
			return -1, int32(p.AttachBPFFD)
		}
		return int32(p.TargetFD), int32(p.AttachBPFFD)
	case load.RawTPOpen:
		return -1, int32(abi.Read[abi.RawTracepointOpen](call.Attr).ProgFD)
	case load.LinkUpdate:
		l := abi.Read[abi.LinkUpdate](call.Attr)
		return int32(l.LinkFD), int32(l.NewProgFD)
	case load.ObjPin:
		return int32(abi.Read[abi.ObjPin](call.Attr).BPFFD), -1
	case load.PerfEventSetBPF:
		return call.Attach.TargetFD, call.Attach.ProgFD
	case load.MapUpdate:
		return int32(abi.Read[abi.MapElem](call.Attr).MapFD), -1
	}
	return -1, -1
}

func namesDevice(attachType uint32) bool {
	switch attachType {
	case abi.AttachXDP, abi.AttachTCXIngress, abi.AttachTCXEgress, abi.AttachNetkitPrimary, abi.AttachNetkitPeer:
		return true
	}
	return false
}

// ifindex is the device that a call names, 0 for none.
func ifindex(call *trace.Call) uint32 {
	switch call.Kind {
	case load.LinkCreate:
		if l := abi.Read[abi.LinkCreate](call.Attr); namesDevice(l.AttachType) {
			return l.TargetFD
		}
	case load.ProgAttach:
		if p := abi.Read[abi.ProgAttach](call.Attr); namesDevice(p.AttachType) {
			return p.TargetFD
		}
	}
	return 0
}

// lookAtDescriptors tells what /proc says of them, and what is remembered of the calls that made
// them.
func (d *decoder) lookAtDescriptors(call *trace.Call, a *trace.Attach, dir string, target, prog int32) {
	if target >= 0 {
		a.File, a.Looked = fileOf(dir, target), true
		switch info := proc.Read(fmt.Sprintf("%sfdinfo/%d", dir, target)); {
		case a.File == nil:
		case a.File.Path == "bpf-map":
			a.Map = d.objects.mapOf(call, info, target)
		case a.File.Path == "bpf_link" || a.File.Path == "bpf-link":
			a.Link = numberIn(info, "link_id")
		case a.File.Path == "bpf-prog" && call.Kind == load.ObjPin:
			prog = target
		}
	}
	if prog >= 0 && a.Prog == nil {
		a.Prog = d.objects.programOf(call, dir, prog)
	}
}

// programOf is a program behind a descriptor: as it was loaded, if that was seen, with the id and
// tag that it has.
func (o *objects) programOf(call *trace.Call, dir string, fd int32) *trace.AttachProg {
	f, err := os.Open(fmt.Sprintf("%sfdinfo/%d", dir, fd))
	if err != nil {
		return nil
	}
	defer f.Close()
	now := parseFdinfo(f)
	if now == nil {
		return nil
	}
	p := &trace.AttachProg{ID: now.ID, Type: now.Type, Tag: now.Tag}
	if made, ok := o.progs[descriptor{call.TGID, fd}]; ok && made.Type == now.Type && (made.ID == 0 || made.ID == now.ID) {
		p.AttachType, p.Name, p.AttachBTFID = made.AttachType, made.Name, made.AttachBTFID
	}
	return p
}

// mapOf is a map behind a descriptor: as the kernel has it, with the name that it was created with,
// if that was seen.
func (o *objects) mapOf(call *trace.Call, info string, fd int32) *trace.Map {
	m := trace.Map{
		ID: numberIn(info, "map_id"), Type: numberIn(info, "map_type"), KeySize: numberIn(info, "key_size"),
		ValueSize: numberIn(info, "value_size"), MaxEntries: numberIn(info, "max_entries"), Flags: numberIn(info, "map_flags"),
	}
	if made, ok := o.maps[descriptor{call.TGID, fd}]; ok && made.Type == m.Type && made.KeySize == m.KeySize && made.ValueSize == m.ValueSize {
		m.Name = made.Name
	}
	return &m
}

// numberIn is a number of a file of /proc, decimal or hexadecimal, 0 where there is none.
func numberIn(info, field string) uint32 {
	n, _ := strconv.ParseUint(proc.Field(info, field), 0, 32)
	return uint32(n)
}

// anonymous are the files of objects of BPF and of events of perf, and how /proc shows them.
const anonymous = "anon_inode:"

// fileOf is what a descriptor of a process is, nil when it is not open.
func fileOf(dir string, fd int32) *trace.File {
	name := fmt.Sprintf("%sfd/%d", dir, fd)
	path, err := os.Readlink(name)
	if err != nil {
		return nil
	}
	var st unix.Stat_t
	if unix.Stat(name, &st) != nil {
		return nil
	}
	f := &trace.File{Path: path, Inode: st.Ino, Directory: st.Mode&unix.S_IFMT == unix.S_IFDIR}
	if kind, ok := strings.CutPrefix(path, anonymous); ok {
		f.Path, f.FS = kind, "anon_inodefs"
		return f
	}
	f.FS = fileSystem(dir, fd)
	if f.FS == "cgroup2" && f.Directory {
		f.Cgroup = st.Ino
	}
	return f
}

// fileSystem is the type of the file system that a descriptor's file is on.
func fileSystem(dir string, fd int32) string {
	mount := proc.Field(proc.Read(fmt.Sprintf("%sfdinfo/%d", dir, fd)), "mnt_id")
	mounts, err := os.Open(dir + "mountinfo")
	if err != nil || mount == "" {
		return ""
	}
	defer mounts.Close()
	for lines := bufio.NewScanner(mounts); lines.Scan(); {
		id, rest, _ := strings.Cut(lines.Text(), " ")
		if id == mount {
			_, kind, _ := strings.Cut(rest, " - ")
			kind, _, _ = strings.Cut(kind, " ")
			return kind
		}
	}
	return ""
}

// completePath makes the path of a file whole, which the kernel gave by its last elements.
func completePath(f *trace.File, dir string, fd int32) {
	name := fmt.Sprintf("%sfd/%d", dir, fd)
	var st unix.Stat_t
	if strings.HasPrefix(f.Path, "/") || unix.Stat(name, &st) != nil || st.Ino != f.Inode {
		return
	}
	if path, err := os.Readlink(name); err == nil && strings.HasPrefix(path, "/") {
		f.Path = path
	}
}

// deviceIn is the name of a device in the network namespace of a process, and the namespace's
// number.
func deviceIn(dir string, index uint32) (name string, netns uint32) {
	var theirs, ours unix.Stat_t
	if unix.Stat(dir+"ns/net", &theirs) != nil || unix.Stat("/proc/thread-self/ns/net", &ours) != nil {
		return "", 0
	}
	lookUp := func() {
		if i, err := net.InterfaceByIndex(int(index)); err == nil {
			name = i.Name
		}
	}
	if theirs.Ino == ours.Ino {
		lookUp()
		return name, uint32(theirs.Ino)
	}
	done := make(chan bool)
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with this function
		fd, err := unix.Open(dir+"ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return
		}
		defer unix.Close(fd)
		if unix.Setns(fd, unix.CLONE_NEWNET) == nil {
			lookUp()
		}
	}()
	<-done
	return name, uint32(theirs.Ino)
}
