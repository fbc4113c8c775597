// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package reader

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	exporting "github.com/bpfwhy/bpfwhy/internal/serve/exporter"
	"github.com/bpfwhy/bpfwhy/internal/serve/stream"
)

const (
	firstWait = time.Second // before an exporter that ended is started again; then twice as long
	maxWait   = 30 * time.Second
	soon      = 5 * time.Second // an exporter that ends sooner than that cannot work at all
	stuck     = time.Minute     // it reads nothing for so long: it is killed
	endTime   = 15 * time.Second
)

// exporter is the process without rights. There is one at a time.
type exporter struct {
	Options
	ctx context.Context

	socket *os.File // nil: there is no process
	writer *stream.Writer
	cmd    *exec.Cmd
	ended  chan error
	began  time.Time
	wait   time.Duration
	starts int
	// settings are those that the process knows.
	settings map[string]string
}

func newExporter(ctx context.Context, o Options) *exporter {
	return &exporter{Options: o, ctx: ctx, wait: firstWait}
}

// start starts a process and tells it what it is to do.
func (e *exporter) start() error {
	ours, theirs, err := socketpair()
	if err != nil {
		return fmt.Errorf("start the exporter: %w", err)
	}
	defer theirs.Close()
	e.cmd = exec.Command("/proc/self/exe")
	e.cmd.Args = []string{exporting.Argv0}
	e.cmd.ExtraFiles = []*os.File{theirs, e.Page.File()} // streamFD, pageFD
	e.cmd.Stdout, e.cmd.Stderr = os.Stdout, os.Stderr
	if err := e.cmd.Start(); err != nil {
		ours.Close()
		return fmt.Errorf("start the exporter: %w", err)
	}
	e.socket, e.writer, e.began, e.starts = ours, stream.NewWriter(ours), time.Now(), e.starts+1
	e.settings = map[string]string{}
	cmd, ended := e.cmd, make(chan error, 1)
	e.ended = ended
	go func() { ended <- cmd.Wait() }()
	return e.write(true, stream.Message{Start: &stream.Start{Config: e.Config, Header: e.Header, Since: e.Since, Arrived: e.Page.Arrived(), Less: e.Less}})
}

func socketpair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.SetNonblock(fds[0], true); err != nil { // for the deadline
		return nil, nil, errors.Join(err, unix.Close(fds[0]), unix.Close(fds[1]))
	}
	return os.NewFile(uintptr(fds[0]), "exporter"), os.NewFile(uintptr(fds[1]), "reader"), nil
}

func (e *exporter) write(now bool, m stream.Message) error {
	if err := e.socket.SetWriteDeadline(time.Now().Add(stuck)); err != nil {
		return err
	}
	err := e.writer.Write(m)
	if err == nil && now {
		err = e.writer.Flush()
	}
	return err
}

// send hands over a line, with the next ones or now. Without a process to take it, it waits for
// one: the kernel keeps what comes meanwhile, and counts what finds no room. An error is one after
// which nothing can be sent.
func (e *exporter) send(now bool, m stream.Message) error {
	if e.socket == nil {
		if err := e.restart(); err != nil {
			if m.Call != nil {
				e.Page.Arrive() // the next service counts it as lost
			}
			return err
		}
	}
	if m.Call != nil {
		e.Page.Arrive() // before it can be lost
	}
	if err := e.write(now, m); err != nil {
		return e.lost(err)
	}
	if e.wait > firstWait && time.Since(e.began) > maxWait {
		e.wait = firstWait
	}
	return nil
}

// lost cleans up after a process that takes nothing any more. What it was sent and did not account
// for is counted by the next one, and not sent again: it may be why it ended.
func (e *exporter) lost(why error) error {
	if errors.Is(why, os.ErrDeadlineExceeded) {
		e.Say("serve: the process that exports reads nothing; it is started again")
	}
	e.socket.Close()
	e.socket = nil
	_ = e.cmd.Process.Kill()
	err := <-e.ended
	if e.starts == 1 && time.Since(e.began) < soon && err != nil && e.cmd.ProcessState.Exited() {
		return errors.New("the process that exports could not start; it said why")
	}
	e.Say("serve: the process that exports ended (%v); it is started again in %s", e.cmd.ProcessState, e.wait)
	return nil
}

func (e *exporter) restart() error {
	for {
		select {
		case <-e.ctx.Done():
			return errors.New("there is no process that exports what is left")
		case <-time.After(e.wait):
		}
		e.wait = min(2*e.wait, maxWait)
		err := e.start()
		if err == nil {
			return nil
		}
		e.Say("serve: %v", err)
		if e.socket != nil {
			if err := e.lost(err); err != nil {
				return err
			}
		}
	}
}

// end says that there is no more, and waits for the process.
func (e *exporter) end() error {
	if e.socket == nil {
		return nil
	}
	err := e.socket.Close()
	select {
	case ended := <-e.ended:
		if ended != nil {
			return fmt.Errorf("the process that exports: %w", ended)
		}
	case <-time.After(endTime):
		return errors.Join(errors.New("the process that exports did not end, and was killed"), e.cmd.Process.Kill())
	}
	return err
}
