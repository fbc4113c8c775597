// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"encoding/hex"

	"github.com/bpfwhy/bpfwhy/load"
)

// attempt tells of a load that was repaired as of any other.
func attempt(s *snapshot, o *outcome) *load.Attempt {
	yes := true
	ok := func(st load.Stage) load.StageResult { return load.StageResult{Stage: st, Result: load.OK} }
	repair := &load.Repair{}
	if o.repair != nil {
		repair.Applied, repair.Islands, repair.InsnsAdded = load.RepairIslands, o.repair.Islands, o.repair.Added
	} else {
		repair.Applied, repair.WindowNS, repair.Exposed = load.RepairWindow, o.window.Open, o.window.Others
		repair.WholeCall = o.window.WholeCall
	}
	return &load.Attempt{
		Schema: load.Schema, Kind: load.ProgLoad, Time: o.began, DurationNS: o.took,
		Process: load.Process{PID: s.who.tgid, TID: s.tid, UID: s.who.uid[0], GID: s.who.gid[0], Comm: s.who.comm, Exe: s.who.exe},
		Program: &load.Program{
			Name: s.attr.ProgName.String(), Type: s.programType(), Insns: len(s.insns),
			License: string(s.license[:len(s.license)-1]), ID: int(o.info.id), Tag: hex.EncodeToString(o.info.tag[:]),
			JITed: &yes, JITedBytes: int(o.info.jited),
		},
		Outcome:     load.Loaded,
		Stages:      []load.StageResult{ok(load.Request), ok(load.Verifier), ok(load.Blinding), ok(load.JIT), ok(load.Install)},
		VerifierLog: load.VerifierLog{Origin: load.LogNone},
		Backend:     "proxy",
		Repair:      repair,
		Evidence:    load.Evidence{FailedInsn: -1, UserNSLevel: -1, SeccompMode: 2, Harden: -1},
	}
}
