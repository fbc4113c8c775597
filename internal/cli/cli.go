// SPDX-License-Identifier: Apache-2.0

// Package cli is the command line: each subcommand turns its flags into options, and its options into one error.
//
// Exit statuses: 0; 1 when a command's own verdict is negative (demo, doctor, explain of a text that says nothing);
// 2 for bad input, and when the kernel cannot be watched. run ends with the status of the command it ran.
package cli

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/render"
	"github.com/muesli/termenv"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// status ends the process with a code and, unless err is nil, one line on standard error.
type status struct {
	code int
	err  error
}

func (s *status) Error() string {
	if s.err == nil {
		return fmt.Sprintf("exit status %d", s.code)
	}
	return s.err.Error()
}

func (s *status) Unwrap() error { return s.err }

const (
	negative = 1
	bad      = 2
)

// Main runs the command line and returns the exit status.
func Main(args []string) int {
	root := newRoot()
	root.SetArgs(args[1:])
	err := root.Execute()
	if err == nil {
		return 0
	}
	s := &status{code: bad, err: err}
	errors.As(err, &s)
	if s.err != nil {
		fmt.Fprintln(os.Stderr, "bpfwhy: "+oneLine(s.err))
	}
	return s.code
}

// oneLine: whatever an error quotes, it is one line and harmless.
func oneLine(err error) string { return render.Clean(joinLines(err.Error())) }

func joinLines(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "bpfwhy",
		Short: "Why the kernel refused a BPF program",
		Long: `bpfwhy watches BPF programs being loaded, names the stage in which a load died,
says why, how it knows, and what can be done.`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(newWatch(), newRun(), newExplain(), newCheck(), newFix(), newDemo(), newDoctor(), newNode(), newAudit(), newVersion(), newHarden())
	root.InitDefaultCompletionCmd()
	return root
}

// terminal returns the width of a terminal, 0 when f is none, and whether to write in colour.
func terminal(f *os.File) (width int, colour bool) {
	fd := int(f.Fd())
	if !term.IsTerminal(fd) {
		return 0, false
	}
	width, _, err := term.GetSize(fd)
	if err != nil || width <= 0 {
		width = 80
	}
	// NO_COLOR and CLICOLOR=0, see no-color.org; a dumb terminal shows escapes.
	return width, !termenv.EnvNoColor() && os.Getenv("TERM") != "dumb"
}

func newText(f *os.File) *render.Text {
	width, colour := terminal(f)
	return render.NewText(f, width, colour)
}

// say writes one line for people on standard error.
func say(format string, args ...any) {
	fmt.Fprintln(os.Stderr, "bpfwhy: "+render.Clean(joinLines(fmt.Sprintf(format, args...))))
}

// one lets a command have one argument, and else says what it is for.
func one(otherwise string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return errors.New(otherwise)
		}
		return nil
	}
}
