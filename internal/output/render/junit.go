// SPDX-License-Identifier: Apache-2.0

package render

import (
	"encoding/xml"
	"fmt"
	"io"

	"github.com/bpfwhy/bpfwhy/internal/objects/check"
	"github.com/bpfwhy/bpfwhy/internal/output/text"
)

// JUnit writes a report as CI systems take it: an object is a suite, and a program is a test case,
// which fails where the program is rejected.
func JUnit(w io.Writer, r *check.Report) error {
	type problem struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr,omitempty"`
	}
	type testCase struct {
		Name    string   `xml:"name,attr"`
		Class   string   `xml:"classname,attr"`
		Failure *problem `xml:"failure"`
		Error   *problem `xml:"error"`
		Out     string   `xml:"system-out,omitempty"`
	}
	type suite struct {
		Name  string     `xml:"name,attr"`
		Cases []testCase `xml:"testcase"`
	}
	out := struct {
		XMLName xml.Name `xml:"testsuites"`
		Suites  []suite  `xml:"testsuite"`
	}{}
	for _, o := range r.Objects {
		s := suite{Name: text.Clean(o.Path)}
		if o.Error != "" {
			s.Cases = append(s.Cases, testCase{Name: "read", Class: s.Name, Error: &problem{Message: text.Clean(o.Error)}})
		}
		for i := range o.Programs {
			p := &o.Programs[i]
			c := testCase{Name: text.Clean(p.Name), Class: s.Name}
			switch said := text.Clean(sarifMessage(o.File(), p, r.MinMargin)); {
			case p.Rejected:
				c.Failure = &problem{said, p.Failure()}
			case p.MayOnly():
				c.Out = said
			}
			s.Cases = append(s.Cases, c)
		}
		out.Suites = append(out.Suites, s)
	}
	b, err := xml.MarshalIndent(out, "", " ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s%s\n", xml.Header, b)
	return err
}
