// SPDX-License-Identifier: Apache-2.0

package guardian

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/hostinfo/sysctl"
	"golang.org/x/sys/unix"
)

// state is what is on disk while a value is changed. It is worth nothing after a reboot, which
// resets the sysctl.
type state struct {
	Old    int    `json:"old"`
	Set    int    `json:"set"`
	BootID string `json:"boot_id"`
}

// sane reports a state that a guardian writes: raised to 1 or 2, or lowered from 2 to 1.
func (s state) sane() bool {
	return s.Old >= 0 && s.Set > s.Old && s.Set <= 2 || s.Old == 2 && s.Set == 1
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// raised reports a state whose undoing lowers the setting.
func (s state) raised() bool { return s.Old < s.Set }

// record is the state file. It is made once and then written over in place: a guardian that has
// left root behind cannot remove it, and a file system that is full later has room for it.
//
// Any process of uid 0 may write it, with or without capabilities, and what it says is done with
// CAP_SYS_ADMIN. So a record alone never makes anybody lower the setting, but for somebody who asks
// for just that: RecoverRaised.
type record struct {
	f    *os.File
	idle state // what stands in it while nothing of ours is changed
}

// recordSize is that of every record.
const recordSize = 128

// nothing is what stands in a record when nothing is changed: earlier versions take it for a change
// before the last boot.
var nothing = state{Set: 1}

func openRecord(name string) (record, error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return record{}, fmt.Errorf("make folder of state: %w", err)
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return record{}, fmt.Errorf("open state: %w", err)
	}
	return record{f, nothing}, nil
}

func (r record) close() { r.f.Close() }

// clear notes that nothing of ours is changed any more.
func (r record) clear() error { return r.write(r.idle) }

// write notes what is about to be changed.
func (r record) write(s state) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	whole := bytes.Repeat([]byte{' '}, recordSize)
	copy(whole, b)
	if _, err := r.f.WriteAt(whole, 0); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

// read is what is changed, or nothing.
func (r record) read() (s state, err error) {
	b, err := io.ReadAll(io.NewSectionReader(r.f, 0, 4096))
	if err != nil {
		return state{}, fmt.Errorf("read state: %w", err)
	}
	if b = bytes.TrimSpace(b); len(b) == 0 {
		return nothing, nil
	}
	if err := json.Unmarshal(b, &s); err != nil || !s.sane() {
		return state{}, fmt.Errorf("read state: %s is not what a guardian writes: set net.core.bpf_jit_harden by hand and remove it", r.f.Name())
	}
	return s, nil
}

// changed is what a record says was changed since the last boot, or nothing.
func (r record) changed(bootID string) (state, error) {
	s, err := r.read()
	if err != nil || s == nothing {
		return nothing, err
	}
	if s.BootID != bootID {
		return nothing, r.clear()
	}
	return s, nil
}

// restore undoes what a record says was done; a raise only if it may lower.
func (c setting) restore(s state, r record, lower bool) (Report, error) {
	if s == nothing {
		return Report{}, nil
	}
	if s.raised() && !lower {
		if now, err := c.read(); err != nil || now == s.Set {
			return Report{}, err
		}
	}
	return undo(c, s, r)
}

// restore is for who has no open setting. The caller holds the lock.
func restore(p paths, r record, lower bool) (Report, error) {
	id, err := bootID()
	if err != nil {
		return Report{}, err
	}
	s, err := r.changed(id)
	if err != nil || s == nothing {
		return Report{}, err
	}
	c, err := openSetting(p.sysctl)
	if err != nil {
		return Report{}, err
	}
	defer c.close()
	return c.restore(s, r, lower)
}

// left is what a record says is raised still, or nothing.
func (r record) left(now int, bootID string) state {
	if s, err := r.read(); err == nil && s.raised() && s.Set == now && s.BootID == bootID {
		return s
	}
	return nothing
}

func undo(c setting, s state, r record) (Report, error) {
	now, err := c.read()
	if err != nil {
		return Report{}, err
	}
	report := Report{Old: s.Old, Set: s.Set, Now: now}
	switch now {
	case s.Old: // killed before it was changed, or after it was restored
	case s.Set:
		if err := c.write(s.Old); err != nil {
			return report, err
		}
		report.Now = s.Old
	default:
		report.Foreign = true
	}
	return report, r.clear()
}

// orphan locks the sysctl, and opens the record, when nobody else has it and there is a record;
// else the file is nil.
func orphan(p paths) (lock *os.File, r record, err error) {
	if _, err := os.Stat(p.state); errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil, r, nil
	}
	if lock, err = openLock(p.lock); err != nil {
		return nil, r, err
	}
	if err = lockFile(lock, unix.LOCK_EX|unix.LOCK_NB); err == nil {
		r, err = openRecord(p.state)
	}
	if err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = nil // its guardian lives
		}
		return nil, r, err
	}
	return lock, r, nil
}

func recoverPaths(p paths, lower bool) (Report, error) {
	lock, r, err := orphan(p)
	if lock == nil {
		return Report{}, err
	}
	defer lock.Close()
	defer r.close()
	return restore(p, r, lower)
}

func leftPaths(p paths) (Report, error) {
	lock, r, err := orphan(p)
	if lock == nil {
		return Report{}, err
	}
	defer lock.Close()
	defer r.close()
	s, err := r.read()
	if err != nil || s == nothing {
		return Report{}, err
	}
	now, err := readValue(p.sysctl)
	if err != nil {
		return Report{}, err
	}
	if id, err := bootID(); err != nil || s.BootID != id || now != s.Set {
		return Report{}, err
	}
	return Report{Old: s.Old, Set: s.Set, Now: now}, nil
}

// setting is an open file with a small number.
type setting struct{ f *os.File }

func openFile(name string, flags int) (*os.File, error) {
	if dotted, ok := strings.CutPrefix(name, "/proc/sys/"); ok {
		return sysctl.OpenFile(strings.ReplaceAll(dotted, "/", "."), flags)
	}
	return os.OpenFile(name, flags, 0) // of a test
}

func openSetting(name string) (setting, error) {
	f, err := openFile(name, os.O_RDWR)
	if err != nil {
		return setting{}, fmt.Errorf("open sysctl: %w", err)
	}
	return setting{f}, nil
}

func (c setting) close() { c.f.Close() }

func (c setting) read() (int, error) {
	var b [16]byte
	n, err := c.f.ReadAt(b[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("read sysctl: %w", err)
	}
	v, err := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil {
		return 0, fmt.Errorf("read sysctl %s: %w", c.f.Name(), err)
	}
	return v, nil
}

// write reads back what it wrote: some container runtimes swallow writes.
func (c setting) write(v int) error {
	if _, err := c.f.WriteAt([]byte(strconv.Itoa(v)+"\n"), 0); err != nil {
		return fmt.Errorf("write sysctl: %w", err)
	}
	got, err := c.read()
	if err != nil {
		return err
	}
	if got != v {
		return fmt.Errorf("write sysctl %s: wrote %d, it says %d", c.f.Name(), v, got)
	}
	return nil
}

func readValue(name string) (int, error) {
	f, err := openFile(name, os.O_RDONLY)
	if err != nil {
		return 0, fmt.Errorf("read sysctl: %w", err)
	}
	defer f.Close()
	return setting{f}.read()
}
