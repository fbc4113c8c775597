// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"os"
	"strconv"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/wire"
)

// Who is followed is known by numbers, and those are used again: they are forgotten when their
// threads and processes end.
func TestGuestFollowed(t *testing.T) {
	vmtest.Sampled(t)
	for _, b := range []backend{fentry, tpBTF} {
		t.Run(string(b), func(t *testing.T) { checkFollowed(t, place{Options: Options{Backend: string(b)}}) })
	}
	t.Run("no BTF", func(t *testing.T) { checkFollowed(t, place{NoBTF: true}) })
}

func TestHostFollowed(t *testing.T) {
	if os.Getenv(wire.KernelEnv) != "" || os.Getuid() != 0 {
		t.Skip("runs outside the lab, and needs root")
	}
	checkFollowed(t, place{})
}

func checkFollowed(t *testing.T, p place) {
	n := startNest(t)
	n.do("threads 3") // the runtime's own threads are there
	p.Options.PIDs = []int{n.pid()}
	w, err := tryWatch(t, p)
	if err != nil && os.Getenv(wire.KernelEnv) == "" {
		t.Skipf("cannot watch here: %v", err)
	}
	qt.Assert(t, qt.IsNil(err))
	const many = 200
	before := w.ask("followed")
	n.do("threads " + strconv.Itoa(many))
	// The runtime may start some of its own, and the last ones may not have ended yet.
	eventually(t, func() bool { return w.ask("followed") < before+many/4 })

	// The thread that becomes a program takes over the number of the first one, which ends.
	n.do("start-thread bad-opcode", "go")
	n.do("threads 1") // still followed itself
	qt.Check(t, qt.Equals(w.ask("followed_pids"), 1))
	n.in.Close()
	qt.Assert(t, qt.IsNil(n.cmd.Wait()))
	eventually(t, func() bool { return w.ask("followed") == 0 && w.ask("followed_pids") == 0 })
	t.Logf("followed %d, of them asked for %d; of %d at first", w.ask("followed"), w.ask("followed_pids"), before)
	w.stop().one(t, "bad_opcode")
}
