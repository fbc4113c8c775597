// SPDX-License-Identifier: Apache-2.0

package object

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/go-quicktest/qt"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/repair/guardian"
)

var update = flag.Bool("update", false, "write the committed tables anew")

// The corpus is what the kernel tests BPF with. Debian's source package of the lab's kernel holds
// it.
const sourcePackage = "linux-source-6.1"

// ciObjects is how many of them every run takes; BPFWHY_LONG=1 takes all.
const ciObjects = 40

// always are objects that a sample must not miss: subprograms, static ones and their addresses,
// struct_ops, CO-RE, kfuncs, .kconfig and .ksyms, prog arrays filled by the object, large programs.
var always = []string{
	"bpf_dctcp", "bpf_iter_task_btf", "bpf_loop", "for_each_array_map_elem", "kfunc_call_test_subprog", "linked_funcs1", "profiler1",
	"pyperf100", "strobemeta_subprogs", "tailcall_bpf2bpf4", "test_core_extern", "test_core_reloc_kernel", "test_global_func1",
	"test_ksyms", "test_l4lb_noinline", "test_prog_array_init", "test_static_linked1", "test_subprogs", "test_xdp_noinline", "timer",
}

// row is what became of one object.
type row struct {
	name               string
	programs, insns    int
	limit              int
	functions, islands int
	libbpf, cilium     int    // programs of the original that they load
	differences        string // "" when the result loads like the original
	sourceLines        int    // compared
}

// TestSelftests gives the kernel's own BPF programs to fix, with so small a limit that islands
// appear everywhere, and loads them, before and after, with libbpf and cilium/ebpf.
func TestSelftests(t *testing.T) {
	if os.Getenv("BPFWHY_LAB") != "1" && os.Getenv("CI") != "true" {
		t.Skip("fetches a source package and loads programs; set BPFWHY_LAB=1")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	long := os.Getenv("BPFWHY_LONG") == "1"
	src := selftests(t)
	objects := compile(t, src, long)
	loadall := filepath.Join(t.TempDir(), "loadall")
	out, err := exec.Command("cc", "-O1", "-Wall", "-Werror", "-static", "-o", loadall, "testdata/loadall.c", "-lbpf", "-lelf", "-lz").CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))

	rows := make([]row, len(objects))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, path := range objects {
		g.Go(func() error {
			var err error
			if rows[i], err = fixAndLoad(t.TempDir(), path, loadall); err != nil {
				rows[i].differences = err.Error()
			}
			return nil
		})
	}
	qt.Assert(t, qt.IsNil(g.Wait()))
	var sum row
	changed := 0
	for _, r := range rows {
		qt.Check(t, qt.Equals(r.differences, ""), qt.Commentf("%s", r.name))
		sum.programs += r.programs
		sum.libbpf += r.libbpf
		sum.cilium += r.cilium
		sum.islands += r.islands
		sum.sourceLines += r.sourceLines
		if r.functions > 0 {
			changed++
		}
	}
	t.Logf("%d objects, %d of them changed, with %d islands; %d programs: libbpf loads %d, cilium/ebpf %d; %d source lines compared",
		len(rows), changed, sum.islands, sum.programs, sum.libbpf, sum.cilium, sum.sourceLines)
	qt.Check(t, qt.IsTrue(changed*3 >= len(rows)), qt.Commentf("islands in too few objects"))
	qt.Check(t, qt.IsTrue(sum.libbpf*3 >= sum.programs), qt.Commentf("too few programs load here at all to say anything"))
	qt.Check(t, qt.IsTrue(sum.sourceLines > 1000))
	if long && *update && !t.Failed() {
		writeTable(t, rows)
	}
}

// TestSelftestObjects leaves all objects of the corpus in the folder BPFWHY_OBJECTS, for those who
// measure with them.
func TestSelftestObjects(t *testing.T) {
	dir := os.Getenv("BPFWHY_OBJECTS")
	if dir == "" {
		t.Skip("set BPFWHY_OBJECTS to a folder")
	}
	qt.Assert(t, qt.IsNil(os.MkdirAll(dir, 0o755)))
	for _, path := range compile(t, selftests(t), true) {
		b, err := os.ReadFile(path)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(dir, filepath.Base(path)), b, 0o644)))
	}
}

// fixAndLoad gives one object to fix and compares the result with it.
func fixAndLoad(dir, path, loadall string) (row, error) {
	r := row{name: strings.TrimSuffix(filepath.Base(path), ".o")}
	b, err := os.ReadFile(path)
	if err != nil {
		return r, err
	}
	o, err := Parse(b)
	if err != nil {
		return r, err
	}
	r.programs = len(o.Programs)
	for _, c := range o.code {
		r.insns += len(c.insns)
	}
	var fixed *Fixed
	// Where too many jumps cross one place a limit can be too small.
	for _, r.limit = range []int{24, 64, 256, 1024} {
		if fixed, err = o.Fix(FixOptions{Kernel: blinding.Kernel{StoreProbeMem32: true}, Limit: r.limit}); err == nil {
			break
		}
	}
	if err != nil {
		return r, err
	}
	r.functions = len(fixed.Functions)
	for _, f := range fixed.Functions {
		r.islands += f.Islands
	}
	if !fixed.Changed() && !bytes.Equal(b, fixed.Bytes) {
		return r, errors.New("nothing was changed, and yet the bytes differ")
	}
	if r.sourceLines, err = sameProgram(b, fixed.Bytes, o, fixed); err != nil {
		return r, err
	}
	after := filepath.Join(dir, filepath.Base(path))
	if err := os.WriteFile(after, fixed.Bytes, 0o644); err != nil {
		return r, err
	}
	// Nobody hardens the machine meanwhile. One object at a time: others wait.
	lock, err := guardian.Lock(unix.LOCK_SH)
	if err != nil {
		return r, err
	}
	defer lock.Close()
	for _, loader := range []struct {
		name   string
		load   func(path string) (map[string]string, error)
		loaded *int
	}{
		{"libbpf", func(path string) (map[string]string, error) { return loadLibbpf(loadall, path) }, &r.libbpf},
		{"cilium/ebpf", loadCilium, &r.cilium},
	} {
		was, err := loader.load(path)
		if err != nil {
			return r, fmt.Errorf("%s: %w", loader.name, err)
		}
		is, err := loader.load(after)
		if err != nil {
			return r, fmt.Errorf("%s: %w", loader.name, err)
		}
		for name, outcome := range was {
			if outcome == "0" && name != "*" { // all at once
				*loader.loaded++
			}
			if is[name] != outcome {
				r.differences += fmt.Sprintf("%s: program %s: was %s, is %s; ", loader.name, name, outcome, is[name])
			}
		}
		if len(is) != len(was) {
			r.differences += fmt.Sprintf("%s: %d programs, were %d; ", loader.name, len(is), len(was))
		}
	}
	return r, nil
}

// loadLibbpf returns the errno that each program is loaded with.
func loadLibbpf(loadall, path string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, loadall, path).Output()
	if err != nil {
		return nil, err
	}
	outcomes := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) == 3 {
			outcomes[f[1]] = f[2]
		}
	}
	return outcomes, nil
}

// loadCilium loads each program with the maps that it uses and returns its errno, or the error of
// an object that cannot be read.
func loadCilium(path string) (map[string]string, error) {
	outcomes := map[string]string{}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(b)) // whose errors do not name the file
	if err != nil {
		return map[string]string{"-": unreadable(err)}, nil
	}
	for _, m := range spec.Maps {
		m.Pinning = ebpf.PinNone
	}
	for name := range spec.Programs {
		// LoadAndAssign loads what a structure asks for, and the maps that that needs.
		into := reflect.New(reflect.StructOf([]reflect.StructField{{
			Name: "Program", Type: reflect.TypeFor[*ebpf.Program](), Tag: reflect.StructTag(`ebpf:"` + name + `"`),
		}}))
		outcomes[name] = "0"
		if err := spec.Copy().LoadAndAssign(into.Interface(), nil); err != nil {
			outcomes[name] = errnoOf(err)
			continue
		}
		into.Elem().Field(0).Interface().(*ebpf.Program).Close()
	}
	return outcomes, nil
}

// unreadable is why cilium/ebpf does not read an object, but for the place, which moves.
func unreadable(err error) string {
	return regexp.MustCompile(`offset \d+`).ReplaceAllString(err.Error(), "offset N")
}

func errnoOf(err error) string {
	if e, ok := errors.AsType[unix.Errno](err); ok {
		return strconv.Itoa(int(e))
	}
	return "not loaded"
}

// sameProgram reads both objects with cilium/ebpf and compares each program instruction by
// instruction: the same operation, line of source, map, function, CO-RE relocation, at the place
// where fix says that it is now, and gotos in between. It returns how many lines were compared.
func sameProgram(before, after []byte, o *Object, f *Fixed) (lines int, err error) {
	was, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(before))
	if err != nil {
		_, errAfter := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(after))
		if errAfter == nil || unreadable(errAfter) != unreadable(err) {
			return 0, fmt.Errorf("cilium/ebpf: was %v, is %v", err, errAfter)
		}
		return 0, nil
	}
	is, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(after))
	if err != nil {
		return 0, err
	}
	if len(is.Programs) != len(was.Programs) {
		return 0, fmt.Errorf("%d programs, were %d", len(is.Programs), len(was.Programs))
	}
	for name, p := range was.Programs {
		q := is.Programs[name]
		if q == nil {
			return 0, fmt.Errorf("program %s is lost", name)
		}
		n, err := sameInstructions(p, q, o, f)
		if err != nil {
			return 0, fmt.Errorf("program %s: %w", name, err)
		}
		lines += n
	}
	return lines, nil
}

// placed is an instruction with its function and its slot in it.
type placed struct {
	asm.Instruction
	function string
	slot     int
}

func places(insns asm.Instructions) []placed {
	var list []placed
	function, slot := "", 0
	for _, in := range insns {
		if s := in.Symbol(); s != "" {
			function, slot = s, 0
		}
		list = append(list, placed{in, function, slot})
		slot++
		if in.OpCode.IsDWordLoad() {
			slot++
		}
	}
	return list
}

func sameInstructions(was, is *ebpf.ProgramSpec, o *Object, f *Fixed) (lines int, err error) {
	now := places(is.Instructions)
	n := 0
	for _, w := range places(was.Instructions) {
		i := slices.IndexFunc(o.functions, func(fn Function) bool { return fn.Name == w.function })
		if i < 0 {
			return 0, fmt.Errorf("no function %s", w.function)
		}
		slot := w.slot
		if moved := f.moved[o.functions[i].section]; moved != nil {
			start := o.functions[i].start
			slot = moved[start+slot] - moved[start]
		}
		for n < len(now) && (now[n].function != w.function || now[n].slot != slot) {
			if now[n].OpCode.JumpOp() != asm.Ja || now[n].Source() != nil {
				return 0, fmt.Errorf("before %s+%d there is now %v (%v)", w.function, w.slot, now[n].Instruction, now[n].Source())
			}
			n++
		}
		if n == len(now) {
			return 0, fmt.Errorf("%s+%d is lost", w.function, w.slot)
		}
		m := now[n]
		n++
		isJump := w.OpCode.Class().IsJump() && w.OpCode.JumpOp() != asm.Call
		switch {
		case m.OpCode != w.OpCode || m.Dst != w.Dst || m.Src != w.Src || !isJump && m.Offset != w.Offset:
			return 0, fmt.Errorf("%s+%d was %v, is %v", w.function, w.slot, w.Instruction, m.Instruction)
		case m.Constant != w.Constant && w.OpCode != asm.OpCode(insn.OpcodeGotol):
			return 0, fmt.Errorf("%s+%d has the constant %d instead of %d", w.function, w.slot, m.Constant, w.Constant)
		case m.Reference() != w.Reference():
			return 0, fmt.Errorf("%s+%d names %q instead of %q", w.function, w.slot, m.Reference(), w.Reference())
		case fmt.Sprint(m.Source()) != fmt.Sprint(w.Source()):
			return 0, fmt.Errorf("%s+%d is of line %v instead of %v", w.function, w.slot, m.Source(), w.Source())
		case fmt.Sprint(btf.CORERelocationMetadata(&m.Instruction)) != fmt.Sprint(btf.CORERelocationMetadata(&w.Instruction)):
			return 0, fmt.Errorf("%s+%d has another CO-RE relocation", w.function, w.slot)
		case (btf.FuncMetadata(&m.Instruction) == nil) != (btf.FuncMetadata(&w.Instruction) == nil):
			return 0, fmt.Errorf("%s+%d has lost its type", w.function, w.slot)
		}
		if w.Source() != nil {
			lines++
		}
	}
	return lines, nil
}

// selftests returns the folder tools/testing/selftests/bpf of the source package, which is unpacked
// once into the user's cache.
func selftests(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	qt.Assert(t, qt.IsNil(err))
	dir := filepath.Join(cache, "bpfwhy", sourcePackage)
	qt.Assert(t, qt.IsNil(os.MkdirAll(filepath.Dir(dir), 0o755)))
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	qt.Assert(t, qt.IsNil(err))
	defer lock.Close()
	qt.Assert(t, qt.IsNil(unix.Flock(int(lock.Fd()), unix.LOCK_EX)))
	bpf := filepath.Join(dir, "tools/testing/selftests/bpf")
	if _, err := os.Stat(bpf); err == nil {
		return bpf
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), "unpack-*")
	qt.Assert(t, qt.IsNil(err))
	defer os.RemoveAll(work)
	script := `set -eu
archive=/usr/src/` + sourcePackage + `.tar.xz
if [ ! -e "$archive" ]; then
	apt-get update -qq || true
	apt-get -o APT::Sandbox::User=root download -qq ` + sourcePackage + `
	dpkg-deb --fsys-tarfile *.deb | tar -xO ./usr/src/` + sourcePackage + `.tar.xz >archive
	archive=archive
fi
mkdir tree
tar -C tree --strip-components=1 -xJf "$archive" ` + sourcePackage + `/tools/testing/selftests/bpf ` + sourcePackage + `/tools/include`
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = work
	out, err := cmd.CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
	qt.Assert(t, qt.IsNil(os.Rename(filepath.Join(work, "tree"), dir)))
	return bpf
}

// compile builds a sample of the programs, or all that clang can: some name fields that this
// kernel's types do not have.
func compile(t *testing.T, src string, all bool) []string {
	t.Helper()
	dir := t.TempDir()
	header, err := exec.Command("bpftool", "btf", "dump", "file", "/sys/kernel/btf/vmlinux", "format", "c").Output()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(dir, "vmlinux.h"), header, 0o644)))
	resource, err := exec.Command("clang", "-print-resource-dir").Output()
	qt.Assert(t, qt.IsNil(err))
	sources, err := filepath.Glob(filepath.Join(src, "progs", "*.c"))
	qt.Assert(t, qt.IsNil(err))
	// What only holds types for others has no programs.
	sources = slices.DeleteFunc(sources, func(s string) bool { return strings.HasPrefix(filepath.Base(s), "btf__") })
	if !all {
		sources = sample(sources)
	}
	objects := make([]string, len(sources))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, source := range sources {
		g.Go(func() error {
			object := filepath.Join(dir, strings.TrimSuffix(filepath.Base(source), ".c")+".o")
			cmd := exec.Command("clang", "-g", "-O2", "-target", "bpf", "-mcpu=v3", "-D__TARGET_ARCH_x86", "-DENABLE_ATOMICS_TESTS",
				"-I"+dir, "-I"+src, "-I"+filepath.Join(src, "../../../include/uapi"),
				"-idirafter", filepath.Join(strings.TrimSpace(string(resource)), "include"),
				"-idirafter", "/usr/include/x86_64-linux-gnu", "-idirafter", "/usr/include", "-w", "-c", source, "-o", object)
			if slices.Contains([]string{"test_l4lb_noinline.c", "test_xdp_noinline.c"}, filepath.Base(source)) {
				cmd.Args = append(cmd.Args, "-fno-inline")
			}
			if cmd.Run() == nil {
				objects[i] = object
			}
			return nil
		})
	}
	qt.Assert(t, qt.IsNil(g.Wait()))
	objects = slices.DeleteFunc(objects, func(o string) bool { return o == "" })
	qt.Assert(t, qt.IsTrue(len(objects) >= ciObjects), qt.Commentf("only %d of %d compile", len(objects), len(sources)))
	if !all {
		objects = objects[:ciObjects]
	}
	return objects
}

// sample takes those that are always there, and others in equal steps; some more than are wanted,
// because not every kernel has the types that each needs.
func sample(sources []string) []string {
	var chosen, rest []string
	for _, s := range sources {
		if slices.Contains(always, strings.TrimSuffix(filepath.Base(s), ".c")) {
			chosen = append(chosen, s)
		} else {
			rest = append(rest, s)
		}
	}
	n := ciObjects + 10 - len(chosen)
	for i := range n {
		chosen = append(chosen, rest[i*len(rest)/n])
	}
	return chosen
}

// writeTable writes docs/selftests.md.
func writeTable(t *testing.T, rows []row) {
	t.Helper()
	slices.SortFunc(rows, func(a, b row) int { return cmp.Compare(a.name, b.name) })
	var u unix.Utsname
	qt.Assert(t, qt.IsNil(unix.Uname(&u)))
	version, err := exec.Command("clang", "--version").Output()
	qt.Assert(t, qt.IsNil(err))
	first, _, _ := strings.Cut(string(version), "\n")
	programs, islands, changed, libbpf, cilium := 0, 0, 0, 0, 0
	var b strings.Builder
	for _, r := range rows {
		programs, islands, libbpf, cilium = programs+r.programs, islands+r.islands, libbpf+r.libbpf, cilium+r.cilium
		if r.functions > 0 {
			changed++
		}
	}
	fmt.Fprintf(&b, `# The kernel's selftests through fix

Written by `+"`BPFWHY_LAB=1 BPFWHY_LONG=1 go test -run TestSelftests ./internal/objects/object -update`"+`. The
objects come from tools/testing/selftests/bpf/progs in Debian's %s: all that
%s compiles, with the types of the kernel that they were loaded on
(%s). Each object went through fix with the limit in the table. The limit is so small
that each jump that is not short gets an island. Then libbpf loaded the result program by program
and all at once, and cilium/ebpf loaded it too, like the original.

Every program had the same result as before. What loaded before still loads. What did not load has
the same errno: it needs another kernel or a module, or it is made to fail. Each instruction still
has its line, its map, its function and its CO-RE relocation, as cilium/ebpf reads them.

%d objects with %d programs; %d objects changed, with %d islands; libbpf loads %d of the programs, cilium/ebpf %d.

| object | programs | instructions | limit | functions changed | islands | loaded by libbpf | by cilium/ebpf |
|---|---|---|---|---|---|---|---|
`, sourcePackage, first, unix.ByteSliceToString(u.Release[:]), len(rows), programs, changed, islands, libbpf, cilium)
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d | %d | %d |\n", r.name, r.programs, r.insns, r.limit, r.functions, r.islands, r.libbpf, r.cilium)
	}
	qt.Assert(t, qt.IsNil(os.WriteFile("../../../docs/selftests.md", []byte(b.String()), 0o644)))
}
