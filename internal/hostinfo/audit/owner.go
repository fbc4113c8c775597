// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/sys/buildinfo"
	"github.com/bpfwhy/bpfwhy/internal/sys/proc"
	"github.com/bpfwhy/bpfwhy/internal/watch/enrich"
	"github.com/bpfwhy/bpfwhy/load"
	"golang.org/x/sys/unix"
)

// Owner is a process that holds a program.
type Owner struct {
	PID       int    `json:"pid"` // as our own pid namespace has it
	Comm      string `json:"comm"`
	Exe       string `json:"exe,omitempty"`
	UID       int    `json:"uid"` // effective, as our own user namespace has it
	Container string `json:"container,omitempty"`
	Runtime   string `json:"runtime,omitempty"` // load.RuntimeGo, or "" if it is another or not known
	Holds     string `json:"holds"`             // program, link, perf_event

	capBPF, sysAdmin bool
}

// Link is an attachment that keeps a program loaded.
type Link struct {
	ID   uint32 `json:"id"`
	Type string `json:"type"`
}

// holders says by program id what keeps programs loaded.
type holders struct {
	owners map[uint32][]Owner
	more   map[uint32]int // owners beyond those listed
	pins   map[uint32][]string
	links  map[uint32][]Link
	unseen []string // what could not be looked at, and why
}

// Bounds: a node can hold a program in any number of processes and places.
const (
	maxOwners = 16
	maxPins   = 16
	maxLinks  = 16
	maxPaths  = 1 << 18 // walked in BPF file systems
)

// findHolders walks processes, links and pins. Processes that end meanwhile are passed over.
func findHolders(ctx context.Context) *holders {
	h := &holders{owners: map[uint32][]Owner{}, more: map[uint32]int{}, pins: map[uint32][]string{}, links: map[uint32][]Link{}}
	h.scanLinks(ctx)
	h.scanProcesses(ctx)
	h.scanPins(ctx)
	return h
}

func (h *holders) miss(format string, args ...any) {
	h.unseen = append(h.unseen, fmt.Sprintf(format, args...))
}

func (h *holders) scanProcesses(ctx context.Context) {
	dir, err := os.Open("/proc")
	if err != nil {
		h.miss("owners: %v", err)
		return
	}
	defer dir.Close()
	refused := 0
	for ctx.Err() == nil {
		names, err := dir.Readdirnames(256)
		for _, name := range names {
			pid, err := strconv.Atoi(name)
			if err != nil {
				continue
			}
			if err := h.scanProcess(pid); errors.Is(err, fs.ErrPermission) {
				refused++
			}
		}
		if err != nil { // io.EOF, or the end of our sight
			break
		}
	}
	if refused > 0 {
		h.miss("owners: the descriptors of %d processes may not be read (CAP_SYS_PTRACE)", refused)
	}
}

// scanProcess looks at the descriptors of one process. Threads that have unshared their table are
// not looked at.
//
//revive:disable-next-line:cyclomatic processes end and hide while they are looked at
func (h *holders) scanProcess(pid int) error {
	base := fmt.Sprintf("/proc/%d/", pid)
	dir, err := os.Open(base + "fd")
	if err != nil {
		return err
	}
	defer dir.Close()
	var who *Owner
	seen := map[uint32]bool{} // a process holds a program often more than once
	for {
		names, err := dir.Readdirnames(1024)
		for _, name := range names {
			target, err := os.Readlink(base + "fd/" + name)
			if errors.Is(err, fs.ErrPermission) {
				return err // their names show to root, and nothing else
			}
			if err != nil || !strings.HasPrefix(target, "anon_inode:") {
				continue
			}
			var id uint32
			holds := ""
			switch {
			case target == "anon_inode:bpf-prog":
				id, holds = fdProgram(base+"fdinfo/"+name), "program"
			case strings.Contains(target, "bpf_link"), strings.Contains(target, "bpf-link"):
				id, holds = fdProgram(base+"fdinfo/"+name), "link"
			case target == "anon_inode:[perf_event]":
				if fd, err := strconv.Atoi(name); err == nil {
					id, _ = taskFDQuery(pid, fd)
					holds = "perf_event"
				}
			}
			if id == 0 || seen[id] {
				continue
			}
			seen[id] = true
			if len(h.owners[id]) == maxOwners {
				h.more[id]++
				continue
			}
			if who == nil {
				who = describe(pid, base)
			}
			o := *who
			o.Holds = holds
			h.owners[id] = append(h.owners[id], o)
		}
		if err != nil {
			return nil
		}
	}
}

// fdProgram reads the program's id that a descriptor's fdinfo names, 0 if none.
func fdProgram(path string) uint32 {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	return programID(io.LimitReader(f, 64<<10))
}

func programID(r io.Reader) uint32 {
	for lines := bufio.NewScanner(r); lines.Scan(); {
		if v, ok := strings.CutPrefix(lines.Text(), "prog_id:"); ok {
			id, err := strconv.ParseUint(strings.TrimSpace(v), 10, 32)
			if err != nil {
				return 0
			}
			return uint32(id)
		}
	}
	return 0
}

// patience is how long an executable may take to be read.
const patience = 100 * time.Millisecond

// describe says who a process is. What it calls itself is its own affair: the strings are hostile.
func describe(pid int, base string) *Owner {
	o := &Owner{PID: pid, UID: -1}
	if b, err := readSmall(base + "comm"); err == nil {
		o.Comm = strings.TrimSuffix(string(b), "\n")
	}
	if exe, err := os.Readlink(base + "exe"); err == nil {
		o.Exe = exe
		if buildinfo.IsGoFile(base+"exe", patience) {
			o.Runtime = load.RuntimeGo
		}
	}
	if b, err := readSmall(base + "status"); err == nil {
		for line := range bytes.Lines(b) {
			key, value, _ := strings.Cut(string(line), ":")
			f := strings.Fields(value)
			switch {
			case key == "Uid" && len(f) >= 2:
				if uid, err := strconv.Atoi(f[1]); err == nil {
					o.UID = uid
				}
			case key == "CapEff" && len(f) == 1:
				if mask, err := strconv.ParseUint(f[0], 16, 64); err == nil {
					o.sysAdmin = mask>>abi.CapSysAdmin&1 == 1
					o.capBPF = mask>>abi.CapBPF&1 == 1
				}
			}
		}
	}
	// Capabilities of another user namespace do not count for bpf(2).
	if !sameNamespace(base+"ns/user", "/proc/self/ns/user") {
		o.sysAdmin, o.capBPF = false, false
	}
	if b, err := readSmall(base + "cgroup"); err == nil {
		p := load.Process{Cgroups: proc.Cgroups(string(b))}
		enrich.Process(&p)
		o.Container = p.Container
	}
	return o
}

func sameNamespace(a, b string) bool {
	x, errX := os.Readlink(a)
	y, errY := os.Readlink(b)
	return errX == nil && errY == nil && x == y
}

func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 64<<10))
}

// Link types of enum bpf_link_type.
// scanLinks walks all links (5.8 and later).
func (h *holders) scanLinks(ctx context.Context) {
	for id := uint32(0); ctx.Err() == nil; {
		next, more, err := nextID(abi.CmdLinkGetNextID, id)
		if err != nil {
			if !errors.Is(err, unix.EINVAL) { // a kernel without links
				h.miss("links: %v", err)
			}
			return
		}
		if !more {
			return
		}
		id = next
		fd, err := byID(abi.CmdLinkGetFDByID, id)
		if err != nil {
			continue // gone meanwhile
		}
		var info abi.LinkInfo
		err = infoByFD(fd, unsafe.Pointer(&info), unsafe.Sizeof(info))
		unix.Close(fd)
		if err != nil || info.ProgID == 0 || len(h.links[info.ProgID]) == maxLinks {
			continue
		}
		h.links[info.ProgID] = append(h.links[info.ProgID], Link{ID: id, Type: abi.LinkTypeName(info.Type)})
	}
}

// scanPins walks the BPF file systems of our own mount namespace.
func (h *holders) scanPins(ctx context.Context) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		h.miss("pins: %v", err)
		return
	}
	seen, walked := map[uint64]bool{}, 0
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 3 || f[2] != "bpf" {
			continue
		}
		root := unescape(f[1])
		var st unix.Stat_t
		if unix.Stat(root, &st) != nil || seen[st.Dev] {
			continue
		}
		seen[st.Dev] = true
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			walked++
			switch {
			case walked > maxPaths:
				return fs.SkipAll
			case ctx.Err() != nil:
				return ctx.Err()
			case err != nil || !d.Type().IsRegular(): // unreadable, gone, or a folder
				return nil
			}
			if id := pinned(path); id != 0 && len(h.pins[id]) < maxPins {
				h.pins[id] = append(h.pins[id], path)
			}
			return nil
		})
		if err != nil {
			h.miss("pins below %s: %v", root, err)
		}
	}
	if walked > maxPaths {
		h.miss("pins: only the first %d paths were looked at", maxPaths)
	}
}

// pinned returns the program that a path holds, itself or by a link.
func pinned(path string) uint32 {
	fd, err := objGet(path)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	return fdProgram(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
}

// unescape undoes the octal escapes of /proc/self/mounts.
func unescape(s string) string {
	for _, e := range [][2]string{{`\040`, " "}, {`\011`, "\t"}, {`\012`, "\n"}, {`\134`, `\`}} {
		s = strings.ReplaceAll(s, e[0], e[1])
	}
	return s
}
