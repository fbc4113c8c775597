// SPDX-License-Identifier: Apache-2.0

package endtoend

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/httpprobe/exchangejson"
	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
)

// TestKernels: the servers, inside kernels that are hardened.
func TestKernels(t *testing.T) {
	vmtest.Need(t)
	files := guestPrograms(t, "nginx", "python3", "curl", "wrk")
	maps.Copy(files, pythonModules(t))
	vmtest.RunIn(t, vmtest.Sample(), "^TestGuest", vm.Machine{
		Sysctls: map[string]string{"net.core.bpf_jit_harden": "2"},
		Files:   files,
		Env:     []string{"PATH=/usr/bin"},
		CPUs:    2,
		Timeout: 8 * time.Minute,
	})
}

// guestPrograms are the host's programs, for a machine that has nothing.
func guestPrograms(t *testing.T, names ...string) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, name := range names {
		target, err := filepath.EvalSymlinks(find(t, name))
		qt.Assert(t, qt.IsNil(err))
		needed, err := vm.Binary(target)
		qt.Assert(t, qt.IsNil(err))
		maps.Copy(files, needed)
		files["/usr/bin/"+name] = target
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"passwd": "root:x:0:0::/:/bin/sh\n", "group": "root:x:0:\n"} {
		write(t, filepath.Join(dir, name), text)
		files["/etc/"+name] = filepath.Join(dir, name)
	}
	return files
}

// pythonModules are the files of those modules that our server uses.
func pythonModules(t *testing.T) map[string]string {
	t.Helper()
	out, err := exec.Command(find(t, "python3"), "-I", "-S", "-c", `
import http.server, sys, os, encodings
"localhost.".encode("idna")
print(os.path.dirname(encodings.__file__))
for m in list(sys.modules.values()):
    if getattr(m, "__file__", None): print(m.__file__)
`).Output()
	qt.Assert(t, qt.IsNil(err))
	files := map[string]string{}
	for line := range strings.Lines(string(out)) {
		path := strings.TrimSpace(line)
		files[path] = path
		if strings.Contains(path, ".so") {
			needed, err := vm.Binary(path)
			qt.Assert(t, qt.IsNil(err))
			maps.Copy(files, needed)
		}
	}
	return files
}

// TestGuestCounts: what is counted is what each server's log says, by system calls, and inside
// OpenSSL.
func TestGuestCounts(t *testing.T) {
	kernel := vmtest.Guest(t)
	for _, c := range []struct {
		name  string
		start func() server
		each  int // requests of each of wrk's connections
	}{
		{"nginx, sendfile", func() server { return nginx(t, true, false) }, 100},
		{"nginx, no sendfile", func() server { return nginx(t, false, false) }, 0},
		{"nginx, sendfile, TLS", func() server { return nginx(t, true, true) }, 0},
		{"nginx, no sendfile, TLS", func() server { return nginx(t, false, true) }, 0},
		{"python", func() server { return python(t) }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.start()
			before := readLog(t, s.log)
			p := watch(t, nil, "--sources", "syscalls,openssl")
			qt.Assert(t, qt.HasLen(p.sources, 2), qt.Commentf("%s", p.stderr.String()))
			made := curl(t, s, transfers, 2, 1)
			if c.each > 0 {
				made += wrkExactly(t, s, 4, c.each)
			}
			all := p.stop(t)
			log := readLog(t, s.log).minus(before)
			qt.Check(t, qt.Equals(log.sum(), made))
			sees, blind := "syscalls", "openssl"
			if strings.HasPrefix(s.url, "https") {
				sees, blind = blind, sees
			}
			for _, role := range roles(sees) {
				got := p.tally(func(d exchangejson.Exchange) bool { return d.Source == sees && d.Role == role })
				if all[sees].lost > 0 {
					for r, n := range got {
						qt.Check(t, qt.IsTrue(n <= log[r]), qt.Commentf("%s as %s: %s: %d; %s", sees, role, r, n, all[sees].why))
					}
				} else {
					qt.Check(t, qt.DeepEquals(got, log), qt.Commentf("%s as %s: %s", sees, role, all[sees].why))
				}
				t.Logf("%s as %s: %d counted, %d logged: %v", sees, role, got.sum(), log.sum(), got)
			}
			qt.Check(t, qt.Equals(all[blind].counted, 0), qt.Commentf("%s", all[blind].why))
			a := all[sees]
			if t.Log(a.why); a.lost > 0 {
				// 7.2 can leave out a program on a system call because another one is running.
				qt.Check(t, qt.Equals(sees+" on "+kernel, "syscalls on 7"), qt.Commentf("%s", a.why))
				qt.Check(t, qt.IsTrue(a.counted+a.unparsed+a.lost >= 2*made), qt.Commentf("%s", a.why))
				qt.Check(t, qt.IsTrue(a.counted >= made), qt.Commentf("%s", a.why))
			} else {
				qt.Check(t, qt.Equals(a.unparsed, a.reasons["unanswered"]+a.reasons["no_request"]), qt.Commentf("%s", a.why))
			}
			noSecrets(t, p)
		})
	}
}

// TestGuestScenes: right, or unparsed, by system calls too.
func TestGuestScenes(t *testing.T) {
	vmtest.Guest(t)
	testScenes(t)
}

// TestGuestWithout: a source that cannot be says why, and the others see what they see.
func TestGuestWithout(t *testing.T) {
	vmtest.Guest(t)
	names := []string{"syscalls", "openssl", "packets"}
	for _, missing := range names {
		t.Run(missing, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			qt.Assert(t, qt.IsNil(err))
			server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(418) })}
			go server.Serve(l)
			defer server.Close()
			tls := nginx(t, true, true)
			p := watch(t, []string{withoutEnv + "=" + missing}, "--sources", strings.Join(names, ","))
			res, err := http.Get("http://" + l.Addr().String() + "/plain")
			qt.Assert(t, qt.IsNil(err))
			res.Body.Close()
			out, err := exec.Command(find(t, "curl"), "-s", "-q", "-k", tls.url+"/missing").CombinedOutput()
			qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
			all := p.stop(t)
			said := p.stderr.String()
			qt.Check(t, qt.StringContains(said, "httpprobe: without "+missing+": "))
			for line := range strings.Lines(said) {
				if strings.Contains(line, "without ") || strings.Contains(line, "watching by") {
					t.Log(strings.TrimSpace(line))
				}
			}
			for _, source := range names {
				want := tally{}
				role := "server"
				switch {
				case source == missing:
				case source == "openssl":
					want["GET 404"] = 1
				default:
					want["GET 418"] = 1
				}
				got := p.tally(func(d exchangejson.Exchange) bool { return d.Source == source && d.Role == role })
				if all[source].lost == 0 || len(got) > 0 {
					qt.Check(t, qt.DeepEquals(got, want), qt.Commentf("%s, without %s: %s", source, missing, said))
				}
			}
			qt.Check(t, qt.HasLen(p.sources, 2), qt.Commentf("%s", fmt.Sprint(p.sources)))
		})
	}
	if _, err := os.Stat("/sys/kernel/tracing/events"); err != nil {
		t.Error("what was hidden from the command is hidden from us")
	}
}
