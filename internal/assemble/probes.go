// SPDX-License-Identifier: Apache-2.0

package assemble

import "github.com/bpfwhy/bpfwhy/load"

func (a *Assembler) probe(at *load.Attempt) string { return "" }
