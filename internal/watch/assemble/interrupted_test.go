// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// cutShort is what capture wrote on 7.2.13 of a load that a listener held when another thread
// executed a program (its scene "cut short").
const cutShort = `{"id":{"tid":180,"start":308522687244},"end":308522687244,"kind":"prog_load","cmd":5,"ret":-512,"flags":{"exit":true},"attr":"AQAAAAIAAACQo/s8gSwAAHij+zyBLAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAaW50ZXJydXB0ZWQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","tgid":180,"nspid":180,"uid":0,"gid":0,"comm":"interrupted","exe":"/test/capture","cgroup2":{"id":1},"cgroup1":{"id":1},"creds":{"cap_eff":2199023255551,"userns_level":0,"seccomp":2,"memlock":18446744073709551615,"nofile":1024},"failed_insn":-1}`

// What an exec cuts short is no policy's answer; what a policy answers is.
func TestCutShort(t *testing.T) {
	for _, c := range []struct {
		ret  int64
		rule string
	}{
		{-512, "REQ010"},
		{-1, "PERM006"},
		{-38, "PERM006"},
	} {
		var call trace.Call
		qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(cutShort), &call)))
		qt.Assert(t, qt.Equals(call.Ret, -512))
		call.Ret = c.ret
		h := header("7.2.13", allHooks)
		h.Hooks = append(h.Hooks, trace.Hook{Function: load.FnDenied, Via: "fentry"})
		a := New(h)
		attempts := slices.Concat(slices.Collect(a.Add(trace.Record{Call: &call})), slices.Collect(a.Flush()))
		qt.Assert(t, qt.HasLen(attempts, 1))
		explain.Conclude(attempts[0], &h.Node)
		qt.Check(t, qt.Equals(attempts[0].Diagnosis.Rule, c.rule))
		qt.Check(t, qt.Equals(attempts[0].FailedStage, load.Request))
	}
}
