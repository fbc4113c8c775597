// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/httpprobe/event"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
)

// script is an executable with functions that have OpenSSL's names. Each jumps to where rbx points:
// what happens within a call is written down behind it.
type script struct {
	code, data bytes.Buffer
	texts      map[string]uint64 // where they are
}

// The file begins at scriptBase in memory.
const (
	scriptBase      = 0x400000
	scriptFunctions = 0x1000
	scriptCode      = 0x1200
	scriptData      = 0x4000
	scriptSymbols   = 0x5000
	scriptNames     = 0x5800
	scriptSections  = 0x5f00

	scriptCount = scriptBase + scriptData // where the number of bytes will be
)

func scriptFunction(name string) int {
	at := scriptFunctions
	for _, p := range sslProbes {
		if !p.ret && p.function == name {
			return at
		}
		if !p.ret {
			at += 16
		}
	}
	panic(name)
}

func newScript() *script {
	s := &script{texts: map[string]uint64{}}
	s.data.Write(make([]byte, 64))
	s.put(0x31, 0xc0, 0x31, 0xff) // read(0, data, 1): until somebody watches
	s.set(rsi, scriptBase+scriptData)
	s.set(rdx, 1)
	s.put(0x0f, 0x05)
	return s
}

func (s *script) put(b ...byte) { s.code.Write(b) }

// A register and its value.
var rax, rcx, rdx, rbx, rsi, rdi, r8 = []byte{0x48, 0xb8}, []byte{0x48, 0xb9}, []byte{0x48, 0xba}, []byte{0x48, 0xbb}, []byte{0x48, 0xbe}, []byte{0x48, 0xbf}, []byte{0x49, 0xb8}

func (s *script) set(register []byte, value uint64) {
	s.put(register...)
	s.put(binary.LittleEndian.AppendUint64(nil, value)...)
}

func (s *script) put32(n int) { s.put(binary.LittleEndian.AppendUint32(nil, uint32(n))...) }

// call calls a function for an SSL and a text. In it the rest happens, and it returns a value; the
// length of the text is where those that have a pointer to it expect it.
func (s *script) call(function string, ssl uint64, text string, value int, within ...func()) {
	s.enter(0xe8, function, ssl, text, within, func() {
		s.set(rax, scriptCount)
		s.put(0x48, 0xc7, 0x00) // mov qword [rax], length
		s.put32(len(text))
		s.set(rax, uint64(uint32(value)))
		s.put(0xc3)
	})
}

// tail does in a function what a call does, but for a return of its own: it is the last that
// happens there.
func (s *script) tail(function string, ssl uint64, text string, value int) {
	s.enter(0xe9, function, ssl, text, nil, func() {
		s.set(rax, scriptCount)
		s.put(0x48, 0xc7, 0x00)
		s.put32(len(text))
		s.set(rax, uint64(uint32(value)))
		s.put(0xc3)
	})
}

// leave is a call that a jump leads out of.
func (s *script) leave(function string, ssl uint64, text string, within ...func()) {
	s.put(0x41, 0x57, 0x49, 0x89, 0xe7) // push r15; mov r15, rsp
	s.enter(0xe8, function, ssl, text, within, func() { s.put(0x4c, 0x89, 0xfc) })
	s.put(0x41, 0x5f)
}

// deeper is further down the stack.
func (s *script) deeper(within func()) {
	s.put(0x48, 0x81, 0xec) // sub rsp
	s.put32(256)
	within()
	s.put(0x48, 0x81, 0xc4)
	s.put32(256)
}

func (s *script) enter(how byte, function string, ssl uint64, text string, within []func(), end func()) {
	at, ok := s.texts[text]
	if !ok {
		at = scriptBase + scriptData + uint64(s.data.Len())
		s.texts[text] = at
		s.data.WriteString(text)
	}
	s.set(rdi, ssl)
	s.set(rsi, at)
	s.set(rdx, uint64(len(text)))
	if function == "SSL_write_ex2" {
		s.set(rcx, 0) // flags
		s.set(r8, scriptCount)
	} else {
		s.set(rcx, scriptCount)
		s.set(r8, 0)
	}
	const jump = 5
	s.set(rbx, uint64(scriptBase+scriptCode+s.code.Len()+10+2*jump))
	s.put(how)
	s.put32(scriptFunction(function) - (scriptCode + s.code.Len() + 4))
	s.put(0xe9) // when it has returned
	s.put32(0)
	from := s.code.Len()
	for _, f := range within {
		f()
	}
	end()
	binary.LittleEndian.PutUint32(s.code.Bytes()[from-4:], uint32(s.code.Len()-from))
}

func (s *script) file() []byte {
	s.put(0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05) // exit(0)
	b := make([]byte, scriptSections+3*64)
	if scriptCode+s.code.Len() > scriptData || scriptData+s.data.Len() > scriptSymbols {
		panic("long script")
	}
	put := func(at int, v any) { _, _ = binary.Encode(b[at:], binary.LittleEndian, v) }
	put(0, elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Entry: scriptBase + scriptCode,
		Phoff: 64, Shoff: scriptSections, Ehsize: 64, Phentsize: 56, Phnum: 2, Shentsize: 64, Shnum: 3,
	})
	put(64, []elf.Prog64{
		{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: scriptBase, Filesz: scriptData, Memsz: scriptData, Align: 0x1000},
		{
			Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_W), Off: scriptData, Vaddr: scriptBase + scriptData,
			Filesz: scriptSymbols - scriptData, Memsz: scriptSymbols - scriptData, Align: 0x1000,
		},
	})
	symbols, names := []elf.Sym64{{}}, []byte{0}
	for _, p := range sslProbes {
		if p.ret {
			continue
		}
		at := scriptFunction(p.function)
		copy(b[at:], []byte{0x90, 0xff, 0xe3}) // nop; jmp rbx
		symbols = append(symbols, elf.Sym64{
			Name: uint32(len(names)), Info: byte(elf.STB_GLOBAL)<<4 | byte(elf.STT_FUNC), Shndx: 1, Value: scriptBase + uint64(at),
		})
		names = append(append(names, p.function...), 0)
	}
	copy(b[scriptCode:], s.code.Bytes())
	copy(b[scriptData:], s.data.Bytes())
	put(scriptSymbols, symbols)
	copy(b[scriptNames:], names)
	put(scriptSections, []elf.Section64{
		{},
		{Type: uint32(elf.SHT_SYMTAB), Off: scriptSymbols, Size: uint64(len(symbols)) * symbolSize, Link: 2, Entsize: symbolSize},
		{Type: uint32(elf.SHT_STRTAB), Off: scriptNames, Size: uint64(len(names))},
	})
	return b
}

// testScripts: what is told of calls within calls, in the order of their returns, and what is said
// to be lost.
func testScripts(t *testing.T) {
	tests := []struct {
		name string
		play func(s *script)
		want []string
		lost uint64
	}{
		{"one by one", func(s *script) {
			s.call("SSL_read", 1, "a read", 6)
			s.call("SSL_read", 1, "tried again", -1)
			s.call("SSL_write", 1, "a write", 7)
			s.call("SSL_read_ex", 2, "a read_ex", 1)
			s.call("SSL_read_ex", 2, "tried again", 0)
			s.call("SSL_write_ex", 2, "a write_ex", 1)
			s.call("SSL_write_ex2", 2, "a write_ex2", 1)
			s.call("SSL_write_ex2", 2, "tried again", 0)
			s.call("SSL_read_early_data", 2, "tried again", 0)
			s.call("SSL_read_early_data", 2, "a read_early_data", 1)
			s.call("SSL_read_early_data", 2, "the end", 2)
			s.call("SSL_write_early_data", 2, "a write_early_data", 1)
		}, []string{
			"in a read", "out a write", "in a read_ex", "out a write_ex", "out a write_ex2", "in a read_early_data", "out a write_early_data",
		}, 0},
		{"TLS in TLS", func(s *script) {
			s.call("SSL_read", 1, "outer", 5, func() { s.call("SSL_read_ex", 2, "inner", 1) })
			s.call("SSL_write", 1, "out of all", 10, func() {
				s.call("SSL_write", 2, "in it", 5, func() { s.call("SSL_read", 3, "tried again", -1) })
				s.call("SSL_write", 2, "again", 5)
			})
		}, []string{"in inner", "in outer", "out in it", "out again", "out out of all"}, 0},
		{"deep", func(s *script) {
			s.call("SSL_write", 1, "level 1", 7, func() {
				s.call("SSL_write", 2, "level 2", 7, func() {
					s.call("SSL_write", 3, "level 3", 7, func() {
						s.call("SSL_write", 4, "level 4", 7, func() { s.call("SSL_write", 5, "too deep", 8) })
					})
				})
			})
			s.call("SSL_write", 5, "later", 5)
		}, []string{"out level 4", "out level 3", "out level 2", "out level 1", "out later"}, 1},
		{"one by way of another", func(s *script) { // LibreSSL
			s.call("SSL_read_ex", 1, "once", 1, func() { s.call("SSL_read", 1, "once", 4) })
			s.call("SSL_write", 2, "outer", 5, func() {
				s.call("SSL_write_ex", 1, "twice", 1, func() { s.call("SSL_write", 1, "twice", 5) })
			})
			s.call("SSL_write_ex", 1, "tail", 1, func() { s.tail("SSL_write", 1, "tail", 4) })
			// OpenSSL
			s.call("SSL_write_ex", 1, "ex2", 1, func() { s.tail("SSL_write_ex2", 1, "ex2", 1) })
			s.call("SSL_read_early_data", 1, "early", 1, func() { s.call("SSL_read_ex", 1, "early", 1) })
			s.call("SSL_write_early_data", 1, "early", 1, func() { s.call("SSL_write_ex", 1, "early", 1) })
		}, []string{"in once", "out twice", "out outer", "out tail", "out ex2", "in early", "out early"}, 0},
		{"jumps out of calls", func(s *script) {
			for i := range uint64(6) {
				s.leave("SSL_read", 10+i, "never", func() { s.leave("SSL_read", 20+i, "never") })
			}
			s.call("SSL_read", 1, "a read", 6)
			s.call("SSL_read", 1, "outer", 5, func() {
				for i := range uint64(6) {
					s.leave("SSL_read", 30+i, "never", func() { s.leave("SSL_read", 40+i, "never") })
				}
				s.call("SSL_read", 2, "inner", 5)
			})
			s.leave("SSL_read", 3, "never")
			s.deeper(func() { s.call("SSL_read", 1, "further down", 12, func() { s.call("SSL_read", 2, "and further", 11) }) })
		}, []string{"in a read", "in inner", "in outer", "in and further", "in further down"}, 0},
	}
	var pids []int
	var waiting []func() // each begins when it is released
	for _, tt := range tests {
		s := newScript()
		tt.play(s)
		name := filepath.Join(t.TempDir(), "script")
		qt.Assert(t, qt.IsNil(os.WriteFile(name, s.file(), 0o700)))
		cmd := exec.Command(name)
		in, err := cmd.StdinPipe()
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(cmd.Start()))
		var once sync.Once
		release := func() {
			once.Do(func() {
				in.Close()
				qt.Check(t, qt.IsNil(cmd.Wait()))
			})
		}
		defer release()
		pids, waiting = append(pids, cmd.Process.Pid), append(waiting, release)
	}
	source, err := OpenSSL(Options{PIDs: pids})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	defer source.Close()
	lost := uint64(0)
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := collect(t, source)
			waiting[i]()
			time.Sleep(2 * lookInterval)
			c.stop()
			var got []string
			for _, e := range c.events {
				if e.Kind == event.Data {
					got = append(got, fmt.Sprintf("%s %s", map[event.Direction]string{event.In: "in", event.Out: "out"}[e.Dir], e.Data))
				}
			}
			qt.Check(t, qt.DeepEquals(got, tt.want))
			lost += tt.lost
			loss := source.Loss()
			qt.Check(t, qt.Equals(loss, event.Loss{MapFull: lost}))
		})
	}
}

func TestGuestScripts(t *testing.T) {
	vmtest.Sampled(t)
	guest(t)
	testScripts(t)
}

func TestHostScripts(t *testing.T) {
	onHost(t)
	if s, err := OpenSSL(Options{}); opened(t, s, err) {
		testScripts(t)
	}
}
