// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/mattn/go-runewidth"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// terminalOf opens a terminal of so many columns, and returns what was written to it once it is
// closed.
func terminalOf(t *testing.T, columns uint16) (tty *os.File, written func() string) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	qt.Assert(t, qt.IsNil(unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)))
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns})))
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	qt.Assert(t, qt.IsNil(err))
	var b bytes.Buffer
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = b.ReadFrom(master) // ends with EIO
	}()
	return tty, func() string {
		tty.Close()
		<-done
		return strings.ReplaceAll(b.String(), "\r\n", "\n")
	}
}

// TestWidth: on a terminal of 80 columns no table is wider, nor what stands above and below it:
// every line that does not begin with a space. (Those that do may hold commands and logs, which are
// there to be copied.) Nor is any line of any help.
func TestWidth(t *testing.T) {
	t.Setenv("NO_COLOR", "1")
	long := filepath.Join(t.TempDir(), "a-folder-with-quite-a-long-name", "and-below-it-an-object-with-another.bpf.o")
	qt.Assert(t, qt.IsNil(os.Mkdir(filepath.Dir(long), 0o700)))
	b, err := os.ReadFile("../objects/object/testdata/http_270_v2_g.o")
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.WriteFile(long, b, 0o600)))
	wide := filepath.Join(t.TempDir(), strings.Repeat("\u4e16\u754c", 20)+".o")
	qt.Assert(t, qt.IsNil(os.WriteFile(wide, b, 0o600)))
	self, err := os.Executable()
	qt.Assert(t, qt.IsNil(err))
	traces := glob(t, "../demo/testdata/traces/*/blinding*.trace")
	commands := [][]string{{"demo", "--list"}, {"explain", "524"}, {"explain", "BLIND001"}, {"version"}, {"node", "--no-probe"},
		{"node", "diff", traces[0], traces[len(traces)-1]}, {"node", "diff", traces[0], "--trace", traces[len(traces)-1]}}
	for _, harden := range []string{"0", "1", "2"} {
		commands = append(commands, []string{"check", "--harden", harden, "--min-margin", "32000", long, self, "../objects/object/testdata/small.o", wide})
	}
	for _, trace := range traces {
		commands = append(commands, []string{"explain", "--all", trace})
	}
	for _, args := range commands {
		tty, written := terminalOf(t, 80)
		Main(context.Background(), append([]string{"bpfwhy"}, args...), strings.NewReader(""), tty, tty)
		narrow(t, args, written(), func(line string) bool { return !strings.HasPrefix(line, " ") })
	}
	helps(newRoot(std{}), func(args []string) {
		tty, written := terminalOf(t, 80)
		Main(context.Background(), append([]string{"bpfwhy"}, append(args, "--help")...), strings.NewReader(""), tty, tty)
		narrow(t, append(args, "--help"), written(), func(string) bool { return true })
	})
}

func narrow(t *testing.T, args []string, text string, counts func(line string) bool) {
	t.Helper()
	qt.Check(t, qt.Not(qt.Equals(text, "")), qt.Commentf("%q", args))
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if counts(line) && runewidth.StringWidth(line) > 80 {
			t.Errorf("%q: %d columns: %s", args, runewidth.StringWidth(line), line)
		}
	}
}

// helps calls f with the words of each command of ours.
func helps(c *cobra.Command, f func(args []string)) {
	if c.Name() == "completion" { // the words are cobra's
		return
	}
	f(strings.Fields(c.CommandPath())[1:])
	for _, sub := range c.Commands() {
		helps(sub, f)
	}
}
