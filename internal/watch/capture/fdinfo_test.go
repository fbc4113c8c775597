// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// FuzzParseFdinfo: what the kernel says of a program is read to the last bit, whatever else stands
// around it. What does not say whether the program was compiled says nothing.
func FuzzParseFdinfo(f *testing.F) {
	f.Add("pos:\t0\nflags:\t02000002\n", []byte{1, 2, 3, 4, 5, 6, 7, 8}, uint32(1), uint32(7), uint32(2), true)
	f.Add("prog_jited:\t2\nprog_tag:\txy\n", []byte{}, ^uint32(0), ^uint32(0), ^uint32(0), false)
	f.Add("prog_jited:\t99999999999999999999\nprog_type:\t-1\n", []byte{0}, uint32(0), uint32(0), uint32(0), true)
	f.Add(strings.Repeat("x", 70_000), []byte{0}, uint32(0), uint32(0), uint32(0), true)
	f.Fuzz(func(t *testing.T, before string, tag []byte, kind, id, verified uint32, jited bool) {
		if p := parseFdinfo(strings.NewReader(before)); p != nil {
			qt.Assert(t, qt.StringContains(before, "prog_jited:"))
			qt.Assert(t, qt.IsTrue(len(p.Tag) <= len(before)/2))
			qt.Assert(t, qt.IsTrue(p.BlindedUnknown && p.Asked == nil))
		}
		if len(before) > 60_000 || len(tag) > 64 {
			return // a line that is too long ends it
		}
		compiled := 0
		if jited {
			compiled = 1
		}
		p := parseFdinfo(strings.NewReader(before + fmt.Sprintf("\nprog_type:\t%d\nprog_jited:\t%d\nprog_tag:\t%s\nmemlock:\t4096\nprog_id:\t%d\nrun_time_ns:\t0\nverified_insns:\t%d\n",
			kind, compiled, hex.EncodeToString(tag), id, verified)))
		qt.Assert(t, qt.IsNotNil(p))
		qt.Assert(t, qt.IsTrue(p.Type == kind && p.ID == id && p.VerifiedInsns == verified && p.JITed == jited), qt.Commentf("%+v", p))
		qt.Assert(t, qt.Equals(hex.EncodeToString(p.Tag), hex.EncodeToString(tag)))
	})
}
