// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/explain/reading"
	"github.com/bpfwhy/bpfwhy/load"
)

// ownSentences are about the loader's own affairs: how its functions are called, the object file,
// other settings. The kernel was not asked, the words are common ones, and say all that there is.
var ownSentences = map[string]*regexp.Regexp{
	"cilium-ebpf": regexp.MustCompile(`(?i)can't|cannot|could not|couldn't|missing|invalid|unsupported|mismatch|requires|exceeds|too (?:long|big)|does(?:n't| not)|incompatible|not (?:found|supported)|unable to|failed to|uname|unexpected|set memlock|ObjInfo`),
	"aya":         regexp.MustCompile(`(?i)invalid|error|not found|unable|unsupported|failed|missing|does not|doesn't|no BTF|mismatched|reloc`),
	"libbpf-rs":   regexp.MustCompile(`(?i)failed to (?:open|create|duplicate|parse|remove|retrieve|associate)|can't read|invalid|cannot be empty|too large|bpf_linker|missing`),
	"bcc":         regexp.MustCompile(`^sha1|vDSO|std::|Unlink|statfs|mkdir|bpf_btf_get`),
	"bcc-python":  regexp.MustCompile(`Could not|decode|USDT|probe (?:argument|location)|symbol|key desc|leaf desc|Invalid file|close kprobe|has failed|ring buffer`),
	"bpftrace":    regexp.MustCompile(`^Failed to (?:find|create|open|load plugin)`),
	"iproute2":    regexp.MustCompile(`bpf parameters|command line|receive fds`),
	"runc":        regexp.MustCompile(`device|wildcard|no-op|rule|filter|BPF|bpf|program|target|[Ss]eccomp|no_new_privs|fds`),
	"systemd":     regexp.MustCompile(`(?i)seccomp`),
}

// What loaders print of failures is listed by go run ./internal/test/sentences. Each sentence is
// known, or about the loader's own affairs.
func TestEveryLoaderSentence(t *testing.T) {
	files, err := filepath.Glob("testdata/loaders/*.txt")
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsTrue(len(files) >= 11))
	for _, file := range files {
		text, err := os.ReadFile(file)
		qt.Assert(t, qt.IsNil(err))
		var said, attempts, reasons, others int
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSuffix(line, "\n")
			if strings.HasPrefix(line, "#") {
				continue
			}
			w, ok := loaderSays(loaderExample(line))
			name := strings.TrimSuffix(filepath.Base(file), ".txt")
			if exempt := ownSentences[name]; !ok && exempt != nil && exempt.MatchString(line) {
				others++
				continue
			}
			if !ok {
				t.Errorf("%s: nothing says what this is: %s", file, line)
				continue
			}
			said++
			if w.attempted != own {
				attempts++
				checkReader(t, file, loaderExample(line), w)
			}
			if w.tells != reading.Echo {
				reasons++
			}
		}
		t.Logf("%s: %d sentences are known, %d of them about attempts, %d with a reason; %d are the loader's own affairs", filepath.Base(file), said, attempts, reasons, others)
	}
}

// checkReader: where the reader's sentences know as well what was attempted, both say the same.
func checkReader(t *testing.T, file, line string, w loaderWord) {
	read := reading.Read([]string{line + ": Invalid argument"}, wordOf)
	for _, f := range read.Failures {
		kind := f.Attempt.Kind
		if kind != w.attempted && !(kind.Attaches() && w.attempted.Attaches()) {
			t.Errorf("%s: the reader says %s, and loaderWords %s: %s", file, kind, w.attempted, line)
		}
	}
}

var loaderConversion = regexp.MustCompile(`%[-+#0 *]*\d*\$?(?:hh?|ll?|z)?[a-zA-Z%]|\{[^{}]*\}`)

func loaderExample(format string) string {
	return loaderConversion.ReplaceAllStringFunc(format, func(c string) string {
		switch c[len(c)-1] {
		case 'd', 'u', 'i':
			return "22"
		case 'x':
			return "1f"
		case 'm', 'w':
			return "Invalid argument"
		case 'q':
			return `"foo"`
		case '%':
			return "%"
		}
		return "foo"
	})
}

func TestLoaderWords(t *testing.T) {
	for _, tt := range []struct {
		line, loader string
		attempted    load.Kind
		rule         string
		harmless     bool
	}{
		{"libbpf: prog 'handle_exec': failed to load: -EACCES", "libbpf", load.ProgLoad, "", false},
		{"libbpf: object 'agent': failed (-95) to create BPF token from '/sys/fs/bpf'", "libbpf", load.TokenCreate, "PERM010", true},
		{"libbpf: map 'events': failed to create: -EINVAL", "libbpf", load.MapCreate, "", false},
		{"libbpf: couldn't reuse pinned map at '/sys/fs/bpf/events': parameter mismatch", "libbpf", load.ObjPin, "", false},
		{"libbpf: prog 'p': failed to create kprobe 'do_nope+0x0' perf event: -ENOENT", "libbpf", load.PerfEventOpen, "", false},
		{"libbpf: prog 'p': failed to find kernel BTF type ID of 'do_nope': -3", "libbpf", own, "BTF005", false},
		{"libbpf: extern (func ksym) 'bpf_nope': not found in kernel or module BTFs", "libbpf", own, "FEAT006", false},
		{"libxdp: Error attaching XDP program to ifindex 3: Device or resource busy", "libxdp", load.XDPAttach, "", false},
		{"error: the BPF_PROG_LOAD syscall failed. Verifier output: 0: R1=ctx()", "aya", load.ProgLoad, "", false},
		{"cannot attach kprobe, probe entry may not exist", "bcc", load.ProbeDefine, "", false},
		{"runc create failed: unable to start container process: error loading seccomp filter: errno 524", "runc", load.Seccomp, "", false},
		{"failed to call BPF_PROG_ATTACH (BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI): operation not permitted", "runc", load.ProgAttach, "", false},
		{"bpf-restrict-fs: Failed to load BPF object: Operation not permitted", "systemd", load.ProgLoad, "", false},
	} {
		w, ok := loaderSays(tt.line)
		qt.Assert(t, qt.IsTrue(ok), qt.Commentf("%s", tt.line))
		qt.Check(t, qt.Equals(w.loader, tt.loader), qt.Commentf("%s", tt.line))
		qt.Check(t, qt.Equals(w.attempted, tt.attempted), qt.Commentf("%s", tt.line))
		qt.Check(t, qt.Equals(w.rule, tt.rule), qt.Commentf("%s", tt.line))
		qt.Check(t, qt.Equals(w.tells == reading.Harmless, tt.harmless), qt.Commentf("%s", tt.line))
	}
	for _, line := range []string{
		"", "connection refused", "level=info msg=\"started\"", "R0 invalid mem access 'scalar'", "processed 12 insns",
		"open /etc/agent.yaml: no such file or directory", "dial tcp 10.0.0.1:443: i/o timeout",
		"invalid section in the configuration", "map: key not found", "missing program name", "error parsing map of users",
		"failed to attach debugger", "failed to attach volume", "symbol not found", "seccomp is enabled", "type mismatch in column 3",
		"elf: not an object", "error: unsupported map type of the city", "failed to mkdir /var/lib/x: permission denied", "BTF is great",
	} {
		w, ok := loaderSays(line)
		qt.Check(t, qt.IsFalse(ok), qt.Commentf("%s: %s: %s", line, w.loader, w.means))
	}
	for _, w := range loaderWords {
		qt.Check(t, qt.IsTrue(strings.HasSuffix(w.means, ".")), qt.Commentf("%s", w.means))
		if w.rule != "" {
			_, ok := ByID(w.rule)
			qt.Check(t, qt.IsTrue(ok), qt.Commentf("%s", w.rule))
		}
	}
}
