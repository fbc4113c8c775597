// SPDX-License-Identifier: Apache-2.0

package reading

import (
	"testing"

	"github.com/go-quicktest/qt"
)

func TestKernelOf(t *testing.T) {
	for _, tt := range []struct {
		name             string
		lines            []string
		release, machine string
	}{
		{"uname -a", []string{"Linux web1 5.4.0-96-generic #109-Ubuntu SMP Wed Jan 12 16:49:16 UTC 2022 x86_64 x86_64 x86_64 GNU/Linux"}, "5.4.0-96-generic", "x86_64"},
		{"uname -r", []string{"$ uname -r", "6.1.0-18-amd64"}, "6.1.0-18-amd64", "x86_64"},
		{"the kernel's log", []string{"[    0.000000] Linux version 6.6.87.2-microsoft-standard-WSL2 (root@x) (gcc 11.2.0) #1 SMP"}, "6.6.87.2-microsoft-standard-WSL2", ""},
		{"a tool", []string{"kernel version is 4.14.105"}, "4.14.105", ""},
		{"a report", []string{"Kernel Version:             5.4.0-1149-azure-fips"}, "5.4.0-1149-azure-fips", ""},
		{"people", []string{"Kernel 5.10.109, a board with i.MX 8M Plus (arm64)."}, "5.10.109", "aarch64"},
		{"the same one twice", []string{"kernel: 5.15.0", "kernel: 5.15.0"}, "5.15.0", ""},
		{"two nodes", []string{"Azure kernel version: 5.4.0", "GCP kernel version: 5.10.162+"}, "", ""},
		{"what is needed", []string{"this tool requires kernel 5.8 or newer", "needs at least kernel version 5.10"}, "", ""},
		{"what came when", []string{"ring buffers are available since kernel 5.8", "kernel 5.8+"}, "", ""},
		{"another program's version", []string{"docker version 20.10.13", "1.2.3-rc1", "5.0.1-alpha"}, "", ""},
		{"none", []string{"load program: operation not permitted"}, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			qt.Check(t, qt.Equals(kernelOf(Unwrap(tt.lines)), Kernel{tt.release, tt.machine}))
		})
	}
}
