// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"strings"
	"testing"
)

// Paths come from whoever sends requests. A route is short, and of plain ASCII, whatever they are.
func FuzzRoute(f *testing.F) {
	f.Add("/users/4711/a-b/\xff//x;y", "/users/{id}", 200)
	f.Add("/"+strings.Repeat("a/", 100), "/a/{rest...}", 404)
	f.Fuzz(func(t *testing.T, path, pattern string, status int) {
		quantised, err := ParseRoutes([]string{"quantised"})
		if err != nil {
			t.Fatal(err)
		}
		route := quantised.Of(path, status)
		if strings.Count(route, "/") > maxDepth+1 || len(route) > (maxDepth+1)*33+8 || strings.ContainsFunc(route, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Fatalf("%q", route)
		}
		_ = Method(path)
		if r, err := ParseRoutes([]string{pattern}); err == nil {
			if got := r.Of(path, status); got != "" && got != pattern && got != path && got != route {
				t.Fatalf("%q is no pattern", got)
			}
		}
	})
}
