// SPDX-License-Identifier: Apache-2.0

package reading

import (
	"slices"
	"strconv"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
)

// Node is what a text names of the node that something failed on: what people paste beside an
// error. What the text does not say stays empty.
type Node struct {
	Kernel
	// Lockdown is the mode that /sys/kernel/security/lockdown shows.
	Lockdown string
	// LSMs are the active security modules. Enforcing says that SELinux is on.
	LSMs      []string
	Enforcing bool
	// LSMPrograms says that the text is about programs that are security modules.
	LSMPrograms bool
	// Config holds options of the kernel's configuration, "n" for those that are off; Sysctls
	// values by name.
	Config, Sysctls map[string]string
	// CgroupV2 and CgroupV1 are mounted at /sys/fs/cgroup, Bpffs at /sys/fs/bpf.
	CgroupV2, CgroupV1 bool
	// NoBpffs says that something else than a bpffs is mounted at /sys/fs/bpf, and Bpffs where one
	// is mounted.
	NoBpffs bool
	Bpffs   string
	// CPUs is how many the kernel can have, 0 where it is not known.
	CPUs int
	// Memlock is RLIMIT_MEMLOCK in bytes, Unlimited where there is none, 0 where it is not known.
	Memlock uint64
}

// Unlimited is RLIM_INFINITY.
const Unlimited = ^uint64(0)

const maxNamed = 128 // options, and sysctls

// nodeOf finds what the lines name of the node.
func nodeOf(lines []Line) Node {
	n := Node{Kernel: kernelOf(lines), Config: map[string]string{}, Sysctls: map[string]string{}}
	for i, l := range lines {
		if l.Text == "" || len(l.Text) > 4096 {
			continue
		}
		n.options(l.Text)
		n.sysctls(lines, i)
		n.modules(l.Text)
		n.mounts(l.Text)
		n.others(lines, i)
	}
	return n
}

var (
	optionSet   = lazyregexp.New(`\b(CONFIG_[A-Z0-9_]{2,60})\s?[=:]\s?["']?([ymn]\b|is not set|not set)`)
	optionUnset = lazyregexp.New(`#\s*(CONFIG_[A-Z0-9_]{2,60}) is not set`)
	// listsOption is a line of a configuration; wantsOption says what there should be.
	listsOption = lazyregexp.New(`^(?:[\w./-]*:)?(?:\d+:)?(?:# ?)?CONFIG_`)
	wantsOption = lazyregexp.New(`(?i)\b(?:make sure|ensure|needs?|requires?|required|enable|should|must|missing|if|support\w*|recompile|rebuild|want\w*|depends)\b`)
	optionLSM   = lazyregexp.New(`\b(?:CONFIG_LSM|lsm)=["']?([a-z]\w+(?:,[a-z]\w+)+)`)
)

func (n *Node) options(text string) {
	if !strings.Contains(text, "CONFIG_") || len(n.Config) > maxNamed || !listsOption.MatchString(text) && wantsOption.MatchString(text) {
		return
	}
	for _, m := range optionSet.Compiled().FindAllStringSubmatch(text, 16) {
		value := m[2]
		if strings.HasSuffix(value, "not set") {
			value = "n"
		}
		n.Config[m[1]] = value
	}
	for _, m := range optionUnset.Compiled().FindAllStringSubmatch(text, 16) {
		n.Config[m[1]] = "n"
	}
}

// settings are the sysctls that rules ask for, by the last part of their name, which is enough in
// texts.
var settings = map[string]string{
	"perf_event_paranoid": "kernel.perf_event_paranoid", "unprivileged_bpf_disabled": "kernel.unprivileged_bpf_disabled",
	"bpf_jit_harden": "net.core.bpf_jit_harden", "bpf_jit_enable": "net.core.bpf_jit_enable", "bpf_jit_limit": "net.core.bpf_jit_limit",
	"optmem_max": "net.core.optmem_max", "kptr_restrict": "kernel.kptr_restrict", "perf_event_max_stack": "kernel.perf_event_max_stack",
}

var (
	// A proposal to set one says nothing of what it is.
	sysctlIs  = lazyregexp.New(`\b(perf_event_paranoid|unprivileged_bpf_disabled|bpf_jit_(?:harden|enable|limit)|optmem_max|kptr_restrict|perf_event_max_stack)['"\x60)]*\s*(?:[=:]|is|was|of|->|shows?|returns?)?(?: (?:set to|at))?\s*['"\x60]?(-?\d{1,12})(?:[\s.,;)'"\x60]|$)`)
	sysctlCat = lazyregexp.New(`\b(?:cat|sysctl(?: -n)?) (?:/proc/sys/)?[\w./]*?(perf_event_paranoid|unprivileged_bpf_disabled|bpf_jit_(?:harden|enable|limit)|optmem_max|kptr_restrict|perf_event_max_stack)$`)
	proposes  = lazyregexp.New(`(?i)\bsysctl (?:-\w+ )*-?w|\becho -?\d+ ?(?:>|\| ?(?:sudo )?tee)|\b(?:set|setting|lower|change|try|with|after|needs?|should|must|if)\b|adjust`)
	number    = lazyregexp.New(`^-?\d{1,12}$`)
)

func (n *Node) sysctls(lines []Line, i int) {
	text := lines[i].Text
	if !strings.Contains(text, "_") || len(n.Sysctls) > maxNamed {
		return
	}
	if m := sysctlCat.FindStringSubmatch(text); m != nil && i+1 < len(lines) && number.MatchString(lines[i+1].Text) {
		n.Sysctls[settings[m[1]]] = lines[i+1].Text
		return
	}
	if m := sysctlIs.FindStringSubmatch(text); m != nil && !proposes.MatchString(text) {
		n.Sysctls[settings[m[1]]] = m[2]
	}
}

var (
	moduleList = lazyregexp.New(`^(?:lockdown|capability|landlock|yama|integrity|selinux|apparmor|loadpin|safesetid|tomoyo|smack|bpf|ima|evm|ipe|baseline|KSIE)(?:,(?:lockdown|capability|landlock|yama|integrity|selinux|apparmor|loadpin|safesetid|tomoyo|smack|bpf|ima|evm|ipe|\w+)){2,}$`)
	lsmProgram = lazyregexp.New(`(?i)\bSEC\("lsm|\blsm(?:\.s)?/\w|\bbpf[- _]?lsm\b|\blsm (?:bpf )?prog`)
	lockMode   = lazyregexp.New(`^(?:none|\[none\]) (?:integrity|\[integrity\]) (?:confidentiality|\[confidentiality\])$`)
	bracketed1 = lazyregexp.New(`\[(\w+)\]`)
	lockIs     = lazyregexp.New(`(?i)\blockdown(?: mode)?\s*(?:[:=]|is|in)\s*['"]?(none|integrity|confidentiality)\b`)
	seBoot     = lazyregexp.New(`(?i)^enforcing$|\bSELinux(?: status| is| mode)?\W{1,3}(?:in )?enforcing\b|\bgetenforce\b.*\bEnforcing\b|\bcurrent mode: +enforcing|\benforcing SELinux\b|SELINUX=enforcing`)
)

// modules reads the list of security modules, the mode of lockdown, and whether SELinux is on.
func (n *Node) modules(text string) {
	n.LSMPrograms = n.LSMPrograms || lsmProgram.MatchString(text)
	if m := optionLSM.FindStringSubmatch(text); m != nil {
		n.LSMs = strings.Split(m[1], ",")
	} else if moduleList.MatchString(text) {
		n.LSMs = strings.Split(text, ",")
	}
	switch {
	case lockMode.MatchString(text):
		if m := bracketed1.FindStringSubmatch(text); m != nil {
			n.Lockdown = m[1]
		}
	case lockIs.MatchString(text):
		n.Lockdown = strings.ToLower(lockIs.FindStringSubmatch(text)[1])
	}
	n.Enforcing = n.Enforcing || seBoot.MatchString(text)
	if n.Enforcing && len(n.LSMs) > 0 && !slices.Contains(n.LSMs, "selinux") {
		n.LSMs = append(n.LSMs, "selinux")
	}
}

// mounted is a line of mount(8), of /proc/mounts, or of /etc/fstab.
var mounted = lazyregexp.New(`(?:^|\s)(?:on )?(/(?:sys|run|var|mnt|host)\S*) (?:type )?(bpf|cgroup2?|sysfs|tmpfs|tracefs|debugfs) (?:\(|rw|ro|defaults|nosuid)`)

func (n *Node) mounts(text string) {
	if !strings.Contains(text, "/") {
		return
	}
	m := mounted.FindStringSubmatch(text)
	if m == nil {
		return
	}
	where, kind := m[1], m[2]
	switch {
	case kind == "bpf":
		if n.Bpffs == "" || where == "/sys/fs/bpf" {
			n.Bpffs = where
		}
		n.NoBpffs = n.NoBpffs && where != "/sys/fs/bpf"
	case where == "/sys/fs/bpf" && kind != "bpf":
		n.NoBpffs = n.Bpffs != "/sys/fs/bpf"
	case kind == "cgroup2":
		n.CgroupV2 = true
	case kind == "cgroup":
		n.CgroupV1 = true
	}
}

// cpusAre is what /sys/devices/system/cpu/possible holds.
var cpusAre = lazyregexp.New(`^(?:/sys/devices/system/cpu/possible\W+)?0-(\d{1,4})$`)

// others reads what stands behind a command that shows it.
func (n *Node) others(lines []Line, i int) {
	text := lines[i].Text
	if m := memlockIs.FindStringSubmatch(text); m != nil {
		n.Memlock = limitOf(m[1] + m[2])
	} else if asksLimit.MatchString(text) && i+1 < len(lines) && limitLine.MatchString(lines[i+1].Text) {
		n.Memlock = limitOf(lines[i+1].Text)
	}
	if m := cpusAre.FindStringSubmatch(text); m != nil && (i > 0 && strings.Contains(lines[i-1].Text, "cpu/possible") || strings.Contains(text, "possible")) {
		last, _ := strconv.Atoi(m[1])
		n.CPUs = last + 1
	}
}

var (
	memlockIs = lazyregexp.New(`(?i)\bmax locked memory\b.*\s(\d{1,12}|unlimited)\b|--ulimit[= ]memlock=(-1|\d{1,12})\b`)
	asksLimit = lazyregexp.New(`(?:^|[#$>] ?)ulimit (?:-H |-S )?-l$`)
	limitLine = lazyregexp.New(`^(?:\d{1,12}|unlimited)$`)
)

// limitOf is a limit as ulimit prints it, in KiB. What docker takes is in bytes, and is none as a
// rule.
func limitOf(text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return Unlimited
	}
	return n << 10
}
