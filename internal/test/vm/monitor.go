// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
)

// Looks at a machine that hangs: so many, so far apart.
const (
	looks     = 3
	lookPause = 200 * time.Millisecond
)

var noise = lazyregexp.New(`^\(qemu\)|^QEMU|^(FPR|YMM|XMM|FCW|DR[0-7])|^\s*$`)

// whereItIs asks QEMU's monitor, which listens at a socket, what the first processor executes, and
// what lies on its stack. It is for a machine that is about to be killed: a kernel that spins with
// interrupts off says nothing on its console.
func whereItIs(socket string) (string, error) {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return "", fmt.Errorf("ask the monitor: %w", err)
	}
	defer c.Close()
	for i := range looks {
		if i > 0 {
			time.Sleep(lookPause)
		}
		if _, err := io.WriteString(c, "info registers\nx/8i $pc\nx/64gx $esp\n"); err != nil {
			return "", fmt.Errorf("ask the monitor: %w", err)
		}
	}
	// The monitor does not say where an answer ends.
	if err := c.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(io.LimitReader(c, 64<<10))
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return "", fmt.Errorf("ask the monitor: %w", err)
	}
	return withoutNoise(string(answer)), nil
}

// withoutNoise leaves out what the monitor echoes, and registers that say nothing about a kernel.
func withoutNoise(answer string) string {
	var b strings.Builder
	for line := range strings.Lines(strings.ReplaceAll(answer, "\r", "")) {
		if !noise.MatchString(line) {
			b.WriteString(line)
		}
	}
	return b.String()
}
