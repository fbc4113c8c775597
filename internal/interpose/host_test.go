// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/vm/wire"
)

func inGuest() bool { return os.Getenv(wire.KernelEnv) != "" }

func decode(t testing.TB, output string) (r result) {
	t.Helper()
	qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(output), &r)), qt.Commentf("%q", output))
	return r
}

func TestHostFar(t *testing.T) {
	hardened(t)
	out, repairs := under(t, true, "/proc/self/exe", loaderArgv0, "far")
	r := decode(t, out)
	qt.Assert(t, qt.Equals(r.Errno, 0))
	qt.Assert(t, qt.IsTrue(r.JITed))
	qt.Check(t, qt.Equals(r.Ran, [3]uint32{7, sum(100, farBody), sum(200, farBody)}))
	qt.Check(t, qt.Equals(r.Count, 2))
	qt.Assert(t, qt.HasLen(repairs, 1))
	t.Logf("%+v %+v %v", r, repairs[0].Repair, repairs[0].DurationNS)
}
