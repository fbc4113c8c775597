// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"io"

	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
)

// writeTrace writes a case's records as a trace of their own.
func writeTrace(w io.Writer, h trace.Header, records []trace.Record) error {
	out, err := trace.NewWriter(w, h)
	if err != nil {
		return err
	}
	var end trace.End
	for _, r := range records {
		switch {
		case r.Call != nil:
			end.Calls++
		case r.Loss != nil:
			end.Lost += r.Loss.Count
		}
		if err := out.Write(r); err != nil {
			return err
		}
	}
	return out.Close(end)
}
