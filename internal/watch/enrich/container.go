// SPDX-License-Identifier: Apache-2.0

// Package enrich says which container and pod a process belongs to, from the names of its control
// groups alone: a short-lived loader is gone before /proc can be asked.
package enrich

import (
	"strings"

	"github.com/bpfwhy/bpfwhy/load"
)

// Container is what the name of a control group tells. Runtime is the scheme that Kubernetes uses
// in a container's id: docker, containerd, cri-o, podman; "cri" when the name is a bare id below a
// pod, lxc for a named one.
type Container struct {
	Runtime string
	ID      string // as the runtime prints it in full; "" when only the pod is known
	PodUID  string // as Kubernetes writes it, with dashes
}

// String returns the form of a Kubernetes containerID, "containerd://0123…", or "pod://UID".
func (c Container) String() string {
	switch {
	case c.ID != "":
		return c.Runtime + "://" + c.ID
	case c.PodUID != "":
		return "pod://" + c.PodUID
	}
	return ""
}

// scopes are the prefixes of a runtime's own group. The longer one comes first where one starts
// another: conmon is the monitor of a container and runs outside of it.
var scopes = []struct{ prefix, runtime string }{
	{"cri-containerd-", "containerd"},
	{"nerdctl-", "containerd"},
	{"docker-", "docker"},
	{"crio-conmon-", ""},
	{"crio-", "cri-o"},
	{"libpod-conmon-", ""},
	{"libpod-payload-", "podman"},
	{"libpod-", "podman"},
}

// Parse reads the path of a control group, or its last elements, as runtimes name them. The
// innermost container wins. ok is false outside containers.
func Parse(path string) (c Container, ok bool) {
	parts := strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
	for i, part := range parts {
		if uid, ok := pod(part); ok {
			c = Container{PodUID: uid}
			continue
		}
		parent := ""
		if i > 0 {
			parent = parts[i-1]
		}
		if runtime, id := own(parent, part, c.PodUID != ""); id != "" {
			c.Runtime, c.ID = runtime, id
		}
	}
	return c, c.String() != ""
}

// own recognises the group of one container.
//
//revive:disable-next-line:cyclomatic a case for each container runtime
func own(parent, part string, inPod bool) (runtime, id string) {
	name := strings.TrimSuffix(part, ".scope")
	// containerd's systemd driver in a nested group: "kubepods-…:cri-containerd:<id>".
	if i := strings.LastIndexByte(name, ':'); i >= 0 && isID(name[i+1:]) {
		if strings.HasSuffix(name[:i], ":cri-containerd") {
			return "containerd", name[i+1:]
		}
		return "cri", name[i+1:]
	}
	for _, s := range scopes {
		if rest, ok := strings.CutPrefix(name, s.prefix); ok {
			if s.runtime == "" || !isID(rest) {
				return "", ""
			}
			return s.runtime, rest
		}
	}
	if payload, ok := strings.CutPrefix(part, "lxc.payload."); ok && payload != "" {
		return "lxc", payload
	}
	switch {
	case parent == "lxc" && name != "":
		return "lxc", name
	case !isID(name):
		return "", ""
	case parent == "docker":
		return "docker", name
	case parent == "libpod_parent":
		return "podman", name
	case inPod:
		return "cri", name
	case len(parent) > 0 && !strings.Contains(parent, "."):
		return "containerd", name // /<namespace>/<id>, /ecs/<task>/<id>
	}
	return "", ""
}

// isID reports the 64 hex digits of a container, or the 12 to which some names are cut.
func isID(s string) bool {
	if len(s) != 64 && len(s) != 32 && len(s) != 12 {
		// ECS: 32 hex digits, a dash, a number.
		task, rest, ok := strings.Cut(s, "-")
		return ok && len(task) == 32 && isHex(task) && rest != "" && strings.Trim(rest, "0123456789") == ""
	}
	return isHex(s)
}

func isHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }

// pod recognises a pod's group of either cgroup driver: "pod<uid>",
// "kubepods-burstable-pod<uid>.slice" with the dashes of the uid as underscores.
func pod(part string) (uid string, ok bool) {
	name, slice := strings.CutSuffix(part, ".slice")
	i := strings.LastIndex(name, "pod")
	switch {
	case i < 0:
		return "", false
	case slice && i > 0 && name[i-1] != '-', !slice && i > 0:
		return "", false
	}
	uid = strings.ReplaceAll(name[i+len("pod"):], "_", "-")
	// A uid is 36 characters; static pods carry a hash of 32 hex digits.
	if len(uid) == 32 && isHex(uid) {
		return uid, true
	}
	return uid, len(uid) == 36 && strings.Count(uid, "-") == 4 && isHex(strings.ReplaceAll(uid, "-", ""))
}

// Process sets the container of a process. The v2 hierarchy is asked first: on a hybrid host it may
// know nothing, and then the v1 memory controller does.
func Process(p *load.Process) {
	for _, version := range []int{2, 1} {
		for _, g := range p.Cgroups {
			if g.Version != version {
				continue
			}
			if c, ok := Parse(g.Name); ok {
				p.Container = c.String()
				return
			}
		}
	}
}
