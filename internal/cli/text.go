// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"fmt"
	"io"

	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/internal/output/render"
	"github.com/bpfwhy/bpfwhy/internal/watch/redact"
	"github.com/bpfwhy/bpfwhy/load"
)

// explainText explains error text. Nothing recognised is a negative answer, not bad input.
func explainText(s std, name string, text io.Reader, asJSON bool) error {
	found, err := explain.TextFrom(text)
	if err != nil {
		return fmt.Errorf("explain %s: %w", name, err)
	}
	if len(found) == 0 {
		return &status{negative, fmt.Errorf("explain %s: found no error about loading BPF that bpfwhy knows", name)}
	}
	t := s.text()
	for i := range found {
		var err error
		if asJSON {
			err = pastedJSON(s.out, &found[i])
		} else {
			err = t.Diagnosis(&found[i])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// pastedJSON writes a diagnosis without kernel addresses: a text quotes logs as they were, and JSON
// is handed around.
func pastedJSON(w io.Writer, d *load.Diagnosis) error {
	var b bytes.Buffer
	if err := render.JSON(&b, d); err != nil {
		return err
	}
	redact.Free(b.Bytes())
	_, err := w.Write(b.Bytes())
	return err
}
