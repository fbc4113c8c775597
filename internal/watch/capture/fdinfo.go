// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
)

// loadedProgram is what the kernel says of a program through its loader's descriptor
// (bpf_prog_show_fdinfo), for backends that cannot read the kernel. It is nil when the loader has
// closed the descriptor, or is gone, before we look, or another program is behind it by then.
func loadedProgram(call *trace.Call, code []byte) *trace.Prog {
	dir := procOf(call)
	link, err := os.Readlink(fmt.Sprintf("%sfd/%d", dir, call.Ret))
	if err != nil || link != "anon_inode:bpf-prog" {
		return nil
	}
	f, err := os.Open(fmt.Sprintf("%sfdinfo/%d", dir, call.Ret))
	if err != nil {
		return nil
	}
	defer f.Close()
	p := parseFdinfo(io.LimitReader(f, 4096))
	if p == nil || p.Type != abi.Read[abi.ProgLoad](call.Attr).ProgType || !matchesTag(call, code, p.Tag) {
		return nil
	}
	return p
}

// matchesTag reports whether a tag can be that of a load's instructions. That of a program that the
// kernel relocates, or of which not all was copied, can be any.
func matchesTag(call *trace.Call, code, tag []byte) bool {
	asked := abi.Read[abi.ProgLoad](call.Attr)
	prog, err := insn.Decode(code)
	if err != nil || len(tag) != 8 || uint32(len(prog)) != asked.InsnCnt || asked.CoreReloCnt != 0 {
		return true
	}
	return insn.MatchesTag(prog, [8]byte(tag))
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
