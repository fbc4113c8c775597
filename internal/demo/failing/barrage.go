// SPDX-License-Identifier: Apache-2.0

package failing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/abi"
)

// A barrage is many processes that make the same failing load over and over, as fast as they can.
// Only in a guest: a storm of loads can stop BPF on a machine for good. No load of it gets as far
// as the compiler.

// BarrageCount is what the processes of one kind counted themselves.
type BarrageCount struct {
	Program string `json:"program"`
	Errno   int    `json:"errno"`
	Loads   uint64 `json:"loads"`
	Others  uint64 `json:"others"` // loads that ended otherwise
}

type barrageOrder struct {
	Processes int           `json:"processes"`
	For       time.Duration `json:"for"`
}

type barrageKind struct {
	program
	errno unix.Errno
	uid   int // 0: as we are
}

func barrageKinds(values int) []barrageKind {
	uninit := []ins{movX(0, 5), exit()}
	return []barrageKind{
		{program{name: "uninit", insns: uninit, logLevel: 1, logSize: 64 << 10}, unix.EACCES, 0},
		{program{name: "null_map", insns: nullMapValue(values)}, unix.EACCES, 0},
		{program{name: "bad_fd", insns: join(mapFD(1, 9999), movK(0, 0), exit())}, unix.EBADF, 0},
		{program{name: "helper", insns: []ins{movK(2, 0), call(fnXDPAdjustHead), movK(0, 0), exit()}, logLevel: 1, logSize: 64 << 10}, unix.EINVAL, 0},
		{program{name: "long", insns: join(longBody(1000), uninit), logLevel: 1, logSize: 64 << 10}, unix.EACCES, 0},
		{program{name: "refused", typ: abi.ProgTypeKprobe, insns: small()}, unix.EPERM, 65534},
	}
}

// slot is what one process shares with us.
type slot struct {
	loads, others uint64
	_             [48]byte // a cache line each
}

// barrage runs in a process of its own, which has no other threads that matter.
//
//revive:disable-next-line:cyclomatic one system call after the other, and each may fail
func barrage(o barrageOrder) ([]BarrageCount, error) {
	fd, err := newMap("values", abi.MapTypeHash, 4, 8, 1)
	if err != nil {
		return nil, err
	}
	if o.Processes < 1 || o.Processes > 1024 {
		return nil, fmt.Errorf("%d processes", o.Processes)
	}
	shared, err := unix.Mmap(-1, 0, 4096+o.Processes*int(unsafe.Sizeof(slot{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map shared memory: %w", err)
	}
	state := (*atomic.Uint32)(unsafe.Pointer(&shared[0])) // 0 wait, 1 load, 2 end
	slots := unsafe.Slice((*slot)(unsafe.Pointer(&shared[4096])), o.Processes)

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, before unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = 1<<64 - 1
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &all, &before); err != nil {
		return nil, fmt.Errorf("block signals: %w", err)
	}
	defer unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil)

	kinds := barrageKinds(fd)
	var pin runtime.Pinner
	defer pin.Unpin()
	attrs := make([]*abi.ProgLoad, len(kinds))
	for i := range kinds {
		kinds[i].typ = max(kinds[i].typ, abi.ProgTypeSocketFilter)
		attrs[i] = kinds[i].request(&pin)
		pin.Pin(attrs[i])
	}
	var pids []int
	var failed error
	for i := range o.Processes {
		k := i % len(kinds)
		pid, errno := forkLoader(attrs[k], kinds[k].errno, kinds[k].uid, state, &slots[i])
		if errno != 0 {
			failed = fmt.Errorf("fork: %w", errno)
			break
		}
		pids = append(pids, pid)
	}
	if failed == nil {
		state.Store(1)
		time.Sleep(o.For)
	}
	state.Store(2)
	for _, pid := range pids {
		var status unix.WaitStatus
		for {
			_, err := unix.Wait4(pid, &status, 0, nil)
			if err != unix.EINTR {
				failed = errors.Join(failed, err)
				break
			}
		}
		if !status.Exited() || status.ExitStatus() != 0 {
			failed = errors.Join(failed, fmt.Errorf("process %d: status %#x", pid, int(status)))
		}
	}
	counts := make([]BarrageCount, len(kinds))
	for i := range kinds {
		counts[i].Program, counts[i].Errno = kinds[i].name, int(kinds[i].errno)
	}
	for i := range slots {
		c := &counts[i%len(kinds)]
		c.Loads += slots[i].loads
		c.Others += slots[i].others
	}
	return counts, failed
}

// request is the attr of a load, in memory that stays.
func (p *program) request(pin *runtime.Pinner) *abi.ProgLoad {
	attr := &abi.ProgLoad{
		ProgType: p.typ, InsnCnt: uint32(len(p.insns)), Insns: addr(pin, encode(p.insns)), License: addr(pin, []byte("GPL\x00")),
		ProgName: abi.NameOf(p.name), LogLevel: p.logLevel,
	}
	if p.logLevel != 0 {
		attr.LogSize, attr.LogBuf = p.logSize, addr(pin, make([]byte, p.logSize))
	}
	return attr
}

// forkLoader forks a process that loads until it is told to end. A fork of a Go process has one
// thread and no scheduler: it makes system calls and does nothing else that needs the runtime.
//
//go:norace
func forkLoader(attr *abi.ProgLoad, want unix.Errno, uid int, state *atomic.Uint32, to *slot) (int, unix.Errno) {
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		return int(pid), errno
	}
	if uid != 0 {
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
			unix.RawSyscall(unix.SYS_EXIT_GROUP, 2, 0, 0)
		}
	}
	unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0) // which a change of ids takes back
	for state.Load() == 0 {
		unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	}
	for state.Load() == 1 {
		fd, _, errno := unix.RawSyscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(attr)), progLoadSize)
		if errno == want {
			to.loads++
			continue
		}
		to.others++
		if errno == 0 {
			unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
		}
	}
	unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	panic("unreachable")
}

const barrageArg = "barrage"

// BarrageProcess is a barrage in a process of its own, which waits for Go.
type BarrageProcess struct{ *child }

// StartBarrage starts the process.
func StartBarrage(ctx context.Context) (BarrageProcess, error) {
	c, err := startChild(ctx, barrageArg)
	return BarrageProcess{c}, err
}

// Go lets a number of processes loose for a time, and returns what they counted, by kind.
func (b BarrageProcess) Go(processes int, during time.Duration) (counts []BarrageCount, err error) {
	if err := json.NewEncoder(b.start).Encode(barrageOrder{processes, during}); err != nil {
		return nil, fmt.Errorf("start barrage: %w", err)
	}
	err = b.finish(func(d *json.Decoder) error { return d.Decode(&counts) })
	return counts, err
}

func barrageChild() error {
	var o barrageOrder
	if err := json.NewDecoder(os.Stdin).Decode(&o); err != nil {
		return fmt.Errorf("wait for the start: %w", err)
	}
	counts, err := barrage(o)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(counts)
}
