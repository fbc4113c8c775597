// SPDX-License-Identifier: Apache-2.0

package reading

import (
	"regexp"
	"strings"
)

// pair is a key and its value, as logfmt writes them.
type pair struct{ key, value string }

type pairs []pair

var pairStart = regexp.MustCompile(`(?:^|[\s,])([A-Za-z_@][\w.@/-]*)=`)

// parsePairs reads "key=value key="a value"". A value without quotes goes on to the next key.
func parsePairs(s string) (all pairs) {
	for s != "" && len(all) < 64 {
		m := pairStart.FindStringSubmatchIndex(s)
		if m == nil {
			return all
		}
		key := s[m[2]:m[3]]
		s = s[m[1]:]
		if s != "" && (s[0] == '"' || s[0] == '\'') {
			r := jsonReader{s: s}
			value, _ := r.str()
			all, s = append(all, pair{key, value}), r.s
			continue
		}
		end := len(s)
		if next := pairStart.FindStringIndex(s); next != nil {
			end = next[0]
		}
		all, s = append(all, pair{key, strings.TrimRight(s[:end], " ,")}), s[end:]
	}
	return all
}

// node is the object that the pairs would be in JSON.
func (p pairs) node() node {
	n := node{kind: '{'}
	for _, e := range p {
		kind := byte('"')
		if strings.Trim(e.value, "-0123456789") == "" {
			kind = '0'
		}
		n.list = append(n.list, node{key: e.key, kind: kind, text: e.value})
	}
	return n
}

func (p pairs) has(keys ...string) bool {
	for _, e := range p {
		for _, k := range keys {
			if strings.EqualFold(e.key, k) {
				return true
			}
		}
	}
	return false
}

// causes are what pairs behind a message say of its reason.
func (p pairs) causes() []string { return p.node().messages() }

// peelPairs reads logfmt, and pairs behind a message.
func peelPairs(l *layered) {
	at := pairStart.FindStringIndex(l.rest)
	if at == nil || strings.Contains(l.rest, "msg=audit(") {
		return
	}
	p := parsePairs(l.rest[at[0]:])
	before := strings.TrimSpace(l.rest[:at[0]])
	switch {
	case before == "" && p.has("msg", "message", "err", "error") && p.has("level", "lvl", "time", "ts", "t", "severity", "caller", "logger", "lvl", "component", "source"):
		l.rest = strings.Join(p.node().messages(), "\n")
	case before != "" && strings.ContainsRune(before, ' ') && p.has("err", "error", "reason", "cause") && strings.ContainsAny(l.rest[at[0]:], `"'`):
		l.rest = strings.Join(chain([]string{before}, p.causes()), "\n")
	default:
		return
	}
	l.Whole = true
}
