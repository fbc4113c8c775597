// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"golang.org/x/sys/unix"
)

// far is a socket filter whose one jump blinding stretches out of reach: a packet of 64 bytes goes
// by way of it and gives 7, others walk through the body, which counts in the map and gives a sum.
// Emulated machines take their time for it: each constant that is blinded costs the kernel a copy
// of the program, and for each step of a sum it works bounds out. So there are few of both.
func far(mapFD int, body int) []insn.Instruction {
	p := []insn.Instruction{
		{Code: 0xbf, Dst: 6, Src: 1},         // r6 = ctx
		{Code: 0x61, Dst: 2, Src: 6, Off: 0}, // r2 = skb->len
		{Code: 0x15, Dst: 2, Imm: 64, Off: 0},
		{Code: 0xbf, Dst: 7, Src: 2},
		{Code: 0xbf, Dst: 8, Src: 2},
	}
	const jump = 2
	if mapFD >= 0 {
		p = append(p,
			insn.Instruction{Code: 0x62, Dst: 10, Off: -4}, // *(u32 *)(fp-4) = 0
			insn.Instruction{Code: 0xbf, Dst: 2, Src: 10},
			insn.Instruction{Code: 0x07, Dst: 2, Imm: -4},
			insn.Instruction{Code: 0x18, Dst: 1, Src: insn.PseudoMapFD, Imm: int32(mapFD)}, insn.Instruction{},
			insn.Instruction{Code: 0x85, Imm: 1}, // lookup
			insn.Instruction{Code: 0x15, Dst: 0, Off: 3},
			insn.Instruction{Code: 0x79, Dst: 1, Src: 0},
			insn.Instruction{Code: 0x07, Dst: 1, Imm: 1},
			insn.Instruction{Code: 0x7b, Dst: 0, Src: 1},
		)
	}
	for i := range body {
		switch {
		case i%constantEvery == constantEvery-1:
			p = append(p, insn.Instruction{Code: 0x07, Dst: 7, Imm: int32(i)})
		case i%16 == 0:
			p = append(p, insn.Instruction{Code: 0x0f, Dst: 7, Src: 8})
		case i%16 == 8:
			p = append(p, insn.Instruction{Code: 0xaf, Dst: 8, Src: 7})
		default:
			p = append(p, insn.Instruction{Code: 0xbf, Dst: 9, Src: 6})
		}
	}
	p = append(p, insn.Instruction{Code: 0xbc, Dst: 0, Src: 7}, insn.Instruction{Code: 0x95})
	p[jump].Off = int16(len(p) - jump - 1)
	return append(p, insn.Instruction{Code: 0xb7, Dst: 0, Imm: 7}, insn.Instruction{Code: 0x95})
}

// A body of farBody slots is one for which the jump has room as written. Blinded it has 126 more,
// and the jump has not.
const (
	farBody       = 32_700
	constantEvery = 512
)

// sum is what far returns for a packet that does not jump.
func sum(length uint32, body int) uint32 {
	r7, r8 := uint64(length), uint64(length)
	for i := range body {
		switch {
		case i%constantEvery == constantEvery-1:
			r7 += uint64(int64(int32(i)))
		case i%16 == 0:
			r7 += r8
		case i%16 == 8:
			r8 ^= r7
		}
	}
	return uint32(r7)
}

// result is what a loader says of a load.
type result struct {
	Errno int
	FD    int
	UID   uint32 // of the program
	Name  string
	JITed bool
	Log   string
	True  uint32    // log_true_size
	Ran   [3]uint32 // test runs with 64, 100 and 200 bytes
	Count uint64    // in the map
}

func sysBPF(cmd int, a unsafe.Pointer, size uintptr) (int, unix.Errno) {
	r, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(a), size)
	return int(r), errno
}

func newMap() (int, unix.Errno) {
	a := struct{ typ, key, value, entries, flags uint32 }{2, 4, 8, 1, 0}
	return sysBPF(unix.BPF_MAP_CREATE, unsafe.Pointer(&a), unsafe.Sizeof(a))
}

// request is a load to make.
type request struct {
	name     string
	code     []insn.Instruction
	logLevel uint32
	logSize  int
	change   func(*attr)
	size     int // of the attributes
}

func (r request) load() result {
	var a attr
	var pin runtime.Pinner
	defer pin.Unpin()
	address := func(b []byte) uint64 {
		pin.Pin(&b[0])
		return uint64(uintptr(unsafe.Pointer(&b[0])))
	}
	a.ProgType = 1
	a.InsnCnt = uint32(len(r.code))
	code := fenced(insn.Encode(r.code))
	defer unix.Munmap(code)
	a.Insns = uint64(uintptr(unsafe.Pointer(&code[len(code)-pageSize-len(r.code)*insn.Size])))
	a.License = address([]byte("GPL\x00"))
	a.ProgName = abi.NameOf(strings.Map(func(c rune) rune {
		if c == ' ' || c == ',' {
			return '_'
		}
		return c
	}, r.name))
	var log []byte
	if r.logLevel != 0 {
		log = make([]byte, r.logSize)
		a.LogLevel = r.logLevel
		a.LogSize = uint32(len(log))
		a.LogBuf = address(log)
	}
	if r.size == 0 {
		r.size = trueSizeAt + 4 // kernels that know less take zeros
	}
	if r.change != nil {
		r.change(&a)
	}
	var wide [512]byte // with what a newer loader would have
	copy(wide[:], abi.Bytes(&a))
	if r.size > attrSize {
		wide[300] = 1
	}
	pin.Pin(&wide)
	fd, errno := sysBPF(unix.BPF_PROG_LOAD, unsafe.Pointer(&wide), uintptr(r.size))
	a = abi.Read[attr](wide[:])
	out := result{Errno: int(errno), FD: fd, True: a.LogTrueSize}
	if i := indexZero(log); i >= 0 {
		out.Log = string(log[:i])
	}
	return out
}

// pageOf puts bytes into memory of some protection, for good.
func pageOf(protection int, b []byte) uint64 {
	m, err := unix.Mmap(-1, 0, max(pageSize, len(b)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err == nil {
		copy(m, b)
		err = unix.Mprotect(m, protection)
	}
	if err != nil {
		panic(err)
	}
	return uint64(uintptr(unsafe.Pointer(&m[0])))
}

const pageSize = 4096

// fenced puts bytes right in front of a page that nobody may touch.
func fenced(b []byte) []byte {
	size := (len(b) + pageSize - 1) / pageSize * pageSize
	m, err := unix.Mmap(-1, 0, size+pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err == nil {
		copy(m[size-len(b):], b)
		err = unix.Mprotect(m[size:], unix.PROT_NONE)
	}
	if err != nil {
		panic(err)
	}
	return m
}

func indexZero(b []byte) int {
	for i, c := range b {
		if c == 0 {
			return i
		}
	}
	return -1
}

// ask finds out about the program, and runs it where it may.
func (r *result) ask(mapFD int) error {
	if r.Errno != 0 {
		return nil
	}
	var info [232]byte
	a := struct {
		fd, len uint32
		info    uint64
	}{uint32(r.FD), uint32(len(info)), 0}
	if _, err := bpfWith(unix.BPF_OBJ_GET_INFO_BY_FD, unsafe.Pointer(&a), unsafe.Sizeof(a), pointer{&a.info, unsafe.Pointer(&info)}); err != nil {
		return err
	}
	r.JITed = binary.NativeEndian.Uint32(info[16:]) > 0
	r.UID = binary.NativeEndian.Uint32(info[48:]) // created_by_uid
	r.Name = string(info[64 : 64+max(0, indexZero(info[64:80]))])
	for i, n := range []int{64, 100, 200} {
		if !vmtest.MayRun(r.JITed) {
			break
		}
		in := make([]byte, 14+n) // a filter does not see the Ethernet header
		t := struct {
			fd, retval, sizeIn, sizeOut uint32
			in, out                     uint64
			repeat, duration            uint32
		}{fd: uint32(r.FD), sizeIn: uint32(len(in))}
		if _, err := bpfWith(unix.BPF_PROG_TEST_RUN, unsafe.Pointer(&t), unsafe.Sizeof(t), pointer{&t.in, unsafe.Pointer(&in[0])}); err != nil {
			return fmt.Errorf("run: %w", err)
		}
		r.Ran[i] = t.retval
	}
	if mapFD < 0 {
		return nil
	}
	var key uint32
	e := struct {
		fd         uint32
		_          uint32
		key, value uint64
		flags      uint64
	}{fd: uint32(mapFD)}
	_, err := bpfWith(unix.BPF_MAP_LOOKUP_ELEM, unsafe.Pointer(&e), unsafe.Sizeof(e), pointer{&e.key, unsafe.Pointer(&key)}, pointer{&e.value, unsafe.Pointer(&r.Count)})
	return err
}

// loader is what the test binary does as a loader. It prints a result in JSON for each load.
func loader(args []string) int {
	runtime.LockOSThread()
	if err := run(args); err != nil {
		fmt.Fprintln(os.Stderr, "loader:", err)
		return 1
	}
	return 0
}

func run(args []string) error {
	out := json.NewEncoder(os.Stdout)
	switch mode, rest := args[0], args[1:]; mode {
	case "as": // uid, capabilities, mode
		uid, err1 := strconv.Atoi(rest[0])
		caps, err2 := strconv.ParseUint(rest[1], 16, 64)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		// The calling thread alone: it is the thread that counts, and not the process.
		id := identity{uid: [4]int{uid, uid, uid, uid}, gid: [4]int{uid, uid, uid, uid}, caps: caps}
		if err := id.become(); err != nil {
			return err
		}
		return run(rest[2:])
	case "in-user-namespace":
		cmd := exec.Command("/proc/self/exe")
		cmd.Args = append([]string{loaderArgv0}, rest...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{Size: 1}}, GidMappings: []syscall.SysProcIDMap{{Size: 1}}}
		return cmd.Run()
	case "far", "far-log":
		m, errno := newMap()
		if errno != 0 {
			return fmt.Errorf("create map: %w", errno)
		}
		r := request{name: "far", code: far(m, farBody)}
		if mode == "far-log" {
			r.logLevel, r.logSize = 4, 1<<16
		}
		l := r.load()
		if err := l.ask(m); err != nil {
			return err
		}
		return out.Encode(l)
	case "plain-far": // of a type, and not asked about; twice if there is more
		typ, err := strconv.Atoi(rest[0])
		if err != nil {
			return err
		}
		if len(rest) > 1 {
			if err := run([]string{mode, rest[0]}); err != nil {
				return err
			}
		}
		return out.Encode(request{name: "far", code: far(-1, farBody), change: func(a *attr) { a.ProgType = uint32(typ) }}.load())
	case "hostile":
		for _, c := range hostile() {
			l := c.load()
			l.Name = c.name
			if l.Errno == 0 {
				unix.Close(l.FD)
				l.FD = 0
			}
			if err := out.Encode(l); err != nil {
				return err
			}
		}
		return nil
	case "hoard":
		code, err := hoard()
		if err != nil {
			return err
		}
		return out.Encode(request{name: "hoard", code: code}.load())
	case "small":
		l := request{name: "small", code: small}.load()
		if err := l.ask(-1); err != nil {
			return err
		}
		return out.Encode(l)
	case "traced":
		if err := trace(unix.SYS_BPF); err != nil {
			return err
		}
		return out.Encode(request{name: "small", code: small}.load()) // and nothing more: other commands wait for the tracer
	case "many":
		return many(rest)
	case "interrupted":
		return interrupted(rest)
	case "changing":
		return changing()
	case "forks":
		return forks(rest)
	case "time":
		return timed(rest)
	case "again":
		return again(rest)
	case "attack":
		return attacker(rest)
	}
	return fmt.Errorf("no load %q", args[0])
}

var small = []insn.Instruction{{Code: 0xb7, Imm: 7}, {Code: 0x95}}

// hostile are loads of a program that would have to be repaired, each wrong in one way.
func hostile() []request {
	code := far(-1, farBody)
	bad := slices.Clone(code)
	bad[3] = insn.Instruction{Code: 0xbf, Dst: 7, Src: 5} // never written
	unread := slices.Clone(code)
	unread[len(unread)-4] = insn.Instruction{Code: 0x05, Off: 20000} // leaves the program
	mapOf := func(fd int) []insn.Instruction { return far(fd, farBody) }
	pipe := [2]int{}
	_ = unix.Pipe2(pipe[:], unix.O_CLOEXEC)
	with := func(name string, change func(*attr)) request { return request{name: name, code: code, change: change} }
	index := mapOf(0)
	for i := range index {
		if index[i].Code == 0x18 {
			index[i].Src, index[i].Imm = insn.PseudoMapIdx, 1<<20
		}
	}
	return []request{
		{name: "rejected, with a log", code: bad, logLevel: 1, logSize: 1 << 16},
		{name: "rejected, log too short", code: bad, logLevel: 1, logSize: 130},
		{name: "log level of the future", code: code, logLevel: 1 << 20, logSize: 4096},
		{name: "wild jump", code: unread},
		{name: "closed map", code: mapOf(900)},
		{name: "pipe as map", code: mapOf(pipe[0])},
		{name: "index beyond everything", code: index},
		with("no instructions there", func(a *attr) { a.Insns = 4096 }),
		with("instructions of the kernel", func(a *attr) { a.Insns = 0xffffffff81000000 }),
		with("no license there", func(a *attr) { a.License = 4096 }),
		with("no log buffer there", func(a *attr) { a.LogLevel = 1; a.LogSize = 4096; a.LogBuf = 4096 }),
		with("log in a read-only page", func(a *attr) {
			a.LogLevel = 4
			a.LogSize = pageSize
			a.LogBuf = pageOf(unix.PROT_READ, nil)
		}),
		with("log in a page that is executed", func(a *attr) {
			a.LogLevel = 4
			a.LogSize = pageSize
			a.LogBuf = pageOf(unix.PROT_READ|unix.PROT_EXEC, nil)
		}),
		with("instructions that may not be read", func(a *attr) { a.Insns = pageOf(unix.PROT_NONE, insn.Encode(code)) }),
		with("license that may not be read", func(a *attr) { a.License = pageOf(unix.PROT_NONE, []byte("GPL\x00")) }),
		with("huge count", func(a *attr) { a.InsnCnt = 0xffffffff }),
		with("a million", func(a *attr) { a.InsnCnt = 1_000_000 }),
		with("more than a million", func(a *attr) { a.InsnCnt = 1_000_001 }),
		with("count beyond the memory", func(a *attr) { a.InsnCnt = 900_000 }),
		with("records without end", func(a *attr) { a.FuncInfoCnt = 0x7fffffff; a.FuncInfoRecSize = 0xffffffff }),
		with("records of nothing", func(a *attr) { a.LineInfoCnt = 7; a.LineInfoRecSize = 0 }),
		with("records nowhere", func(a *attr) {
			a.FuncInfoCnt = 1
			a.FuncInfoRecSize = 8
			a.FuncInfo = 4096
		}),
		with("no such BTF", func(a *attr) {
			a.FuncInfoCnt = 1
			a.FuncInfoRecSize = 8
			a.FuncInfo = a.Insns
			a.ProgBTFFD = 77
		}),
		with("attach to nothing", func(a *attr) { a.AttachFD = 66 }),
		with("unknown type", func(a *attr) { a.ProgType = 99 }),
		with("interface", func(a *attr) { a.ProgIfindex = 1 }),
		with("unknown flags", func(a *attr) { a.ProgFlags = 1 << 30 }),
		{name: "unknown tail", code: code, size: 400},
		{name: "short attributes", code: code, size: 16},
		{name: "no attributes", code: code, size: 1},
		{name: "endless attributes", code: code, size: 1 << 30},
	}
}

// many makes loads from many threads at once: small ones, and a big one that all make. It prints
// errnos and how often they came.
func many(args []string) error {
	threads, err1 := strconv.Atoi(args[0])
	each, err2 := strconv.Atoi(args[1])
	farEvery, err3 := strconv.Atoi(args[2]) // 0: never
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	code := far(-1, farBody)
	var mu sync.Mutex
	got := map[int]int{}
	jited := 0
	var wg sync.WaitGroup
	for range threads {
		wg.Go(func() {
			runtime.LockOSThread()
			for n := range each {
				r := request{name: "small", code: small}
				if farEvery > 0 && n%farEvery == farEvery-1 {
					r = request{name: "far", code: code}
				}
				l := r.load()
				for l.Errno == int(unix.EAGAIN) { // a signal of the collector
					l = r.load()
				}
				err := l.ask(-1)
				unix.Close(l.FD)
				mu.Lock()
				got[l.Errno]++
				if err == nil && l.JITed && l.Ran[0] == 7 {
					jited++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return json.NewEncoder(os.Stdout).Encode(struct {
		Errnos map[int]int
		JITed  int
	}{got, jited})
}

// fairPeriod is twice what an undisturbed load takes, on a machine that is as busy as this one.
const fairPeriod = "fair"

// interrupted loads while a timer fires again and again, and its handler lets the call start over.
func interrupted(args []string) error {
	var period time.Duration
	if args[0] != fairPeriod {
		var err error
		if period, err = time.ParseDuration(args[0]); err != nil {
			return err
		}
	}
	// A program of Go has handlers with SA_RESTART for every signal.
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGALRM)
	m, errno := newMap()
	if errno != 0 {
		return errno
	}
	r := request{name: "far", code: far(m, farBody)}
	if args[0] == fairPeriod {
		start := time.Now()
		if first := r.load(); first.Errno != 0 {
			return fmt.Errorf("load undisturbed: %w", unix.Errno(first.Errno))
		}
		period = 2 * time.Since(start)
	}
	stop := make(chan struct{})
	pid, tid := unix.Getpid(), unix.Gettid()
	go func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(period):
				_ = unix.Tgkill(pid, tid, unix.SIGALRM)
			}
		}
	}()
	l := r.load()
	tries := 1
	for ; l.Errno == int(unix.EAGAIN) || l.Errno == int(unix.EINTR); tries++ {
		if tries == 20 {
			close(stop) // as a loader would that has had enough
		}
		l = r.load()
	}
	if err := l.ask(m); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(l)
}

// changing loads while another thread changes all that the load is made of.
func changing() error {
	code := insn.Encode(far(-1, farBody))
	ok := bytes.Clone(code)
	var a attr
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&a)
	pin.Pin(&code[0])
	gpl := []byte("GPL\x00")
	pin.Pin(&gpl[0])
	whole := func() {
		a.ProgType = 1
		a.InsnCnt = uint32(len(code) / 8)
		a.Insns = uint64(uintptr(unsafe.Pointer(&code[0])))
		a.License = uint64(uintptr(unsafe.Pointer(&gpl[0])))
		a.ProgName = abi.NameOf("changing")
	}
	whole()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		rnd := rand.New(rand.NewPCG(1, 2))
		for {
			select {
			case <-stop:
				return
			default:
			}
			switch rnd.IntN(6) {
			case 0:
				code[rnd.IntN(len(code))] ^= byte(rnd.Uint32())
			case 1:
				copy(code, ok)
			case 2:
				a.InsnCnt = rnd.Uint32()
			case 3:
				a.Insns = rnd.Uint64()
			default:
				whole()
			}
		}
	})
	got := map[int]int{}
	rounds := 30
	if inGuest() {
		rounds = 6
	}
	for range rounds {
		fd, errno := sysBPF(unix.BPF_PROG_LOAD, unsafe.Pointer(&a), unsafe.Offsetof(a.FDArray))
		got[int(errno)]++
		if errno == 0 {
			unix.Close(fd)
		}
	}
	close(stop)
	wg.Wait()
	// And now the supervisor is still of use.
	l := request{name: "far", code: far(-1, farBody)}.load()
	if err := l.ask(-1); err != nil {
		file, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", l.FD))
		return fmt.Errorf("descriptor %d, %q, after %v: %w", l.FD, file, got, err)
	}
	fmt.Fprintln(os.Stderr, got)
	return json.NewEncoder(os.Stdout).Encode(l)
}

// forks starts processes that load and are killed at once, many at a time.
func forks(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	for i := range n {
		cmd := exec.Command("/proc/self/exe")
		cmd.Args = []string{loaderArgv0, "plain-far", "1"}
		if err := cmd.Start(); err != nil {
			return err
		}
		wg.Go(func() {
			time.Sleep(time.Duration(i%40) * 5 * time.Millisecond)
			cmd.Process.Kill()
			_ = cmd.Wait()
		})
		if i%8 == 7 {
			wg.Wait()
		}
	}
	wg.Wait()
	l := request{name: "far", code: far(-1, farBody)}.load()
	if err := l.ask(-1); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(l)
}

// again loads over and over and says each errno, until its input ends.
func again(args []string) error {
	r := request{name: "again", code: far(-1, farBody)}
	if args[0] == "small" {
		r.code = small
	}
	end := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(end)
	}()
	for {
		select {
		case <-end:
			return nil
		default:
		}
		l := r.load()
		if l.Errno == 0 {
			unix.Close(l.FD)
		}
		fmt.Println("errno", l.Errno)
	}
}

// become changes the calling thread, and no other.
func (a *identity) become() error {
	all := ^uint64(0)
	if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK, uintptr(unsafe.Pointer(&all)), 0, 8, 0, 0); errno != 0 {
		return fmt.Errorf("block signals: %w", errno)
	}
	groups := make([]uint32, len(a.groups)+1)
	for i, g := range a.groups {
		groups[i] = uint32(g)
	}
	if ours, err := unix.Getgroups(); err != nil || !slices.Equal(ours, a.groups) {
		if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(a.groups)), uintptr(unsafe.Pointer(&groups[0])), 0); errno != 0 {
			return fmt.Errorf("set groups: %w", errno)
		}
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(a.gid[0]), uintptr(a.gid[1]), uintptr(a.gid[2])); errno != 0 {
		return fmt.Errorf("set gid: %w", errno)
	}
	// Else leaving uid 0 clears them all.
	if _, _, errno := unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("keep capabilities: %w", errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(a.uid[0]), uintptr(a.uid[1]), uintptr(a.uid[2])); errno != 0 {
		return fmt.Errorf("set uid: %w", errno)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	for i := range data {
		half := uint32(a.caps >> (32 * i))
		data[i] = unix.CapUserData{Effective: half, Permitted: half}
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0); errno != 0 {
		return fmt.Errorf("set capabilities: %w", errno)
	}
	runtime.KeepAlive(groups)
	return nil
}

// trace has a tracer, of which there is none, asked about program loads of the calling thread.
func trace(nr uint32) error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: nr},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_TRACE},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if _, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog))); errno != 0 {
		return fmt.Errorf("install a filter: %w", errno)
	}
	runtime.KeepAlive(filter)
	return nil
}
