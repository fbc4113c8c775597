// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
)

// maxMessage bounds one formatted message: a width in a format can ask for megabytes.
const maxMessage = 2048

// format prints a message of the verifier as the kernel's own vsnprintf would: d i u x X o c s p
// with the flags "-+ 0#", width, precision and hh h l ll z t. Arguments beyond the fourth were not
// read and print as "…", and so does a pointer whose meaning the kernel takes from its suffix (%pS,
// %pB).
func format(s *trace.Message) string {
	var b strings.Builder
	f, arg := s.Format, 0
	next := func() (v uint64, text string, ok bool) {
		if arg >= len(s.Args) {
			return 0, "", false
		}
		arg++
		return s.Args[arg-1], s.Strings[arg-1], true
	}
	for len(f) > 0 && b.Len() < maxMessage {
		i := strings.IndexByte(f, '%')
		if i < 0 {
			b.WriteString(f)
			break
		}
		b.WriteString(f[:i])
		f = f[i+1:]
		var d directive
		f = d.parse(f, func() int {
			v, _, _ := next()
			return int(int32(v))
		})
		if d.verb == 0 {
			break // a lone % at the end
		}
		if d.verb == '%' {
			b.WriteByte('%')
			continue
		}
		v, text, ok := next()
		if !ok {
			b.WriteString("…")
			continue
		}
		b.WriteString(d.print(v, text))
	}
	return clip(b.String(), maxMessage)
}

type directive struct {
	left, plus, space, zero, alt bool
	width                        int
	precision                    int // -1: none
	bits                         int
	verb                         byte
}

// parse reads a directive after its % and returns what follows. star reads an argument for a "*".
//
//revive:disable-next-line:cyclomatic a case for each of printk's flags
func (d *directive) parse(f string, star func() int) string {
	d.precision, d.bits = -1, 32
	i := 0
flags:
	for ; i < len(f); i++ {
		switch f[i] {
		case '-':
			d.left = true
		case '+':
			d.plus = true
		case ' ':
			d.space = true
		case '0':
			d.zero = true
		case '#':
			d.alt = true
		default:
			break flags
		}
	}
	number := func() int {
		if i < len(f) && f[i] == '*' {
			i++
			return star()
		}
		n := 0
		for ; i < len(f) && f[i] >= '0' && f[i] <= '9'; i++ {
			n = min(n*10+int(f[i]-'0'), maxMessage)
		}
		return n
	}
	if d.width = number(); d.width < 0 {
		d.left, d.width = true, -d.width
	}
	d.width = min(max(d.width, 0), maxMessage)
	if i < len(f) && f[i] == '.' {
		i++
		d.precision = max(number(), -1)
	}
length:
	for ; i < len(f); i++ {
		switch f[i] {
		case 'h':
			d.bits /= 2
		case 'l', 'z', 't', 'j', 'L', 'q':
			d.bits = 64
		default:
			break length
		}
	}
	if i < len(f) {
		d.verb = f[i]
		i++
	}
	if d.verb == 'p' {
		for i < len(f) && (f[i] >= 'a' && f[i] <= 'z' || f[i] >= 'A' && f[i] <= 'Z' || f[i] >= '0' && f[i] <= '9') {
			d.alt = true // remember the suffix
			i++
		}
	}
	return f[i:]
}

//revive:disable-next-line:cyclomatic a case for each of printk's verbs
func (d *directive) print(v uint64, text string) string {
	switch d.verb {
	case 'd', 'i':
		shift := 64 - max(d.bits, 8)
		n := int64(v<<shift) >> shift
		sign := ""
		mag := strconv.FormatUint(uint64(n), 10)
		switch {
		case n < 0:
			sign, mag = "-", strconv.FormatUint(-uint64(n), 10)
		case d.plus:
			sign = "+"
		case d.space:
			sign = " "
		}
		return d.number(sign, mag)
	case 'u':
		return d.number("", strconv.FormatUint(d.unsigned(v), 10))
	case 'o':
		return d.number(d.ifAlt("0"), strconv.FormatUint(d.unsigned(v), 8))
	case 'x':
		return d.number(d.ifAlt("0x"), strconv.FormatUint(d.unsigned(v), 16))
	case 'X':
		return d.number(d.ifAlt("0X"), strings.ToUpper(strconv.FormatUint(d.unsigned(v), 16)))
	case 'c':
		return d.pad(string([]byte{byte(v)}))
	case 's':
		switch {
		case text == "" && v == 0:
			text = "(null)"
		case d.precision >= 0 && d.precision < len(text):
			text = text[:d.precision]
		}
		return d.pad(text)
	case 'p':
		if d.alt {
			return "…"
		}
		return d.pad(fmt.Sprintf("%016x", v))
	}
	return "%" + string(d.verb)
}

func (d *directive) unsigned(v uint64) uint64 {
	shift := 64 - max(d.bits, 8)
	return v << shift >> shift
}

func (d *directive) ifAlt(s string) string {
	if d.alt {
		return s
	}
	return ""
}

// number puts the sign or base in front and fills up to the precision, or with zeros to the width.
func (d *directive) number(prefix, digits string) string {
	want := d.precision
	if want < 0 && d.zero && !d.left {
		want = d.width - len(prefix)
	}
	if n := min(want, maxMessage) - len(digits); n > 0 {
		digits = strings.Repeat("0", n) + digits
	}
	return d.pad(prefix + digits)
}

func (d *directive) pad(s string) string {
	n := d.width - len(s)
	switch {
	case n <= 0:
		return s
	case d.left:
		return s + strings.Repeat(" ", n)
	}
	return strings.Repeat(" ", n) + s
}
