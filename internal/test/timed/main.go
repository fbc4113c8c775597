// SPDX-License-Identifier: Apache-2.0

// Command timed runs "go test" with the arguments that it is given, the dearest packages first. It
// prints a line for each package and the whole output of what fails. At the end it prints a table
// of what each package took, the slowest tests in machines, and the last lines of what failed. It
// fails when a test does, and when a package takes more than budget.tsv allows.
package main

import (
	"bufio"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

//go:embed budget.tsv
var budgetFile string

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "timed:", err)
		os.Exit(1)
	}
}

// run runs the packages that the last argument names.
func run(args []string, w io.Writer) error {
	if len(args) == 0 {
		return errors.New("give it arguments of go test, and packages last")
	}
	allowed, err := parseBudget(budgetFile)
	if err != nil {
		return err
	}
	module, packages, err := list(args[len(args)-1])
	if err != nil {
		return err
	}
	allowed.dearestFirst(module, packages)

	start := time.Now()
	cmd := exec.Command("go", slices.Concat([]string{"test", "-json"}, args[:len(args)-1], packages)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	r := newReport(module, w)
	readErr := r.read(bufio.NewReader(out))
	testErr := cmd.Wait()
	r.table(allowed, time.Since(start))
	r.slowest()
	if testErr != nil {
		testErr = fmt.Errorf("go test: %w", testErr)
	}
	return errors.Join(readErr, testErr, r.again(), r.exceeded(allowed))
}

// list returns the packages' import paths, and the module's with a slash behind.
func list(pattern string) (module string, packages []string, err error) {
	out, err := exec.Command("go", "list", "-f", "{{.Module.Path}}/ {{.ImportPath}}", pattern).Output()
	if err != nil {
		return "", nil, fmt.Errorf("list packages: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		var p string
		module, p, _ = strings.Cut(strings.TrimSpace(line), " ")
		packages = append(packages, p)
	}
	return module, packages, nil
}

// event is a line of go test -json; see go doc cmd/test2json.
type event struct {
	Action     string
	Package    string
	ImportPath string // of what does not build
	Test       string
	Output     string
	Elapsed    float64
	Key, Value string // of an attribute
}

// read reads go test's events to their end.
func (r *report) read(in io.Reader) error {
	for d := json.NewDecoder(in); ; {
		var e event
		if err := d.Decode(&e); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read go test's output: %w", err)
		}
		if err := r.add(e); err != nil {
			return err
		}
	}
}
