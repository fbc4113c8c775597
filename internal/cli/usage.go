// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/output/flagerror"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// usageError is about the words of a command line: Main says where these are explained.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// pointed adds to an error about the words of a command line which help explains them.
func pointed(c *cobra.Command, err error) error {
	_, ours := errors.AsType[usageError](err)
	if ours || strings.HasPrefix(err.Error(), "unknown command ") { // as cobra says it
		what, like, _ := strings.Cut(err.Error(), "\n\nDid you mean this?\n")
		if like = strings.Join(strings.Fields(like), " or "); like != "" {
			what += " (did you mean " + like + "?)"
		}
		return fmt.Errorf("%s; see '%s --help'", what, c.CommandPath())
	}
	return err
}

// helpWidth is how wide help is, on a terminal and off it.
const helpWidth = 80

// agree lets all commands agree: what is wrong with their words is told in one way, their help has
// one width, and what writes JSON has both --json and --format.
func agree(root *cobra.Command) {
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usageError{flagerror.Plain(c, err)} })
	root.SetUsageFunc(printUsage)
	agreeBelow(root)
}

func agreeBelow(c *cobra.Command) {
	if args := c.Args; args != nil {
		c.Args = func(c *cobra.Command, words []string) error {
			if err := cmp.Or(args(c, words), noValue(c)); err != nil {
				return usageError{err}
			}
			return nil
		}
	}
	if j := c.Flags().Lookup("json"); j != nil && c.Flags().Lookup("format") == nil {
		c.Flags().Var(textOrJSON{j}, "format", "text, or json, which is the same as --json")
		complete(c, "format", "text", "json")
	}
	for _, sub := range c.Commands() {
		agreeBelow(sub)
	}
}

// noValue is an error if an option was given without its value, as where a variable of a script is
// not set: it would not do what was asked for, and say nothing.
func noValue(c *cobra.Command) (err error) {
	c.Flags().Visit(func(f *pflag.Flag) {
		// Values of other types check themselves.
		if kind, v := f.Value.Type(), f.Value.String(); kind == "string" && v == "" || kind == "stringSlice" && v == "[]" {
			err = fmt.Errorf("--%s: give a value", f.Name)
		}
	})
	return err
}

// printUsage is what cobra prints, but no wider than helpWidth. (A template of its own would cost
// the executable 2 MB: the linker then keeps every method of every type.)
func printUsage(c *cobra.Command) error {
	var b strings.Builder
	b.WriteString("Usage:")
	if c.Runnable() {
		b.WriteString("\n  " + c.UseLine())
	}
	if c.HasAvailableSubCommands() {
		b.WriteString("\n  " + c.CommandPath() + " [command]")
	}
	if c.HasExample() {
		b.WriteString("\n\nExamples:\n" + c.Example)
	}
	if c.HasAvailableSubCommands() {
		b.WriteString("\n\nAvailable Commands:")
	}
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() || sub.Name() == "help" {
			fmt.Fprintf(&b, "\n  %-*s %s", sub.NamePadding(), sub.Name(), sub.Short)
		}
	}
	if c.HasAvailableLocalFlags() {
		b.WriteString("\n\nFlags:\n" + strings.TrimRight(c.LocalFlags().FlagUsagesWrapped(helpWidth), "\n"))
	}
	if c.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "\n\nUse \"%s [command] --help\" for more information about a command.", c.CommandPath())
	}
	_, err := fmt.Fprintln(c.OutOrStdout(), b.String())
	return err
}

// textOrJSON is the flag --format of a command that has --json, and sets that.
type textOrJSON struct{ json *pflag.Flag }

func (f textOrJSON) String() string {
	if f.json != nil && f.json.Value.String() == "true" {
		return "json"
	}
	return "text"
}

func (f textOrJSON) Set(s string) error {
	if s != "text" && s != "json" {
		return errors.New("not text or json")
	}
	return f.json.Value.Set(strconv.FormatBool(s == "json"))
}

func (textOrJSON) Type() string { return "string" }
