// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

var update = flag.Bool("update", false, "write docs/blinding-proof.md anew")

const proofFile = "../docs/blinding-proof.md"

// tally counts what was found on one kernel. It goes into a file of the guest
// and, from there, into docs/blinding-proof.md.
type tally struct {
	Kernel   string
	Release  string
	Programs int
	// By the model on post-verifier code: how many fit, and how many fail in
	// which way.
	Fits, Patches, Checks, Wraps int
	Verdicts                     int // compared with the kernel's
	Indexes                      int // failing indexes compared with the kernel's
	// On submitted code.
	Rich                      int // of which the verifier rewrites some
	Loads, MayFail, Fails     int // as predicted
	FalseLoads                int // and the kernel did not compile it
	FalseMayFail, FalseFails  int // and it did
	Refused, Interpreted      int // of those that fail, what the kernel did
	Repaired, First, Early    int // by the loader; with the first limit; without asking the kernel
	Gotol                     int // of those repaired
	Islands, Runs             int
	MostGrowth, LeastHeadroom int // the verifier's, in slots after blinding; what was left of the bound
	Seconds                   float64
	problems                  []string
}

func (c *tally) wrong(format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

// The document says what the long runs found, as they left it in testdata.
func TestProofDocument(t *testing.T) {
	text, err := proofDocument()
	qt.Assert(t, qt.IsNil(err))
	if *update {
		qt.Assert(t, qt.IsNil(os.WriteFile(proofFile, []byte(text), 0o644)))
	}
	have, err := os.ReadFile(proofFile)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(string(have), text), qt.Commentf("go test ./loader -run ProofDocument -update"))
}

func proofDocument() (string, error) {
	var b strings.Builder
	b.WriteString(`# What is proven about blinding, and how

` + "`go test ./loader -run ProofDocument -update`" + ` writes this page from the results of the long runs
(` + "`make test-long`" + `). ` + "`make test`" + ` has a shorter run with smaller programs of the same kind.

## The model

The test compares the model with a literal replay of the kernel's algorithm, which makes one
replacement after the other. It uses random programs with small offsets, and each way in which
kernels blind. The verdict, the failing patch, the failing jump, the wrap, the length and the work
must be equal.

`)
	var replay struct {
		Programs, Fit, Patch, Wrap int
		RangeCheck                 int `json:"range_check"`
	}
	if err := read("../blinding/testdata/replay.json", &replay); err != nil {
		return "", err
	}
	fmt.Fprintf(&b, "| programs | fit | fail in a patch | fail the range check | wrap | differences |\n|---|---|---|---|---|---|\n| %d | %d | %d | %d | %d | 0 |\n",
		replay.Programs, replay.Fit, replay.Patch, replay.RangeCheck, replay.Wrap)

	b.WriteString(`
## The rewriter

The test rewrites random programs with functions, calls, 64-bit loads and jumps of all kinds, for
small limits, with islands and with gotol. Each instruction of the result must lead to the same next
instruction as in the original, with only islands in between. Each inserted instruction must be
reachable. Each jump must be within its range.

`)
	var paths struct {
		Programs, Rewritten, Untouched int
		Crowded                        int            `json:"too_crowded"`
		Hops                           map[string]int `json:"jumps_by_islands"`
	}
	if err := read("../rewrite/testdata/paths.json", &paths); err != nil {
		return "", err
	}
	fmt.Fprintf(&b, "| programs | rewritten | needed no change, byte for byte the same | refused: too many jumps cross one place | jumps with 1, 2, 3, 4, 5, more islands | differences |\n|---|---|---|---|---|---|\n| %d | %d | %d | %d | %d, %d, %d, %d, %d, %d | 0 |\n",
		paths.Programs, paths.Rewritten, paths.Untouched, paths.Crowded, paths.Hops["1"], paths.Hops["2"], paths.Hops["3"], paths.Hops["4"], paths.Hops["5"], paths.Hops["6"])

	b.WriteString(`
## On real kernels

The verifier accepts all of these programs, and they end by themselves. Most of them have a jump
within three slots of the limit. The jumps go forward and backward, are conditional or not, and are
in loops and in separate functions. The programs use maps. In every fourth program, the verifier
rewrites what it can: reads of the context, helpers, divisions, packet access, dead code. Each
program is loaded and run on 100 packets without blinding, and then with net.core.bpf_jit_harden=2.

* *verdicts*: the prediction from the post-verifier code (the dump of the load without blinding),
  compared with what the kernel did. A program that wraps is never loaded unchanged.
* *indexes*: the off argument of the bpf_patch_insn_single that failed, or that none failed. A host
  under lockdown=confidentiality does not allow anybody to watch this function.
* *submitted code*: what blinding.Predict says before the verifier has seen the program. If a
  program does not load, it must never say *loads*. Nearly all programs here are very close to the
  limit: the verifier may add more than what is left. So most of the programs that load get the
  answer *may fail*.
* *repaired*: the loader's result was compiled, and computed the same on 100 packets.
* *first*: repaired with the first limit that the loader chose.
* *early*: the program wraps, or might wrap when the verifier has added to it. The kernel never saw
  the unchanged program.

`)
	b.WriteString("| kernel | programs | verdicts right | indexes right | fit / fail / wrap | refused / interpreted | submitted code: \"loads\", of these false | \"may fail\", of these load | \"fails\", of these load | verifier adds at most (smallest headroom below the bound) | repaired | first | gotol | early | islands | runs equal | seconds |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, name := range []string{"host", "5.10", "6.1", "6.12", "7", "hardened"} {
		var c tally
		if err := read("testdata/proof/"+name+".json", &c); errors.Is(err, fs.ErrNotExist) {
			continue // not run yet
		} else if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "| %s (%s) | %d | %d | %d | %d / %d / %d | %d / %d | %d, %d | %d, %d | %d, %d | %d (%d) | %d | %d | %d | %d | %d | %d | %.0f |\n",
			c.Kernel, c.Release, c.Programs, c.Verdicts, c.Indexes, c.Fits, c.Patches+c.Checks, c.Wraps, c.Refused, c.Interpreted,
			c.Loads, c.FalseLoads, c.MayFail, c.FalseMayFail, c.Fails, c.FalseFails, c.MostGrowth, c.LeastHeadroom,
			c.Repaired, c.First, c.Gotol, c.Early, c.Islands, c.Runs, c.Seconds)
	}
	b.WriteString(`
The programs come from seeds 1000 and up (the guests) and 5000 and up (the host). Two programs of
the host were too long for the verifier's own patches.

Four more tests in ` + "`loader`" + ` run on every kernel of the lab. TestGuestTighter tests the retry with a
tighter limit. TestGuestWrap tests the wrap: loaded, compiled, wrong results (only in the lab).
TestGuestObject tests objects with CO-RE. TestGuestLines tests functions and source lines.
`)
	return b.String(), nil
}

func read(file string, to any) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, to)
}
