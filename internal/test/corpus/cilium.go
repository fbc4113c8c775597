// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// argv0Cilium is the name under which an executable loads with cilium/ebpf: see Main.
const argv0Cilium = "bpfwhy-corpus-cilium"

// Main makes one load with cilium/ebpf, or one attachment, and ends the process if the executable
// was started for that; otherwise it returns at once. It belongs at the very start of TestMain.
func Main() {
	if len(os.Args) == 0 {
		return
	}
	loader := map[string]func([]string) error{argv0Cilium: cilium, argv0Attach: attaching}[os.Args[0]]
	if loader == nil {
		return
	}
	if err := loader(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[0], err)
		os.Exit(1)
	}
	os.Exit(0)
}

func cilium(args []string) error {
	if len(args) == 1 && args[0] == "features" {
		return probeFeatures()
	}
	if len(args) < 2 || len(args) > 3 {
		return errors.New("want an object, a program and perhaps nobody")
	}
	spec, err := ebpf.LoadCollectionSpec(args[0])
	if err != nil {
		return err
	}
	for name := range spec.Programs {
		if name != args[1] {
			delete(spec.Programs, name)
		}
	}
	if len(spec.Programs) != 1 {
		return fmt.Errorf("no program %s in %s", args[1], args[0])
	}
	if len(args) == 3 {
		if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(65534), syscall.Setuid(65534)); err != nil {
			return fmt.Errorf("become nobody: %w", err)
		}
	}
	coll, err := ebpf.NewCollection(spec)
	var errno unix.Errno
	switch {
	case err == nil:
		coll.Close()
	case !errors.As(err, &errno):
		fmt.Printf("%v\nerrno unknown\n", err)
		return nil
	}
	fmt.Printf("%v\nerrno %d\n", err, int(errno))
	return nil
}

// probeFeatures asks cilium/ebpf what this kernel can do: loads that fail on purpose.
func probeFeatures() error {
	for t := ebpf.SocketFilter; t <= ebpf.Netfilter; t++ {
		_ = features.HaveProgramType(t)
	}
	for t := ebpf.Hash; t <= ebpf.Arena; t++ {
		_ = features.HaveMapType(t)
	}
	for _, h := range []asm.BuiltinFunc{asm.FnMapLookupElem, asm.FnProbeReadKernel, asm.FnLoop, asm.FnXdpAdjustHead, asm.FnKtimeGetTaiNs} {
		_ = features.HaveProgramHelper(ebpf.SocketFilter, h)
		_ = features.HaveProgramHelper(ebpf.XDP, h)
		_ = features.HaveProgramHelper(ebpf.Kprobe, h)
	}
	for _, f := range []func() error{
		features.HaveLargeInstructions, features.HaveBoundedLoops, features.HaveV2ISA, features.HaveV3ISA, features.HaveV4ISA,
		features.HaveBPFLinkUprobeMulti, features.HaveBPFLinkKprobeMulti, features.HaveBPFLinkKprobeSession,
	} {
		_ = f()
	}
	for _, f := range []features.MapFlags{features.BPF_F_NO_PREALLOC, features.BPF_F_MMAPABLE, features.BPF_F_RDONLY_PROG, features.BPF_F_INNER_MAP} {
		_ = features.HaveMapFlag(f)
	}
	fmt.Println("errno 0")
	return nil
}
