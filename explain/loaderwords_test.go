// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
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

// seenIn is where a user sees the sentences of a library that are common words by themselves.
var seenIn = map[string]string{
	"aya":         "Error: failed to load the eBPF programs\n\nCaused by:\n    0: %s\n",
	"cilium-ebpf": "2026/01/02 03:04:05 loading objects: field OnOpen: program on_open: %s\n",
	"libbpf-rs":   "Error: failed to load BPF object\n\nCaused by:\n    %s\n",
	"bcc-python":  "Traceback (most recent call last):\n  File \"trace.py\", line 12, in <module>\n    b = BPF(text=prog)\nException: Failed to load BPF program b'f': %s\n",
}

// unanswered are sentences that get no answer, each with the reason.
var unanswered = map[string][]struct {
	why   string
	words *regexp.Regexp
}{
	"bcc": {
		{"a checksum that bcc computes by a socket of the kernel, and containers of the C++ library", regexp.MustCompile(`^sha1|std::`)},
		{"files of bcc's own, without a word of BPF", regexp.MustCompile(`vDSO|^Unlink|statfs|mkdir`)},
	},
	"bpftrace": {{"files and plugins of bpftrace's own, without a word of BPF", regexp.MustCompile(`^Failed to (?:find|create|open|load plugin|resolve)|^Missing required`)}},
	"iproute2": {{"the command line, and no word of an object", regexp.MustCompile(`bpf parameters|command line|receive fds|opening BPF object file failed$`)}},
	"runc":     {{"rules of the container's profile, before anything is loaded, without a word of BPF", regexp.MustCompile(`device|wildcard|rule|filter|program|target|[Ss]eccomp|no_new_privs|fds`)}},
	"systemd":  {{"what systemd tries out at its start, and policies of libseccomp", regexp.MustCompile(`BPF_PROG_DETACH|(?i)seccomp|MemoryDenyWriteExecute|does(?:n't| not) (?:seem to )?support|bpf-restrict-fsaccess`)}},
	"libxdp":   {{"what libxdp tells in detail", regexp.MustCompile(`.`)}},
	"libbpf":   {{"a file of /proc", regexp.MustCompile(`/proc/kallsyms`)}, {"what libbpf goes on without, and tells in detail", regexp.MustCompile(`(?i)skipping|ignor|optional|weak|detection of|doesn't support|failed to iterate|get BTF object|load module|dup FD|API not supported|bump RLIMIT|Program (?:unexpectedly|loading)|retry|failed to create BPF token|not found in kernel|token`)}},
}

// How many sentences of a loader may get no answer.
var maxUnanswered = map[string]int{"bcc": 11, "bpftrace": 10, "iproute2": 4, "runc": 26, "systemd": 11, "libxdp": 3, "libbpf": 14}

// leads are rules that sentences lead to, beside those that loaderWords names for them.
var leads = map[string]string{
	"error parsing BTF header": "BTF002", "symbol `foo` not found, mismatched build IDs in main and debug files": "ATT110", "could not determine address of symbol foo in foo": "ATT110",
	"key too big for map: Invalid argument": "MAP004", "map spec is incompatible with existing map": "ATT604", "token foo: not found: Invalid argument": "ATT105",
}

// Each sentence of a loader, as a user sees it, is told as one failure, and not of another cause
// than its own; or it is listed above, with the reason.
func TestEveryLoaderSentenceIsAnswered(t *testing.T) {
	files, err := filepath.Glob("testdata/loaders/*.txt")
	qt.Assert(t, qt.IsNil(err))
	for _, file := range files {
		text, err := os.ReadFile(file)
		qt.Assert(t, qt.IsNil(err))
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		silent := 0
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSuffix(line, "\n")
			if strings.HasPrefix(line, "#") {
				continue
			}
			example := loaderExample(line)
			seen := example
			if frame, ok := seenIn[name]; ok {
				seen = fmt.Sprintf(frame, example)
			}
			ds := Text(seen)
			if len(ds) == 0 {
				silent++
				qt.Check(t, qt.IsTrue(slices.ContainsFunc(unanswered[name], func(u struct {
					why   string
					words *regexp.Regexp
				}) bool {
					return u.words.MatchString(line)
				})), qt.Commentf("%s: no answer to: %s", name, line))
				continue
			}
			if _, framed := seenIn[name]; framed && ds[0].Rule != Unknown {
				w, _ := loaderSays(example)
				qt.Check(t, qt.IsTrue(ds[0].Rule == w.rule || ds[0].Rule == leads[example]), qt.Commentf("%s: %s for %s", name, ds[0].Rule, line))
			}
		}
		t.Logf("%s: %d sentences get no answer", name, silent)
		qt.Check(t, qt.IsTrue(silent <= maxUnanswered[name]), qt.Commentf("%s: %d sentences get no answer", name, silent))
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
