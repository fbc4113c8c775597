// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package trace

import (
	"fmt"
	"os"
)

// Create opens a file for a recording or a report. The name must be free.
func Create(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create file: %w", err)
	}
	return f, nil
}
