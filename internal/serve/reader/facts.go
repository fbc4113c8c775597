// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package reader

import (
	"time"

	"github.com/bpfwhy/bpfwhy/internal/hostinfo/audit"
	"github.com/bpfwhy/bpfwhy/internal/hostinfo/sysctl"
	"github.com/bpfwhy/bpfwhy/internal/serve/stream"
	"github.com/bpfwhy/bpfwhy/node"
)

// How often the settings of the node are read, and what takes longer to count.
const (
	factsInterval = 10 * time.Second
	countInterval = time.Minute
)

// facts reads what decides loads, again and again. What cannot be read is left out.
type facts struct {
	settings map[string]*sysctl.Setting
	counted  time.Time
	jit      *uint64
	kernel   []stream.Loaded
}

// openFacts opens the settings that a profile has.
func openFacts(known map[string]string) *facts {
	f := &facts{settings: map[string]*sysctl.Setting{}}
	for name := range known {
		if s, err := sysctl.Open(name); err == nil {
			f.settings[name] = s
		}
	}
	return f
}

func (f *facts) close() {
	for _, s := range f.settings {
		s.Close()
	}
}

func (f *facts) read(now time.Time) *stream.Facts {
	out := &stream.Facts{Sysctls: map[string]string{}}
	for name, s := range f.settings {
		if v, err := s.Read(); err == nil {
			out.Sysctls[name] = v
		}
	}
	if now.Sub(f.counted) >= countInterval {
		f.counted, f.jit, f.kernel = now, nil, nil
		if n, ok := node.JITMemory(); ok {
			f.jit = &n
		}
		kinds, err := audit.Kinds()
		for _, k := range kinds {
			if err == nil {
				f.kernel = append(f.kernel, stream.Loaded{Type: k.Type, JITed: k.JITed, Count: k.Programs})
			}
		}
	}
	out.JITUsed, out.Kernel = f.jit, f.kernel
	return out
}
