// SPDX-License-Identifier: Apache-2.0

package blinding

// LongJump is for the tests on the host, which stand outside of the package: what they import
// imports it.
var LongJump = longJump
