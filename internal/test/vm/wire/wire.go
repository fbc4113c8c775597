// SPDX-License-Identifier: Apache-2.0

// Package wire is what a lab machine and its host say to each other: a
// specification going in with the initramfs, and frames coming out over a
// serial port of their own, where no kernel message can get between them.
package wire

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"
)

// SpecPath is where the init finds its [Spec] in the guest.
const SpecPath = "/lab/spec.json"

// Port is the guest's serial port for frames. ttyS0 is the console.
const Port = "/dev/ttyS1"

// OutDir is the guest folder whose files are handed back to the host.
const OutDir = "/out"

// KernelEnv names the kernel of the lab, such as "6.1", to every command run
// in a guest. Outside a guest it is not set.
const KernelEnv = "BPFWHY_LAB_KERNEL"

// MaxPayload bounds a frame's payload, in bytes.
const MaxPayload = 64 << 10

// Spec tells the init what to do before it powers the machine off.
type Spec struct {
	Commands    [][]string
	Dir         string
	Env         []string
	Sysctls     map[string]string // by dotted name
	KeepMemlock bool              // leave RLIMIT_MEMLOCK at the kernel's default
	CgroupV1    bool              // put the memory controller in a v1 hierarchy
}

// Kind is the meaning of a frame.
type Kind byte

const (
	Start  Kind = 'S' // the next command starts; no payload
	Stdout Kind = 'O' // bytes that the command wrote
	Stderr Kind = 'E'
	Exit   Kind = 'X' // the command ended; the payload is a JSON [Status]
	Files  Kind = 'F' // a piece of the gzipped tar of [OutDir]
	Fatal  Kind = '!' // the init gave up; the payload says why
	Done   Kind = 'D' // the machine did all that was asked; no payload
)

// Status is how a command ended.
type Status struct {
	Code     int   // exit status, or 128 plus the signal's number
	Duration int64 // nanoseconds of the guest's clock
}

// magic starts every frame, so that a byte lost on the way is an error and
// not a wrong output.
const magic = 0xB7

const headerLen = 6

// Encoder writes frames. Its methods may be called concurrently.
type Encoder struct {
	mu sync.Mutex
	w  io.Writer
}

// NewEncoder returns an encoder that writes to w.
func NewEncoder(w io.Writer) *Encoder { return &Encoder{w: w} }

// Encode writes payload as one or more frames of the given kind.
func (e *Encoder) Encode(kind Kind, payload []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		piece := payload[:min(len(payload), MaxPayload)]
		payload = payload[len(piece):]
		frame := make([]byte, headerLen, headerLen+len(piece))
		frame[0], frame[1] = magic, byte(kind)
		binary.BigEndian.PutUint32(frame[2:], uint32(len(piece)))
		if _, err := e.w.Write(append(frame, piece...)); err != nil {
			return fmt.Errorf("write frame: %w", err)
		}
		if len(payload) == 0 {
			return nil
		}
	}
}

// Writer returns a writer whose every Write becomes frames of the given kind.
func (e *Encoder) Writer(kind Kind) io.Writer { return frameWriter{e, kind} }

type frameWriter struct {
	e    *Encoder
	kind Kind
}

func (w frameWriter) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := w.e.Encode(w.kind, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Decode reads one frame. It returns io.EOF at a clean end, and
// io.ErrUnexpectedEOF where the stream stops within a frame.
func Decode(r io.Reader) (Kind, []byte, error) {
	var header [headerLen]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, nil, err
	}
	if header[0] != magic {
		return 0, nil, fmt.Errorf("read frame: starts with byte %#x, want %#x", header[0], magic)
	}
	n := binary.BigEndian.Uint32(header[2:])
	if n > MaxPayload {
		return 0, nil, fmt.Errorf("read frame: payload of %d bytes, at most %d allowed", n, MaxPayload)
	}
	payload := make([]byte, n)
	if _, err := io.ReadFull(r, payload); err != nil {
		return 0, nil, io.ErrUnexpectedEOF
	}
	return Kind(header[1]), payload, nil
}
