// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
)

// textOffset is the distance of a kernel function from _text, for functions whose name is not
// theirs alone.
func textOffset(symbol string) (uint64, error) {
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		return 0, fmt.Errorf("read kernel symbols: %w", err)
	}
	defer f.Close()
	text, at, err := functions(f, symbol)
	if err != nil {
		return 0, fmt.Errorf("read kernel symbols: %w", err)
	}
	if text == 0 || at <= text {
		return 0, errors.New("kernel addresses are hidden (kptr_restrict), or the symbol does not exist")
	}
	return at - text, nil
}

// functions returns the addresses of _text and of the first function of a name, 0 where there is
// none. It reads no more of the kernel's list of symbols than it takes: the kernel writes each line
// for the reader, and there are some 200,000.
func functions(list io.Reader, symbol string) (text, at uint64, err error) {
	lines := bufio.NewScanner(list)
	for (text == 0 || at == 0) && lines.Scan() {
		// ffffffff81000000 T _text
		address, rest, _ := bytes.Cut(lines.Bytes(), []byte(" "))
		kind, name, _ := bytes.Cut(rest, []byte(" "))
		if string(kind) != "t" && string(kind) != "T" {
			continue
		}
		if string(name) != "_text" && string(name) != symbol {
			continue // those of modules have "\t[module]" behind them
		}
		a, err := strconv.ParseUint(string(address), 16, 64)
		if err != nil {
			continue
		}
		if string(name) == "_text" {
			text = a
		} else if at == 0 {
			at = a
		}
	}
	return text, at, lines.Err()
}
