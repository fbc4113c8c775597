// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/demo/failing"
	"github.com/bpfwhy/bpfwhy/internal/repair/guardian"
	"github.com/bpfwhy/bpfwhy/internal/repair/interpose"
	"github.com/bpfwhy/bpfwhy/internal/repair/launch"
	"github.com/bpfwhy/bpfwhy/internal/repair/replay"
	"github.com/bpfwhy/bpfwhy/internal/serve/auditor"
	"github.com/bpfwhy/bpfwhy/internal/serve/exporter"
	"github.com/bpfwhy/bpfwhy/internal/watch/capture"
	"github.com/bpfwhy/bpfwhy/internal/watch/hang"
	"github.com/bpfwhy/bpfwhy/internal/watch/hang/hangtest"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

func TestMain(m *testing.M) {
	launch.Main()
	exporter.Main()
	auditor.Main()
	guardian.Main()
	hang.Main()
	hangtest.Main()
	interpose.Main()
	failing.Main()
	replay.Main()
	testscript.Main(m, map[string]func(){
		"bpfwhy":   func() { os.Exit(Main(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr)) },
		"load":     func() { os.Exit(failingLoad(os.Args[1:])) },
		"confined": func() { os.Exit(confined(os.Args[1:])) },

		againArgv0:        func() { os.Exit(loadAgain()) },
		withoutLatchArgv0: func() { os.Exit(withoutLatch(os.Args[1:])) },
	})
}

// failingLoad makes one load that ends in a known way: the command that scripts watch.
func failingLoad(args []string) int {
	p, err := failing.Find(args[0])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	res, err := p.Run()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(res)
	return 0
}

// canWatch tells whether this machine lets us watch at all.
var canWatch = sync.OnceValue(func() bool {
	c, err := capture.Open(context.Background(), capture.Options{})
	if err != nil {
		return false
	}
	c.Close()
	return true
})

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("NO_COLOR", "1")
			traces, err := filepath.Abs("../demo/testdata/traces") // real ones, by kernel
			if err != nil {
				return err
			}
			e.Setenv("TRACES", traces)
			nodes, err := filepath.Abs("../fleet/folder/testdata/nodes") // recordings of one load on five nodes
			if err != nil {
				return err
			}
			e.Setenv("NODES", nodes)
			objects, err := filepath.Abs("../objects/object/testdata")
			if err != nil {
				return err
			}
			e.Setenv("OBJECTS", objects)
			self, err := os.Executable() // which has the objects of package capture
			if err != nil {
				return err
			}
			e.Setenv("SELF", self)
			// The header of an object for x86-64.
			native := make([]byte, 64)
			copy(native, "\x7fELF\x02\x01\x01")
			native[16], native[18] = 1, 62
			// A program whose one long jump just fits.
			near, err := os.ReadFile("../demo/failing/testdata/far_jump.o")
			if err != nil {
				return err
			}
			long := append([]byte{0x15, 2}, binary.LittleEndian.AppendUint16(nil, 32279)...)
			near = bytes.Replace(near, long, binary.LittleEndian.AppendUint16(long[:2:2], 32279-620), 1)
			return errors.Join(os.WriteFile(filepath.Join(e.WorkDir, "native.o"), native, 0o600),
				os.WriteFile(filepath.Join(e.WorkDir, "near.o"), near, 0o600))
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "root":
				return os.Geteuid() == 0, nil
			case "watch":
				return canWatch(), nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": exits,
			"lines": lines,
			"await": await,
			"valid": valid,
		},
	})
}

// exits runs a command that must end with a status: "exits 2 bpfwhy watch --pid x", or with one of
// several: "exits 0|1 bpfwhy audit". A status of 2 is bad input, and that means one line on
// standard error, nothing on standard output, and no trace of a panic.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS COMMAND [ARGUMENT...]")
	}
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var e *exec.ExitError
		if !errors.As(err, &e) {
			ts.Fatalf("%v", err)
		}
		got = e.ExitCode()
	}
	if !slices.Contains(strings.Split(args[0], "|"), strconv.Itoa(got)) {
		ts.Fatalf("status %d, want %s", got, args[0])
	}
	stderr := ts.ReadFile("stderr")
	if strings.Contains(stderr, "goroutine ") || strings.Contains(stderr, "panic") {
		ts.Fatalf("a stack trace on standard error")
	}
	if got == bad && args[1] == "bpfwhy" {
		if strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "bpfwhy: ") || len(stderr) > 600 {
			ts.Fatalf("standard error is not one clear line: %q", stderr)
		}
	}
}

// await waits until a file holds a match: "await FILE REGEXP". Machines are slow and shared.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await FILE REGEXP")
	}
	re, err := regexp.Compile(`(?m)` + args[1])
	ts.Check(err)
	var b []byte
	for range 600 {
		b, _ = os.ReadFile(ts.MkAbs(args[0]))
		if re.Match(b) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	ts.Fatalf("no match for %q in %s: %s", args[1], args[0], b)
}

// valid checks JSON Lines against a published schema, that of attempts unless another is named:
// "valid FILE [SCHEMA]".
func valid(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: valid FILE [SCHEMA]")
	}
	name := "load-v2"
	if len(args) == 2 {
		name = args[1]
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	schema, err := c.Compile("../../docs/schema/" + name + ".schema.json")
	ts.Check(err)
	n := 0
	for l := range strings.Lines(ts.ReadFile(args[0])) {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(l))
		ts.Check(err)
		if err := schema.Validate(v); err != nil {
			ts.Fatalf("%v in %s", err, l)
		}
		n++
	}
	if n == 0 {
		ts.Fatalf("%s is empty", args[0])
	}
}

// lines checks the number of lines of a file, or of stdout or stderr.
func lines(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: lines FILE N")
	}
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	if got := strings.Count(ts.ReadFile(args[0]), "\n"); (got == want) == neg {
		ts.Fatalf("%s has %d lines", args[0], got)
	}
}
