// SPDX-License-Identifier: Apache-2.0

// Package architecture holds the test that the packages import each other only as
// docs/architecture.md says.
package architecture
