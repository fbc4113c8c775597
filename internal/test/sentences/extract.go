// SPDX-License-Identifier: Apache-2.0

package main

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

// sentence is one format string that reaches the verifier's log.
type sentence struct {
	file, function, format string // the format as in C: a line ends with \n
}

// printers are the functions and macros that write to the log, and which of their arguments is the
// format.
var printers = map[string]int{
	"verbose": 1, "verbose_linfo": 2, "bpf_log": 1, "bpf_verifier_log_write": 1, "verifier_bug": 1, "verifier_bug_if": 2,
	"btf_verifier_log": 1, "btf_verifier_log_type": 2, "btf_verifier_log_basic": 2, "btf_verifier_log_member": 3,
	"btf_verifier_log_vsi": 3, "__btf_verifier_log": 1, "__btf_verifier_log_type": 3,
}

// prefixes are what a macro or a function puts in front.
var prefixes = map[string]string{
	"verifier_bug": "verifier bug: ", "verifier_bug_if": "verifier bug: ",
	"btf_verifier_log_type": "[%u] STRUCT %s ", "btf_verifier_log_basic": "[%u] STRUCT %s ",
	"btf_verifier_log_member": `\t%s type_id=%u bits_offset=%u `, "btf_verifier_log_vsi": `\t type_id=%u offset=%u size=%u `,
}

// phrases are functions whose strings become the middle of a sentence, and variables that hold a
// format for later.
var phrases = []string{"check_resource_leak", "err_str"}

// mayPrint tells by its path whether a file of the kernel may have sentences.
func mayPrint(name string) bool {
	if path.Ext(name) != ".c" && path.Base(name) != "bpf_verifier.h" {
		return false
	}
	dirs := []string{"kernel/bpf/", "kernel/sched/", "kernel/trace/", "net/", "drivers/hid/", "drivers/net/", "fs/", "security/"}
	return path.Base(name) == "bpf_verifier.h" || slices.ContainsFunc(dirs, func(d string) bool { return strings.HasPrefix(name, d) })
}

// concernsBPF tells by the text of a file whether its calls are those of the verifier: other
// subsystems have a verbose() of their own.
func concernsBPF(name, text string) bool {
	return strings.HasPrefix(name, "kernel/bpf/") || strings.Contains(text, "bpf_log(") || strings.Contains(text, "bpf_verifier.h")
}

// extract returns the sentences of a C file, each once for a function.
func extract(name, text string) []sentence {
	var found []sentence
	add := func(s sentence) {
		if !slices.Contains(found, s) {
			found = append(found, s)
		}
	}
	s := scanner{tokens: tokenize(text)}
	for s.next() {
		t := s.tokens[s.at]
		position, prints := printers[t]
		switch {
		case prints && s.peek(1) == "(" && s.depth > 0:
			for _, f := range formats(s.call(), position) {
				add(sentence{name, s.function, prefixes[t] + f})
			}
		case slices.Contains(phrases, t) && s.depth > 0:
			for _, f := range literals(s.statement()) {
				add(sentence{name, s.function, f})
			}
		}
	}
	return found
}

// scanner walks over the tokens of a file and knows which function it is in.
type scanner struct {
	tokens   []string
	at       int
	started  bool
	depth    int    // of braces
	function string // whose body this is, or the last one that was declared
}

func (s *scanner) next() bool {
	if s.started {
		s.at++
	}
	s.started = true
	if s.at >= len(s.tokens) {
		return false
	}
	switch t := s.tokens[s.at]; {
	case t == "{":
		s.depth++
	case t == "}":
		s.depth--
	case s.depth == 0 && isName(t) && s.peek(1) == "(" && t != "__printf" && t != "__attribute__":
		s.function = t
	}
	return true
}

func (s *scanner) peek(n int) string {
	if s.at+n < len(s.tokens) {
		return s.tokens[s.at+n]
	}
	return ""
}

// call returns the arguments of the call that begins here, as tokens.
func (s *scanner) call() [][]string {
	args := [][]string{nil}
	depth := 0
	for _, t := range s.tokens[s.at+1:] {
		switch t {
		case "(":
			if depth++; depth == 1 {
				continue
			}
		case ")":
			if depth--; depth == 0 {
				return args
			}
		case ",":
			if depth == 1 {
				args = append(args, nil)
				continue
			}
		}
		args[len(args)-1] = append(args[len(args)-1], t)
	}
	return nil
}

// formats returns the strings of the argument that is the format: two where it depends on a
// condition, none where it is a variable.
func formats(args [][]string, position int) []string {
	if position >= len(args) {
		return nil
	}
	found := literals(args[position])
	for i := range found {
		found[i] = nameRegisters(found[i], args[position+1:])
	}
	return found
}

var conversion = regexp.MustCompile(`%[-+#0 *]*[0-9]*(?:hh?|ll?|z)?[a-zA-Z]`)

// nameRegisters writes R%d where the kernel prints the name of a register as a string, since 7.1:
// the sentence is the same as before.
func nameRegisters(format string, values [][]string) string {
	i := -1
	return conversion.ReplaceAllStringFunc(format, func(c string) string {
		if i++; c == "%s" && i < len(values) && slices.Contains(values[i], "reg_arg_name") {
			return "R%d"
		}
		return c
	})
}

// literals returns the strings among tokens, those that C joins as one.
func literals(tokens []string) []string {
	var found []string
	joined := false
	for _, t := range tokens {
		if t[0] != '"' {
			joined = false
			continue
		}
		if text := t[1 : len(t)-1]; joined {
			found[len(found)-1] += text
		} else {
			found = append(found, text)
		}
		joined = true
	}
	return found
}

// statement returns the tokens up to the end of the statement.
func (s *scanner) statement() []string {
	rest := s.tokens[s.at:]
	for i, t := range rest {
		if t == ";" || t == "{" {
			return rest[:i]
		}
	}
	return rest
}

func isName(t string) bool {
	return t[0] == '_' || t[0] >= 'a' && t[0] <= 'z' || t[0] >= 'A' && t[0] <= 'Z'
}

// tokenize splits C into names, numbers, strings and single characters, without comments and
// without what the preprocessor reads.
func tokenize(text string) []string {
	var tokens []string
	newLine := true
	for i := 0; i < len(text); {
		if n := blank(text[i:], newLine); n > 0 {
			newLine = newLine || text[i] == '\n'
			i += n
			continue
		}
		end := i + 1
		switch c := text[i]; {
		case c == '"' || c == '\'':
			end = endOfString(text, i)
		case isWord(c):
			for end < len(text) && isWord(text[end]) {
				end++
			}
		}
		newLine = false
		tokens = append(tokens, text[i:end])
		i = end
	}
	return tokens
}

// blank is the length of what begins here and says nothing: white space, a comment, or a line of
// the preprocessor.
func blank(text string, newLine bool) int {
	switch {
	case strings.ContainsRune(" \t\r\f\n", rune(text[0])):
		return 1
	case text[0] == '#' && newLine:
		return endOfDirective(text)
	case strings.HasPrefix(text, "//"):
		return lineLength(text)
	case strings.HasPrefix(text, "/*"):
		if n := strings.Index(text[2:], "*/"); n >= 0 {
			return n + 4
		}
		return len(text)
	}
	return 0
}

func isWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func lineLength(text string) int {
	if n := strings.IndexByte(text, '\n'); n >= 0 {
		return n
	}
	return len(text)
}

func endOfString(text string, at int) int {
	for i := at + 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case text[at]:
			return i + 1
		}
	}
	return len(text)
}

// endOfDirective is where the last of the lines ends that a backslash joins.
func endOfDirective(text string) int {
	for at := 0; ; at++ {
		at += lineLength(text[at:])
		if at >= len(text) || !strings.HasSuffix(strings.TrimRight(text[:at], "\r"), `\`) {
			return min(at, len(text))
		}
	}
}
