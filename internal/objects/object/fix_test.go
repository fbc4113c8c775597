// SPDX-License-Identifier: Apache-2.0

package object

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/rewrite"
)

func fixed(t testing.TB, b []byte, options FixOptions) (*Object, *Fixed) {
	t.Helper()
	o, err := Parse(b)
	qt.Assert(t, qt.IsNil(err))
	f, err := o.Fix(options)
	qt.Assert(t, qt.IsNil(err))
	return o, f
}

// fits reports whether each program is predicted to load.
func fits(t testing.TB, o *Object) bool {
	t.Helper()
	for _, p := range o.Programs {
		l, err := o.Link(p)
		qt.Assert(t, qt.IsNil(err))
		predicted, err := blinding.Predict(l.Insns, l.Functions, blinding.Kernel{}, blinding.Source{Type: p.Type()})
		qt.Assert(t, qt.IsNil(err))
		if predicted.Fate != blinding.Loads {
			return false
		}
	}
	return true
}

func objects(t testing.TB) []string {
	list, err := filepath.Glob("testdata/*.o")
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(len(list), 13))
	return append(list, "../../demo/failing/testdata/far_jump.o", "../../demo/failing/testdata/far_calls.o", "../../watch/capture/core_x86_bpfel.o")
}

// TestFix: what needs nothing comes back byte for byte, and what does not survive then does; either
// way cilium/ebpf reads the same program.
func TestFix(t *testing.T) {
	for _, path := range objects(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			b, err := os.ReadFile(path)
			qt.Assert(t, qt.IsNil(err))
			o, f := fixed(t, b, FixOptions{})
			needed := !fits(t, o)
			qt.Assert(t, qt.Equals(f.Changed(), needed))
			qt.Assert(t, qt.Equals(bytes.Equal(f.Bytes, b), !needed))
			qt.Assert(t, qt.IsTrue(fits(t, f.Object)))
			_, err = ebpf.LoadCollectionSpecFromReader(bytes.NewReader(b))
			qt.Assert(t, qt.IsNil(err)) // or sameProgram had nothing to compare
			_, err = sameProgram(b, f.Bytes, o, f)
			qt.Assert(t, qt.IsNil(err))
			_, again := fixed(t, f.Bytes, FixOptions{})
			qt.Assert(t, qt.IsFalse(again.Changed()))
		})
	}
}

// TestFixEverything: with the smallest limit all that refers to instructions has to follow.
func TestFixEverything(t *testing.T) {
	b := read(t, "small.o")
	for _, options := range []FixOptions{{Limit: rewrite.MinLimit}, {Limit: rewrite.MinLimit, Gotol: true}} {
		o, f := fixed(t, b, options)
		qt.Assert(t, qt.IsTrue(f.Changed()))
		lines, err := sameProgram(b, f.Bytes, o, f)
		if !options.Gotol { // those are not gotos that cilium/ebpf's test would know
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsTrue(lines > 20), qt.Commentf("%d", lines))
		}
		// Of the functions that follow each other in a section, only what needs it changes.
		for _, fn := range f.Functions {
			qt.Check(t, qt.Equals(fn.Name, "entry"))
		}
		// second comes after entry in its section, and moves by what was inserted.
		was, is := o.functions[slices.IndexFunc(o.functions, byName("second"))], f.Object.functions[slices.IndexFunc(f.Object.functions, byName("second"))]
		grown := f.Functions[0].After - f.Functions[0].Before
		qt.Assert(t, qt.IsTrue(grown > 0 || options.Gotol)) // a goto can become a gotol in place
		qt.Assert(t, qt.Equals(is.start-was.start, grown))
		qt.Assert(t, qt.Equals(is.end-is.start, was.end-was.start))
		// The program in the map is in another section, which has not moved.
		maps := f.Object.image.byName(".maps")[0]
		qt.Assert(t, qt.DeepEquals(f.Object.image.sections[maps].data, o.image.sections[maps].data))
	}
}

func byName(name string) func(Function) bool { return func(f Function) bool { return f.Name == name } }

// TestFixMovesSubprograms: calls and addresses in other sections follow a subprogram that moves.
func TestFixMovesSubprograms(t *testing.T) {
	// .text: first has a jump that is too long for the limit, and second, called by it, moves.
	body := []insn.Instruction{{Code: 0x15, Dst: 1, Off: 30}} // if r1 == 0 goto the end
	for range 30 {
		body = append(body, insn.Instruction{Code: 0xbf, Dst: 1, Src: 2}) // r1 = r2
	}
	first := append(body, insn.Instruction{Code: insn.OpcodeCall, Src: insn.PseudoCall, Imm: 1}, insn.Instruction{Code: insn.OpcodeExit})
	second := []insn.Instruction{{Code: 0xb7}, {Code: insn.OpcodeExit}}
	start := len(first)
	b := made{
		code: slices.Concat(first, second, []insn.Instruction{
			{Code: insn.OpcodeCall, Src: insn.PseudoCall, Imm: int32(start) - 1}, // by a symbol at 0 and an addend, as of a section
			{Code: insn.OpcodeCall, Src: insn.PseudoCall, Imm: -1},               // by its own symbol
			{Code: insn.OpcodeLoadImm64, Imm: int32(start) * insn.Size}, {},      // its address
			{Code: insn.OpcodeExit},
		}),
		symbols: []elf.Sym64{function(1, 0, start), function(2, start, start+2), function(3, start+2, start+7)},
		relocs: []elf.Rel64{
			{Off: uint64(start+2) * insn.Size, Info: 1<<32 | relocCall32},
			{Off: uint64(start+3) * insn.Size, Info: 2<<32 | relocCall32},
			{Off: uint64(start+4) * insn.Size, Info: 1<<32 | relocLoad64},
		},
	}.bytes()
	o, f := fixed(t, b, FixOptions{Limit: 20})
	qt.Assert(t, qt.Equals(len(f.Functions), 1))
	grown := f.Functions[0].After - f.Functions[0].Before
	qt.Assert(t, qt.IsTrue(grown > 0))
	was, is := o.code[madeCode].insns, f.Object.code[madeCode].insns
	at := start + grown
	qt.Assert(t, qt.Equals(is[at-2].Imm, 1)) // the numeric call: nothing lies between it and second
	qt.Assert(t, qt.Equals(is[at+2].Imm, was[start+2].Imm+int32(grown)))
	qt.Assert(t, qt.Equals(is[at+3].Imm, -1))
	qt.Assert(t, qt.Equals(is[at+4].Imm, was[start+4].Imm+int32(grown*insn.Size)))
	qt.Assert(t, qt.Equals(is[at+4].Src, 0))
	for _, p := range f.Object.Programs {
		before, err := o.Link(o.Programs[slices.IndexFunc(o.Programs, func(q Program) bool { return q.Name == p.Name })])
		qt.Assert(t, qt.IsNil(err))
		after, err := f.Object.Link(p)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.DeepEquals(after.Names, before.Names))
	}
}

func TestFixRefuses(t *testing.T) {
	far := func(extra ...insn.Instruction) []byte {
		code := []insn.Instruction{{Code: 0x15, Dst: 1, Off: 40}}
		code = append(append(code, exits(41)...), extra...)
		return made{code: code, symbols: []elf.Sym64{function(1, 0, len(code))}}.bytes()
	}
	renamed := func(from, to string) []byte { return bytes.Replace(far(), []byte(from), []byte(to), 1) }
	tests := map[string]struct {
		b    []byte
		want string
	}{
		"signed":            {append(far(), signature...), "the object is signed"},
		"signature section": {renamed("\x00.data\x00", "\x00.sig\x00\x00"), `the object is signed \(section .sig\)`},
		"gotox":             {far(insn.Instruction{Code: insn.OpcodeGotox}, insn.Instruction{Code: insn.OpcodeExit}), "function prog: .*instruction array"},
		"out of range":      {far(insn.Instruction{Code: insn.OpcodeJA, Off: 3000}, insn.Instruction{Code: insn.OpcodeExit}), "function prog: .*slot 42.*"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			o, err := Parse(test.b)
			qt.Assert(t, qt.IsNil(err))
			_, err = o.Fix(FixOptions{Limit: 20})
			qt.Assert(t, qt.ErrorMatches(err, "(?s)"+test.want+".*"))
		})
	}
	// What needs nothing is not refused.
	o, err := Parse(append(far(), signature...))
	qt.Assert(t, qt.IsNil(err))
	f, err := o.Fix(FixOptions{})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsFalse(f.Changed()))
}

// TestFixLinked: what bpftool gen object makes of several objects.
func TestFixLinked(t *testing.T) {
	bpftool, err := exec.LookPath("bpftool")
	if err != nil {
		t.Skip("needs bpftool")
	}
	linked := filepath.Join(t.TempDir(), "linked.o")
	out, err := exec.Command(bpftool, "gen", "object", linked, "testdata/small.o").CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
	b, err := os.ReadFile(linked)
	qt.Assert(t, qt.IsNil(err))
	o, f := fixed(t, b, FixOptions{Limit: rewrite.MinLimit})
	qt.Assert(t, qt.IsTrue(f.Changed()))
	_, err = sameProgram(b, f.Bytes, o, f)
	qt.Assert(t, qt.IsNil(err))
	// And the other way round.
	result := filepath.Join(t.TempDir(), "fixed.o")
	qt.Assert(t, qt.IsNil(os.WriteFile(result, f.Bytes, 0o600)))
	out, err = exec.Command(bpftool, "gen", "object", linked, result).CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
}

// FuzzObject: any bytes are an error or an object, whose programs are errors or programs; fixing
// them gives an error or an object that is proved.
func FuzzObject(f *testing.F) {
	f.Add([]byte{}, 0)
	f.Add(made{code: exits(4), symbols: []elf.Sym64{function(1, 0, 2), function(2, 2, 4)}}.bytes(), 16)
	f.Add(made{code: append(exits(3), insn.Instruction{Code: insn.OpcodeCall, Src: insn.PseudoCall, Imm: -1}), symbols: []elf.Sym64{function(1, 0, 4)},
		relocs: []elf.Rel64{{Off: 24, Info: 1<<32 | relocCall32}}}.bytes(), 16)
	f.Add(read(f, "small.o"), 16)
	f.Fuzz(func(t *testing.T, b []byte, limit int) {
		o, err := Parse(b)
		if err != nil {
			return
		}
		for _, p := range o.Programs {
			p.Type()
			l, err := o.Link(p)
			if err != nil {
				continue
			}
			for slot := range min(len(l.Insns), 1000) {
				l.Where(slot)
				l.Source(slot)
			}
			if _, err := blinding.Predict(l.Insns, l.Functions, blinding.Kernel{}, blinding.Source{}); err != nil {
				continue
			}
		}
		fixed, err := o.Fix(FixOptions{Limit: max(rewrite.MinLimit, min(limit, blinding.MaxOffset))})
		if err != nil {
			return
		}
		if fixed.Changed() == bytes.Equal(fixed.Bytes, b) {
			t.Fatalf("changed %v, but the bytes say otherwise", fixed.Changed())
		}
	})
}
