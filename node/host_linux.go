// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/hostinfo/sysctl"
	"golang.org/x/sys/unix"
)

// Options of the kernel's configuration that decide loads, or what can be seen of them.
var options = []string{
	"CONFIG_BPF", "CONFIG_BPF_SYSCALL", "CONFIG_BPF_JIT", "CONFIG_BPF_JIT_ALWAYS_ON", "CONFIG_BPF_JIT_DEFAULT_ON",
	"CONFIG_HAVE_EBPF_JIT", "CONFIG_BPF_UNPRIV_DEFAULT_OFF", "CONFIG_BPF_EVENTS", "CONFIG_BPF_LSM", "CONFIG_CGROUP_BPF",
	"CONFIG_BPF_STREAM_PARSER", "CONFIG_NET_CLS_BPF", "CONFIG_LWTUNNEL_BPF", "CONFIG_BPF_KPROBE_OVERRIDE",
	"CONFIG_DEBUG_INFO_BTF", "CONFIG_DEBUG_INFO_BTF_MODULES", "CONFIG_KALLSYMS", "CONFIG_KALLSYMS_ALL",
	"CONFIG_KPROBES", "CONFIG_KPROBE_EVENTS", "CONFIG_UPROBE_EVENTS", "CONFIG_FPROBE", "CONFIG_FUNCTION_TRACER",
	"CONFIG_DYNAMIC_FTRACE", "CONFIG_DYNAMIC_FTRACE_WITH_REGS", "CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS",
	"CONFIG_FTRACE_SYSCALLS", "CONFIG_SECCOMP_FILTER", "CONFIG_SECURITY_LOCKDOWN_LSM", "CONFIG_XDP_SOCKETS",
}

// Sysctls that decide loads, or what can be seen of them. Reading
// net.core.bpf_jit_{harden,kallsyms,limit} needs CAP_SYS_ADMIN besides the file's mode, and the
// first network namespace.
var sysctls = []string{
	"kernel.bpf_stats_enabled", "kernel.dmesg_restrict", "kernel.ftrace_enabled", "kernel.kptr_restrict",
	"kernel.perf_event_max_stack", "kernel.perf_event_paranoid", "kernel.unprivileged_bpf_disabled",
	"net.core.bpf_jit_enable", "net.core.bpf_jit_harden", "net.core.bpf_jit_kallsyms", "net.core.bpf_jit_limit",
	"net.core.optmem_max",
}

// No file here is larger on a sane machine; a longer one is cut, and what stands beyond the cut
// stays unknown.
const (
	smallFile  = 64 << 10
	configFile = 4 << 20  // unpacked
	symbolFile = 64 << 20 // kallsyms, vmallocinfo, mounts: read line by line
)

// The inode of the initial pid namespace (PROC_PID_INIT_INO, include/linux/proc_ns.h).
const initialPIDNS = "pid:[4026531836]"

// Host reads the profile of the machine it runs on. What cannot be read is named in Unknown; it
// never fails.
func Host() *Profile {
	return read(os.DirFS("/"), Uname().Machine, sysctl.Read)
}

// Uname is a profile of this machine with no more than uname(2) tells: release, version and
// machine. It costs nothing.
func Uname() *Profile {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return &Profile{}
	}
	return &Profile{
		Release: unix.ByteSliceToString(u.Release[:]), Version: unix.ByteSliceToString(u.Version[:]),
		Machine: unix.ByteSliceToString(u.Machine[:]),
	}
}

// JITMemory returns what Profile.JITUsed tells of this machine, as it is now. It needs root.
func JITMemory() (uint64, bool) {
	r := reader{root: os.DirFS("/"), p: &Profile{Unknown: map[string]string{}}}
	r.jitMemory()
	if r.p.JITUsed == nil {
		return 0, false
	}
	return *r.p.JITUsed, true
}

// read builds a profile from a root directory. elsewhere, unless nil, reads a sysctl that is not
// there: one of the first network namespace.
func read(root fs.FS, machine string, elsewhere func(name string) (string, error)) *Profile {
	r := reader{root: root, p: &Profile{Machine: machine, Sysctls: map[string]string{}, Unknown: map[string]string{}}}
	r.p.Release = r.line("release", "proc/sys/kernel/osrelease")
	r.p.Version = r.line("version", "proc/sys/kernel/version")
	r.distro()
	r.config()
	for _, name := range sysctls {
		r.sysctl(name, elsewhere)
	}
	r.security()
	if _, err := fs.Stat(root, "sys/kernel/btf/vmlinux"); err == nil {
		r.p.BTF = true
	} else if !errors.Is(err, fs.ErrNotExist) {
		r.unknown("btf", err)
	}
	r.cgroups()
	r.jitMemory()
	r.container()
	r.process()
	if len(r.p.Unknown) == 0 {
		r.p.Unknown = nil
	}
	return r.p
}

type reader struct {
	root fs.FS
	p    *Profile
}

func (r *reader) unknown(what string, err error) { r.p.Unknown[what] = reason(err) }

// reason is short: the path is known from the name of what was read, unless the error says
// otherwise.
func reason(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return fmt.Sprintf("/%s: %v", strings.TrimPrefix(p.Path, "/"), p.Err)
	}
	return err.Error()
}

func (r *reader) small(file string) ([]byte, error) {
	f, err := r.root.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, smallFile))
}

func (r *reader) line(what, file string) string {
	b, err := r.small(file)
	if err != nil {
		r.unknown(what, err)
		return ""
	}
	s, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(s)
}

func (r *reader) sysctl(name string, elsewhere func(string) (string, error)) {
	b, err := r.small("proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	v := strings.TrimSpace(string(b))
	if err != nil && elsewhere != nil {
		v, err = elsewhere(name)
	}
	switch {
	case err != nil:
		r.unknown(name, err)
	case v != "":
		r.p.Sysctls[name] = v
	}
}

// lines calls each for every line of a file until it returns false.
func (r *reader) lines(file string, each func(string) bool) error {
	f, err := r.root.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	return scan(f, symbolFile, each)
}

func scan(f io.Reader, limit int64, each func(string) bool) error {
	s := bufio.NewScanner(io.LimitReader(f, limit))
	for s.Scan() {
		if !each(s.Text()) {
			return nil
		}
	}
	return s.Err()
}

func (r *reader) distro() {
	for _, file := range []string{"etc/os-release", "usr/lib/os-release"} {
		b, err := r.small(file)
		if err != nil {
			continue
		}
		for l := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(strings.TrimSpace(l), "PRETTY_NAME="); ok {
				r.p.Distro = strings.Trim(v, `"'`)
				return
			}
		}
	}
}

func (r *reader) config() {
	rel := r.p.Release
	files := []string{"proc/config.gz"}
	if rel != "" && fs.ValidPath(rel) && !strings.Contains(rel, "/") {
		files = append(files, "boot/config-"+rel, "lib/modules/"+rel+"/config", "usr/lib/modules/"+rel+"/config",
			"lib/modules/"+rel+"/build/.config")
	}
	for _, file := range files {
		c, err := r.parseConfig(file)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				r.unknown("config", err)
			}
			continue
		}
		delete(r.p.Unknown, "config")
		r.p.Config, r.p.ConfigSource = c, "/"+file
		return
	}
	r.deriveConfig()
	if _, said := r.p.Unknown["config"]; !said {
		r.p.Unknown["config"] = "none of /" + strings.Join(files, ", /")
	}
}

func (r *reader) parseConfig(file string) (map[string]string, error) {
	f, err := r.root.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var in io.Reader = f
	if path.Ext(file) == ".gz" {
		if in, err = gzip.NewReader(f); err != nil {
			return nil, fmt.Errorf("unpack /%s: %w", file, err)
		}
	}
	// A symbol whose dependencies are off is not even mentioned: every option starts as "n".
	c := make(map[string]string, len(options))
	for _, o := range options {
		c[o] = "n"
	}
	seen := false
	err = scan(in, configFile, func(l string) bool {
		k, v, ok := strings.Cut(l, "=")
		if !ok || !strings.HasPrefix(k, "CONFIG_") {
			return true
		}
		seen = true
		if _, ours := c[k]; ours {
			c[k] = v
		}
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("read /%s: %w", file, err)
	}
	if !seen {
		return nil, fmt.Errorf("read /%s: no option in it", file)
	}
	return c, nil
}

// deriveConfig answers the one question that decides most from the symbols: a kernel with
// JIT_ALWAYS_ON compiles __bpf_prog_ret0_warn in place of the interpreter, ___bpf_prog_run
// (kernel/bpf/core.c). Names stay readable when kptr_restrict hides addresses.
func (r *reader) deriveConfig() {
	var ret0, interpreter, any bool
	err := r.lines("proc/kallsyms", func(l string) bool {
		f := strings.Fields(l)
		if len(f) < 3 {
			return true
		}
		any = true
		switch f[2] {
		case "__bpf_prog_ret0_warn":
			ret0 = true
		case "___bpf_prog_run":
			interpreter = true
		}
		return !interpreter
	})
	switch {
	case err != nil || !any:
		return
	case interpreter:
		r.p.Config = map[string]string{"CONFIG_BPF_JIT_ALWAYS_ON": "n"}
	case ret0:
		r.p.Config = map[string]string{"CONFIG_BPF_JIT_ALWAYS_ON": "y", "CONFIG_BPF_JIT": "y"}
	default:
		return
	}
	r.p.ConfigSource = "kallsyms"
}

func (r *reader) security() {
	if b, err := r.small("sys/kernel/security/lockdown"); err == nil {
		// none [integrity] confidentiality
		_, rest, ok := bytes.Cut(b, []byte("["))
		mode, _, closed := bytes.Cut(rest, []byte("]"))
		if ok && closed {
			r.p.Lockdown = string(mode)
		} else {
			r.p.Unknown["lockdown"] = "/sys/kernel/security/lockdown: no mode is marked"
		}
	} else if r.p.Config["CONFIG_SECURITY_LOCKDOWN_LSM"] == "n" {
		r.p.Lockdown = "none"
	} else {
		r.unknown("lockdown", r.securityfs(err))
	}
	if b, err := r.small("sys/kernel/security/lsm"); err == nil {
		for s := range strings.SplitSeq(strings.TrimSpace(string(b)), ",") {
			if s != "" {
				r.p.LSMs = append(r.p.LSMs, s)
			}
		}
	} else {
		r.unknown("lsms", r.securityfs(err))
	}
}

// securityfs tells an unmounted file system from a missing file: the directory is there but empty.
func (r *reader) securityfs(err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if d, derr := fs.ReadDir(r.root, "sys/kernel/security"); derr == nil && len(d) == 0 {
		return errors.New("securityfs is not mounted on /sys/kernel/security")
	}
	return err
}

func (r *reader) cgroups() {
	err := r.lines("proc/self/mounts", func(l string) bool {
		f := strings.Fields(l) // device, mount point, type, options
		if len(f) < 4 {
			return true
		}
		switch f[2] {
		case "cgroup2":
			r.p.CgroupV2 = true
		case "cgroup":
			for o := range strings.SplitSeq(f[3], ",") {
				if o == "memory" {
					r.p.CgroupV1 = true
				}
			}
		}
		return true
	})
	if err != nil {
		r.unknown("cgroups", err)
	}
}

// jitMemory sums the areas of the JIT, less the guard page that each area's size includes. From
// 5.18 programs share 2 MiB packs, so this is an upper bound of what is charged against
// net.core.bpf_jit_limit.
func (r *reader) jitMemory() {
	var sum uint64
	found := false
	page := uint64(os.Getpagesize())
	err := r.lines("proc/vmallocinfo", func(l string) bool {
		f := strings.Fields(l) // range, size, caller, …
		if len(f) < 3 || !strings.HasPrefix(f[2], "bpf_jit_") && !strings.HasPrefix(f[2], "bpf_prog_pack") {
			return true
		}
		n, err := strconv.ParseUint(f[1], 10, 64)
		if err != nil {
			return true
		}
		found = true
		sum += n - min(n, page)
		return true
	})
	switch {
	case err != nil:
		r.unknown("jit_used_bytes", err)
	case !found:
		r.p.Unknown["jit_used_bytes"] = "/proc/vmallocinfo names no area of the JIT"
	default:
		r.p.JITUsed = &sum
	}
}

func (r *reader) container() {
	switch {
	case r.exists("run/.containerenv"):
		r.p.Container = "/run/.containerenv exists (podman)"
	case r.exists(".dockerenv"):
		r.p.Container = "/.dockerenv exists (docker)"
	case r.exists("var/run/secrets/kubernetes.io/serviceaccount"), r.exists("run/secrets/kubernetes.io/serviceaccount"):
		r.p.Container = "a Kubernetes service account is mounted"
	default:
		if l, err := fs.ReadLink(r.root, "proc/self/ns/pid"); err == nil && l != initialPIDNS {
			r.p.Container = "the pid namespace is not the initial one"
		}
	}
}

// process reads what the kernel says of ourselves.
//
//revive:disable-next-line:cyclomatic a case for each line of /proc/self/status
func (r *reader) process() {
	p := &Process{}
	status, err := r.small("proc/self/status")
	if err != nil {
		r.unknown("process", err)
		return
	}
	found := 0
	for l := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(l, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "CapEff":
			mask, err := strconv.ParseUint(value, 16, 64)
			if err != nil {
				continue
			}
			found++
			p.Capabilities = Capabilities(mask)
		case "Seccomp": // a kernel without seccomp has no such line
			switch value {
			case "0":
				p.Seccomp = "none"
			case "1":
				p.Seccomp = "strict"
			case "2":
				p.Seccomp = "filter"
			}
		}
	}
	if found == 0 {
		r.p.Unknown["process"] = "/proc/self/status names no capabilities"
		return
	}
	if p.Seccomp == "" {
		p.Seccomp = "none"
	}
	r.p.Process = p
	// The initial user namespace maps every id to itself, in one line.
	if b, err := r.small("proc/self/uid_map"); err != nil {
		p.InitialUser = errors.Is(err, fs.ErrNotExist) // a kernel without user namespaces
		if !p.InitialUser {
			r.unknown("user_ns", err)
		}
	} else {
		p.InitialUser = slices.Equal(strings.Fields(string(b)), []string{"0", "0", "4294967295"})
	}
	limits, err := r.small("proc/self/limits")
	if err != nil {
		r.unknown("memlock_bytes", err)
		return
	}
	for l := range strings.Lines(string(limits)) {
		rest, ok := strings.CutPrefix(l, "Max locked memory")
		if f := strings.Fields(rest); ok && len(f) > 0 && f[0] != "unlimited" {
			if n, err := strconv.ParseUint(f[0], 10, 64); err == nil {
				p.Memlock = &n
			}
		}
	}
}

func (r *reader) exists(file string) bool {
	_, err := fs.Stat(r.root, file)
	return err == nil
}
