// SPDX-License-Identifier: Apache-2.0

package endtoend

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
)

const (
	benchEnv      = "BPFWHY_BENCH"       // 1: measure, and write the document
	benchQuickEnv = "BPFWHY_BENCH_QUICK" // 1: hardly repeat anything, and print the document instead
	figuresFile   = "overhead.json"
)

// overhead is what was measured on one machine.
type overhead struct {
	Kernel  string
	Rounds  int
	Seconds int
	// Figures are by workload and variant, one for each round.
	Figures map[string]map[string][]figure
	// Why says what could not be measured, by variant.
	Why map[string]string
}

// figure is one run of a client.
type figure struct {
	Rate float64       // requests a second
	P99  time.Duration // of the paced client
	Lost float64       // events that the probe lost, by requests
}

// Workloads are what clients do; variants are what watches them.
const (
	plain = "HTTP, as many as there can be"
	paced = "HTTP, 1,000 a second"
	tls   = "HTTPS, as many as there can be"

	nobody = "nobody"
	floor  = "empty uprobes"
)

var workloads = []string{plain, paced, tls}

// variants of a workload, untraced first.
func variants(workload string) []string {
	if workload == tls {
		return []string{nobody, floor, "openssl"}
	}
	return []string{nobody, "packets", "syscalls"}
}

// measureOverhead lets the variants take turns.
func measureOverhead(t *testing.T, rounds, seconds int) overhead {
	o := overhead{Rounds: rounds, Seconds: seconds, Figures: map[string]map[string][]figure{}, Why: map[string]string{}}
	var u unix.Utsname
	qt.Assert(t, qt.IsNil(unix.Uname(&u)))
	o.Kernel = unix.ByteSliceToString(u.Release[:])
	servers := map[string]server{plain: nginx(t, true, false), tls: nginx(t, true, true)}
	servers[paced] = servers[plain]
	for _, workload := range workloads {
		o.Figures[workload] = map[string][]figure{}
		s := servers[workload]
		run := func() figure { return saturate(t, s, seconds) }
		if workload == paced {
			run = func() figure { return pace(t, s, seconds) }
		}
		run() // warm
		for round := range rounds {
			list := variants(workload)
			slices.Reverse(list[:1+round%len(list)]) // not always in the same order
			for _, v := range list {
				if o.Why[v] != "" {
					continue
				}
				stop, err := watchedBy(t, s, v)
				if err != nil {
					o.Why[v] = err.Error()
					continue
				}
				f := run()
				if lost := stop(); f.Rate > 0 {
					f.Lost = float64(lost) / (f.Rate * float64(seconds))
				}
				t.Logf("%s, %s: %+v", workload, v, f)
				o.Figures[workload][v] = append(o.Figures[workload][v], f)
			}
		}
	}
	return o
}

// watchedBy starts what watches a server. stop ends it, and returns how many events it lost.
func watchedBy(t *testing.T, s server, variant string) (stop func() int, err error) {
	switch variant {
	case nobody:
		return func() int { return 0 }, nil
	case floor:
		links, err := emptyProbes(t)
		return func() int {
			for _, l := range links {
				qt.Check(t, qt.IsNil(l.Close()))
			}
			return 0
		}, err
	}
	p := exec.Command(os.Args[0], "--sources", variant, "--interval", "0")
	p.Env = append(os.Environ(), commandEnv+"=1")
	words, err := p.StderrPipe()
	qt.Assert(t, qt.IsNil(err))
	p.Stdout = p.Stderr
	qt.Assert(t, qt.IsNil(p.Start()))
	lines := bufio.NewScanner(words)
	said, up := "", false
	for !up && lines.Scan() {
		said, up = cmp.Or(said, lines.Text()), strings.Contains(lines.Text(), "watching by")
	}
	if !up {
		p.Wait()
		return nil, errors.New(strings.TrimPrefix(said, "httpprobe: without "+variant+": "))
	}
	var rest []byte
	done := make(chan struct{})
	go func() {
		for lines.Scan() {
			rest = append(append(rest, lines.Bytes()...), '\n')
		}
		close(done)
	}()
	return func() int {
		qt.Assert(t, qt.IsNil(p.Process.Signal(unix.SIGTERM)))
		<-done
		qt.Check(t, qt.IsNil(p.Wait()))
		a := accountsIn(string(rest))[variant]
		qt.Check(t, qt.IsTrue(a.counted > 0), qt.Commentf("%s", rest)) // what sees nothing costs nothing
		return a.lost
	}, nil
}

// emptyProbes puts programs that do nothing on what the probe has its programs on, in each libssl
// that is in use: what uprobes cost by themselves.
func emptyProbes(t *testing.T) ([]link.Link, error) {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Kprobe, License: "Dual BSD/GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	qt.Assert(t, qt.IsNil(err))
	defer program.Close()
	files := map[string]bool{}
	processes, err := filepath.Glob("/proc/[0-9]*/maps")
	qt.Assert(t, qt.IsNil(err))
	for _, p := range processes {
		b, _ := os.ReadFile(p)
		for line := range strings.Lines(string(b)) {
			if i := strings.Index(line, "/"); i >= 0 && strings.Contains(line, "/libssl.so") {
				files[strings.TrimSpace(line[i:])] = true
			}
		}
	}
	qt.Assert(t, qt.Not(qt.HasLen(files, 0)))
	var links []link.Link
	for path := range files {
		file, err := link.OpenExecutable(path)
		qt.Assert(t, qt.IsNil(err))
		add := func(l link.Link, err error) error {
			if err == nil {
				links = append(links, l)
			}
			return err
		}
		for _, f := range []string{"SSL_read", "SSL_write", "SSL_read_ex", "SSL_write_ex"} {
			if err := cmp.Or(add(file.Uretprobe(f, program, nil)), add(file.Uprobe(f, program, nil))); err != nil {
				return links, err
			}
		}
		if err := cmp.Or(add(file.Uretprobe("SSL_new", program, nil)), add(file.Uprobe("SSL_free", program, nil))); err != nil {
			return links, err
		}
	}
	return links, nil
}

var wrkRate = regexp.MustCompile(`(?m)^Requests/sec:\s+([\d.]+)$`)

// saturate has 32 connections ask as fast as they can.
func saturate(t *testing.T, s server, seconds int) figure {
	out, err := exec.Command(find(t, "wrk"), "-t", "1", "-c", "32", "-d", fmt.Sprintf("%ds", seconds), s.url+"/small").CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
	m := wrkRate.FindSubmatch(out)
	qt.Assert(t, qt.IsNotNil(m), qt.Commentf("%s", out))
	qt.Check(t, qt.IsFalse(strings.Contains(string(out), "Non-2xx")), qt.Commentf("%s", out))
	rate, err := strconv.ParseFloat(string(m[1]), 64)
	qt.Assert(t, qt.IsNil(err))
	return figure{Rate: rate}
}

// pace has 20 connections ask 50 times a second each. Each request has its time, and latency counts
// from then: a client that is late makes up for it.
func pace(t *testing.T, s server, seconds int) figure {
	const connections, each = 20, 50
	var mu sync.Mutex
	var all []time.Duration
	var wg sync.WaitGroup
	began := time.Now().Add(100 * time.Millisecond)
	for n := range connections {
		wg.Go(func() {
			conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
			qt.Check(t, qt.IsNil(err))
			if err != nil {
				return
			}
			defer conn.Close()
			in := bufio.NewReader(conn)
			took := make([]time.Duration, 0, each*seconds)
			for i := range each * seconds {
				at := began.Add(time.Duration(i*connections+n) * time.Second / (connections * each))
				time.Sleep(time.Until(at))
				_, err := conn.Write([]byte("GET /small HTTP/1.1\r\nHost: h\r\n\r\n"))
				qt.Check(t, qt.IsNil(err))
				r, err := http.ReadResponse(in, nil)
				qt.Check(t, qt.IsNil(err))
				if err != nil {
					return
				}
				io.Copy(io.Discard, r.Body)
				qt.Check(t, qt.Equals(r.StatusCode, 200))
				took = append(took, time.Since(at))
			}
			mu.Lock()
			all = append(all, took...)
			mu.Unlock()
		})
	}
	wg.Wait()
	rate := float64(len(all)) / time.Since(began).Seconds()
	slices.Sort(all)
	return figure{Rate: rate, P99: all[len(all)*99/100]}
}

// TestGuestOverhead measures where nothing else runs, by instructions.
func TestGuestOverhead(t *testing.T) {
	vmtest.Guest(t)
	if os.Getenv(benchEnv) != "1" {
		t.Skip("a measurement")
	}
	rounds := 3
	if os.Getenv(benchQuickEnv) == "1" {
		rounds = 1
	}
	b, err := json.Marshal(measureOverhead(t, rounds, 1))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join("/out", figuresFile), b, 0o644)))
}

// TestBenchOverhead measures in the lab and on the host, and writes docs/benchmarks-httpprobe.md.
func TestBenchOverhead(t *testing.T) {
	if os.Getenv(benchEnv) != "1" {
		t.Skip("takes ten minutes; set " + benchEnv + "=1")
	}
	mayHarden(t)
	quick := os.Getenv(benchQuickEnv) == "1"
	var mu sync.Mutex
	lab := map[string]overhead{}
	t.Run("lab", func(t *testing.T) {
		files := guestPrograms(t, "nginx", "wrk")
		vmtest.RunIn(t, []string{"5.10", "6.12"}, "^TestGuestOverhead$", vm.Machine{
			Files: files, Env: []string{"PATH=/usr/bin", benchEnv + "=1", benchQuickEnv + "=" + os.Getenv(benchQuickEnv)},
			Timeout: 30 * time.Minute, CountInstructions: true,
		}, func(t *testing.T, kernel string, r *vm.Result) {
			var o overhead
			qt.Assert(t, qt.IsNil(json.Unmarshal(r.Files[figuresFile], &o)))
			mu.Lock()
			lab[kernel] = o
			mu.Unlock()
		})
	})
	begun := map[string]starts{}
	t.Run("start", func(t *testing.T) {
		vmtest.Run(t, "^TestGuestStart$", vm.Machine{Timeout: 10 * time.Minute, CountInstructions: true}, func(t *testing.T, kernel string, r *vm.Result) {
			var s starts
			qt.Assert(t, qt.IsNil(json.Unmarshal(r.Files[startsFile], &s)))
			mu.Lock()
			begun[kernel] = s
			mu.Unlock()
		})
	})
	begun["host"] = hostStarts(t)
	rounds, seconds := 5, 6
	if quick {
		rounds, seconds = 1, 1
	}
	host := measureOverhead(t, rounds, seconds)
	if t.Failed() {
		return
	}
	path := filepath.Join("..", "..", "docs", "benchmarks-httpprobe.md")
	if quick || len(lab) < 2 || len(begun) < 6 {
		path = filepath.Join(os.TempDir(), "bpfwhy-benchmarks-httpprobe.md")
	}
	qt.Assert(t, qt.IsNil(os.WriteFile(path, []byte(overheadDoc(lab, host, begun)), 0o644)))
	t.Logf("written: %s", path)
}

const overheadPreamble = `# What httpprobe costs

<!-- Written by ` + "`make bench`" + `. Do not edit. -->

One nginx with two workers, and a client on the same machine: wrk with 32 connections that ask for 12 bytes as fast as they can, or a client that asks at set
times, 1,000 times a second, and counts latency from those. The probe parses, keeps its table and its figures, and shares the
processors with them. Variants take turns; figures are medians of the rounds' ratios to the run without a probe, of the same round: 0.90
is a tenth fewer requests.

*Empty uprobes* are programs that do nothing, on the functions that the source ` + "`openssl`" + ` has its programs on: what a trap into the kernel costs on that machine,
whatever one does there. Client and server both are stopped by them here.

`

const startPreamble = `
## Until it watches

From its start until all programs are loaded, compiled and attached, with every source that the machine allows; not the first time since it was
booted. The lab's machines execute a thousand million instructions a second here, on one processor: real ones do several times that.

| machine | sources | harden=0 | 1 | 2 |
| --- | --- | ---: | ---: | ---: |
`

func overheadDoc(lab map[string]overhead, host overhead, begun map[string]starts) string {
	var b strings.Builder
	b.WriteString(overheadPreamble)
	fmt.Fprintf(&b, "## On a host\n\nLinux %s, %d processors, %d rounds of %d s.\n\n", host.Kernel, runtime.NumCPU(), host.Rounds, host.Seconds)
	overheadTable(&b, host)
	b.WriteString("\n## In the lab\n\nEmulated machines with one processor whose clock counts instructions: they know nothing of caches and of what traps cost. The probe has no other processor to be on.\n")
	for _, kernel := range slices.Sorted(maps.Keys(lab)) {
		o := lab[kernel]
		fmt.Fprintf(&b, "\n### Linux %s\n\n%d rounds of %d s.\n\n", o.Kernel, o.Rounds, o.Seconds)
		overheadTable(&b, o)
	}
	b.WriteString(startPreamble)
	for _, machine := range slices.Sorted(maps.Keys(begun)) {
		s := begun[machine]
		fmt.Fprintf(&b, "| %s | %s |", machine, strings.Join(s.Sources, ", "))
		for _, took := range s.Took {
			fmt.Fprintf(&b, " %.2f s |", took.Seconds())
		}
		b.WriteString("\n")
	}
	return b.String()
}

func overheadTable(b *strings.Builder, o overhead) {
	b.WriteString("| | watched by | requests | p99 | lost events by request |\n| --- | --- | ---: | ---: | ---: |\n")
	for _, workload := range workloads {
		untraced := o.Figures[workload][nobody]
		for _, v := range variants(workload) {
			figures := o.Figures[workload][v]
			switch {
			case o.Why[v] != "":
				fmt.Fprintf(b, "| %s | %s | not here | | |\n", workload, v)
				continue
			case v == nobody:
				fmt.Fprintf(b, "| %s | %s | %.0f a second | %s | |\n", workload, v, median(figures, untraced, func(f, _ figure) float64 { return f.Rate }), p99(workload, func() string {
					return time.Duration(median(figures, untraced, func(f, _ figure) float64 { return float64(f.P99) })).Round(time.Microsecond).String()
				}))
				continue
			}
			lost := ""
			if v != floor {
				lost = fmt.Sprintf("%.4f", median(figures, untraced, func(f, _ figure) float64 { return f.Lost }))
			}
			fmt.Fprintf(b, "| %s | %s | %.2f | %s | %s |\n", workload, v, median(figures, untraced, func(f, u figure) float64 { return f.Rate / u.Rate }), p99(workload, func() string {
				return fmt.Sprintf("%.2f", median(figures, untraced, func(f, u figure) float64 { return float64(f.P99) / float64(u.P99) }))
			}), lost)
		}
	}
	for _, v := range slices.Sorted(maps.Keys(o.Why)) {
		fmt.Fprintf(b, "\nWithout %s: %s.\n", v, o.Why[v])
	}
}

func p99(workload string, f func() string) string {
	if workload != paced {
		return ""
	}
	return f()
}

// median of something of the rounds, and of the untraced runs of the same rounds.
func median(figures, untraced []figure, of func(f, untraced figure) float64) float64 {
	var list []float64
	for i, f := range figures {
		list = append(list, of(f, untraced[i]))
	}
	slices.Sort(list)
	n := len(list)
	if n == 0 {
		return 0
	}
	return (list[(n-1)/2] + list[n/2]) / 2
}

func TestMedian(t *testing.T) {
	u := []figure{{Rate: 10}, {Rate: 20}, {Rate: 10}}
	f := []figure{{Rate: 9}, {Rate: 10}, {Rate: 8}}
	ratio := func(f, u figure) float64 { return f.Rate / u.Rate }
	qt.Check(t, qt.Equals(median(f, u, ratio), 0.8))
	qt.Check(t, qt.Equals(median(f[:2], u, ratio), 0.7))
	qt.Check(t, qt.Equals(median(nil, u, ratio), 0))
}
