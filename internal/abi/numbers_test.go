// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// constants are those of golang.org/x/sys/unix for Linux on a machine. They are generated from the
// kernel's headers.
func constants(t *testing.T, machine string) map[string]int {
	t.Helper()
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", "golang.org/x/sys/unix").Output()
	qt.Assert(t, qt.IsNil(err))
	values := map[string]int{}
	for _, file := range []string{"zerrors_linux.go", "ztypes_linux.go", "zerrors_linux_" + machine + ".go", "zsysnum_linux_" + machine + ".go"} {
		parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(string(bytes.TrimSpace(dir)), file), nil, 0)
		qt.Assert(t, qt.IsNil(err))
		ast.Inspect(parsed, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			for i, v := range spec.Values {
				if call, ok := v.(*ast.CallExpr); ok && len(call.Args) == 1 {
					v = call.Args[0] // syscall.Errno(0x1)
				}
				if lit, ok := v.(*ast.BasicLit); ok {
					if n, err := strconv.ParseInt(lit.Value, 0, 64); err == nil {
						values[spec.Names[i].Name] = int(n)
					}
				}
			}
			return true
		})
	}
	return values
}

func TestErrnos(t *testing.T) {
	for _, machine := range []string{"amd64", "arm64"} {
		known := constants(t, machine)
		seen := 0
		for n, name := range errnos {
			if n < 512 { // those of the kernel itself are in no header for user space
				seen++
				qt.Check(t, qt.Equals(n, known[name]), qt.Commentf("%s of %s", name, machine))
			}
		}
		qt.Check(t, qt.IsTrue(seen > 130))
	}
	qt.Check(t, qt.Equals(ErrnoName(524), "ENOTSUPP"))
	qt.Check(t, qt.Equals(ErrnoName(41), ""))
}

func TestCapabilities(t *testing.T) {
	known := constants(t, "amd64")
	for n, name := range capabilities {
		qt.Check(t, qt.Equals(n, known[name]), qt.Commentf("%s", name))
	}
	qt.Check(t, qt.Equals(known["CAP_LAST_CAP"], len(capabilities)-1))
	qt.Check(t, qt.Equals(CapName(CapBPF), "CAP_BPF"))
	qt.Check(t, qt.Equals(CapName(41), "CAP_41"))
}

func TestSyscalls(t *testing.T) {
	for machine, goarch := range map[string]string{"x86_64": "amd64", "aarch64": "arm64", "i386": "386"} {
		known := constants(t, goarch)
		got, ok := SyscallsOf(machine)
		qt.Assert(t, qt.IsTrue(ok))
		number := func(name string) int {
			if n, ok := known["SYS_"+strings.ToUpper(name)]; ok {
				return n
			}
			return -1
		}
		qt.Check(t, qt.Equals(got, Syscalls{
			BPF: number("bpf"), Seccomp: number("seccomp"), Prctl: number("prctl"), Setsockopt: number("setsockopt"), Socketcall: number("socketcall"),
			Mount: number("mount"), Fsconfig: number("fsconfig"), InitModule: number("init_module"), FinitModule: number("finit_module"),
		}), qt.Commentf("%s", machine))
	}
	_, ok := SyscallsOf("riscv64")
	qt.Check(t, qt.IsFalse(ok))
}

func TestProgFlags(t *testing.T) {
	known := constants(t, "amd64")
	for name, flag := range map[string]int{
		"BPF_F_STRICT_ALIGNMENT": ProgFlagStrictAlignment, "BPF_F_ANY_ALIGNMENT": ProgFlagAnyAlignment,
		"BPF_F_TEST_RND_HI32": ProgFlagTestRndHi32, "BPF_F_TEST_STATE_FREQ": ProgFlagTestStateFreq,
		"BPF_F_SLEEPABLE": ProgFlagSleepable, "BPF_F_XDP_HAS_FRAGS": ProgFlagXDPHasFrags,
		"BPF_F_XDP_DEV_BOUND_ONLY": ProgFlagXDPDevBoundOnly, "BPF_F_TEST_REG_INVARIANTS": ProgFlagTestRegInvariants,
		"BPF_F_REPLACE": AttachFlagReplace, "BPF_F_ALLOW_OVERRIDE": AttachFlagOverride, "BPF_F_ALLOW_MULTI": AttachFlagMulti,
		"XDP_FLAGS_UPDATE_IF_NOEXIST": XDPFlagUnlessThere, "XDP_FLAGS_SKB_MODE": XDPFlagSKBMode,
		"XDP_FLAGS_DRV_MODE": XDPFlagDRVMode, "XDP_FLAGS_HW_MODE": XDPFlagHWMode, "XDP_FLAGS_REPLACE": XDPFlagReplace,
	} {
		qt.Check(t, qt.Equals(flag, known[name]), qt.Commentf("%s", name))
	}
}

// A call that passes fewer bytes than the struct has means zeros, to the byte; what is behind it
// stays visible.
func TestRead(t *testing.T) {
	whole := ProgLoad{ProgType: ProgTypeXDP, InsnCnt: 0x04030201, ProgName: NameOf("a_name"), KeyringID: 7}
	b := append(bytes.Clone(Bytes(&whole)), 1, 2)
	qt.Check(t, qt.HasLen(b, 170))
	qt.Check(t, qt.Equals(Read[ProgLoad](b), whole))
	qt.Check(t, qt.DeepEquals(Tail[ProgLoad](b), []byte{1, 2}))
	qt.Check(t, qt.HasLen(Tail[ProgLoad](b[:8]), 0))
	qt.Check(t, qt.Equals(Read[ProgLoad](b[:6]), ProgLoad{ProgType: ProgTypeXDP, InsnCnt: 0x0201}))
	qt.Check(t, qt.Equals(Read[ProgLoad](nil), ProgLoad{}))
	qt.Check(t, qt.Equals(whole.ProgName.String(), "a_name"))
	qt.Check(t, qt.Equals(NameOf("more than fifteen").String(), "more than fifte"))
	qt.Check(t, qt.Equals(Name([]byte("sixteen letters!")).String(), "sixteen letters!"))
}
