// SPDX-License-Identifier: Apache-2.0

// Command lab boots the project's test kernels in QEMU and runs commands in
// them.
package main

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/bpfwhy/bpfwhy/internal/test/vm"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := command().ExecuteContext(ctx)
	if err == nil {
		return
	}
	if status, ok := errors.AsType[exitStatus](err); ok {
		os.Exit(int(status))
	}
	fmt.Fprintln(os.Stderr, "lab:", err)
	if _, ok := errors.AsType[usageError](err); ok {
		os.Exit(2)
	}
	os.Exit(labFailed)
}

// labFailed is the exit status when the lab, not the command in it, went
// wrong; as with env(1) and timeout(1).
const labFailed = 125

// exitStatus is the guest command's, to be passed on without a word.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// usageError is a mistake on the command line.
type usageError struct{ error }

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "lab",
		Short: "Boot the project's test kernels and run commands in them",
		Long: `Boot the project's test kernels and run commands in them.

Environment:
  BPFWHY_KERNEL_CACHE  folder of the fetched kernels; the user's cache otherwise
  BPFWHY_KERNELS       folders with a ready vmlinuz-*jit-always-on
  BPFWHY_LAB_ACCEL     kvm or tcg, instead of what was seen to work`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          usage(cobra.NoArgs),
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(listCommand(), fetchCommand(), runCommand())
	return root
}

func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{err}
		}
		return nil
	}
}

func listCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the kernels and which of them are on this host",
		Args:  usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(table, "KERNEL\tRELEASE\tFROM\tFILE")
			for _, kernel := range vm.Kernels() {
				image, err := vm.Cached(kernel.ID)
				switch {
				case err == nil:
					fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", kernel.ID, image.Release, image.Origin, image.Path)
				case errors.Is(err, os.ErrNotExist):
					fmt.Fprintf(table, "%s\t-\t%s\tnot fetched\n", kernel.ID, kernel.Source)
				default:
					return err
				}
			}
			return table.Flush()
		},
	}
}

func fetchCommand() *cobra.Command {
	var refresh bool
	fetch := &cobra.Command{
		Use:   "fetch [KERNEL...]",
		Short: "Fetch kernels, or all of them, into the cache",
		Args:  usage(knownKernels),
		RunE: func(cmd *cobra.Command, ids []string) error {
			if len(ids) == 0 {
				ids = kernelIDs()
			}
			get := vm.Fetch
			if refresh {
				get = vm.Refresh
			}
			for _, id := range ids {
				image, err := get(cmd.Context(), id)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s\t%s\t%s\n", id, image.Release, image.Path)
			}
			return nil
		},
	}
	fetch.Flags().BoolVar(&refresh, "refresh", false, "look for newer kernels than those in the cache")
	return fetch
}

func runCommand() *cobra.Command {
	var (
		machine vm.Machine
		files   []string
		sysctls map[string]string
		appends []string
		out     string
		console bool
	)
	run := &cobra.Command{
		Use:   "run KERNEL [flags] -- COMMAND [ARG...]",
		Short: "Boot a kernel and run a command of this host in it",
		Long: `Boot a kernel and run a command of this host in it.

The command's program and its shared libraries are copied into the guest, as
are programs given with --file. The exit status is the command's, or 125 when
the machine did not run to its end. Several commands run in one boot when they
are separated by an argument "--then"; the exit status is that of the first
that failed.`,
		Example: `  lab run 6.1 -- /usr/sbin/bpftool prog
  lab run 7 --file /bin/dash --file /bin/uname -- dash -c 'uname -r'`,
		Args: usage(func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 || cmd.ArgsLenAtDash() != 1 {
				return errors.New("run needs one kernel, then -- and a command")
			}
			return knownKernels(cmd, args[:1])
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			machine.Kernel = args[0]
			machine.Sysctls = sysctls
			for _, text := range appends {
				machine.KernelArgs = append(machine.KernelArgs, strings.Fields(text)...)
			}
			machine.Stdout, machine.Stderr = cmd.OutOrStdout(), cmd.ErrOrStderr()
			if err := addFiles(&machine, files); err != nil {
				return usageError{err}
			}
			if err := addCommands(&machine, args[1:]); err != nil {
				return usageError{err}
			}
			result, err := vm.Run(cmd.Context(), machine)
			if err != nil {
				return err
			}
			if console {
				cmd.ErrOrStderr().Write(result.Console)
			}
			if out != "" {
				if err := writeFiles(out, result.Files); err != nil {
					return err
				}
			}
			for _, outcome := range result.Commands {
				if outcome.ExitStatus != 0 {
					return exitStatus(outcome.ExitStatus)
				}
			}
			return nil
		},
	}
	flags := run.Flags()
	flags.IntVar(&machine.CPUs, "cpus", 1, "processors, 1 or 2")
	flags.IntVar(&machine.MemoryMiB, "memory", 1024, "memory in MiB")
	flags.DurationVar(&machine.Timeout, "timeout", 2*time.Minute, "time limit, from the boot on")
	flags.StringArrayVar(&files, "file", nil, "copy a file or folder into the guest: `GUEST=HOST`, or one path for both")
	flags.StringArrayVar(&appends, "append", nil, "add `ARGS` to the kernel's command line")
	flags.StringArrayVar(&machine.Env, "env", nil, "set a variable, `NAME=VALUE`, in the guest")
	flags.StringToStringVar(&sysctls, "sysctl", nil, "set a sysctl, `NAME=VALUE`, in the guest")
	flags.BoolVar(&machine.KeepMemlock, "keep-memlock", false, "leave RLIMIT_MEMLOCK at the kernel's default")
	flags.BoolVar(&machine.CgroupV1, "cgroup-v1", false, "put the memory controller in a v1 hierarchy")
	flags.StringVar(&out, "out", "", "write the files of the guest's /out into this `DIR`")
	flags.BoolVar(&console, "console", false, "show the kernel's console on standard error afterwards")
	return run
}

func kernelIDs() []string {
	var ids []string
	for _, kernel := range vm.Kernels() {
		ids = append(ids, kernel.ID)
	}
	return ids
}

func knownKernels(_ *cobra.Command, ids []string) error {
	for _, id := range ids {
		if !slices.Contains(kernelIDs(), id) {
			return fmt.Errorf("no kernel %q; there are %s", id, strings.Join(kernelIDs(), ", "))
		}
	}
	return nil
}

// addFiles adds what --file names, programs with their libraries.
func addFiles(machine *vm.Machine, files []string) error {
	machine.Files = map[string]string{}
	for _, file := range files {
		guest, host, ok := strings.Cut(file, "=")
		if !ok {
			host = guest
		}
		host, err := filepath.Abs(host)
		if err != nil {
			return err
		}
		if !ok {
			guest = host
		}
		info, err := os.Stat(host)
		if err != nil {
			return fmt.Errorf("add file: %w", err)
		}
		if info.Mode().IsRegular() && info.Mode()&0o111 != 0 && isProgram(host) {
			libraries, err := vm.Binary(host)
			if err != nil {
				return fmt.Errorf("add file: %w", err)
			}
			delete(libraries, host)
			maps.Copy(machine.Files, libraries)
		}
		machine.Files[guest] = host
	}
	return nil
}

// addCommands splits args at each "--then", and copies programs that --file
// did not name.
func addCommands(machine *vm.Machine, args []string) error {
	for more := true; more; {
		var rest []string
		end := slices.Index(args, "--then")
		if more = end >= 0; more {
			args, rest = args[:end], args[end+1:]
		}
		if len(args) == 0 {
			return errors.New("a command is empty")
		}
		program := args[0]
		if _, given := machine.Files[program]; !given {
			host, err := exec.LookPath(program)
			if err != nil {
				return fmt.Errorf("find command: %w", err)
			}
			if host, err = filepath.Abs(host); err != nil {
				return err
			}
			needed, err := vm.Binary(host)
			if err != nil {
				return fmt.Errorf("copy command: %w", err)
			}
			maps.Copy(machine.Files, needed)
			program = host
		}
		machine.Commands = append(machine.Commands, append([]string{program}, args[1:]...))
		args = rest
	}
	return nil
}

func isProgram(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	return f.Close() == nil && (f.Type == elf.ET_EXEC || f.Type == elf.ET_DYN)
}

// writeFiles writes paths that are known to stay below dir.
func writeFiles(dir string, files map[string][]byte) error {
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("write guest's files: %w", err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			return fmt.Errorf("write guest's files: %w", err)
		}
	}
	return nil
}
