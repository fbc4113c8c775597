// SPDX-License-Identifier: Apache-2.0

package cli

import "errors"

func explainText(text string, o explainOptions) error {
	return errors.New("explain text: not there yet")
}
