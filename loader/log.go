// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
)

// Bounds of what a program that fails may cost. cilium/ebpf loads it again and again with a buffer
// for the log that doubles up to 1 GiB. A log of level 1 has a line or two for each instruction
// that the verifier examined, of which it examines up to 1,000,000; each takes some 100 bytes. So
// the verifier is first asked for its complaint and its statistics alone, and for its walk if that
// is not too long.
const (
	walkLimit  = 1 << 15 // instructions examined
	walkBuffer = 8 << 20 // more than their log takes as a rule
)

// quiet are options for a first load, which needs no log if it works.
func (l *Loader) quiet(o ebpf.ProgramOptions) ebpf.ProgramOptions {
	if l.ownLog(o) {
		o.LogDisabled = true
	}
	return o
}

// ownLog reports whether the log is ours to ask for. Who sets a level wants the log of what loads,
// too.
func (l *Loader) ownLog(o ebpf.ProgramOptions) bool {
	return !l.WholeLog && !o.LogDisabled && o.LogLevel == 0
}

// log loads a program that failed once more for the verifier's words, and again for its walk where
// that is short. again makes the load. The error is the given one with what the last load said in
// the place of what the first did, and nil if a load worked after all.
func (l *Loader) log(err error, o ebpf.ProgramOptions, again func(ebpf.ProgramOptions) error) error {
	var v *ebpf.VerifierError
	if !l.ownLog(o) || !errors.As(err, &v) {
		return err
	}
	brief, walk := o, o
	brief.LogLevel = ebpf.LogLevelStats
	walk.LogLevel, walk.LogSizeStart = ebpf.LogLevelBranch, max(o.LogSizeStart, walkBuffer)
	said := again(brief)
	if said == nil {
		return nil
	}
	if n, ok := examined(said); ok && n <= walkLimit {
		switch walked := again(walk); {
		case walked == nil:
			return nil
		case errors.As(walked, &v) && len(v.Log) > 0:
			said = walked
		}
	}
	return instead(err, said)
}

// instead is an error of cilium/ebpf with another end: what it says of the system call.
func instead(err, said error) error {
	const call = "load program:"
	end := func(err error) error {
		for ; err != nil; err = errors.Unwrap(err) {
			if strings.HasPrefix(err.Error(), call) {
				return err
			}
		}
		return nil
	}
	from, to := end(err), end(said)
	if from == nil || to == nil {
		return err
	}
	return fmt.Errorf("%s%w", strings.TrimSuffix(err.Error(), from.Error()), to)
}

var (
	statistics = regexp.MustCompile(`^processed (\d+) insns`)
	walkLine   = regexp.MustCompile(`^\d+: \([0-9a-f]{2}\) `)
)

// examined is how many instructions the verifier went through before it failed, by its statistics.
func examined(err error) (int, bool) {
	var v *ebpf.VerifierError
	if !errors.As(err, &v) {
		return 0, false
	}
	for _, line := range slices.Backward(v.Log) {
		if m := statistics.FindStringSubmatch(line); m != nil {
			n, err := strconv.Atoi(m[1])
			return n, err == nil
		}
	}
	return 0, false
}

// leftOut says that the verifier's walk is not in the log, and why.
func leftOut(err error) (string, bool) {
	var v *ebpf.VerifierError
	n, ok := examined(err)
	if !ok || n <= walkLimit || !errors.As(err, &v) || slices.ContainsFunc(v.Log, walkLine.MatchString) {
		return "", false
	}
	return fmt.Sprintf("the verifier examined %d instructions: its walk through them is left out of the log (Loader.WholeLog has it)", n), true
}

// loadOne loads one program of a collection, with the maps that it uses, and closes it.
func loadOne(spec *ebpf.CollectionSpec, name string, o ebpf.CollectionOptions, p ebpf.ProgramOptions) error {
	o.Programs = p
	to := reflect.New(reflect.StructOf([]reflect.StructField{{
		Name: "Program", Type: reflect.TypeFor[*ebpf.Program](), Tag: reflect.StructTag("ebpf:" + strconv.Quote(name)),
	}}))
	if err := spec.LoadAndAssign(to.Interface(), &o); err != nil {
		return err
	}
	return to.Elem().Field(0).Interface().(*ebpf.Program).Close()
}

// programOf is the program of a collection that an error names, "" if none.
func programOf(spec *ebpf.CollectionSpec, err error) string {
	a := attempt{specs: spec.Programs}
	name, _ := a.named(err)
	return name
}

// collectionLog is log for a collection, of which the program that failed is loaded alone.
func (l *Loader) collectionLog(err error, wanted bool, spec *ebpf.CollectionSpec, o ebpf.CollectionOptions) error {
	name := programOf(spec, err)
	if name == "" || !wanted {
		return err
	}
	// Alone it may load: then the others, or the moment, were the reason.
	return l.log(err, o.Programs, func(p ebpf.ProgramOptions) error {
		return cmp.Or(loadOne(spec, name, o, p), err)
	})
}
