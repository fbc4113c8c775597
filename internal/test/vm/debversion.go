// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"cmp"
	"strings"
)

// compareVersions orders Debian versions as deb-version(7) says: negative if
// a is older than b.
func compareVersions(a, b string) int {
	split := func(v string) (epoch, upstream, revision string) {
		if before, after, ok := strings.Cut(v, ":"); ok {
			epoch, v = before, after
		}
		if i := strings.LastIndexByte(v, '-'); i >= 0 {
			return epoch, v[:i], v[i+1:]
		}
		return epoch, v, ""
	}
	epochA, upstreamA, revisionA := split(a)
	epochB, upstreamB, revisionB := split(b)
	return cmp.Or(
		compareVersionParts(epochA, epochB),
		compareVersionParts(upstreamA, upstreamB),
		compareVersionParts(revisionA, revisionB))
}

//revive:disable-next-line:cyclomatic Debian's order of versions, character by character
func compareVersionParts(a, b string) int {
	isDigit := func(s string) bool { return s != "" && s[0] >= '0' && s[0] <= '9' }
	// A tilde sorts before everything, even the end; letters before the
	// other characters.
	weight := func(s string) int {
		switch {
		case s == "" || isDigit(s):
			return 0
		case s[0] == '~':
			return -1
		case s[0] >= 'A' && s[0] <= 'Z' || s[0] >= 'a' && s[0] <= 'z':
			return int(s[0])
		default:
			return int(s[0]) + 256
		}
	}
	number := func(s string) (digits, rest string) {
		rest = strings.TrimLeft(s, "0123456789")
		return strings.TrimLeft(s[:len(s)-len(rest)], "0"), rest
	}
	for a != "" || b != "" {
		for a != "" && !isDigit(a) || b != "" && !isDigit(b) {
			if c := cmp.Compare(weight(a), weight(b)); c != 0 {
				return c
			}
			a, b = a[1:], b[1:]
		}
		var digitsA, digitsB string
		digitsA, a = number(a)
		digitsB, b = number(b)
		if c := cmp.Or(cmp.Compare(len(digitsA), len(digitsB)), cmp.Compare(digitsA, digitsB)); c != 0 {
			return c
		}
	}
	return 0
}
