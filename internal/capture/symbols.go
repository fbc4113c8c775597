// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// textOffset is the distance of a kernel function from _text, for functions whose name is not theirs alone.
func textOffset(symbol string) (uint64, error) {
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		return 0, fmt.Errorf("read kernel symbols: %w", err)
	}
	defer f.Close()
	var text, at uint64
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 3 || fields[2] != "_text" && fields[2] != symbol || !strings.ContainsAny(fields[1], "tT") {
			continue
		}
		a, err := strconv.ParseUint(fields[0], 16, 64)
		if err != nil {
			continue
		}
		if fields[2] == "_text" {
			text = a
		} else if at == 0 {
			at = a
		}
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("read kernel symbols: %w", err)
	}
	if text == 0 || at <= text {
		return 0, errors.New("kernel addresses are hidden (kptr_restrict), or the symbol does not exist")
	}
	return at - text, nil
}
