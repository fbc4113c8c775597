// SPDX-License-Identifier: Apache-2.0

package guardian

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Main guards, and ends the process, if the executable was started as a guardian (by RaiseHarden);
// otherwise it returns at once. It belongs at the very start of main, and of TestMain in packages
// that raise the sysctl.
func Main() {
	mainCalled.Store(true)
	if len(os.Args) != 6 || os.Args[0] != Argv0 {
		return
	}
	to, err := strconv.Atoi(os.Args[1])
	if err != nil {
		os.Exit(2)
	}
	os.Exit(guard(paths{sysctl: os.Args[2], lock: os.Args[3], state: os.Args[4], turns: os.Args[5] == "true"}, to))
}

// keeper is what a guardian has.
type keeper struct {
	setting setting
	record  record
	locks   []*os.File
	watch   watch
	lowered lowered
	bootID  string
}

// open opens all that a guardian needs, while it is still who started it.
func open(p paths, to int) (*keeper, error) {
	k := &keeper{watch: watch{-1}}
	lock, err := openLock(p.lock)
	if err != nil {
		return nil, err
	}
	k.locks = append(k.locks, lock)
	if p.turns {
		if turns := openTurns(); turns != nil {
			k.locks = append(k.locks, turns)
		}
	}
	if k.record, err = openRecord(p.state); err != nil {
		return nil, err
	}
	if k.setting, err = openSetting(p.sysctl); err != nil {
		return nil, err
	}
	if k.lowered, err = mapLowered(loweredFD); err != nil {
		return nil, err
	}
	if k.bootID, err = bootID(); err != nil {
		return nil, err
	}
	if to == standBy {
		k.watch = newWatch(k.setting.f)
	}
	return k, nil
}

// guard is the life of the guardian. Its exit status is 0 when the value is as it was.
func guard(p paths, to int) int {
	runtime.LockOSThread()
	debug.SetGCPercent(-1) // nothing stops the world while a window is open
	k, err := begin(p, to)
	if err != nil {
		return fail(err)
	}
	gone := make(chan struct{})
	go func() {
		hangup(leash)
		close(gone)
	}()
	if err := k.takeLocks(p, gone); err != nil {
		return fail(err)
	}
	s, err := k.start(to)
	switch err {
	case nil:
	case ErrNotTwo, ErrLower:
		say(message{Report: Report{Old: s.Old}, Error: err.Error(), Lower: true})
		return 1
	default:
		return fail(err)
	}
	say(message{Report: Report{Old: s.Old, Set: s.Set, Now: s.Old}})
	k.serve(s)
	return k.end(s, to)
}

// start puts back what an earlier guardian has left, and raises the value if that is what this one
// is for. The error is ErrNotTwo or ErrLower where nothing is to be done.
func (k *keeper) start(to int) (state, error) {
	earlier, err := k.record.changed(k.bootID)
	if err == nil {
		_, err = k.setting.restore(earlier, k.record, false)
	}
	if err != nil {
		return state{}, err
	}
	old, err := k.setting.read()
	if err != nil {
		return state{}, err
	}
	k.record.idle = k.record.left(old, k.bootID)
	s := state{Old: old, Set: to, BootID: k.bootID}
	switch {
	case to == standBy && old != 2:
		return s, ErrNotTwo
	case to == standBy:
		s.Set = 1
		// A file system without room is found now, and not with somebody waiting.
		return s, k.record.clear()
	case old > to:
		return s, ErrLower
	case old == to:
		return s, nil
	}
	if err = k.record.write(s); err == nil {
		if err = k.setting.write(to); err != nil {
			_, back := undo(k.setting, s, k.record)
			err = errors.Join(err, back)
		}
	}
	return s, err
}

// serve opens windows until the starter lets go, or is gone.
func (k *keeper) serve(s state) {
	for {
		r, err := receive()
		if err != nil {
			return
		}
		w := k.window(s, r)
		r.close()
		say(message{Window: &w})
	}
}

// end puts the value back that start has raised, and reports. It returns the exit status.
func (k *keeper) end(s state, to int) int {
	report := Report{Old: s.Old, Set: s.Set, Now: s.Old}
	var err error
	if to == standBy {
		// Each window was closed. What the value is now is not our doing.
		report.Now, err = k.setting.read()
		report.Foreign = err == nil && report.Now != s.Old
	} else if s.Old < to {
		report, err = undo(k.setting, s, k.record)
	}
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

func begin(p paths, to int) (*keeper, error) {
	if err := errors.Join(closeOthers(), hide()); err != nil {
		return nil, err
	}
	k, err := open(p, to)
	if err != nil {
		return nil, err
	}
	return k, confine()
}

// takeLocks waits for its turn.
func (k *keeper) takeLocks(p paths, gone <-chan struct{}) error {
	locked := make(chan error, 1)
	go func() {
		for _, f := range k.locks {
			if err := lockFile(f, unix.LOCK_EX); err != nil {
				locked <- err
				return
			}
		}
		locked <- nil
	}()
	late := time.NewTimer(time.Second)
	defer late.Stop()
	for {
		select {
		case err := <-locked:
			return err
		case <-late.C:
			fmt.Fprintf(os.Stderr, "bpfwhy: waiting for another guardian of %s, which holds %s\n", filepath.Base(p.sysctl), p.lock)
		case <-gone:
			return errors.New("the starter has ended")
		}
	}
}

func fail(err error) int {
	m := message{Error: err.Error()}
	errors.As(err, &m.Errno)
	say(m)
	return 1
}

func say(m message) bool { return json.NewEncoder(os.Stdout).Encode(m) == nil }
