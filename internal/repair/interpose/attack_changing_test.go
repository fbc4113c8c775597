// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"unsafe"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
)

// A program that changes after it was looked at has no effect: neither on what is loaded, nor on
// what others get who load the program that it was.
func TestInGuestAttackChanging(t *testing.T) {
	vmtest.Guest(t)
	hardened(t)
	try := func(t *testing.T, once bool) (changed, other victim) {
		meet(t)
		out, _ := attack(t, Options{without: guards{once: once, before: at(loading, func() {
			qt.Check(t, qt.IsNil(errors.Join(say("now"), hear("changed"))))
		})}}, "change")
		got := [2]victim{}
		qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(out), &got)), qt.Commentf("%q", out))
		for _, v := range got {
			qt.Check(t, qt.Equals(v.Errno, 0))
			qt.Check(t, qt.IsTrue(v.JITed))
		}
		return got[0], got[1]
	}
	changed, other := try(t, true)
	qt.Check(t, qt.Equals(changed.Ran, afterChange), qt.Commentf("the guard is not needed"))
	qt.Check(t, qt.Equals(other.Ran, afterChange), qt.Commentf("the guard is not needed for others"))
	changed, other = try(t, false)
	qt.Check(t, qt.Equals(changed.Ran, beforeChange))
	qt.Check(t, qt.Equals(other.Ran, beforeChange))
}

// What the program returns that the attacker changes.
const (
	beforeChange = 7
	afterChange  = 8
)

// changeProgram loads a program that another thread changes when it was looked at. Then another
// process loads the program that it was.
func changeProgram() error {
	code := fenced(insn.Encode(stretched(beforeChange)))
	instructions := code[len(code)-pageSize-len(stretched(beforeChange))*insn.Size:]
	result := instructions[(len(stretched(beforeChange))-2)*insn.Size+4:]
	said := make(chan error, 1)
	go func() {
		err := hear("now")
		binary.NativeEndian.PutUint32(result, afterChange)
		said <- errors.Join(err, say("changed"))
	}()
	l := request{name: "changing", code: stretched(beforeChange), change: func(a *attr) {
		a.Insns = uint64(uintptr(unsafe.Pointer(&instructions[0])))
	}}.load()
	if err := errors.Join(<-said, l.ask(-1)); err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{loaderArgv0, "attack", "one"}
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return err
	}
	var other victim
	if err := json.Unmarshal(out, &other); err != nil {
		return fmt.Errorf("%q: %w", out, err)
	}
	return json.NewEncoder(os.Stdout).Encode([]victim{{Errno: l.Errno, JITed: l.JITed, Ran: l.Ran[0]}, other})
}
