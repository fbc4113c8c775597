// SPDX-License-Identifier: Apache-2.0

// Package starts holds real starts of BPF loaders, recorded in a kernel of the lab, and tests how
// they are told as stories.
package starts
