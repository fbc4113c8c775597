// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"bytes"
	"debug/elf"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/sys/proc"
)

// Reason is why traffic of a process may not be seen. It is a guess from outside: the process has
// sockets, and the means to use them past the sources.
type Reason string

const (
	Java      Reason = "java"       // the JVM has a TLS of its own
	Go        Reason = "go"         // crypto/tls has no library
	Rust      Reason = "rust"       // rustls has no library
	Static    Reason = "static"     // a static executable without OpenSSL's symbols: whatever it speaks is within it
	NSS       Reason = "nss"        // Mozilla's library
	GnuTLS    Reason = "gnutls"     // a library with functions of other names
	IOUring   Reason = "io_uring"   // reads and writes without system calls
	Compat    Reason = "32-bit"     // whose system calls are others
	KernelTLS Reason = "kernel-tls" // of the whole machine: somebody lets the kernel encrypt, which no library needs to see (SSL_sendfile)
)

// Reasons are all of them.
var Reasons = []Reason{Java, Go, Rust, Static, NSS, GnuTLS, IOUring, Compat, KernelTLS}

// TLS reports whether it is TLS that may not be seen, while plain HTTP is.
func (r Reason) TLS() bool { return r != IOUring && r != Compat }

// Uncovered is a process that may do what no source sees.
type Uncovered struct {
	PID    int    // of our own pid namespace; 0: the machine
	Comm   string // anything that the process likes
	Reason Reason
}

// Census looks for processes that may do what no source sees. It remembers executables; it is for
// one goroutine.
type Census struct {
	exes map[fileID]exeFacts
}

// exeFacts is what an executable tells.
type exeFacts struct {
	compat, golang, rust, static, openssl bool
}

// maxFDs bounds how many descriptors of a process are looked at.
const maxFDs = 4096

// Take looks at all processes under /proc that may be looked at. One has several reasons, or none;
// one without sockets has none.
func (c *Census) Take() []Uncovered {
	if c.exes == nil || len(c.exes) >= maxLooked {
		c.exes = map[fileID]exeFacts{}
	}
	var list []Uncovered
	pids, _ := proc.Numbers("/proc")
	for _, pid := range pids {
		list = append(list, c.look(pid)...)
	}
	if b, _ := readUpTo("/proc/net/tls_stat", stringChunk); kernelTLS(b) {
		list = append(list, Uncovered{Reason: KernelTLS})
	}
	return list
}

func (c *Census) look(pid int) (list []Uncovered) {
	proc := "/proc/" + strconv.Itoa(pid)
	sockets, uring := descriptors(proc + "/fd")
	if !sockets {
		return nil
	}
	b, _ := readUpTo(proc+"/comm", 64)
	comm := strings.TrimSuffix(string(b), "\n")
	add := func(r Reason) { list = append(list, Uncovered{pid, comm, r}) }
	if uring {
		add(IOUring)
	}
	facts := c.facts(proc)
	if facts.compat {
		add(Compat)
	}
	openssl := facts.openssl
	maps, _ := mappings(proc + "/maps") // who is gone has none
	for _, m := range maps {
		name := m.path[strings.LastIndexByte(m.path, '/')+1:]
		switch {
		case strings.HasPrefix(name, "libjvm.so"):
			add(Java)
		case strings.HasPrefix(name, "libnss3.so"):
			add(NSS)
		case strings.HasPrefix(name, "libgnutls.so"):
			add(GnuTLS)
		case mayBeTLS(name):
			openssl = true
		}
	}
	switch {
	case facts.golang:
		add(Go) // also beside OpenSSL: which of the two it uses cannot be told
	case openssl:
	case facts.rust:
		add(Rust)
	case facts.static:
		add(Static)
	}
	return list
}

func descriptors(name string) (sockets, uring bool) {
	dir, err := os.Open(name)
	if err != nil {
		return false, false
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(maxFDs)
	for _, fd := range names {
		target, err := os.Readlink(name + "/" + fd)
		switch {
		case err != nil:
		case strings.HasPrefix(target, "socket:"):
			sockets = true
		case target == "anon_inode:[io_uring]":
			uring = true
		}
		if sockets && uring {
			break
		}
	}
	return sockets, uring
}

func (c *Census) facts(proc string) exeFacts {
	file, err := os.Open(proc + "/exe")
	if err != nil {
		return exeFacts{}
	}
	defer file.Close()
	id, err := identify(file)
	if err != nil {
		return exeFacts{}
	}
	if facts, ok := c.exes[id]; ok {
		return facts
	}
	facts := factsOf(file)
	c.exes[id] = facts
	return facts
}

func factsOf(r io.ReaderAt) exeFacts {
	f, err := readELF(r)
	if errors.Is(err, errNotELF) && f != nil {
		return exeFacts{compat: f.class == elf.ELFCLASS32}
	}
	if err != nil {
		return exeFacts{}
	}
	found, err := f.functions([]string{"SSL_write"})
	return exeFacts{
		golang:  f.section(".go.buildinfo") != nil,
		rust:    bytes.Contains(f.section(".comment"), []byte("rustc version")),
		static:  !f.interp,
		openssl: err == nil && len(found) > 0,
	}
}

// kernelTLS reads /proc/net/tls_stat (5.4): "TlsCurrTxSw 0".
func kernelTLS(text []byte) bool {
	for line := range bytes.Lines(text) {
		if f := bytes.Fields(line); len(f) == 2 && bytes.HasPrefix(f[0], []byte("TlsCurr")) && string(f[1]) != "0" {
			return true
		}
	}
	return false
}
