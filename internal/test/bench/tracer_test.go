// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/test/vm/wire"
	"golang.org/x/sys/unix"
)

// The variants that are compared. The others are bpfwhy's backends, by name.
const (
	untraced = "untraced"
	script   = "script"
)

var variants = []string{untraced, "fentry", "kprobe", "tracepoint", "tp_btf", script}

// tracer is a tool that watches.
type tracer struct {
	cmd    *exec.Cmd
	output string // file that gets what it prints
	errors string // file
	ended  chan struct{}
	took   time.Duration // from its start until it showed a load
}

// patience is for bpftrace, which compiles its script in an emulated processor.
const patience = 2 * time.Minute

// errUnavailable is a tool that says that it cannot watch here.
var errUnavailable = errors.New("cannot watch")

// start starts a variant that is not untraced, and returns when it shows loads.
func (p programs) start(dir, variant string, args ...string) (*tracer, error) {
	argv := append([]string{p.bpfwhy, "watch", "--backend", variant}, args...)
	if variant == script {
		argv = []string{p.bpftrace, p.script}
		if os.Getenv(wire.KernelEnv) == "5.10" {
			header, err := filepath.Abs("testdata/5.10.h")
			if err != nil {
				return nil, err
			}
			argv = []string{p.bpftrace, "--include", header, p.script}
		}
	}
	return p.startCommand(dir, argv)
}

func (p programs) startCommand(dir string, argv []string) (*tracer, error) {
	t := &tracer{cmd: exec.Command(argv[0], argv[1:]...), output: filepath.Join(dir, "output"), errors: filepath.Join(dir, "errors"), ended: make(chan struct{})}
	output, err := os.Create(t.output)
	if err != nil {
		return nil, err
	}
	defer output.Close()
	errs, err := os.Create(t.errors)
	if err != nil {
		return nil, err
	}
	defer errs.Close()
	t.cmd.Stdout, t.cmd.Stderr = output, errs
	began := time.Now()
	if err := t.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { t.cmd.Wait(); close(t.ended) }()
	for {
		if out, err := exec.Command(p.loader, "-kind", "small").CombinedOutput(); err != nil {
			t.stop()
			return nil, fmt.Errorf("run loader: %w: %s", err, out)
		}
		select {
		case <-t.ended:
			said, err := os.ReadFile(t.errors)
			return nil, errors.Join(fmt.Errorf("%w: %s: %s", errUnavailable, t.cmd.ProcessState, bytes.TrimSpace(said)), err)
		case <-time.After(50 * time.Millisecond):
		}
		text, err := os.ReadFile(t.output)
		if err != nil || bytes.Contains(text, []byte("loader")) {
			t.took = time.Since(began)
			return t, err
		}
		if time.Since(began) > patience {
			t.stop()
			return nil, fmt.Errorf("%s: shows no load after %v", strings.Join(argv, " "), patience)
		}
	}
}

// settle waits until the tool has printed nothing for a while, longer than bpfwhy holds a failure
// back, and returns where its output ends.
func (t *tracer) settle() (int64, error) {
	last, quiet := int64(-1), 0
	for quiet < 10 {
		time.Sleep(150 * time.Millisecond)
		info, err := os.Stat(t.output)
		if err != nil {
			return 0, err
		}
		quiet++
		if info.Size() != last {
			last, quiet = info.Size(), 0
		}
	}
	return last, nil
}

// cpu is the processor time that the tool has used.
func (t *tracer) cpu() (time.Duration, error) {
	const schedClock = 2 // of the whole process, see clock_getcpuclockid(3)
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^t.cmd.Process.Pid)<<3|schedClock, &ts); err != nil {
		return 0, fmt.Errorf("read processor time of %s: %w", t.cmd.Path, err)
	}
	return time.Duration(ts.Nano()), nil
}

// stop ends the tool as a person does.
func (t *tracer) stop() error {
	t.cmd.Process.Signal(unix.SIGINT)
	select {
	case <-t.ended:
		return nil
	case <-time.After(patience):
		t.cmd.Process.Kill()
		return fmt.Errorf("stop %s: it does not end", t.cmd.Path)
	}
}
