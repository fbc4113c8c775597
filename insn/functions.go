// SPDX-License-Identifier: Apache-2.0

package insn

import "slices"

// Function is a range of slots, End excluded.
type Function struct {
	Start, End int
}

// Len returns the number of slots of the function.
func (f Function) Len() int { return f.End - f.Start }

// Contains reports whether slot i belongs to the function.
func (f Function) Contains(i int) bool { return f.Start <= i && i < f.End }

// Functions splits submitted code into its functions, in order: the first one
// starts at slot 0, the others where a bpf-to-bpf call or the load of a
// function's address points. Targets outside the program are passed over. The
// result covers the program without gaps and is empty for an empty program.
//
// Code that the kernel has begun to compile carries other immediates in its
// calls and must not be split this way.
func Functions(prog []Instruction) []Function {
	if len(prog) == 0 {
		return nil
	}
	starts := []int{0}
	for i := range prog {
		in := &prog[i]
		if in.Code != OpcodeCall && in.Code != OpcodeLoadImm64 {
			continue
		}
		if t, ok := in.CallTarget(i); ok && t > 0 && t < len(prog) {
			starts = append(starts, t)
		}
	}
	slices.Sort(starts)
	starts = slices.Compact(starts)
	functions := make([]Function, len(starts))
	for i, s := range starts {
		functions[i] = Function{Start: s, End: len(prog)}
		if i > 0 {
			functions[i-1].End = s
		}
	}
	return functions
}

// FunctionAt returns the function that holds slot i, and false when none does.
// The functions must be sorted as [Functions] returns them.
func FunctionAt(functions []Function, i int) (Function, bool) {
	n, found := slices.BinarySearchFunc(functions, i, func(f Function, i int) int {
		switch {
		case f.End <= i:
			return -1
		case f.Start > i:
			return 1
		}
		return 0
	})
	if !found {
		return Function{}, false
	}
	return functions[n], true
}
