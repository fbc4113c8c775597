// SPDX-License-Identifier: Apache-2.0

package rights_test

import (
	"encoding/json"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/hostinfo/rights"
)

func TestLoads(t *testing.T) {
	for text, want := range map[string]bool{
		`{}`:                                       false,
		`{"privileged":true}`:                      true,
		`{"privileged":false}`:                     false,
		`{"capabilities":{"add":["BPF"]}}`:         true,
		`{"capabilities":{"add":["CAP_BPF"]}}`:     true,
		`{"capabilities":{"add":["SYS_ADMIN"]}}`:   true,
		`{"capabilities":{"add":["ALL"]}}`:         true,
		`{"capabilities":{"add":["PERFMON"]}}`:     false,
		`{"capabilities":{"add":["NET_ADMIN"]}}`:   false,
		`{"capabilities":{"drop":["BPF"]}}`:        false,
		`{"capabilities":{"add":["X","CAP_BPF"]}}`: true,
	} {
		var s rights.SecurityContext
		qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(text), &s)))
		qt.Check(t, qt.Equals(s.Loads(), want), qt.Commentf("%s", text))
	}
}
