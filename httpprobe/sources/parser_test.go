// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/perf"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/cli"
	"github.com/bpfwhy/bpfwhy/internal/repair/guardian"
	"github.com/bpfwhy/bpfwhy/internal/repair/interpose"
	"github.com/bpfwhy/bpfwhy/internal/repair/launch"
	"github.com/bpfwhy/bpfwhy/internal/repair/replay"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/wire"
	"github.com/bpfwhy/bpfwhy/internal/watch/hang"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/loader"
	"github.com/bpfwhy/bpfwhy/node"
)

// The parser is what many agents have: a socket filter that parses HTTP in the kernel, in an
// unrolled loop. Under net.core.bpf_jit_harden=2 it does not load, bpfwhy says why, and through our
// own loader it loads, is compiled, and works.

const (
	parserObject = "../../internal/objects/object/testdata/http_270_v2_g.o"
	parserCopy   = "/parser.o" // in guests
)

func TestMain(m *testing.M) {
	Main()
	launch.Main()
	guardian.Main()
	hang.Main()
	interpose.Main()
	replay.Main()
	switch filepath.Base(os.Args[0]) {
	case "contained":
		contained()
	case "bpfwhy":
		os.Exit(cli.Main(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr))
	case "agent":
		if err := agent(os.Args[1], os.Args[2] == "repair", os.Stdout); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// agentReport is what the agent says.
type agentReport struct {
	Errno                         int // of the load
	JITed, Repaired               bool
	Requests, Answers, Incomplete uint64
	Statuses                      map[uint16]int
}

// agent loads the filter, with cilium/ebpf alone or with our loader, and counts what it reports of
// some requests.
func agent(object string, repair bool, out io.Writer) error {
	var report agentReport
	spec, err := ebpf.LoadCollectionSpec(object)
	if err != nil {
		return err
	}
	opts := ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{LogDisabled: true}} // or all is loaded twice
	var coll *ebpf.Collection
	if repair {
		l := loader.Loader{RequireJIT: true, Report: func(loader.Repair) { report.Repaired = true }}
		coll, err = l.NewCollectionWithOptions(spec, opts)
	} else {
		coll, err = ebpf.NewCollectionWithOptions(spec, opts)
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		report.Errno = int(errno)
		return json.NewEncoder(out).Encode(report)
	}
	if err != nil {
		return err
	}
	defer coll.Close()
	info, err := coll.Programs["http_filter"].Info()
	if err != nil {
		return err
	}
	size, err := info.JitedSize()
	report.JITed = err == nil && size > 0
	if repair {
		if err := count(coll, &report); err != nil {
			return err
		}
	}
	return json.NewEncoder(out).Encode(report)
}

// What the agent asks for: 12 times what is there, 5 times what is not.
const found, missing = 12, 5

func count(coll *ebpf.Collection, report *agentReport) error {
	messages, err := perf.NewReader(coll.Maps["messages"], 1<<16)
	if err != nil {
		return fmt.Errorf("open messages: %w", err)
	}
	defer messages.Close()
	// Of the protocol IP, and not of all of them: every packet once, when it comes in.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	first, jump, err := dispatcher(coll.Programs["http_filter"])
	if err != nil {
		return err
	}
	defer first.Close()
	defer jump.Close()
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, first.FD()); err != nil {
		return fmt.Errorf("attach filter: %w", err)
	}
	const loopback = 1
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_IP), Ifindex: loopback}); err != nil {
		return err
	}
	t := &quiet{}
	tapes := &tapes{ends: map[end]*taped{}}
	url, client := serve(t, tapes), client(tapes)
	defer t.end()
	for i := range found + missing {
		path := "/100"
		if i >= found {
			path = "/nothing"
		}
		response, err := client.Get(url + path)
		if err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
	ports := map[uint16]bool{}
	for e := range tapes.ends {
		ports[e.local] = true
	}
	report.Statuses = map[uint16]int{}
	messages.SetDeadline(time.Now().Add(time.Second))
	for {
		record, err := messages.Read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		// struct message: addresses, ports, status; kind and complete near its end
		const source, status, kind, complete = 8, 12, 40, 41
		m := record.RawSample
		if len(m) < complete+1 || !ports[binary.BigEndian.Uint16(m[source:])] {
			continue // a machine may have other traffic
		}
		switch m[kind] {
		case 1:
			report.Requests++
		case 2:
			report.Answers++
			report.Statuses[binary.LittleEndian.Uint16(m[status:])]++
		}
		if m[complete] == 0 {
			report.Incomplete++
		}
	}
}

// dispatcher is a filter that calls another one: a socket takes no long ones (net.core.optmem_max),
// which is how agents come by theirs.
func dispatcher(to *ebpf.Program) (*ebpf.Program, *ebpf.Map, error) {
	jump, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return nil, nil, err
	}
	p, err := loader.NewProgram(&ebpf.ProgramSpec{
		Name: "dispatcher", Type: ebpf.SocketFilter, License: "Dual BSD/GPL", Instructions: asm.Instructions{
			asm.LoadMapPtr(asm.R2, jump.FD()), asm.Mov.Imm(asm.R3, 0), asm.FnTailCall.Call(), asm.Mov.Imm(asm.R0, 0), asm.Return(),
		},
	})
	if err != nil {
		return nil, nil, errors.Join(err, jump.Close())
	}
	if err := jump.Put(uint32(0), to); err != nil {
		return nil, nil, errors.Join(err, jump.Close(), p.Close())
	}
	return p, jump, nil
}

// quiet is a testing.TB for what runs in no test.
type quiet struct {
	testing.TB
	cleanups []func()
}

func (q *quiet) Helper()           {}
func (q *quiet) Cleanup(f func())  { q.cleanups = append(q.cleanups, f) }
func (q *quiet) Fatal(args ...any) { panic(fmt.Sprint(args...)) }
func (q *quiet) end() {
	for _, f := range q.cleanups {
		f()
	}
}

// runAs runs this test binary under another name.
func runAs(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = name
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s%s", out, &stderr))
	return out
}

// testParser: how the load ends is by kernel (failures of one function that is too long when it is
// blinded).
func testParser(t *testing.T, object string, refused bool) {
	dir := t.TempDir()
	self, err := os.Executable()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.Symlink(self, filepath.Join(dir, "agent"))))

	testParserNatively(t, dir, object, refused)
	var repaired agentReport
	start := time.Now()
	out := runAs(t, "agent", object, "repair")
	qt.Assert(t, qt.IsNil(json.Unmarshal(out, &repaired)), qt.Commentf("%s", out))
	t.Logf("%+v in %v", repaired, time.Since(start))
	// All heads are shorter than the 270 bytes that the filter reads.
	qt.Check(t, qt.DeepEquals(repaired, agentReport{
		JITed: true, Repaired: true, Requests: found + missing, Answers: found + missing, Statuses: map[uint16]int{200: found, 404: missing},
	}))
}

func testParserNatively(t *testing.T, dir, object string, refused bool) {
	if os.Getenv(wire.KernelEnv) == "7" && !vmtest.Long() {
		return // a minute in an emulated machine, and as on 5.10
	}
	explanation := filepath.Join(dir, "explanation")
	var native agentReport
	start := time.Now()
	out := runAs(t, "bpfwhy", "run", "--json", "--output", explanation, "--", filepath.Join(dir, "agent"), object, "native")
	qt.Assert(t, qt.IsNil(json.Unmarshal(out, &native)), qt.Commentf("%s", out))
	t.Logf("%+v in %v", native, time.Since(start))
	qt.Check(t, qt.IsFalse(native.JITed))
	qt.Check(t, qt.Equals(native.Errno, map[bool]int{true: 524, false: 0}[refused]))
	text, err := os.ReadFile(explanation)
	qt.Assert(t, qt.IsNil(err))
	var said *load.Attempt
	for line := range strings.Lines(string(text)) {
		var a load.Attempt
		qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(line), &a)))
		if a.Program != nil && a.Program.Name == "http_filter" {
			said = &a
		}
	}
	qt.Assert(t, qt.IsNotNil(said), qt.Commentf("%s", text))
	qt.Assert(t, qt.IsNotNil(said.Diagnosis))
	t.Log(said.Diagnosis.Rule, said.Diagnosis.Cause)
	qt.Check(t, qt.Matches(said.Diagnosis.Rule, "BLIND00[123]"))
}

func TestGuestParser(t *testing.T) {
	kernel := guest(t)
	if kernel != "hardened" { // which is the one without an interpreter
		vmtest.Sampled(t)
	}
	testParser(t, parserCopy, kernel == "6.1" || kernel == "hardened")
}

func TestHostParser(t *testing.T) {
	onHost(t)
	if os.Getenv("BPFWHY_HOST_SYSCTL") != "1" {
		t.Skip("needs BPFWHY_HOST_SYSCTL=1: raises net.core.bpf_jit_harden")
	}
	raised, err := guardian.RaiseHarden(context.Background(), 2)
	qt.Assert(t, qt.IsNil(err))
	defer func() {
		report, err := raised.Restore()
		qt.Check(t, qt.IsNil(err))
		t.Log(report)
	}()
	refused, _ := node.Host().JITAlwaysOn()
	testParser(t, parserObject, refused)
}
