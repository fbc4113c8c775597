// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// SIGIO has the kernel send a signal for a pipe. It asks nobody's permission when uid 0 wants it,
// with capabilities or without.
func SIGIO(pid int, signal syscall.Signal) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	defer w.Close()
	for _, c := range []struct{ command, arg int }{
		{unix.F_SETOWN, pid}, {unix.F_SETSIG, int(signal)}, {unix.F_SETFL, unix.O_ASYNC},
	} {
		if _, err := unix.FcntlInt(r.Fd(), c.command, c.arg); err != nil {
			return fmt.Errorf("fcntl: %w", err)
		}
	}
	_, err = w.Write([]byte{0})
	return err
}

// Struck waits for a while until a process is dead or stopped. An error says that it is neither.
func Struck(pid int, while time.Duration) error {
	for end := time.Now().Add(while); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.ContainsAny(strings.Fields(string(stat)[strings.LastIndexByte(string(stat), ')')+1:])[0], "TZXt") {
			return nil
		}
	}
	return errors.New("it lives")
}
