// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"strings"

	"github.com/bpfwhy/bpfwhy/load"
)

// attach says what was to be attached, where to, and what the kernel said beside the errno.
func (p *page) attach(a *load.Attach) {
	if a == nil {
		return
	}
	if a.Program != nil {
		p.print("program", attachedProgram(a.Program))
	}
	if s := target(a); s != "" {
		p.print("target", s)
	}
	if a.Message != "" {
		p.print("kernel", a.Message)
	}
}

func attachedProgram(prog *load.AttachProgram) string {
	s := prog.Name
	if s == "" {
		s = "(no name)"
	}
	var more []string
	if prog.Type != "" {
		more = append(more, prog.Type)
	}
	if prog.AttachType != "" && prog.AttachType != prog.Type {
		more = append(more, "loaded for "+prog.AttachType)
	}
	if prog.ID != 0 {
		more = append(more, fmt.Sprintf("id %d", prog.ID))
	}
	if prog.MaxCtxOffset != 0 {
		more = append(more, fmt.Sprintf("reads %d bytes of its context", prog.MaxCtxOffset))
	}
	if len(more) > 0 {
		s += " (" + strings.Join(more, ", ") + ")"
	}
	return s
}

func target(a *load.Attach) string {
	s := ""
	if t := a.Target; t != nil {
		s = t.Kind
		for _, part := range []string{t.Path, t.Name} {
			if part != "" {
				s += " " + part
			}
		}
		if t.Parent != "" {
			s += ", parent " + t.Parent
		}
		if t.Offset != 0 {
			s += fmt.Sprintf(" at offset %#x", t.Offset)
		}
		if t.ID != 0 {
			s += fmt.Sprintf(" (%s %d)", idName(t.Kind), t.ID)
		}
		if t.Size != 0 {
			s += fmt.Sprintf(", records of %d bytes", t.Size)
		}
	}
	if a.Type != "" {
		s += ", as " + a.Type
	}
	if a.Flags != 0 {
		s += fmt.Sprintf(", flags %#x", a.Flags)
	}
	return strings.TrimPrefix(s, ", ")
}

// idName is what the number of a target is.
func idName(kind string) string {
	switch kind {
	case "netdev":
		return "ifindex"
	case "function":
		return "BTF id"
	case "netns":
		return "inode"
	case "perf_event":
		return "config"
	}
	return "id"
}
