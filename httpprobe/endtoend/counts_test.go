// SPDX-License-Identifier: Apache-2.0

package endtoend

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/httpprobe/exchangejson"
)

// TestCounts: what is counted is what each server's log says, by method and status.
func TestCounts(t *testing.T) {
	onHost(t)
	for _, c := range []struct {
		name  string
		start func() []server // the first is asked
		each  int
	}{
		{"nginx, sendfile", func() []server { return []server{nginx(t, true, false)} }, 1000},
		{"nginx, no sendfile", func() []server { return []server{nginx(t, false, false)} }, 1000},
		{"apache", func() []server { return []server{apache(t)} }, 1000},
		{"python", func() []server { return []server{python(t)} }, 400},
		{"node", func() []server { return []server{node(t)} }, 1000},
		{"haproxy", func() []server { behind := nginx(t, true, false); return []server{haproxy(t, behind), behind} }, 1000},
	} {
		t.Run(c.name, func(t *testing.T) {
			servers := c.start()
			before := map[string]tally{}
			args := []string{"--sources", hostSources()}
			for _, s := range servers {
				before[s.name] = readLog(t, s.log)
				args = append(args, "--port", fmt.Sprint(s.port))
			}
			p := watch(t, nil, args...)
			began := time.Now()
			made := curl(t, servers[0], transfers, 4, 3) + wrkExactly(t, servers[0], 8, c.each)
			t.Logf("%d requests in %v", made, time.Since(began))
			all := p.stop(t)
			for i, s := range servers {
				log := readLog(t, s.log).minus(before[s.name])
				if i == 0 {
					qt.Check(t, qt.Equals(log.sum(), made))
				}
				compare(t, p, all, s.name, log, func(d exchangejson.Exchange) bool { return int(d.ServerPort) == s.port })
			}
			for _, a := range all {
				// Of these no server knows: a request that came when it was closing the connection,
				// which Python does without saying so.
				if a.lost == 0 {
					qt.Check(t, qt.Equals(a.unparsed, a.reasons["unanswered"]+a.reasons["no_request"]), qt.Commentf("%s", a.why))
					qt.Check(t, qt.IsTrue(a.unparsed <= a.counted/100), qt.Commentf("%s", a.why))
				}
				qt.Check(t, qt.IsTrue(a.lost < a.counted/2), qt.Commentf("%s", a.why)) // a busy machine
				t.Log(a.why)
			}
			noSecrets(t, p)
		})
	}
}

// TestCountsTLS: the same inside OpenSSL, where the host lets programs into processes.
func TestCountsTLS(t *testing.T) {
	onHost(t)
	for _, sendfile := range []bool{true, false} {
		s := nginx(t, sendfile, true)
		before := readLog(t, s.log)
		p := watch(t, nil, "--sources", "openssl,packets")
		if !slices.Contains(p.sources, "openssl") {
			p.stop(t)
			t.Skipf("this host has no uprobes; the lab's kernels have them\n%s", p.stderr.String())
		}
		made := curl(t, s, transfers, 4, 3) + wrkExactly(t, s, 8, 400)
		all := p.stop(t)
		log := readLog(t, s.log).minus(before)
		qt.Check(t, qt.Equals(log.sum(), made))
		for role, comms := range map[string][]string{"server": {"nginx"}, "client": {"curl", "wrk"}} {
			got := p.tally(func(d exchangejson.Exchange) bool {
				return d.Source == "openssl" && d.Role == role && slices.Contains(comms, d.Comm)
			})
			qt.Check(t, qt.DeepEquals(got, log), qt.Commentf("as %s: %s", role, all["openssl"].why))
			t.Logf("as %s: %d counted, %d logged", role, got.sum(), log.sum())
		}
		a := all["openssl"]
		t.Log(a.why)
		qt.Check(t, qt.Equals(a.lost, 0), qt.Commentf("%s", a.why))
		qt.Check(t, qt.Equals(p.tally(func(d exchangejson.Exchange) bool { return d.Source == "packets" && int(d.ServerPort) == s.port }).sum(), 0))
		noSecrets(t, p)
	}
}

// TestSaturated: clients that leave in the middle of requests. What they leave is either in the
// server's log and counted, or unparsed, or neither of them saw it.
func TestSaturated(t *testing.T) {
	onHost(t)
	for _, s := range []server{nginx(t, true, false), apache(t), node(t)} {
		before := readLog(t, s.log)
		p := watch(t, nil, "--sources", hostSources(), "--port", fmt.Sprint(s.port))
		wrkFor(t, s, 50, 1)
		all := p.stop(t)
		time.Sleep(100 * time.Millisecond)
		log := readLog(t, s.log).minus(before)
		qt.Check(t, qt.IsTrue(log.sum() > 50))
		for source, a := range all {
			for _, role := range roles(source) {
				got := p.tally(func(d exchangejson.Exchange) bool { return d.Source == source && d.Role == role })
				missing := log.minus(got)
				t.Logf("%s: %d logged, %d counted of %s's as %s, missing %v; %s", s.name, log.sum(), got.sum(), source, role, missing, a.why)
				for r, n := range missing {
					qt.Check(t, qt.IsTrue(n > 0), qt.Commentf("%s: %s", s.name, r))
				}
				qt.Check(t, qt.IsTrue(missing.sum() <= a.unparsed+a.lost))
			}
			qt.Check(t, qt.IsTrue(a.unparsed <= 2*50+a.lost), qt.Commentf("%s", a.why)) // each connection's last
			qt.Check(t, qt.IsTrue(a.lost < a.counted/2), qt.Commentf("%s", a.why))
		}
	}
}

// TestUploads: where a body is not copied, some of what follows it may be out of sight: that is
// unparsed, and the rest is right.
func TestUploads(t *testing.T) {
	onHost(t)
	for _, s := range []server{nginx(t, true, false), apache(t), node(t)} {
		before := readLog(t, s.log)
		p := watch(t, nil, "--sources", hostSources(), "--port", fmt.Sprint(s.port))
		n := curl(t, s, uploads, 4, 3)
		all := p.stop(t)
		log := settled(t, s.log, n).minus(before)
		for source, a := range all {
			for _, role := range roles(source) {
				got := p.tally(func(d exchangejson.Exchange) bool { return d.Source == source && d.Role == role })
				missing := log.minus(got)
				t.Logf("%s: %v logged, %d counted of %s's as %s, missing %v; %s", s.name, log, got.sum(), source, role, missing, a.why)
				for r, n := range missing {
					qt.Check(t, qt.IsTrue(n > 0), qt.Commentf("%s: %s: %d", s.name, r, -n))
				}
				qt.Check(t, qt.IsTrue(missing.sum() <= a.unparsed+a.lost), qt.Commentf("%s", a.why))
				qt.Check(t, qt.IsTrue(got.sum() >= log.sum()/2), qt.Commentf("%s", a.why))
			}
			qt.Check(t, qt.IsTrue(a.lost < a.counted/2), qt.Commentf("%s", a.why))
		}
	}
}

// compare compares a server's log with what each source and role says.
func compare(t testing.TB, p *probe, all map[string]account, name string, log tally, of func(exchangejson.Exchange) bool) {
	t.Helper()
	qt.Check(t, qt.IsTrue(log.sum() > 0), qt.Commentf("%s", name))
	for _, source := range p.sources {
		if source == "openssl" {
			continue
		}
		for _, role := range roles(source) {
			got := p.tally(func(d exchangejson.Exchange) bool { return d.Source == source && d.Role == role && of(d) })
			if a := all[source]; a.lost > 0 { // nothing is counted that was not, and what is missing is explained
				missing := log.minus(got)
				for r, n := range missing {
					qt.Check(t, qt.IsTrue(n > 0), qt.Commentf("%s: %s: %s", name, r, a.why))
				}
				qt.Check(t, qt.IsTrue(missing.sum() <= a.unparsed+a.lost), qt.Commentf("%s: %s", name, a.why))
			} else {
				qt.Check(t, qt.DeepEquals(got, log), qt.Commentf("%s, %s as %s: %s", name, source, role, a.why))
			}
			t.Logf("%s, %s as %s: %d counted, %d logged: %v", name, source, role, got.sum(), log.sum(), got)
		}
	}
}

// noSecrets: what was in query strings and cookies is nowhere.
func noSecrets(t testing.TB, p *probe) {
	t.Helper()
	qt.Check(t, qt.IsFalse(strings.Contains(p.stderr.String(), secret)))
	for _, d := range p.docs {
		if strings.Contains(fmt.Sprint(d), secret) {
			t.Fatalf("a secret is told: %v", d)
		}
	}
}
