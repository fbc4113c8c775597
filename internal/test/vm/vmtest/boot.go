// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"context"
	"errors"
	"testing"

	"github.com/bpfwhy/bpfwhy/internal/test/vm"
)

// Boot is [vm.Run] for a test: what the machine took is an attribute of the test, by which packages
// are kept to their budgets.
func Boot(ctx context.Context, t testing.TB, m vm.Machine) (*vm.Result, error) {
	t.Helper()
	result, err := vm.Run(ctx, m)
	var stopped *vm.MachineError
	switch {
	case err == nil:
		t.Attr(vm.CostAttr, result.Cost().String())
	case errors.As(err, &stopped):
		t.Attr(vm.CostAttr, stopped.Partial.Cost().String())
	}
	return result, err
}
