// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/test/vm/wire"
)

// The expected bytes are composed from the kernel's buffer-format.rst: magic,
// then thirteen fields of eight hexadecimal digits, name, content.
func TestCPIO(t *testing.T) {
	var got bytes.Buffer
	c := newCPIOWriter(&got)
	qt.Assert(t, qt.IsNil(c.file("/d/abc", 0o755, 2, strings.NewReader("hi"))))
	qt.Assert(t, qt.IsNil(c.folder("/d")))
	qt.Assert(t, qt.IsNil(c.symlink("/l", "d")))
	qt.Assert(t, qt.IsNil(c.device("/c", 5, 1)))
	qt.Assert(t, qt.IsNil(c.close()))

	//        inode    mode     uid      gid      links    mtime    size     major    minor    rmajor   rminor   namelen  check
	want := "070701" + "00000001000041ED00000000000000000000000100000000000000000000000000000000000000000000000000000002" + "00000000" + "d\x00" +
		"070701" + "00000002000081ED00000000000000000000000100000000000000020000000000000000000000000000000000000006" + "00000000" + "d/abc\x00" + "hi\x00\x00" +
		"070701" + "000000030000A1FF00000000000000000000000100000000000000010000000000000000000000000000000000000002" + "00000000" + "l\x00" + "d\x00\x00\x00" +
		"070701" + "000000040000218000000000000000000000000100000000000000000000000000000000000000050000000100000002" + "00000000" + "c\x00" +
		"070701" + "00000001000000000000000000000000000000010000000000000000000000000000000000000000000000000000000B" + "00000000" + "TRAILER!!!\x00\x00\x00\x00"
	qt.Check(t, qt.Equals(got.String(), want))
}

func TestCPIOShortFile(t *testing.T) {
	c := newCPIOWriter(&bytes.Buffer{})
	qt.Check(t, qt.ErrorMatches(c.file("/a", 0o644, 3, strings.NewReader("hi")), "archive a: EOF"))
	qt.Check(t, qt.ErrorMatches(c.hostFile("/null", "/dev/null"), "copy /dev/null: neither a file nor a folder"))
}

func TestMergedPath(t *testing.T) {
	for guest, want := range map[string]string{
		"/bin/sh":                     "/usr/bin/sh",
		"/lib64/ld-linux-x86-64.so.2": "/usr/lib64/ld-linux-x86-64.so.2",
		"/usr/lib/x":                  "/usr/lib/x",
		"/library/x":                  "/library/x",
		"/tmp/../bin/sh":              "/usr/bin/sh",
	} {
		qt.Check(t, qt.Equals(mergedPath(guest), want))
	}
}

func TestParseLdd(t *testing.T) {
	got, err := parseLdd([]byte("\tlinux-vdso.so.1 (0x00007ffd0c5f2000)\n" +
		"\tlibelf.so.1 => /lib/x86_64-linux-gnu/libelf.so.1 (0x00007f4e1c000000)\n" +
		"\t/lib64/ld-linux-x86-64.so.2 (0x00007f4e1c3c5000)\n"))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(got, []string{"/lib/x86_64-linux-gnu/libelf.so.1", "/lib64/ld-linux-x86-64.so.2"}))

	_, err = parseLdd([]byte("\tlibbpf.so.1 => not found\n"))
	qt.Check(t, qt.ErrorMatches(err, "libbpf.so.1 is not found"))
}

func TestBzImageRelease(t *testing.T) {
	image := make([]byte, 0x4000)
	copy(image[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(image[0x20e:], 0x3000-0x200)
	copy(image[0x3000:], "6.1.0-56-cloud-amd64 (debian-kernel@lists.debian.org) #1 SMP\x00")
	path := filepath.Join(t.TempDir(), "vmlinuz")
	write := func() { qt.Assert(t, qt.IsNil(os.WriteFile(path, image, 0o644))) }

	write()
	release, err := bzImageRelease(path)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(release, "6.1.0-56-cloud-amd64"))

	binary.LittleEndian.PutUint16(image[0x20e:], 0xffff)
	write()
	_, err = bzImageRelease(path)
	qt.Check(t, qt.ErrorMatches(err, "read kernel version of .*: offset 0x101ff is outside its header"))

	copy(image[0x202:], "ELF!")
	write()
	_, err = bzImageRelease(path)
	qt.Check(t, qt.ErrorMatches(err, "read kernel version of .*: not a bzImage"))
}

// A cached kernel needs no network, and a folder that a killed process left
// half written is not a kernel.
func TestCached(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("BPFWHY_KERNEL_CACHE", cache)
	_, err := Cached("6.1")
	qt.Check(t, qt.ErrorIs(err, os.ErrNotExist))

	dir := filepath.Join(cache, "6.1")
	qt.Assert(t, qt.IsNil(os.Mkdir(dir, 0o755)))
	qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(dir, "about.json"), []byte(`{"Release": "6.1.0-56", "Origin": "here"}`), 0o644)))
	_, err = Cached("6.1")
	qt.Check(t, qt.ErrorIs(err, os.ErrNotExist))

	qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(dir, "vmlinuz"), nil, 0o644)))
	image, err := Fetch(t.Context(), "6.1")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(image, Image{ID: "6.1", Path: filepath.Join(dir, "vmlinuz"), Release: "6.1.0-56", Origin: "here"}))

	_, err = Fetch(t.Context(), "6.2")
	qt.Check(t, qt.ErrorMatches(err, `no kernel "6.2" in the lab, which has 5.10, 6.1, 6.12, 7, hardened`))
}

func TestMachineCheck(t *testing.T) {
	for _, test := range []struct {
		machine Machine
		error   string
	}{
		{Machine{CPUs: 3}, "prepare machine: 3 CPUs, only 1 or 2 are reliable"},
		{Machine{MemoryMiB: -1}, "prepare machine: memory and timeout cannot be negative"},
		{Machine{Commands: [][]string{{}}}, "prepare machine: a command is empty"},
		{Machine{Files: map[string]string{"x": "/x"}}, `prepare machine: guest path "x" is not absolute`},
	} {
		_, err := Run(t.Context(), test.machine)
		qt.Check(t, qt.ErrorMatches(err, test.error))
	}
}

func TestTranscript(t *testing.T) {
	var port, live bytes.Buffer
	enc := wire.NewEncoder(&port)
	send := func(kind wire.Kind, payload string) {
		qt.Assert(t, qt.IsNil(enc.Encode(kind, []byte(payload))))
	}
	send(wire.Start, "")
	send(wire.Stdout, "out")
	send(wire.Stderr, "err")
	send(wire.Stdout, "\x00put")
	send(wire.Exit, `{"Code": 3, "Duration": 1500}`)
	send(wire.Start, "")
	got := transcript{commands: [][]string{{"a"}, {"b"}}, stdout: &live}
	qt.Assert(t, qt.IsNil(got.read(&port)))
	qt.Assert(t, qt.HasLen(got.outcomes, 2))
	first := got.outcomes[0]
	qt.Check(t, qt.Equals(string(first.Output), "outerr\x00put"))
	qt.Check(t, qt.Equals(string(first.Stdout), "out\x00put"))
	qt.Check(t, qt.Equals(string(first.Stderr), "err"))
	qt.Check(t, qt.Equals(first.ExitStatus, 3))
	qt.Check(t, qt.Equals(first.Duration, 1500))
	qt.Check(t, qt.Equals(live.String(), "out\x00put"))
	// The second did not end.
	qt.Check(t, qt.Equals(got.outcomes[1].ExitStatus, 137))
	qt.Check(t, qt.IsFalse(got.done))
}

func FuzzTranscript(f *testing.F) {
	var port bytes.Buffer
	enc := wire.NewEncoder(&port)
	for _, kind := range []wire.Kind{wire.Start, wire.Stdout, wire.Exit, wire.Files, wire.Done} {
		qt.Assert(f, qt.IsNil(enc.Encode(kind, []byte(`{"Code":0}`))))
	}
	f.Add(port.Bytes())
	f.Fuzz(func(t *testing.T, stream []byte) {
		got := transcript{commands: [][]string{{"a"}}}
		got.read(bytes.NewReader(stream))
		unpackFiles(got.files.Bytes())
	})
}

func TestMachineErrorIsSafeToPrint(t *testing.T) {
	err := error(&MachineError{Kernel: "6.1", Reason: "the kernel panicked", Console: []byte("a\r\n\x1b[2Jb\xff\x9bc\n")})
	qt.Check(t, qt.Equals(err.Error(), "run machine 6.1: the kernel panicked; its console ends:\na\n.[2Jb.c"))
	err = &MachineError{Kernel: "6.1", Reason: "x", Console: bytes.Repeat([]byte("y"), 5000)}
	qt.Check(t, qt.HasLen(err.Error(), len("run machine 6.1: x; its console ends:\n...")+4000))
	err = &MachineError{Kernel: "6.1", Reason: "x"}
	qt.Check(t, qt.ErrorMatches(err, ".*its console is empty"))
	_, ok := errors.AsType[*MachineError](err)
	qt.Check(t, qt.IsTrue(ok))
}
