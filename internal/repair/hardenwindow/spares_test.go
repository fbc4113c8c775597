// SPDX-License-Identifier: Apache-2.0

package hardenwindow

import (
	"testing"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

func TestSpares(t *testing.T) {
	const admin, capBPF = 1 << unix.CAP_SYS_ADMIN, 1 << unix.CAP_BPF
	for _, tt := range []struct {
		release string
		caps    uint64
		want    bool
	}{
		{"5.10.240", admin, true},
		{"5.10.240", capBPF, false},
		{"5.15.0-91-generic", capBPF, false},
		{"6.0.19", capBPF, false},
		{"6.1.0", capBPF, true},
		{"5.14.0-70.el9.x86_64", capBPF, false},
		{"5.14.0-427.13.1.el9_4.x86_64", capBPF, true},
		{"4.18.0-553.el8_10.x86_64", capBPF, true}, // may be
		{"", capBPF, true},
		{"6.12.1", 0, false},
	} {
		qt.Check(t, qt.Equals(Spares(tt.release, tt.caps), tt.want), qt.Commentf("%s %x", tt.release, tt.caps))
	}
}
