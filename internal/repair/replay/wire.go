// SPDX-License-Identifier: Apache-2.0

package replay

import "time"

// The messages between Prove and its child, as JSON: a setup and its answer, then trials and their
// answers. Prove has checked everything in them but the instructions, and those are for the
// verifier to check.

// setup is what trials have in common.
type setup struct {
	UID, GID int
	Caps     uint64 // effective capabilities, at most
	Memlock  uint64 // RLIMIT_MEMLOCK, bytes
	Maps     []mapSpec
	BTF      []byte // of the program
}

// trial is one load. Attr has no pointer and no descriptor; the rest goes where they belong.
type trial struct {
	Attr               []byte
	Insns              []byte
	Refs               []ref // instructions that name maps of the setup
	License            []byte
	BTF                bool // with the setup's
	FuncInfo, LineInfo []byte
	FuncRec, LineRec   uint32
	Log                bool // asks for the verifier's log
}

// answer is the answer to either.
type answer struct {
	Error    string // it could not be tried
	Errno    int
	JITed    int // bytes
	Took     time.Duration
	Log      string // its end, when it is long
	LogCut   bool
	Lacks    uint64 // capabilities of the setup that this process does not have
	Stronger int    // maps and BTF that the loader's rights did not suffice for
}
