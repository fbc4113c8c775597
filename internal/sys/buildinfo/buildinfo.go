// SPDX-License-Identifier: Apache-2.0

// Package buildinfo says where an executable comes from.
package buildinfo

import (
	"runtime"
	"runtime/debug"
)

// Info is what the Go toolchain recorded of this executable.
type Info struct {
	Version  string `json:"version"` // "(devel)" where it is not known
	Commit   string `json:"commit,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// Read returns what is known.
func Read() Info {
	i := Info{Version: "(devel)", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return i
	}
	if info.Main.Version != "" {
		i.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			i.Commit = s.Value
		case "vcs.modified":
			i.Modified = s.Value == "true"
		}
	}
	return i
}
