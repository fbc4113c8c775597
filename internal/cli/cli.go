// SPDX-License-Identifier: Apache-2.0

// Package cli is the command line: each subcommand turns its flags into options, and its options
// into one error.
//
// Exit statuses: 0; 1 when a command's own verdict is negative (demo, doctor, explain of a text
// that says nothing); 2 for bad input, and when the kernel cannot be watched; 3 when audit finds
// nothing to judge. run ends with the status of the command it ran.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/bpfwhy/bpfwhy/internal/output/render"
	"github.com/bpfwhy/bpfwhy/internal/output/terminal"
	"github.com/bpfwhy/bpfwhy/internal/output/text"
	"github.com/spf13/cobra"
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
	nothing  = 3 // neither yes nor no
)

// codeOf is the exit status that an error stands for.
func codeOf(err error) int {
	if err == nil {
		return 0
	}
	if s, ok := errors.AsType[*status](err); ok {
		return s.code
	}
	return bad
}

// std are the standard streams, as main hands them over.
type std struct {
	in       io.Reader
	out, err *os.File
}

// Main runs the command line and returns the exit status.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr *os.File) int {
	root := newRoot(std{stdin, stdout, stderr})
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	words := args[1:]
	if filepath.Base(args[0]) == plugin {
		words = append([]string{"fleet"}, words...)
	}
	root.SetArgs(signed(words))
	c, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	err = pointed(c, err)
	said := err
	if s, ok := errors.AsType[*status](err); ok {
		said = s.err
	}
	if said != nil {
		fmt.Fprintln(stderr, "bpfwhy: "+oneLine(said))
	}
	return codeOf(err)
}

// oneLine: whatever an error quotes, it is one line and harmless.
func oneLine(err error) string { return text.Line(err.Error()) }

func newRoot(io std) *cobra.Command {
	var asVersion bool
	root := &cobra.Command{
		Use:   "bpfwhy",
		Short: "Why the kernel refused a BPF program",
		Long: `bpfwhy watches BPF programs being loaded. For a load that fails it names the
stage that failed, the cause, how the cause is known, and what can be done.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(c *cobra.Command, _ []string) error {
			if asVersion {
				return version(io, false)
			}
			return c.Help()
		},
	}
	root.Flags().BoolVar(&asVersion, "version", false, "the same as the command version")
	explain := newExplain(io)
	explain.ValidArgsFunction = rulesAndErrnos
	root.AddCommand(explain, newCheck(io), newFix(io), newFleet(io), newCopy(), newVersion(io))
	root.AddCommand(here(io)...)
	root.InitDefaultCompletionCmd()
	if c, _, err := root.Find([]string{"completion"}); err == nil {
		// So that a word that is no shell is refused.
		c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	}
	agree(root)
	return root
}

// text writes for people on standard output.
func (io std) text() *render.Text { return newText(io.out) }

func newText(f *os.File) *render.Text {
	width, colour := terminal.Of(f)
	return render.NewText(f, width, colour)
}

// say writes one line for people on standard error.
func (io std) say(format string, args ...any) {
	fmt.Fprintln(io.err, "bpfwhy: "+text.Line(fmt.Sprintf(format, args...)))
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
