// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/bpfwhy/bpfwhy/httpprobe/http1"
)

// Routes turns paths, of which there is no end, into routes. The zero value gives none.
type Routes struct {
	quantise bool
	patterns [][]string
}

// ParseRoutes takes "off", "quantised", or patterns: "/users/{id}", where a name in braces stands
// for one segment and "{rest...}" at the end for any number of them. The first pattern that matches
// is the route.
func ParseRoutes(words []string) (Routes, error) {
	var r Routes
	for _, w := range words {
		switch {
		case w == "off" && len(words) == 1:
		case w == "quantised" && len(words) == 1:
			r.quantise = true
		case strings.HasPrefix(w, "/"):
			segments := strings.Split(w[1:], "/")
			for i, s := range segments {
				open, close := strings.HasPrefix(s, "{"), strings.HasSuffix(s, "}")
				if open != close || strings.ContainsAny(strings.TrimSuffix(strings.TrimPrefix(s, "{"), "}"), "{}") ||
					strings.HasSuffix(s, "...}") && i < len(segments)-1 {
					return Routes{}, fmt.Errorf("route %q: braces hold a whole segment, and dots end the last", w)
				}
			}
			r.patterns = append(r.patterns, segments)
		default:
			return Routes{}, fmt.Errorf("route %q: off, quantised, or patterns such as /users/{id}", w)
		}
	}
	return r, nil
}

// Longest route that is made of a path, in segments.
const maxDepth = 8

// Of returns the route of a path that was answered with a status; "" for none. A path that no
// server knew, says its 404 or 405, is a route by patterns only: a scan for weaknesses would fill
// the series for good. What it returns is made of plain ASCII if the patterns are.
//
//revive:disable-next-line:cyclomatic a case for each kind of path that has no route
func (r Routes) Of(path string, status int) string {
	if !r.quantise && len(r.patterns) == 0 {
		return ""
	}
	if path == http1.Unknown {
		return path
	}
	if !strings.HasPrefix(path, "/") {
		return ""
	}
	if r.quantise && (status == http.StatusNotFound || status == http.StatusMethodNotAllowed) {
		return ""
	}
	if r.quantise && isPlain(path) {
		return path
	}
	segments := strings.Split(path[1:], "/")
	if !r.quantise {
		for _, p := range r.patterns {
			if matches(p, segments) {
				return "/" + strings.Join(p, "/")
			}
		}
		return ""
	}
	cut := len(segments) > maxDepth
	if cut {
		segments = segments[:maxDepth]
	}
	for i, s := range segments {
		if varies(s) {
			segments[i] = "{}"
		}
	}
	if cut {
		segments = append(segments, "{...}")
	}
	return "/" + strings.Join(segments, "/")
}

// unimplemented is what a server of gRPC answers to a method that it does not know.
const unimplemented = "12"

// OfGRPC returns the route of a call of gRPC: its path, which has the names of a service and a
// method, whatever these look like. One that no server knew is like a path that is not found.
func (r Routes) OfGRPC(path string, status int, grpc string) string {
	if !r.quantise {
		return r.Of(path, status)
	}
	if grpc == unimplemented {
		return ""
	}
	service, method, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if !ok || len(path) > maxLabel || !isName(service) || !isName(method) {
		return r.Of(path, status)
	}
	return path
}

// isName reports names as gRPC has them, with the package's before the service's.
func isName(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '.', c == '_':
		default:
			return false
		}
	}
	return s != ""
}

func matches(pattern, segments []string) bool {
	for i, p := range pattern {
		if strings.HasSuffix(p, "...}") {
			return true
		}
		if i >= len(segments) || p != segments[i] && (!strings.HasPrefix(p, "{") || segments[i] == "") {
			return false
		}
	}
	return len(pattern) == len(segments)
}

// varies tells what looks like an identifier rather than a word: numbers, long things with digits
// in them, very long things, and what is not made of letters, digits and ._~-.
func varies(s string) bool {
	digits := 0
	for i := range len(s) {
		switch c := s[i]; {
		case '0' <= c && c <= '9':
			digits++
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '.', c == '_', c == '~', c == '-':
		default:
			return true
		}
	}
	return len(s) > 32 || digits > 0 && (digits == len(s) || len(s) >= 8)
}

// isPlain reports a path that is its own route: most are.
func isPlain(path string) bool {
	depth := 0
	for s := range strings.SplitSeq(path[1:], "/") {
		if depth++; depth > maxDepth || varies(s) {
			return false
		}
	}
	return true
}
