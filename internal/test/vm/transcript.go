// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/test/vm/wire"
)

// maxOutput bounds what is kept of one machine's output, in bytes.
const maxOutput = 256 << 20

// collected is all that came over the port, and what ended it.
type collected struct {
	transcript
	err error
}

// brokenBy says why a machine did not do what was asked; "" when it did. qemuErr is how QEMU ended.
func (c *collected) brokenBy(qemuErr error, console []byte) string {
	switch {
	case c.fatal != "":
		return "its init gave up: " + c.fatal
	case c.err != nil && !errors.Is(c.err, io.ErrUnexpectedEOF):
		return c.err.Error()
	case c.done:
		return "" // whatever ended QEMU after that
	case qemuErr != nil:
		return qemuErr.Error()
	case bytes.Contains(console, []byte("Kernel panic")):
		return "the kernel panicked"
	}
	return "the machine went off before its commands were done"
}

// transcript is what came over the port.
type transcript struct {
	stdout, stderr io.Writer
	commands       [][]string

	outcomes []Outcome
	files    bytes.Buffer
	fatal    string
	done     bool
}

//revive:disable-next-line:cyclomatic a case for each kind of message
func (t *transcript) read(r io.Reader) error {
	total := 0
	for {
		kind, payload, err := wire.Decode(r)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if total += len(payload); total > maxOutput {
			return fmt.Errorf("the guest sent more than %d MiB", maxOutput>>20)
		}
		if kind == wire.Stdout || kind == wire.Stderr || kind == wire.Exit {
			if len(t.outcomes) == 0 {
				return errors.New("output came before any command")
			}
		}
		switch kind {
		case wire.Start:
			if len(t.outcomes) == len(t.commands) {
				return errors.New("more commands started than were asked for")
			}
			// Until the exit arrives, the command counts as killed.
			t.outcomes = append(t.outcomes, Outcome{Args: t.commands[len(t.outcomes)], ExitStatus: 128 + 9})
		case wire.Stdout, wire.Stderr:
			o := &t.outcomes[len(t.outcomes)-1]
			o.Output = append(o.Output, payload...)
			live := t.stdout
			if kind == wire.Stdout {
				o.Stdout = append(o.Stdout, payload...)
			} else {
				o.Stderr = append(o.Stderr, payload...)
				live = t.stderr
			}
			if live != nil {
				if _, err := live.Write(payload); err != nil {
					return err
				}
			}
		case wire.Exit:
			var status wire.Status
			if err := json.Unmarshal(payload, &status); err != nil {
				return fmt.Errorf("read exit status: %w", err)
			}
			o := &t.outcomes[len(t.outcomes)-1]
			o.ExitStatus, o.Duration = status.Code, time.Duration(status.Duration)
		case wire.Files:
			t.files.Write(payload)
		case wire.Fatal:
			t.fatal = string(payload)
		case wire.Done:
			t.done = true
		default:
			return fmt.Errorf("frame of unknown kind %q", byte(kind))
		}
	}
}

// follower reads a file that grows until gone is closed.
type follower struct {
	file *os.File
	gone <-chan struct{}
}

func (f *follower) Read(p []byte) (int, error) {
	for {
		// Asked before reading: what is written after gone was seen
		// closed does not exist.
		last := false
		select {
		case <-f.gone:
			last = true
		default:
		}
		n, err := f.file.Read(p)
		if n > 0 || err != io.EOF || last {
			return n, err
		}
		select {
		case <-f.gone:
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func unpackFiles(zipped []byte) (map[string][]byte, error) {
	if len(zipped) == 0 {
		return nil, nil
	}
	raw, err := gzip.NewReader(bytes.NewReader(zipped))
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w", wire.OutDir, err)
	}
	files := map[string][]byte{}
	archive := tar.NewReader(io.LimitReader(raw, maxOutput))
	for {
		header, err := archive.Next()
		if err == io.EOF {
			return files, nil
		}
		if err != nil {
			return nil, fmt.Errorf("unpack %s: %w", wire.OutDir, err)
		}
		if !filepath.IsLocal(header.Name) {
			return nil, fmt.Errorf("unpack %s: path %q leads out of it", wire.OutDir, header.Name)
		}
		if files[header.Name], err = io.ReadAll(archive); err != nil {
			return nil, fmt.Errorf("unpack %s: %w", wire.OutDir, err)
		}
	}
}
