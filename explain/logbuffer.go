// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// The buffer of the verifier's log.

func req004() Rule {
	return Rule{
		ID:    "REQ004",
		Title: "The loader's log buffer is too small",
		Class: "R3",
		Stage: load.Verifier,
		Text: `The verifier's log did not fit into the buffer of the loader. The kernel
then returns ENOSPC, and not the result of the verification. The program may be correct. Loaders
usually try again with a larger buffer. Since 6.4, the kernel keeps the end of the log. So the
error only comes if the loader asks for a fixed log.`,
		Kernels: "All. Rare since 6.4, because the kernel keeps the end of the log and reports its size (log_true_size).",
		Remedies: []load.Remedy{
			{
				ID:    "larger-buffer",
				Title: "Pass a larger buffer. Double it until the log fits: up to 16 MiB before 5.11, up to 1 GiB since",
				Price: "Memory while loading, and one more verification per try.",
			},
			{
				ID:    "log-on-failure",
				Title: "Load without a log, or with statistics only (log_level 4). Ask for the log after a load has failed",
				Price: "A failing program is verified twice.",
			},
		},
		Match: matchLogSpace,
	}
}

func matchLogSpace(f *Facts) *Match {
	if !f.failed() || f.errno() != abi.ENOSPC || f.kind() != load.ProgLoad && f.kind() != load.BTFLoad {
		return nil
	}
	m := &Match{Strength: Likely, How: load.Inferred}
	m.Why = "ENOSPC is what a log buffer that is too small ends with"
	level, size := f.ev.LogLevel, f.ev.LogSize
	if level == 0 && size == 0 {
		if f.cause(load.FnCheck) == nil && f.text == nil {
			return nil
		}
	} else {
		m.Strength = Strong
		m.Evidence = append(m.Evidence, fmt.Sprintf("the loader passed a buffer of %d bytes at log level %d", size, level))
	}
	if s := f.cause(load.FnCheck); s != nil {
		m.Strength, m.How = Certain, load.Observed
		m.Evidence = append(m.Evidence, fmt.Sprintf("bpf_check returned %d (%s)", s.Ret, errnoName(-s.Ret)))
		if f.failing(load.FnDoCheck) == nil && f.observed(load.Verifier) {
			m.Evidence = append(m.Evidence, "do_check_common was not seen to fail: the program itself was accepted")
		}
	}
	m.Cause = "The verifier's log did not fit into the loader's buffer, and the kernel reports that in place of its verdict on the program."
	if s := f.failing(load.FnDoCheck); s != nil {
		m.Cause += fmt.Sprintf(" The verdict was a rejection: do_check_common returned %d (%s).", s.Ret, errnoName(-s.Ret))
	}
	return m
}

func req008() Rule {
	return Rule{
		ID:    "REQ008",
		Title: "The log's level, size and buffer do not fit together",
		Class: "R6",
		Stage: load.Request,
		Text: `A log level needs a buffer and a size. A buffer needs a level and a size.
The size has a lower limit (128 bytes on older kernels) and an upper limit. The level may have no
unknown bits. Otherwise the kernel answers EINVAL.`,
		Kernels: "All. At most 16 MiB before 5.11. Since 6.4, a level without a buffer is allowed.",
		Remedies: []load.Remedy{
			{
				ID:    "log-args",
				Title: "Pass level 1 or 2 with a buffer of at least 64 KiB, or pass none of the three",
				Price: "Nothing.",
			},
		},
		Match: matchLogAttr,
	}
}

//revive:disable-next-line:cyclomatic a case for each rule about level, size and buffer
func matchLogAttr(f *Facts) *Match {
	if !f.isLoad() || f.errno() != abi.EINVAL || !f.words.empty() || f.verifierAccepted() || len(f.ev.Attr) < withLogBuf {
		return nil
	}
	asked := f.progAttr()
	level, size, buf := asked.LogLevel, asked.LogSize, asked.LogBuf
	why := ""
	switch {
	case level == 0 && size == 0 && buf == 0:
		return nil
	case level > 0xf:
		why = fmt.Sprintf("log_level %#x has bits that no kernel knows", level)
	case buf == 0 && size != 0 || buf != 0 && size == 0:
		why = fmt.Sprintf("log_buf is %#x and log_size %d", buf, size)
	case level != 0 && buf == 0 && !f.does(node.LogWithoutBuffer):
		why = fmt.Sprintf("log_level is %d, and there is no buffer", level)
	case level == 0 && buf != 0 && !f.does(node.LogWithoutBuffer):
		why = fmt.Sprintf("there is a buffer of %d bytes, and log_level is 0", size)
	case size < 128 && !f.does(node.SmallLog):
		why = fmt.Sprintf("log_size is %d, less than 128", size)
	case size > 1<<30, size > 1<<24 && f.doesNot(node.LargeLog):
		why = fmt.Sprintf("log_size is %d, more than the kernel takes", size)
	default:
		return nil
	}
	m := &Match{Strength: Likely, How: load.Inferred, Evidence: []string{why}}
	m.Cause = "The request for a log contradicts itself, and the kernel refuses the whole call: " + why + "."
	return m
}
