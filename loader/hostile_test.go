// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/test/cputime"
)

// The log of a large program has hundreds of thousands of lines. What is wrong stands at its end.
func TestBlindingInLongLog(t *testing.T) {
	log := slices.Repeat([]string{"3: (07) r7 += 1                       ; R7=0x7a118"}, 200_000)
	long := &ebpf.VerifierError{Cause: unix.EINVAL, Log: append(log, "processed 200000 insns (limit 1000000) max_states_per_insn 0")}
	var is bool
	took := cputime.Of(func() { is = isBlinding(long) })
	t.Logf("%v", took)
	qt.Check(t, qt.IsFalse(is))
	qt.Check(t, qt.IsTrue(took < 500*time.Millisecond), qt.Commentf("%v", took))
	long.Log = append(long.Log, "insn 10385 cannot be patched due to 16-bit range")
	qt.Check(t, qt.IsTrue(isBlinding(long)))
}
