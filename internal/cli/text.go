// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"

	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/internal/render"
)

// explainText explains error text. Nothing recognised is a negative answer, not bad input.
func explainText(name, text string, asJSON bool) error {
	found := explain.Text(text)
	if len(found) == 0 {
		return &status{negative, fmt.Errorf("explain %s: nothing in it is known to be about loading BPF", name)}
	}
	t := newText(os.Stdout)
	for i := range found {
		var err error
		if asJSON {
			err = render.JSON(os.Stdout, &found[i])
		} else {
			err = t.Diagnosis(&found[i])
		}
		if err != nil {
			return err
		}
	}
	return nil
}
