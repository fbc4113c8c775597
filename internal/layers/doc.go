// SPDX-License-Identifier: Apache-2.0

// Package layers holds the test that the packages import each other only as docs/architecture.md says.
package layers
