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
	b.WriteString(`# What is proven of blinding, and how

Written by ` + "`go test ./loader -run ProofDocument -update`" + ` from what the long runs left behind (` + "`make test-long`" + `). A shorter run with
lighter programs of the same kind is part of ` + "`make test`" + `.

## The model

A literal replay of the kernel's algorithm, one replacement after the other, on random programs with small offsets, for each way
in which kernels blind. Verdict, failing patch, failing jump, wrap, length and work have to be equal.

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

Random programs with functions, calls, 64-bit loads and jumps of all kinds, rewritten for small limits, with islands and with gotol.
Every instruction of the result has to go on to where the original did, over islands alone; what was inserted has to be reached;
every jump has to fit.

`)
	var paths struct {
		Programs, Rewritten, Untouched int
		Crowded                        int            `json:"too_crowded"`
		Hops                           map[string]int `json:"jumps_by_islands"`
	}
	if err := read("../rewrite/testdata/paths.json", &paths); err != nil {
		return "", err
	}
	fmt.Fprintf(&b, "| programs | rewritten | nothing to do, byte for byte the same | refused: too many jumps cross one place | jumps with 1, 2, 3, 4, 5, more islands | differences |\n|---|---|---|---|---|---|\n| %d | %d | %d | %d | %d, %d, %d, %d, %d, %d | 0 |\n",
		paths.Programs, paths.Rewritten, paths.Untouched, paths.Crowded, paths.Hops["1"], paths.Hops["2"], paths.Hops["3"], paths.Hops["4"], paths.Hops["5"], paths.Hops["6"])

	b.WriteString(`
## On real kernels

Programs that the verifier accepts and that end by themselves, most with a jump within three slots of the limit: forward and backward,
conditional and not, in loops and in functions of their own, with maps. In every fourth the verifier rewrites what it can: reads of
the context, helpers, divisions, packet access, dead code. Each is loaded and run on 100 packets where nothing is blinded, then with
net.core.bpf_jit_harden=2.

* *verdicts*: predicted from the post-verifier code (the dump of the load that was not blinded), and what the kernel did with it. A
  program that wraps is never loaded as it is. *indexes*: the off argument of the bpf_patch_insn_single that failed, or that none
  did; a host under lockdown=confidentiality lets nobody watch that.
* *submitted code*: what blinding.Predict says before the verifier has seen the program. It must never say *loads* of what does not.
  Nearly all programs here are closer to the limit than what the verifier may add, so that most of those that do load are said
  to be uncertain.
* *repaired*: the loader's result was compiled, and computed the same on 100 packets; *first*: with the first limit that it chose;
  *early*: it wraps, or might when the verifier has added to it, and the kernel never saw it as it was.

`)
	b.WriteString("| kernel | programs | verdicts right | indexes right | fit / fail / wrap | refused / interpreted | submitted code: \"loads\", of these false | \"may fail\", of these load | \"fails\", of these load | verifier adds at most (bound never passed by) | repaired | first | gotol | early | islands | runs equal | seconds |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n")
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
The programs are those of seeds 1000 and up (the guests) and 5000 and up (the host); two of the host's were too long for the
verifier's own patches.

The retry with a tighter limit, the wrap (loaded, compiled, wrong results, in the lab alone), objects with CO-RE, functions and lines
of source: TestGuestTighter, TestGuestWrap, TestGuestObject and TestGuestLines in ` + "`loader`" + `, on every kernel of the lab.
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
