// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/bpfwhy/bpfwhy/load"
)

// client is a child that loads programs.
type client struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *json.Decoder
	stderr bytes.Buffer
	reap   sync.Once
	ended  chan struct{}
}

// grace is how long a killed child may take to end before it is left to the kernel.
const grace = 5 * time.Second

// start starts a child that has made everything that the program refers to. The error is a *verdict
// when it could not.
func start(ctx context.Context, s *setup, timeout time.Duration) (*client, *answer, error) {
	c := &client{cmd: exec.Command("/proc/self/exe"), ended: make(chan struct{})}
	c.cmd.Args = []string{Argv0}
	c.cmd.Dir = "/"
	c.cmd.Env = []string{"GOTRACEBACK=none"}
	// A Ctrl-C is ours to handle. The child ends with its standard input when we are gone.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.cmd.Stderr = &limited{b: &c.stderr}
	in, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, nil, fmt.Errorf("open pipe: %w", err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, nil, fmt.Errorf("open pipe: %w", err)
	}
	c.in, c.out = in, json.NewDecoder(out)
	if err := c.cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("start a child: %w", err)
	}
	a, err := c.ask(ctx, s, timeout)
	if err != nil {
		c.close()
		return nil, nil, err
	}
	return c, a, nil
}

// ask sends a message and waits for the answer. A child that takes too long is killed. The error is
// a *verdict for that, and for what the child could not do.
func (c *client) ask(ctx context.Context, message any, timeout time.Duration) (*answer, error) {
	type reply struct {
		answer
		error
	}
	done := make(chan reply, 1)
	go func() {
		var r reply
		if r.error = json.NewEncoder(c.in).Encode(message); r.error == nil {
			r.error = c.out.Decode(&r.answer)
		}
		done <- r
	}()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case r := <-done:
		if r.error != nil {
			if err := c.kill(); err != nil {
				return nil, err
			}
			return nil, fmt.Errorf("talk to the child: %w: %s", r.error, bytes.TrimSpace(c.stderr.Bytes()))
		}
		if r.answer.Error != "" {
			return nil, refuse("cannot %s", r.answer.Error)
		}
		return &r.answer, nil
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), c.kill())
	case <-timer.C:
		if err := c.kill(); err != nil {
			return nil, err
		}
		return nil, &verdict{load.ReplayDiscarded, fmt.Sprintf("the kernel did not finish within %s and was stopped", timeout)}
	}
}

// kill ends the child, and waits for that unless the kernel does not let it.
func (c *client) kill() error {
	_ = c.cmd.Process.Kill() // it may have ended
	c.reap.Do(func() {
		go func() {
			_ = c.cmd.Wait() // it was killed
			close(c.ended)
		}()
	})
	select {
	case <-c.ended:
		return nil
	case <-time.After(grace):
		return ErrStuck
	}
}

// close ends the child, and with it everything that it has open. Whoever gave up on it has said so
// already.
func (c *client) close() { _ = c.kill() }

// limited keeps the first 4 KiB.
type limited struct{ b *bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	l.b.Write(p[:min(len(p), 4096-l.b.Len())])
	return len(p), nil
}
