// SPDX-License-Identifier: Apache-2.0

package reading

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// node is a value of a JSON text: a string, a number, or a list whose items have keys in an object.
type node struct {
	key  string
	kind byte // '"', '0' (a number or a word), '{', '['
	text string
	list []node
}

const (
	maxDepth = 12
	maxNodes = 4096
)

// jsonReader reads JSON as it lies in logs: cut off at its end, with quotes of Python, with
// something behind it.
type jsonReader struct {
	s     string
	nodes int
}

// parseJSON reads the object or list that s begins with. rest is what stands behind it.
func parseJSON(s string) (n node, rest string, ok bool) {
	r := jsonReader{s: s}
	if s == "" || s[0] != '{' && s[0] != '[' {
		return node{}, s, false
	}
	n, ok = r.value(0)
	// An object has a key, and a list objects: "[pod/x]" is no JSON.
	good := ok && len(n.list) > 0 && (n.kind == '{' || slices.ContainsFunc(n.list, func(c node) bool { return c.kind == '{' }))
	return n, r.s, good
}

func (r *jsonReader) skip() {
	r.s = strings.TrimLeft(r.s, " \t\r\n")
}

func (r *jsonReader) value(depth int) (node, bool) {
	r.skip()
	if r.nodes++; r.s == "" || depth > maxDepth || r.nodes > maxNodes {
		return node{}, false
	}
	switch c := r.s[0]; c {
	case '{', '[':
		return r.list(c, depth)
	case '"', '\'':
		s, ok := r.str()
		return node{kind: '"', text: s}, ok
	}
	end := strings.IndexAny(r.s, ",]} \t\r\n")
	if end < 0 {
		end = len(r.s)
	}
	word := r.s[:end]
	r.s = r.s[end:]
	_, err := strconv.ParseFloat(word, 64)
	return node{kind: '0', text: word}, err == nil || slices.Contains([]string{"true", "false", "null", "None", "True", "False"}, word)
}

// list reads an object or a list, as far as the text has it.
//
//revive:disable-next-line:cyclomatic what may be missing of it, one by one
func (r *jsonReader) list(open byte, depth int) (node, bool) {
	n := node{kind: open}
	r.s = r.s[1:]
	for {
		r.skip()
		switch {
		case r.s == "":
			return n, true
		case r.s[0] == ']' || r.s[0] == '}':
			r.s = r.s[1:]
			return n, true
		case r.s[0] == ',' && len(n.list) > 0:
			r.s = r.s[1:]
			r.skip()
		}
		key := ""
		if open == '{' {
			if r.s == "" {
				return n, true
			}
			if r.s[0] != '"' && r.s[0] != '\'' {
				return n, false
			}
			k, ok := r.str()
			r.skip()
			if r.s == "" {
				return n, true
			}
			if !ok || r.s[0] != ':' {
				return n, false
			}
			r.s, key = r.s[1:], k
		}
		before := len(r.s)
		v, ok := r.value(depth + 1)
		v.key = key
		if v.kind != 0 {
			n.list = append(n.list, v)
		}
		if !ok {
			return n, r.s == "" && before > 0
		}
	}
}

// str reads a string. One that the text does not end is what there is of it.
func (r *jsonReader) str() (string, bool) {
	quote := r.s[0]
	for i := 1; i < len(r.s); i++ {
		switch r.s[i] {
		case '\\':
			i++
		case quote:
			s := unescape(r.s[1:i])
			r.s = r.s[i+1:]
			return s, true
		}
	}
	s := unescape(r.s[1:])
	r.s = ""
	return s, true
}

// unescape undoes the escapes of a string in quotes.
//
//revive:disable-next-line:cyclomatic one case for each escape
func unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		switch s[i] {
		case 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte('\t')
		case 'r', 'b', 'f', 'v', 'a', '0':
		case 'u', 'x':
			digits := 4
			if s[i] == 'x' {
				digits = 2
			}
			n, err := strconv.ParseUint(s[i+1:min(i+1+digits, len(s))], 16, 32)
			if err != nil {
				b.WriteByte(s[i])
				continue
			}
			if n >= ' ' || n == '\n' || n == '\t' || n == escape {
				b.WriteString(string(utf8.AppendRune(nil, rune(n))))
			}
			i += digits
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

const escape = 0x1b

// Keys of loggers: what is said, why, and what is about the record itself.
var (
	messageKeys = []string{"msg", "message", "@message", "log", "event", "textpayload", "body", "content", "short_message", "full_message", "text", "summary", "title", "note", "output", "stdout", "stderr", "line", "data", "description"}
	errorKeys   = []string{"err", "error", "errors", "reason", "cause", "causes", "exception", "detail", "details", "error_message", "errormessage", "err_msg", "errmsg", "failure", "verboseerr", "errorverbose", "verifier_log", "verifierlog", "status_message"}
	numberKeys  = []string{"errno", "err", "error", "error_code", "errorcode", "ret"}
	metaKeys    = []string{"time", "ts", "t", "timestamp", "@timestamp", "date", "level", "lvl", "severity", "caller", "logger", "logging", "source", "host", "hostname", "pid", "stream", "stacktrace", "stack", "trace", "traceid",
		"trace_id", "span_id", "spanid", "kubernetes", "labels", "annotations", "metadata", "namespace", "pod", "container", "node", "component", "subsys", "module", "app", "service", "version", "func", "file", "filename", "target", "thread", "user_agent",
		"docker", "kind", "apiversion", "involvedobject", "firsttimestamp", "lasttimestamp", "type", "reportingcomponent", "image", "tag", "id", "uid", "name", "command", "cmd", "args", "_cmdline", "_exe", "_comm", "_transport", "syslog_identifier", "priority", "code_file", "code_func", "cursor"}
)

// ofLogger reports an object with the keys of a logger.
func (n node) ofLogger() bool {
	var level, message bool
	for _, c := range n.list {
		key := strings.ToLower(c.key)
		level = level || slices.Contains([]string{"level", "lvl", "severity", "time", "ts", "timestamp", "@timestamp"}, key)
		message = message || slices.Contains(messageKeys, key) || slices.Contains(errorKeys, key)
	}
	return level && message
}

// messages are what an object of a logger says, each on lines of its own.
func (n node) messages() []string {
	switch n.kind {
	case '"':
		return []string{n.text}
	case '[':
		var out []string
		if bytes, ok := n.bytes(); ok {
			return []string{bytes}
		}
		for _, c := range n.list {
			out = append(out, c.messages()...)
		}
		return out
	case '{':
		return n.said()
	}
	return nil
}

// bytes is a message as journalctl writes one with control characters in it: a list of numbers.
func (n node) bytes() (string, bool) {
	var b []byte
	for _, c := range n.list {
		v, err := strconv.ParseUint(c.text, 10, 8)
		if c.kind != '0' || err != nil {
			return "", false
		}
		b = append(b, byte(v))
	}
	return string(b), len(b) > 0
}

// said puts together what an object says and why it says so.
func (n node) said() []string {
	var messages, causes, others []string
	for _, c := range n.list {
		key := strings.ToLower(c.key)
		isError, isMeta := slices.Contains(errorKeys, key), slices.Contains(metaKeys, key)
		switch {
		case c.kind == '0':
			if v, err := strconv.Atoi(c.text); err == nil && v != 0 && slices.Contains(numberKeys, key) {
				causes = append(causes, "errno "+strings.TrimPrefix(c.text, "-"))
			}
		case strings.TrimSpace(c.text) == "" && len(c.list) == 0:
		case slices.Contains(messageKeys, key):
			messages = append(messages, c.messages()...)
		case isError:
			causes = append(causes, c.messages()...)
		case c.kind == '"':
			if !isMeta && strings.ContainsAny(strings.TrimSpace(c.text), " ") {
				others = append(others, c.text)
			}
		case !isMeta:
			others = append(others, c.messages()...)
		}
	}
	return append(chain(messages, causes), others...)
}

// chain puts a message and its cause on one line, as an error that wraps another prints them.
func chain(messages, causes []string) []string {
	if len(messages) == 0 || len(causes) == 0 {
		return append(messages, causes...)
	}
	last := strings.TrimSpace(messages[len(messages)-1])
	var out []string
	out = append(out, messages[:len(messages)-1]...)
	for _, c := range causes {
		c = strings.TrimSpace(c)
		// A word such as FailedCreatePodSandBox is a kind and no cause.
		_, isErrno := ErrnoOf(c)
		if (isErrno || strings.ContainsAny(c, " _")) && !strings.Contains(last, c) {
			last = strings.TrimRight(last, ".: ") + ": " + c
		}
	}
	return append(out, last)
}
