// SPDX-License-Identifier: Apache-2.0

package rights_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	httpprobe "github.com/bpfwhy/bpfwhy/httpprobe/cli"
	"github.com/bpfwhy/bpfwhy/httpprobe/sources"
	"github.com/bpfwhy/bpfwhy/internal/cli"
	"github.com/bpfwhy/bpfwhy/internal/demo/failing"
	"github.com/bpfwhy/bpfwhy/internal/repair/guardian"
	"github.com/bpfwhy/bpfwhy/internal/repair/interpose"
	"github.com/bpfwhy/bpfwhy/internal/repair/launch"
	"github.com/bpfwhy/bpfwhy/internal/repair/replay"
	"github.com/bpfwhy/bpfwhy/internal/serve/exporter"
	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/internal/watch/hang"
	"github.com/bpfwhy/bpfwhy/loader"
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// TestMain is the test, the commands, and their helpers, told apart by argv[0].
func TestMain(m *testing.M) {
	if argv := os.Getenv(argvEnv); argv != "" {
		os.Args = strings.Split(argv, "\n")
		os.Unsetenv(argvEnv)
	}
	launch.Main()
	guardian.Main()
	hang.Main()
	interpose.Main()
	failing.Main()
	replay.Main()
	sources.Main()
	exporter.Main()
	switch os.Args[0] {
	case "bpfwhy", "kubectl-bpfwhy":
		os.Exit(cli.Main(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr))
	case "httpprobe":
		os.Exit(httpprobe.Main(os.Args[1:], os.Stdout, os.Stderr))
	case "load":
		os.Exit(failingLoad(os.Args[1]))
	case "other":
		os.Exit(loadAsNobody(os.Args[1]))
	case "gotol":
		os.Exit(loadWithGotol())
	case "reader":
		os.Exit(reader(os.Args[1]))
	case "limited":
		fmt.Println(limit(os.Args[1], os.Args[2:]))
		os.Exit(99)
	}
	os.Exit(m.Run())
}

func failingLoad(name string) int {
	p, err := failing.Find(name)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	r, err := p.Run()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(r)
	return 0
}

// loadAsNobody has another user load, with the capabilities that it takes.
func loadAsNobody(name string) int {
	cmd := as(nobody, []int{unix.CAP_BPF, unix.CAP_PERFMON}, "load", name)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	return cmd.ProcessState.ExitCode()
}

const nobody = 65534

// loadWithGotol loads a program that blinding breaks by a loader that may use gotol, and so asks
// whether the kernel has it.
func loadWithGotol() int {
	spec := &ebpf.ProgramSpec{Name: brokenName, Type: ebpf.SocketFilter, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R0, 0), asm.LoadMem(asm.R2, asm.R1, 0, asm.Word), asm.JEq.Imm(asm.R2, 7, "end"),
	}}
	for range 12000 {
		spec.Instructions = append(spec.Instructions, asm.Add.Imm(asm.R0, 0x1234567))
	}
	spec.Instructions = append(spec.Instructions, asm.Mov.Imm(asm.R0, 0).WithSymbol("end"), asm.Return())
	p, err := (&loader.Loader{Gotol: true}).NewProgram(spec)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	p.Close()
	return 0
}

const brokenName = "broken"

const argvEnv = "BPFWHY_TEST_ARGV"

// self is this executable under another name.
func self(name string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = name
	return cmd
}

// with is a command that root starts with these capabilities and no others, as an OCI runtime or
// systemd would.
func with(caps []int, args ...string) *exec.Cmd {
	var mask uint64
	for _, c := range caps {
		mask |= 1 << c
	}
	return self("limited", append([]string{strconv.FormatUint(mask, 16)}, args...)...)
}

// limit empties the bounding set but for a mask: all that root has after exec.
func limit(mask string, args []string) error {
	keep, err := strconv.ParseUint(mask, 16, 64)
	if err != nil {
		return err
	}
	for c := range 64 {
		if keep&(1<<c) != 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err == unix.EINVAL {
			break // beyond the kernel's last
		} else if err != nil {
			return err
		}
	}
	return unix.Exec("/proc/self/exe", args, os.Environ())
}

// as is a command that another user starts with these capabilities, as systemd's DynamicUser.
func as(uid uint32, caps []int, args ...string) *exec.Cmd {
	cmd := self(args[0], args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	for _, c := range caps {
		cmd.SysProcAttr.AmbientCaps = append(cmd.SysProcAttr.AmbientCaps, uintptr(c))
	}
	return cmd
}

func TestKernels(t *testing.T) {
	vmtest.Need(t)
	kernels := vmtest.Distinct()
	qt.Assert(t, qt.IsTrue(slices.Contains(kernels, sample)))
	vmtest.RunIn(t, kernels, "^TestGuest", vm.Machine{Files: tools(t), Timeout: 12 * time.Minute, Sysctls: map[string]string{"net.core.bpf_jit_harden": "2"}})
}
