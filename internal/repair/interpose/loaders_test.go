// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
)

// Loaders of different make load programs that blinding breaks, as their users wrote them.

// build makes the loaders and what they load, in a folder of its own.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = "testdata"
		out, err := cmd.CombinedOutput()
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s %v: %s", name, args, out))
	}
	run("clang", "-O2", "-g", "-target", "bpf", "-mcpu=v2", "-Wall", "-Werror", "-c", "far.bpf.c", "-o", filepath.Join(dir, "far.o"))
	run("cc", "-O1", "-Wall", "-Werror", "-static", "-o", filepath.Join(dir, "raw"), "raw.c")
	run("cc", "-O1", "-Wall", "-Werror", "-static", "-o", filepath.Join(dir, "libbpf"), "libbpf.c", "-lbpf", "-lelf", "-lz")
	qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(dir, "far.bin"), insn.Encode(far(100, farBody)), 0o644)))
	py, err := os.ReadFile("testdata/load.py")
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(dir, "load.py"), py, 0o644)))
	return dir
}

// said is what each of the loaders prints of a program that works as it should.
func said(first, second, third uint32) string {
	return fmt.Sprintf("errno 0 jited 1 ran %d %d %d count 2\n", first, second, third)
}

func saidRaw() string { return said(7, sum(100, farBody), sum(200, farBody)) }
func saidELF() string { return said(7, walk(100), walk(200)) }

// walk is what the program of far.bpf.c computes.
func walk(length uint64) uint32 {
	x, y := length, uint64(0)
	six := func() {
		for range 6 {
			x ^= y
			y += x
		}
	}
	for range 269 {
		six()
		six()
		x += 4711
		six()
		six()
		y += 4712
		six()
	}
	return uint32(x)
}

func TestHostLoaders(t *testing.T) {
	hardened(t)
	dir := build(t)
	testLoaders(t, dir, "/usr/sbin/bpftool")
	t.Run("python", func(t *testing.T) {
		python := find(t, "/usr/bin/python3")
		native, err := exec.Command(python, "-I", "-S", dir+"/load.py", dir+"/far.bin").CombinedOutput()
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(string(native), "errno 524\n"))
		out, repairs := under(t, true, python, python, "-I", "-S", dir+"/load.py", dir+"/far.bin")
		qt.Check(t, qt.Equals(out, saidRaw()))
		qt.Check(t, qt.Equals(len(repairs), 1))
	})
	t.Run("bpftrace", func(t *testing.T) { testBpftrace(t, find(t, "/usr/bin/bpftrace")) })
}

func find(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.EvalSymlinks(name)
	if err != nil {
		t.Fatalf("%s is not installed (scripts/install-deps.sh)", name)
	}
	return path
}

// TestKernelLoaders takes the loaders to the kernels of the lab.
func TestKernelLoaders(t *testing.T) {
	vmtest.Need(t)
	dir := build(t)
	m := vm.Machine{Timeout: 5 * time.Minute, Files: map[string]string{"/loaders": dir}}
	files, err := vm.Binary(find(t, "/usr/sbin/bpftool"))
	qt.Assert(t, qt.IsNil(err))
	for guest, host := range files {
		m.Files[guest] = host
	}
	vmtest.RunIn(t, vmtest.Sample(), "^TestInGuestLoaders", m)
}

func TestInGuestLoaders(t *testing.T) {
	vmtest.Guest(t)
	hardened(t)
	testLoaders(t, "/loaders", "/usr/sbin/bpftool")
}

func testLoaders(t *testing.T, dir, bpftool string) {
	t.Run("c", func(t *testing.T) {
		native, err := exec.Command(dir+"/raw", dir+"/far.bin").CombinedOutput()
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Not(qt.Equals(string(native), saidRaw())))
		out, repairs := under(t, true, dir+"/raw", "raw", dir+"/far.bin")
		qt.Check(t, qt.Equals(out, saidRaw()))
		qt.Check(t, qt.Equals(len(repairs), 1))
	})
	t.Run("libbpf", func(t *testing.T) {
		native, err := exec.Command(dir+"/libbpf", dir+"/far.o").Output()
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Not(qt.Equals(string(native), saidELF())))
		out, repairs := under(t, true, dir+"/libbpf", "libbpf", dir+"/far.o")
		qt.Check(t, qt.Equals(out, saidELF()))
		qt.Check(t, qt.Equals(len(repairs), 1))
	})
	t.Run("cilium", func(t *testing.T) {
		out, repairs := under(t, true, "/proc/self/exe", ciliumArgv0, dir+"/far.o")
		qt.Check(t, qt.Equals(out, saidELF()))
		qt.Check(t, qt.Equals(len(repairs), 1))
	})
	t.Run("bpftool", func(t *testing.T) {
		pin := bpffs(t)
		_, repairs := under(t, true, find(t, bpftool), "bpftool", "prog", "load", dir+"/far.o", pin)
		qt.Check(t, qt.Equals(len(repairs), 1))
		fd, err := open(pin)
		qt.Assert(t, qt.IsNil(err))
		defer unix.Close(fd)
		r := result{FD: fd}
		qt.Assert(t, qt.IsNil(r.ask(-1)))
		qt.Check(t, qt.IsTrue(r.JITed))
		qt.Check(t, qt.Equals(r.Ran, [3]uint32{7, walk(100), walk(200)}))
		// Its source lines have moved with the code.
		var info [232]byte
		qt.Assert(t, qt.IsNil(infoInto(fd, info[:])))
		qt.Check(t, qt.Not(qt.Equals(binary.NativeEndian.Uint32(info[176:]), 0))) // nr_line_info
	})
}

const ciliumArgv0 = "interpose-cilium"

// ciliumLoader is a loader with cilium/ebpf.
func ciliumLoader(args []string) int {
	coll, err := ebpf.LoadCollection(args[0])
	if err != nil {
		fmt.Printf("errno %v\n", err)
		return 0
	}
	prog, counts := coll.Programs["far"], coll.Maps["counts"]
	r := result{FD: prog.FD()}
	if err := r.ask(counts.FD()); err != nil {
		fmt.Println(err)
		return 1
	}
	jited := 0
	if r.JITed {
		jited = 1
	}
	fmt.Printf("errno 0 jited %d ran %d %d %d count %d\n", jited, r.Ran[0], r.Ran[1], r.Ran[2], r.Count)
	return 0
}

// bpffs returns a path to pin something at.
func bpffs(t *testing.T) string {
	t.Helper()
	const dir = "/sys/fs/bpf"
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || st.Type != unix.BPF_FS_MAGIC {
		if !inGuest() {
			t.Skip("bpffs is not mounted")
		}
		qt.Assert(t, qt.IsNil(unix.Mount("bpf", dir, "bpf", 0, "")))
	}
	pin := fmt.Sprintf("%s/bpfwhy-test-%d", dir, os.Getpid())
	t.Cleanup(func() { os.Remove(pin) })
	return pin
}

func open(pin string) (int, error) {
	path := append([]byte(pin), 0)
	a := struct {
		path      uint64
		fd, flags uint32
	}{}
	return bpfWith(unix.BPF_OBJ_GET, unsafe.Pointer(&a), unsafe.Sizeof(a), pointer{&a.path, unsafe.Pointer(&path[0])})
}

func infoInto(fd int, info []byte) error {
	a := struct {
		fd, len uint32
		info    uint64
	}{uint32(fd), uint32(len(info)), 0}
	_, err := bpfWith(unix.BPF_OBJ_GET_INFO_BY_FD, unsafe.Pointer(&a), unsafe.Sizeof(a), pointer{&a.info, unsafe.Pointer(&info[0])})
	return err
}

// testBpftrace runs a script with a clause that blinding breaks. It counts, and computes from the
// clock what we can compute again.
func testBpftrace(t *testing.T, bpftrace string) {
	const steps = 5700
	var script strings.Builder
	script.WriteString("interval:ms:20 { $t = nsecs; $a = $t; if ($t == 77) { @skip = 1; } else {\n")
	for i := range steps {
		fmt.Fprintf(&script, "$a = ($a ^ %d) + %d;\n", 7*i+1, i+3)
	}
	script.WriteString("}\n@n = count(); @t = $t; @v = $a; if (@done == 1) { exit(); } @done = 1; }\n")
	file := filepath.Join(t.TempDir(), "far.bt")
	qt.Assert(t, qt.IsNil(os.WriteFile(file, []byte(script.String()), 0o644)))
	native, err := exec.Command(bpftrace, file).CombinedOutput()
	qt.Assert(t, qt.IsNotNil(err))
	qt.Assert(t, qt.Matches(string(native), `(?s).*Error loading program.*`))
	out, repairs := under(t, true, bpftrace, bpftrace, file)
	qt.Check(t, qt.Equals(len(repairs), 1))
	value := func(name string) uint64 {
		m := regexp.MustCompile(`@` + name + `: (-?\d+)`).FindStringSubmatch(out)
		qt.Assert(t, qt.IsNotNil(m), qt.Commentf("%s in %q", name, out))
		v, err := strconv.ParseUint(m[1], 10, 64)
		qt.Assert(t, qt.IsNil(err))
		return v
	}
	qt.Check(t, qt.IsTrue(value("n") >= 2))
	want := value("t")
	for i := range uint64(steps) {
		want = (want ^ (7*i + 1)) + i + 3
	}
	qt.Check(t, qt.Equals(value("v"), want))
}
