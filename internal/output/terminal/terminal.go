// SPDX-License-Identifier: Apache-2.0

// Package terminal says what may be written to a file: how wide, and whether in colour.
package terminal

import (
	"os"

	"github.com/muesli/termenv"
	"golang.org/x/term"
)

// Of returns the width of the terminal that a file is, 0 when it is none, and whether it may be
// colourful: not where NO_COLOR is set or CLICOLOR is 0 (no-color.org), nor on a dumb terminal,
// which shows escapes.
func Of(f *os.File) (width int, colour bool) {
	fd := int(f.Fd())
	if !term.IsTerminal(fd) {
		return 0, false
	}
	width, _, err := term.GetSize(fd)
	if err != nil || width <= 0 {
		width = 80
	}
	return width, !termenv.EnvNoColor() && os.Getenv("TERM") != "dumb"
}
