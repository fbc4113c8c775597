// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"encoding/json"
	"testing"
	"testing/fstest"

	"github.com/go-quicktest/qt"
)

// In a container, or below a mount of somebody else, any file can be anything. What cannot be read
// is named, and the profile is one that Decode takes.
func FuzzHost(f *testing.F) {
	m := machine()
	f.Add([]byte("6.1.0"), m["proc/self/mounts"].Data, m["proc/vmallocinfo"].Data, zipped("CONFIG_BPF=y\n").Data, []byte("none [integrity]"), []byte("CapEff:\t1ff\nSeccomp:\t2\n"))
	f.Add([]byte("../../etc"), []byte("cgroup a cgroup rw,memory 0 0\n"), []byte("0x1 18446744073709551615 bpf_jit_\n0x1 18446744073709551615 bpf_jit_\n"),
		[]byte("\x1f\x8b"), []byte("["), []byte("CapEff:\tx"))
	f.Fuzz(func(t *testing.T, release, mounts, areas, config, lockdown, status []byte) {
		files := fstest.MapFS{
			"proc/sys/kernel/osrelease": {Data: release}, "proc/self/mounts": {Data: mounts}, "proc/vmallocinfo": {Data: areas},
			"proc/config.gz": {Data: config}, "sys/kernel/security/lockdown": {Data: lockdown}, "proc/self/status": {Data: status},
			"proc/self/uid_map": {Data: status}, "proc/self/limits": {Data: areas}, "etc/os-release": {Data: lockdown}, "proc/kallsyms": {Data: areas},
		}
		p := read(files, "x86_64", nil)
		doc, err := json.Marshal(Document{Schema, *p})
		qt.Assert(t, qt.IsNil(err))
		again, err := Decode(bytes.NewReader(doc))
		qt.Assert(t, qt.IsNil(err))
		for _, d := range Diff(p, again) {
			// Bytes that are no UTF-8 become marks in JSON.
			if json.Valid([]byte(`"`+d.A+`"`)) && d.A == d.B {
				t.Fatalf("%+v", d)
			}
		}
	})
}
