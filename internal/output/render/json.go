// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"

	"github.com/bpfwhy/bpfwhy/internal/output/text"
	"github.com/bpfwhy/bpfwhy/load"
)

// kindsV1 are all kinds of bpfwhy.load/v1, whose list is closed.
var kindsV1 = []load.Kind{load.ProgLoad, load.MapCreate, load.BTFLoad, load.LinkCreate, load.ProgAttach, load.RawTPOpen, load.TokenCreate,
	load.Seccomp, load.SocketFilter, load.OtherCommand}

// V1 is an attempt in the form before v2. ok is false for a kind that v1 does not have.
func V1(a *load.Attempt) (v1 *load.Attempt, ok bool) {
	if !slices.Contains(kindsV1, a.Kind) {
		return nil, false
	}
	old := *a
	old.Schema = load.SchemaV1
	old.Group, old.Attach, old.Growth, old.Lines, old.KernelLog = "", nil, nil, nil, nil
	old.Process.Runtime = ""
	if a.Repair != nil {
		repair := *a.Repair
		repair.WholeCall = false
		old.Repair = &repair
	}
	if d := a.Diagnosis; d != nil && d.Danger != "" {
		told := *d
		told.Danger, told.Cause = "", d.Danger+" "+d.Cause
		old.Diagnosis = &told
	}
	return &old, true
}

// JSON writes v, an attempt for example, as one line. Inside strings, what a terminal might obey is
// written as \u escapes, so that the line can be looked at as it is; a parser sees the original
// characters.
func JSON(w io.Writer, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("encode json: %w", err)
	}
	_, err := w.Write(escape(b.Bytes()))
	return err
}

// escape replaces what is not printable above ASCII; encoding/json has dealt with the controls
// below. Such characters stand nowhere but inside strings.
func escape(line []byte) []byte {
	out := make([]byte, 0, len(line))
	for i := 0; i < len(line); {
		r, n := utf8.DecodeRune(line[i:])
		switch {
		case r < 0x7f || r > 0x7f && text.Printable(r):
			out = append(out, line[i:i+n]...)
		case r > 0xffff:
			r -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		i += n
	}
	return out
}
