// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/go-quicktest/qt"
)

func TestFunctions(t *testing.T) {
	const list = `0000000000000000 A fixed_percpu_data
ffffffff81000000 T _text
ffffffff81000110 D verbose
ffffffff81234560 t verbose
ffffffff81334560 t verbose
`
	// Nothing is read behind the second of them.
	rest := iotest.ErrReader(io.ErrUnexpectedEOF)
	text, at, err := functions(io.MultiReader(strings.NewReader(list), rest), "verbose")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(text, 0xffffffff81000000))
	qt.Check(t, qt.Equals(at, 0xffffffff81234560))

	// A module's function is not the kernel's.
	const module = "ffffffffc0234560 t late\t[iwlwifi]\n"
	_, at, err = functions(strings.NewReader(list+module), "late")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(at, 0))

	_, _, err = functions(io.MultiReader(strings.NewReader(list), rest), "missing")
	qt.Check(t, qt.ErrorIs(err, io.ErrUnexpectedEOF))
}
