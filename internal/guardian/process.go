// SPDX-License-Identifier: Apache-2.0

package guardian

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Main guards, and ends the process, if the executable was started as a guardian (by RaiseHarden); otherwise it returns at once. It
// belongs at the very start of main, and of TestMain in packages that raise the sysctl.
func Main() {
	mainCalled.Store(true)
	if len(os.Args) != 5 || os.Args[0] != Argv0 {
		return
	}
	to, err := strconv.Atoi(os.Args[1])
	if err != nil {
		os.Exit(2)
	}
	os.Exit(guard(paths{sysctl: os.Args[2], lock: os.Args[3], state: os.Args[4]}, to))
}

// guard is the life of the guardian. Its exit status is 0 when the value is as it was.
func guard(p paths, to int) int {
	signal.Ignore(unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE, unix.SIGTSTP)
	told := make(chan os.Signal, 1)
	signal.Notify(told, unix.SIGTERM)
	orphaned := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin) // ends when the parent lets go or dies
		close(orphaned)
	}()
	fail := func(err error) int {
		say(message{Error: err.Error()})
		return 1
	}

	type locked struct {
		file *os.File
		err  error
	}
	lock := make(chan locked, 1)
	go func() {
		f, err := takeLock(p.lock, unix.LOCK_EX)
		lock <- locked{f, err}
	}()
	var held locked
	late := time.NewTimer(time.Second)
	defer late.Stop()
	for held == (locked{}) {
		select {
		case held = <-lock:
		case <-late.C:
			fmt.Fprintf(os.Stderr, "bpfwhy: waiting for another guardian of %s, which holds %s\n", filepath.Base(p.sysctl), p.lock)
		case <-orphaned:
			return 1
		case <-told:
			return 1
		}
	}
	if held.err != nil {
		return fail(held.err)
	}
	defer held.file.Close()

	if _, err := restore(p); err != nil {
		return fail(err)
	}
	old, err := readValue(p.sysctl)
	if err != nil {
		return fail(err)
	}
	if to == standBy {
		return stand(p, old, orphaned, told)
	}
	if old > to {
		say(message{Report: Report{Old: old}, Error: ErrLower.Error(), Lower: true})
		return 1
	}
	report := Report{Old: old, Set: to, Now: old}
	if old < to {
		if err := writeState(p.state, old, to); err != nil {
			return fail(err)
		}
		if err := writeValue(p.sysctl, to); err != nil {
			_, undo := restore(p)
			return fail(errors.Join(err, undo))
		}
	}
	say(message{Report: report})

	select {
	case <-orphaned:
	case <-told:
	}
	if old == to {
		say(message{Report: report})
		return 0
	}
	return finish(p)
}

// stand is the part of a guardian that writes nothing while its parent lives.
func stand(p paths, old int, orphaned <-chan struct{}, told <-chan os.Signal) int {
	if old != 2 {
		say(message{Report: Report{Old: old}, Error: ErrNotTwo.Error(), Lower: true})
		return 1
	}
	if err := writeState(p.state, 2, 1); err != nil {
		say(message{Error: err.Error()})
		return 1
	}
	say(message{Report: Report{Old: 2, Set: 1, Now: 2}})
	select {
	case <-orphaned:
	case <-told:
	}
	return finish(p)
}

// finish restores and reports.
func finish(p paths) int {
	report, err := restore(p)
	m := message{Report: report}
	if err != nil {
		m.Error = err.Error()
	}
	if !say(m) && (err != nil || report.Foreign) {
		// Nobody is left to report to but the terminal or the journal.
		fmt.Fprintf(os.Stderr, "%s: %v %s\n", Argv0, report, m.Error)
	}
	if err != nil {
		return 1
	}
	return 0
}

func say(m message) bool { return json.NewEncoder(os.Stdout).Encode(m) == nil }

// takeLock opens and locks the lock file; how is LOCK_EX, with LOCK_NB to not wait.
func takeLock(name string, how int) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return nil, fmt.Errorf("make folder of lock: %w", err)
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), how)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return f, nil
}

// state is what is left on disk while a value is raised. It is worth nothing after a reboot, which resets the sysctl.
type state struct {
	Old    int    `json:"old"`
	Set    int    `json:"set"`
	BootID string `json:"boot_id"`
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// writeState puts the state in place whole or not at all.
func writeState(name string, old, set int) error {
	id, err := bootID()
	if err != nil {
		return err
	}
	b, err := json.Marshal(state{Old: old, Set: set, BootID: id})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return fmt.Errorf("make folder of state: %w", err)
	}
	tmp := name + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write state: %w", err)
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, name)
	}
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

// readState is what the state file says was done since the machine started, and the value now. No state is no error.
func readState(p paths) (s state, now int, err error) {
	b, err := os.ReadFile(p.state)
	if errors.Is(err, fs.ErrNotExist) {
		return state{}, 0, nil
	}
	if err != nil {
		return state{}, 0, fmt.Errorf("read state: %w", err)
	}
	if err := json.Unmarshal(b, &s); err != nil || !sane(s) {
		return state{}, 0, fmt.Errorf("read state: %s is not what a guardian writes: set net.core.bpf_jit_harden by hand and remove it", p.state)
	}
	now, err = readValue(p.sysctl)
	return s, now, err
}

// restore undoes what the state file says was done. The caller holds the lock.
func restore(p paths) (Report, error) {
	s, now, err := readState(p)
	if err != nil || s == (state{}) {
		return Report{}, err
	}
	id, err := bootID()
	if err != nil {
		return Report{}, err
	}
	if s.BootID != id {
		return Report{}, removeState(p)
	}
	report := Report{Old: s.Old, Set: s.Set, Now: now}
	switch now {
	case s.Old: // killed before it was raised, or after it was restored
	case s.Set:
		if err := writeValue(p.sysctl, s.Old); err != nil {
			return report, err
		}
		report.Now = s.Old
	default:
		report.Foreign = true
	}
	return report, removeState(p)
}

// sane reports a state that a guardian writes: raised to 1 or 2, or lowered from 2 to 1.
func sane(s state) bool {
	return s.Old >= 0 && s.Set > s.Old && s.Set <= 2 || s.Old == 2 && s.Set == 1
}

func removeState(p paths) error {
	if err := os.Remove(p.state); err != nil {
		return fmt.Errorf("remove state: %w", err)
	}
	return nil
}

// orphaned locks the sysctl when nobody else has it and there is a state file to look at; else the file is nil.
func orphaned(p paths) (*os.File, error) {
	if _, err := os.Stat(p.state); errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil, nil
	}
	lock, err := takeLock(p.lock, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, nil // its guardian lives
	}
	return lock, err
}

func recoverPaths(p paths) (Report, error) {
	lock, err := orphaned(p)
	if lock == nil {
		return Report{}, err
	}
	defer lock.Close()
	return restore(p)
}

func leftPaths(p paths) (Report, error) {
	lock, err := orphaned(p)
	if lock == nil {
		return Report{}, err
	}
	defer lock.Close()
	s, now, err := readState(p)
	if err != nil {
		return Report{}, err
	}
	if id, err := bootID(); err != nil || s.BootID != id || now != s.Set {
		return Report{}, err
	}
	return Report{Old: s.Old, Set: s.Set, Now: now}, nil
}

func readValue(name string) (int, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, fmt.Errorf("read sysctl: %w", err)
	}
	v, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("read sysctl %s: %w", name, err)
	}
	return v, nil
}

// writeValue reads back what it wrote: some container runtimes swallow writes.
func writeValue(name string, v int) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return fmt.Errorf("write sysctl: %w", err)
	}
	_, err = f.WriteString(strconv.Itoa(v) + "\n")
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write sysctl: %w", err)
	}
	got, err := readValue(name)
	if err != nil {
		return err
	}
	if got != v {
		return fmt.Errorf("write sysctl %s: wrote %d, it says %d", name, v, got)
	}
	return nil
}
