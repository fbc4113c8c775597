// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"strconv"

	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
	"github.com/bpfwhy/bpfwhy/load"
)

// Messages about a place in the stack that mean several things, told apart by its number.

// slot is the size of a place on the stack in which the verifier keeps track of an object.
const slot = 8

// refineStackObject tells a place that is not aligned from one that has too little room behind it:
// the verifier has the same words for both.
func refineStackObject(f *Facts, m *Match) {
	off, err := strconv.Atoi(f.words.arg("off"))
	if err != nil || off%slot != 0 {
		return
	}
	what := printable(f.words.arg("what"), 40)
	m.Without = append(m.Without, "one-life")
	if off >= 0 {
		m.Cause = fmt.Sprintf("The address that is passed for the %s lies at offset %d, above the top of the stack frame, where no variable can be.", what, off)
		return
	}
	m.Cause = fmt.Sprintf("From the address that is passed there are %d bytes up to the top of the stack frame, and the %s of this kernel is larger: the program was built for another version of the struct than this kernel has, or passes a variable of another type.", -off, what)
	m.First = []load.Remedy{
		{ID: "same-struct", Title: "Bring the program and the kernel together: build it with the vmlinux.h of this kernel, take the version of it that was made for this kernel, or run the kernel that it was made for", Price: "Another build, or a reboot."},
		{ID: "right-variable", Title: "In a program of your own: declare the variable with the struct's own type, and pass its address", Price: "A change of the program."},
	}
}

// readsField is a field that is taken of a copy that CO-RE made of a whole struct.
var readsField = lazyregexp.New(`BPF_(?:CORE|PROBE)_READ\w*\s*\(.*\)\s*\.\s*\w`)

// refineAboveFrame says how a program comes to an access above its stack frame.
func (f *Facts) refineAboveFrame(m *Match, off, size int) {
	m.Cause = fmt.Sprintf("The program accesses %d bytes at offset %d above the top of its stack frame, where no variable can be.", size, off)
	copied := load.Remedy{
		ID: "read-field", Title: "Read the field itself with CO-RE, up to its name: BPF_CORE_READ(a, b, field), and no field of a copied struct",
		Price: "A change of the program, or a version of it that does so.",
	}
	if s := f.words.source; s != nil && readsField.MatchString(s.Text) {
		m.Cause += " The source line copies a struct to the stack and takes a field of the copy: CO-RE puts in the offset that the field has in this kernel, and the copy has the size that the struct had where the program was built. Here the field lies beyond it."
		m.First = append(m.First, copied)
		return
	}
	m.Cause += " Compilers do that for an index beyond the end of an array. So does CO-RE for a field of a struct that was copied to the stack, if this kernel's struct is larger than the copy. Otherwise it is a mistake of what generated the code."
	m.First = append(m.First, load.Remedy{
		ID: "inside-frame", Title: "Look for an index beyond the end of a variable, or mend the code generator: the frame lies below R10",
		Price: "Nothing.",
	}, copied)
}

// refineSize tells a size that may be 0 from one that may be too large.
func refineSize(f *Facts, m *Match) {
	if !zeroSized.MatchString(f.words.message) {
		return
	}
	m.Cause = "The size given to a helper may be 0, and this helper takes no empty memory"
	if r := zeroSized.FindStringSubmatch(f.words.message); r[1] != "" {
		m.Cause += fmt.Sprintf(": the verifier knows that it is from 0 to %s", r[1])
	}
	m.Cause += "."
	m.Without = append(m.Without, "bound-size")
	m.First = append(m.First, load.Remedy{
		ID: "not-zero", Title: "Leave before the call if the size is 0, on the same path and with the same variable. A mask keeps 0 possible",
		Price: "A branch.", Command: "if (len == 0) return 0;",
	})
}

var zeroSized = lazyregexp.New(`invalid zero-sized read(?:: u64=\[0,(\d+)\])?`)
