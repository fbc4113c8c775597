// SPDX-License-Identifier: Apache-2.0

// Package flagerror puts what is wrong with a flag of a command into words for people.
package flagerror

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Plain is for [cobra.Command.SetFlagErrorFunc]. It says in our words what pflag says in Go's:
// invalid argument "x" for "--pid" flag: strconv.Atoi: parsing "x": invalid syntax. Other errors
// stay as they are.
func Plain(_ *cobra.Command, err error) error {
	e, ok := errors.AsType[*pflag.InvalidValueError](err)
	if !ok {
		return err
	}
	f := e.GetFlag()
	want := map[string]string{"int": "a number", "intSlice": "a number, or several with commas", "uintSlice": "a number, or several with commas",
		"duration": "a time such as 5s or 1m", "bool": "true or false"}[f.Value.Type()]
	if want == "" {
		return fmt.Errorf("--%s %q: %w", f.Name, e.GetValue(), e.Unwrap())
	}
	return fmt.Errorf("--%s %q: want %s", f.Name, e.GetValue(), want)
}
