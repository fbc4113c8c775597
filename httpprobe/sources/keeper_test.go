// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/sys/threads"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
)

// loadForEvents loads the programs as perf events want them.
func loadForEvents(t *testing.T) map[string]int {
	t.Helper()
	spec, err := loadOpenssl()
	qt.Assert(t, qt.IsNil(err))
	var o Options
	qt.Assert(t, qt.IsNil(o.configure(spec)))
	coll, _, err := o.load(spec, nil)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(coll.Close)
	fds := map[string]int{}
	for _, name := range programNames() {
		fds[name] = coll.Programs[name].FD()
	}
	return fds
}

// testKeeper: the keeper has one capability, attaches to TLS libraries, and to nothing else,
// whatever it is sent. When it is gone that is said, and what it attached stays.
func testKeeper(t *testing.T) {
	k, err := startKeeper(loadForEvents(t))
	qt.Assert(t, qt.IsNil(err))
	defer k.close()
	curl, err := exec.LookPath("curl")
	qt.Assert(t, qt.IsNil(err))
	libraries, err := filepath.Glob("/usr/lib/x86_64-linux-gnu/libssl.so.*")
	if len(libraries) == 0 {
		libraries, err = filepath.Glob("/lib/x86_64-linux-gnu/libssl.so.*")
	}
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsTrue(len(libraries) > 0))
	open := func(name string, flags int) *os.File {
		f, err := os.OpenFile(name, flags, 0)
		qt.Assert(t, qt.IsNil(err))
		t.Cleanup(func() { f.Close() })
		return f
	}
	dir := t.TempDir()
	qt.Assert(t, qt.IsNil(os.WriteFile(dir+"/libssl.so", []byte("a script that is called libssl.so\n"), 0o755)))
	qt.Assert(t, qt.IsNil(unix.Mkfifo(dir+"/fifo", 0o600)))
	for want, f := range map[string]*os.File{
		"not a 64-bit ELF file of x86-64":                       open(dir+"/libssl.so", os.O_RDONLY),
		"not a TLS library":                                     open(curl, os.O_RDONLY),
		"not a regular file":                                    open(dir+"/fifo", os.O_RDWR),
		".*bad file descriptor|not a 64-bit ELF file of x86-64": open(libraries[0], unix.O_PATH), // which cannot be read
	} {
		probes, err := k.attach(f, map[string]uint64{"SSL_write": 0x1000}) // what it is told it does not believe
		qt.Check(t, qt.ErrorMatches(err, want))
		qt.Check(t, qt.HasLen(probes, 0))
	}
	// More than one file, and none.
	for _, fds := range [][]int{nil, {int(open(libraries[0], os.O_RDONLY).Fd()), int(open(libraries[0], os.O_RDONLY).Fd())}} {
		qt.Assert(t, qt.IsNil(send(k.socket, []byte{0}, fds)))
		got, b, err := receive(k.socket, len(sslProbes))
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.HasLen(got, 0))
		qt.Check(t, qt.Equals(string(b[4:]), "want one file"))
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", k.pid))
	qt.Assert(t, qt.IsNil(err))
	for _, line := range []string{"CapEff:\t0000000000200000", "CapPrm:\t0000000000200000", "NoNewPrivs:\t1"} {
		qt.Check(t, qt.IsTrue(strings.Contains(string(status), line+"\n")), qt.Commentf("%s\n%s", line, status))
	}
	probes, err := k.attach(open(libraries[0], os.O_RDONLY), nil)
	qt.Assert(t, qt.IsNil(err))
	t.Logf("%d probes on %s", len(probes), libraries[0])
	qt.Check(t, qt.IsTrue(len(probes) >= 9))
	defer threads.Close(probes)
	qt.Assert(t, qt.IsNil(k.kill()))
	<-k.ended
	for range 2 {
		_, err = k.attach(open(libraries[0], os.O_RDONLY), nil)
		qt.Check(t, qt.ErrorIs(err, errKeeper))
	}
	qt.Check(t, qt.Equals(reasonOf(err), Keeper))
}

func TestGuestKeeper(t *testing.T) {
	vmtest.Sampled(t)
	guest(t)
	testKeeper(t)
}

func TestHostKeeper(t *testing.T) {
	onHost(t)
	if s, err := OpenSSL(Options{}); err != nil {
		t.Skip(err)
	} else {
		s.Close()
	}
	testKeeper(t)
}
