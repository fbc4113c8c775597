// SPDX-License-Identifier: Apache-2.0

package enrich

import (
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/load"
)

const (
	id    = "3b1c9d6f0a2e4b58c7d1e0f9a8b7c6d5e4f3a2b1c0d9e8f7a6b5c4d3e2f1a0b9"
	inner = "00000000000000000000000000000000000000000000000000000000000000ff"
	uid   = "2d5f7b1a-9c3e-4e0f-8a6b-1c2d3e4f5a6b"
	under = "2d5f7b1a_9c3e_4e0f_8a6b_1c2d3e4f5a6b"
	task  = "0123456789abcdef0123456789abcdef"
)

func TestParse(t *testing.T) {
	for _, test := range []struct{ path, want, pod string }{
		{"", "", ""},
		{"/", "", ""},
		{"/user.slice/user-1000.slice/session-3.scope", "", ""},
		{"/system.slice/docker.service", "", ""},
		{"/system.slice/containerd.service", "", ""},
		{"/system.slice/docker-" + id + ".scope", "docker://" + id, ""},
		{"docker-" + id + ".scope", "docker://" + id, ""},
		{"/docker/" + id, "docker://" + id, ""},
		{"/docker/" + id + "/init", "docker://" + id, ""},
		{"/docker/buildkit/abcdefabcdef", "containerd://abcdefabcdef", ""},
		{"/machine.slice/libpod-" + id + ".scope", "podman://" + id, ""},
		{"/machine.slice/libpod-" + id + ".scope/container", "podman://" + id, ""},
		{"/libpod_parent/libpod-" + id, "podman://" + id, ""},
		{"/machine.slice/libpod-conmon-" + id + ".scope", "", ""},
		{"/default/" + id, "containerd://" + id, ""},
		{"/system.slice/nerdctl-" + id + ".scope", "containerd://" + id, ""},
		{"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + under + ".slice/cri-containerd-" + id + ".scope",
			"containerd://" + id, uid},
		{"kubepods-pod" + under + ".slice/crio-" + id + ".scope", "cri-o://" + id, uid},
		{"kubepods-pod" + under + ".slice/crio-" + id + ".scope/container", "cri-o://" + id, uid},
		{"kubepods-pod" + under + ".slice/crio-conmon-" + id + ".scope", "pod://" + uid, uid},
		{"/kubepods/besteffort/pod" + uid + "/" + id, "cri://" + id, uid},
		{"/kubepods/pod" + task + "/" + id, "cri://" + id, task},
		{"/kubepods/burstable/pod" + uid, "pod://" + uid, uid},
		{"/system.slice/containerd.service/kubepods-burstable-pod" + under + ".slice:cri-containerd:" + id, "containerd://" + id, ""},
		{"/ecs/" + task + "/" + task + "-1234567890", "containerd://" + task + "-1234567890", ""},
		{"/lxc.payload.web-1", "lxc://web-1", ""},
		{"/lxc.payload.web-1/system.slice/ssh.service", "lxc://web-1", ""},
		{"/lxc/web-1", "lxc://web-1", ""},
		// kind: a node that is a container, a pod inside it.
		{"/system.slice/docker-" + id + ".scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod" + under +
			".slice/cri-containerd-" + inner + ".scope", "containerd://" + inner, uid},
		// What looks like one and is none.
		{"/system.slice/docker-" + id[:63] + "g.scope", "", ""},
		{"/user.slice/docker-.scope", "", ""},
		{"/podcast/" + strings.Repeat("z", 64), "", ""},
		{"/system.slice/podman.service", "", ""},
		{"/kubepods.slice/kubepods-podx.slice", "", ""},
		{"\x1b[31m/\xff", "", ""},
	} {
		t.Run(test.path, func(t *testing.T) {
			c, ok := Parse(test.path)
			qt.Check(t, qt.Equals(c.String(), test.want))
			qt.Check(t, qt.Equals(c.PodUID, test.pod))
			qt.Check(t, qt.Equals(ok, test.want != ""))
		})
	}
}

func TestProcess(t *testing.T) {
	a := load.Process{Cgroups: []load.Cgroup{
		{Version: 1, ID: 7, Name: "docker/" + id}, {Version: 2, ID: 1, Name: "/"}}}
	Process(&a)
	qt.Check(t, qt.Equals(a.Container, "docker://"+id))

	a.Cgroups[1].Name = "docker-" + inner + ".scope"
	Process(&a)
	qt.Check(t, qt.Equals(a.Container, "docker://"+inner))

	none := load.Process{Cgroups: []load.Cgroup{{Version: 2, ID: 1, Name: "user.slice"}}}
	Process(&none)
	qt.Check(t, qt.Equals(none.Container, ""))
}

func FuzzParse(f *testing.F) {
	f.Add("/kubepods-pod" + under + ".slice/crio-" + id + ".scope")
	f.Add("a:b:" + id)
	f.Fuzz(func(t *testing.T, s string) {
		c, ok := Parse(s)
		if ok != (c.String() != "") || len(c.String()) > len(s)+32 {
			t.Errorf("Parse(%q) = %+v, %v", s, c, ok)
		}
	})
}
