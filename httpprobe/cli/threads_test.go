// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
)

// threadsEnv is how many threads the user of a probe may have.
const threadsEnv = "BPFWHY_TEST_THREADS"

// TestGuestFewThreads: a probe with many files stops where it may have few threads, as in a
// container with a limit of processes. With a thread for each probe that was taken off Go ended it
// instead.
func TestGuestFewThreads(t *testing.T) {
	if vmtest.Guest(t); wantsSysAdmin() {
		t.Skip("who has CAP_SYS_ADMIN has no such limit")
	}
	b, err := os.ReadFile(lateFolder + "/libssl.so.9")
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.MkdirAll("/usr/local/lib", 0o755)))
	for i := range 10 {
		name := fmt.Sprintf("/usr/local/lib/libssl.so.%d", i)
		qt.Assert(t, qt.IsNil(os.WriteFile(name, b, 0o755)))
		defer os.Remove(name)
	}
	t.Setenv(threadsEnv, "32")
	p := startLate(t, "few threads", asNobody(documentedRights(t))...)
	p.stop(t)
	t.Logf("%s", &p.stderr)
	qt.Check(t, qt.Matches(p.stderr.String(), `(?s).*openssl \(\d+ programs, 10 files.*`))
}
