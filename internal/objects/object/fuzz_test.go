// SPDX-License-Identifier: Apache-2.0

package object

import (
	"testing"

	"github.com/go-quicktest/qt"
)

// FuzzTypes is about .BTF and .BTF.ext, which lie about sizes and counts: every place that is kept
// lies in its section, and there are no more of them than it has bytes for.
func FuzzTypes(f *testing.F) {
	small, err := parseImage(read(f, "small.o"))
	qt.Assert(f, qt.IsNil(err))
	section := func(name string) []byte { return small.sections[small.byName(name)[0]].data }
	f.Add(section(".BTF"), section(".BTF.ext"))
	f.Add(section(".BTF")[:24], section(".BTF.ext")[:32])
	f.Fuzz(func(t *testing.T, btf, ext []byte) {
		types, err := parseTypes(btf)
		if err != nil {
			return
		}
		if len(types.externs)+len(types.callbacks) > len(btf)/12 {
			t.Fatalf("%d symbols in %d bytes", len(types.externs)+len(types.callbacks), len(btf))
		}
		e, err := parseExt(ext, types)
		if err != nil {
			return
		}
		// The three tables may name the same bytes.
		if len(e.places) > 3*len(ext)/8 {
			t.Fatalf("%d places in %d bytes", len(e.places), len(ext))
		}
		for _, p := range e.places {
			if p.at < 24 || p.at+4 > len(ext) || order.Uint32(ext[p.at:]) != p.offset {
				t.Fatalf("%+v in %d bytes", p, len(ext))
			}
		}
		o := &Object{btf: types, ext: e}
		for name, lines := range e.lines {
			for _, l := range lines {
				o.lineAt(Function{Section: name, end: l.slot + 1}, l.slot)
			}
		}
	})
}
