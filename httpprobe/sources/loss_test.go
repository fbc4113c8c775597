// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"errors"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/httpprobe/event"
)

// A counter that cannot be read for a while neither falls nor counts twice, whichever it is.
func TestLossOneReadFails(t *testing.T) {
	var c counters
	fail := errors.New("too many open files")
	names := []string{"a", "a_reentrant", "b"}
	look := func(n uint64, broken string, mapErr error) event.Loss {
		var perCPU []syscallsLosses
		if mapErr == nil {
			perCPU = []syscallsLosses{{Ring: n, Map: 2 * n, Fault: 1}, {Ring: n}}
		}
		return c.lossOf(perCPU, mapErr, names, func(program string) (uint64, error) {
			if program == broken || broken == "all" {
				return 0, fail
			}
			return map[string]uint64{"a": 10 * n, "a_reentrant": 3 * n, "b": n}[program], nil
		})
	}
	first := event.Loss{RingFull: 4, MapFull: 4, ReadFault: 1, Recursion: 3*2 + 2}
	qt.Check(t, qt.Equals(look(2, "", nil), first))
	qt.Check(t, qt.Equals(look(2, "", fail), first))
	qt.Check(t, qt.Equals(look(2, "a", nil), first))
	qt.Check(t, qt.Equals(look(2, "a_reentrant", nil), first))
	qt.Check(t, qt.Equals(look(2, "b", nil), first))
	qt.Check(t, qt.Equals(look(5, "all", fail), first))
	qt.Check(t, qt.Equals(look(5, "", nil), event.Loss{RingFull: 10, MapFull: 10, ReadFault: 1, Recursion: 3*5 + 5}))
}
