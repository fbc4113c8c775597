// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/trace"
)

// loadedProgram is what the kernel says of a program through its loader's descriptor (bpf_prog_show_fdinfo), for backends that cannot read
// the kernel. It is nil when the loader has closed the descriptor, or is gone, before we look.
func loadedProgram(pid, fd int, attrType uint32) *trace.Prog {
	dir := fmt.Sprintf("/proc/%d/", pid)
	link, err := os.Readlink(fmt.Sprintf("%sfd/%d", dir, fd))
	if err != nil || link != "anon_inode:bpf-prog" {
		return nil
	}
	f, err := os.Open(fmt.Sprintf("%sfdinfo/%d", dir, fd))
	if err != nil {
		return nil
	}
	defer f.Close()
	p := parseFdinfo(io.LimitReader(f, 4096))
	if p == nil || p.Type != attrType { // another program by now
		return nil
	}
	return p
}

// attrType is the program type that a load asked for.
func attrType(call *trace.Call) uint32 {
	if len(call.Attr) < 4 {
		return 0
	}
	return binary.LittleEndian.Uint32(call.Attr)
}

func parseFdinfo(r io.Reader) *trace.Prog {
	p := &trace.Prog{BlindedUnknown: true}
	known := false
	for lines := bufio.NewScanner(r); lines.Scan(); {
		key, value, ok := strings.Cut(lines.Text(), ":")
		if !ok {
			continue
		}
		value = strings.TrimSpace(value)
		n, err := strconv.ParseUint(value, 10, 32)
		switch key {
		case "prog_type":
			p.Type = uint32(n)
		case "prog_jited":
			p.JITed, known = n == 1, err == nil
		case "prog_tag":
			p.Tag, _ = hex.DecodeString(value)
		case "prog_id":
			p.ID = uint32(n)
		case "verified_insns":
			p.VerifiedInsns = uint32(n)
		}
	}
	if !known {
		return nil
	}
	return p
}
