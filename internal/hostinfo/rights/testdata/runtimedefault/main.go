// SPDX-License-Identifier: Apache-2.0

// Command runtimedefault prints the seccomp profile that containerd gives a pod with seccompProfile
// RuntimeDefault and these capabilities:
//
//	go run . CAP_SYS_ADMIN CAP_SYSLOG > ../runtime-default.json
//
// A module of its own, because containerd is no dependency of this project.
package main

import (
	"encoding/json"
	"os"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func main() {
	p := seccomp.DefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: os.Args[1:]}}})
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", "\t")
	if err := e.Encode(p); err != nil {
		panic(err)
	}
}
