// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bufio"
	"bytes"
	"debug/elf"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// Binary returns the files that a program of the host needs in a guest: the
// program itself and, if it is dynamic, its loader and shared libraries, each
// under its host path. It is to be merged into [Machine.Files]. Libraries
// that the program loads by itself (dlopen) are not found.
func Binary(program string) (map[string]string, error) {
	program, err := filepath.Abs(program)
	if err != nil {
		return nil, err
	}
	files := map[string]string{program: program}
	static, err := isStatic(program)
	if err != nil {
		return nil, err
	}
	if static {
		return files, nil
	}
	out, err := exec.Command("ldd", program).Output()
	if err != nil {
		return nil, fmt.Errorf("list shared libraries of %s: %w", program, err)
	}
	libraries, err := parseLdd(out)
	if err != nil {
		return nil, fmt.Errorf("list shared libraries of %s: %w", program, err)
	}
	for _, library := range libraries {
		files[library] = library
	}
	return files, nil
}

// isStatic tells whether an ELF program runs without a loader.
func isStatic(program string) (bool, error) {
	f, err := elf.Open(program)
	if err != nil {
		return false, fmt.Errorf("read %s: %w", program, err)
	}
	defer f.Close()
	for _, segment := range f.Progs {
		if segment.Type == elf.PT_INTERP {
			return false, nil
		}
	}
	return true, nil
}

// parseLdd takes the paths out of ldd's lines, which are "name => path
// (address)", "path (address)", or for the vDSO "name (address)".
func parseLdd(out []byte) ([]string, error) {
	var paths []string
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if name, ok := strings.CutSuffix(line, " => not found"); ok {
			return nil, fmt.Errorf("%s is not found", name)
		}
		if _, after, ok := strings.Cut(line, " => "); ok {
			line = after
		}
		path, _, _ := strings.Cut(line, " (0x")
		if strings.HasPrefix(path, "/") {
			paths = append(paths, path)
		}
	}
	return paths, lines.Err()
}
