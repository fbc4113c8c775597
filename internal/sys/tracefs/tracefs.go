// SPDX-License-Identifier: Apache-2.0

// Package tracefs finds the tracing file system and its events, and puts programs on them.
package tracefs

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// places are where tracefs is mounted by custom.
var places = []string{"/sys/kernel/tracing", "/sys/kernel/debug/tracing"}

// Mounted is where tracefs is mounted, "" if nowhere usual.
func Mounted() string {
	for _, dir := range places {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && st.Type == unix.TRACEFS_MAGIC {
			return dir
		}
	}
	return ""
}

// Folder opens the folder of tracefs itself, whatever can be read in it. A kernel has one tracefs,
// however often it is mounted.
func Folder() (*os.File, error) {
	for _, dir := range places {
		f, err := os.Open(dir)
		if err != nil {
			continue
		}
		var st unix.Statfs_t
		if unix.Fstatfs(int(f.Fd()), &st) == nil && st.Type == unix.TRACEFS_MAGIC {
			return f, nil
		}
		f.Close()
	}
	mount, err := detach("tracefs")
	if err != nil {
		return nil, fmt.Errorf("mount tracefs: %w", err)
	}
	defer unix.Close(mount) // the open folder keeps what it needs
	fd, err := unix.Openat(mount, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open tracefs: %w", err)
	}
	return os.NewFile(uintptr(fd), "tracefs"), nil
}

// Root opens the folder of the tracing file system; the caller closes it. Where it is not mounted a
// mount of our own is made that hangs nowhere (fsmount, 5.2, needs CAP_SYS_ADMIN): nobody sees it,
// and it is gone when the folder is closed. Under lockdown=confidentiality it fails.
func Root() (*os.Root, error) {
	for _, dir := range places {
		root, err := os.OpenRoot(dir)
		if err != nil {
			continue
		}
		if _, err := root.Stat("events"); err == nil {
			return root, nil
		}
		root.Close()
	}
	root, err := Detached("tracefs", "events")
	if err != nil {
		return nil, fmt.Errorf("mount tracefs: %w", err)
	}
	return root, nil
}

// detach mounts a file system for us alone, where nobody sees it.
func detach(fstype string) (mount int, err error) {
	config, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(config)
	if err := unix.FsconfigCreate(config); err != nil {
		return -1, err
	}
	return unix.Fsmount(config, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
}

// Detached opens a file system that is mounted for us alone, and that must have a file.
func Detached(fstype, file string) (*os.Root, error) {
	mount, err := detach(fstype)
	if err != nil {
		return nil, err
	}
	defer unix.Close(mount) // the open folder keeps what it needs
	root, err := os.OpenRoot("/proc/self/fd/" + strconv.Itoa(mount))
	if err != nil {
		return nil, err
	}
	if _, err := root.Stat(file); err != nil {
		root.Close()
		return nil, err
	}
	return root, nil
}

// Event is a trace event.
type Event struct {
	Group, Name string
	ID          uint64
	offsets     map[string]uint32
}

// ReadEvent reads what an event is. Its error is os.ErrNotExist where the kernel does not have it.
func ReadEvent(tracefs *os.Root, group, name string) (Event, error) {
	e := Event{Group: group, Name: name}
	b, err := tracefs.ReadFile("events/" + group + "/" + name + "/format")
	if err != nil {
		return Event{}, fmt.Errorf("read event %s/%s: %w", group, name, err)
	}
	if e.ID, e.offsets, err = parseFormat(string(b)); err != nil {
		return Event{}, fmt.Errorf("read event %s/%s: %w", group, name, err)
	}
	return e, nil
}

// EventByID finds an event by its number, in a group if that is known (""), with the size of its
// record in bytes. Its error is os.ErrNotExist where no event has the number.
func EventByID(tracefs *os.Root, group string, id uint64) (e Event, size uint32, err error) {
	pattern := "events/" + cmp.Or(group, "*") + "/*/id"
	files, err := fs.Glob(tracefs.FS(), pattern)
	if err != nil {
		return Event{}, 0, fmt.Errorf("find event %d: %w", id, err)
	}
	for _, file := range files {
		b, err := tracefs.ReadFile(file)
		if err != nil || strings.TrimSpace(string(b)) != strconv.FormatUint(id, 10) {
			continue
		}
		dir := path.Dir(file)
		format, err := tracefs.ReadFile(dir + "/format")
		if err != nil {
			return Event{}, 0, fmt.Errorf("read event %d: %w", id, err)
		}
		return Event{Group: path.Base(path.Dir(dir)), Name: path.Base(dir), ID: id}, recordSize(string(format)), nil
	}
	return Event{}, 0, fmt.Errorf("find event %d: %w", id, os.ErrNotExist)
}

// recordSize is where the last field of a record ends, as its format says.
func recordSize(format string) (size uint32) {
	number := func(line, name string) uint32 {
		_, v, _ := strings.Cut(line, "\t"+name+":")
		v, _, _ = strings.Cut(v, ";")
		n, _ := strconv.ParseUint(v, 10, 16)
		return uint32(n)
	}
	for line := range strings.Lines(format) {
		if strings.HasPrefix(strings.TrimSpace(line), "field:") {
			size = max(size, number(line, "offset")+number(line, "size"))
		}
	}
	return size
}

// Offset is where a field of the event lies, in bytes.
func (e Event) Offset(field string) (uint32, error) {
	at, ok := e.offsets[field]
	if !ok {
		return 0, fmt.Errorf("read event %s/%s: it has no field %s", e.Group, e.Name, field)
	}
	return at, nil
}

// parseFormat reads "ID: 842" and "field:char * buf;	offset:24;	size:8;	signed:0;".
func parseFormat(text string) (id uint64, offsets map[string]uint32, err error) {
	offsets = map[string]uint32{}
	known := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if v, ok := strings.CutPrefix(line, "ID: "); ok {
			if id, err = strconv.ParseUint(v, 10, 64); err != nil {
				return 0, nil, err
			}
			known = true
			continue
		}
		declaration, rest, ok := strings.Cut(line, ";")
		if !ok || !strings.HasPrefix(declaration, "field:") {
			continue
		}
		name := declaration[strings.LastIndexByte(declaration, ' ')+1:]
		name, _, _ = strings.Cut(name, "[")
		_, at, _ := strings.Cut(rest, "offset:")
		at, _, _ = strings.Cut(at, ";")
		n, err := strconv.ParseUint(at, 10, 16)
		if err != nil {
			return 0, nil, fmt.Errorf("field %s: %w", name, err)
		}
		offsets[name] = uint32(n)
	}
	if !known {
		return 0, nil, fmt.Errorf("its format has no ID")
	}
	return id, offsets, nil
}

// Attached is a program on an event. Closing it takes it off.
type Attached struct{ fd int }

// Attach puts a program on an event. Programs hang on the event itself and run on every CPU, so
// that one perf event on CPU 0 is enough (perf_trace_run_bpf_submit). Needs CAP_PERFMON.
func (e Event) Attach(program int) (Attached, error) {
	a, err := AttachPerf(unix.PerfEventAttr{
		Type:        unix.PERF_TYPE_TRACEPOINT,
		Size:        unix.PERF_ATTR_SIZE_VER1,
		Config:      e.ID,
		Sample_type: unix.PERF_SAMPLE_RAW,
		Sample:      1,
		Wakeup:      1,
	}, program)
	if err != nil {
		return Attached{}, fmt.Errorf("attach to %s/%s: %w", e.Group, e.Name, err)
	}
	return a, nil
}

// AttachPerf puts a program on a new perf event of all processes.
func AttachPerf(attr unix.PerfEventAttr, program int) (Attached, error) {
	fd, err := unix.PerfEventOpen(&attr, -1, 0, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return Attached{}, fmt.Errorf("open perf event: %w", ExplainPerf(err))
	}
	if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_SET_BPF, program); err != nil {
		unix.Close(fd)
		return Attached{}, fmt.Errorf("give program to perf event: %w", err)
	}
	if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_ENABLE, 0); err != nil {
		unix.Close(fd)
		return Attached{}, fmt.Errorf("enable perf event: %w", err)
	}
	return Attached{fd}, nil
}

// ExplainPerf adds to a perf_event_open's EACCES what the kernel's own error does not tell: kernels
// of Debian and Ubuntu have values of kernel.perf_event_paranoid above the others' highest, 2,
// where only CAP_SYS_ADMIN may have perf events.
func ExplainPerf(err error) error {
	b, _ := os.ReadFile("/proc/sys/kernel/perf_event_paranoid")
	level := strings.TrimSpace(string(b))
	if n, e := strconv.Atoi(level); errors.Is(err, unix.EACCES) && e == nil && n > 2 {
		return fmt.Errorf("%w: kernel.perf_event_paranoid is %s, where this kernel lets only CAP_SYS_ADMIN have perf events; at 2 CAP_PERFMON is enough", err, level)
	}
	return err
}

// FD is the descriptor of the event. The program is on it as long as it is open.
func (a Attached) FD() int { return a.fd }

// Close takes the program off.
func (a Attached) Close() error { return unix.Close(a.fd) }
