// SPDX-License-Identifier: Apache-2.0

package failing

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/abi"
)

// Argv0 is the name under which an executable runs loads: see Main.
const Argv0 = "bpfwhy-failing"

// Main runs a load and ends the process if the executable was started as one (by Start);
// otherwise it returns at once. It belongs at the very start of main, and of TestMain in packages
// that use Start.
func Main() {
	if len(os.Args) == 0 || os.Args[0] != Argv0 {
		return
	}
	if err := runChild(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", Argv0, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func runChild(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "in-user-namespace":
		res := program{name: args[1], typ: abi.ProgTypeKprobe, insns: small()}.load()
		return json.NewEncoder(os.Stdout).Encode(res)
	case len(args) == 2 && args[0] == wasInterrupted:
		const restart = unix.Errno(512) // ERESTARTSYS, which the kernel keeps to itself
		return json.NewEncoder(os.Stdout).Encode(newResult(args[1], -1, restart, ""))
	case len(args) == 1 && args[0] == stormArg:
		return stormChild()
	case len(args) == 1 && args[0] == barrageArg:
		return barrageChild()
	case len(args) != 1:
		return errors.New("want one load")
	}
	p, err := Find(args[0])
	if err != nil {
		return err
	}
	if err := awaitStart(); err != nil {
		return err
	}
	res, err := p.Run()
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(res)
}

// awaitStart waits for a line from the parent, which may want to watch this process first.
func awaitStart() error {
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return fmt.Errorf("wait for the start: %w", err)
	}
	return nil
}

// child is this executable once more, waiting to be let go.
type child struct {
	cmd    *exec.Cmd
	start  io.WriteCloser
	result *bufio.Reader
	stderr limitedBuffer
}

func startChild(ctx context.Context, arg string) (*child, error) {
	c := &child{cmd: exec.CommandContext(ctx, "/proc/self/exe")}
	c.cmd.Args = []string{Argv0, arg}
	c.cmd.Stderr = &c.stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var err error
	if c.start, err = c.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("open pipe: %w", err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("open pipe: %w", err)
	}
	c.result = bufio.NewReader(out)
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start load: %w", err)
	}
	return c, nil
}

// PID is the process to watch.
func (c *child) PID() int { return c.cmd.Process.Pid }

// finish lets the process go, reads what it says, and waits for its end.
func (c *child) finish(read func(*json.Decoder) error) error {
	_, werr := io.WriteString(c.start, "\n")
	rerr := read(json.NewDecoder(c.result))
	c.start.Close()
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("run load: %w: %s", err, c.stderr.String())
	}
	if err := errors.Join(werr, rerr); err != nil {
		return fmt.Errorf("talk to load: %w", err)
	}
	return nil
}

// Kill ends a process that was not let go.
func (c *child) Kill() {
	c.cmd.Process.Kill()
	c.cmd.Wait()
}

// Process is a load in a process of its own, which waits for Go.
type Process struct{ *child }

// Start starts the process. It makes no bpf(2) before Go, but for the check for memory accounting
// that cilium/ebpf makes when it is linked in. It dies with ctx.
func Start(ctx context.Context, p Load) (*Process, error) {
	c, err := startChild(ctx, p.Name)
	if err != nil {
		return nil, err
	}
	return &Process{c}, nil
}

// Go lets the process make its load, waits for its end, and returns what the loader saw.
func (p *Process) Go() (Result, error) {
	var res Result
	err := p.finish(func(d *json.Decoder) error { return d.Decode(&res) })
	return res, err
}

// limitedBuffer keeps the first 4 KiB of what a child says.
type limitedBuffer struct{ b []byte }

func (l *limitedBuffer) Write(p []byte) (int, error) {
	l.b = append(l.b, p[:min(len(p), 4096-len(l.b))]...)
	return len(p), nil
}

func (l *limitedBuffer) String() string { return string(l.b) }
