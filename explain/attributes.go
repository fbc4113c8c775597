// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"slices"
	"unsafe"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
)

// The attributes of the call: their length, their fields.

// attrEnd is where a field of union bpf_attr ends, in bytes, and the kernel that added it.
type attrEnd struct {
	end   int
	since insn.Version
	field string
}

// attrEnds are those of the fields that BPF_PROG_LOAD uses.
var attrEnds = []attrEnd{
	{int(unsafe.Offsetof(abi.ProgLoad{}.CoreReloCnt)), release(5, 5), "attach_prog_fd"},
	{int(unsafe.Offsetof(abi.ProgLoad{}.CoreRelos)), release(5, 14), "fd_array"},
	{int(unsafe.Offsetof(abi.ProgLoad{}.LogTrueSize)), release(5, 17), "core_relos"},
	{int(unsafe.Offsetof(abi.ProgLoad{}.ProgTokenFD)), release(6, 4), "log_true_size"},
	{int(unsafe.Offsetof(abi.ProgLoad{}.FDArrayCnt)), release(6, 9), "prog_token_fd"},
	{int(unsafe.Offsetof(abi.ProgLoad{}.Signature)), release(6, 14), "fd_array_cnt"},
	{int(unsafe.Sizeof(abi.ProgLoad{})), release(6, 18), "signature"},
}

const maxAttr = 208 // bytes, with room for kernels to come

// tailByte returns the last byte of the attributes that is not zero, -1 for none.
func (f *Facts) tailByte() int {
	for i := len(f.ev.Attr) - 1; i >= 0; i-- {
		if f.ev.Attr[i] != 0 {
			return i
		}
	}
	return -1
}

func req003() Rule {
	return Rule{
		ID:    "REQ003",
		Title: "Argument list too long: the call uses a field that this kernel does not know",
		Class: "R6",
		Stage: load.Request,
		Text: `New kernels add fields to union bpf_attr. A loader may pass more fields
than the kernel knows if all of them are zero. If one of them is not zero, the loader asks for
something that the kernel does not have. Then the kernel answers E2BIG. It also answers E2BIG if
the size is larger than a page.`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:    "probe-feature",
				Title: "Let the loader try the feature first, and do without it if it fails (new libraries do)",
				Price: "The feature is missing on this kernel.",
			},
			{
				ID:    "newer-kernel",
				Title: "Use a kernel that supports it",
				Price: "A reboot, and another kernel to test.",
			},
		},
		Match: matchAttrTail,
	}
}

// growingCalls are the calls after a load whose attributes have grown over time.
var growingCalls = []load.Kind{load.LinkCreate, load.LinkUpdate, load.ProgAttach, load.RawTPOpen, load.ObjPin}

func matchAttrTail(f *Facts) *Match {
	if !f.failed() || f.isClassic() || f.errno() != abi.E2BIG || !f.words.empty() || f.verifierAccepted() || f.tooBigOtherwise() {
		return nil
	}
	m := &Match{Strength: Possible, How: f.howRequest()}
	m.Cause = "The attributes carry a field that this kernel does not know."
	m.Why = "E2BIG is also what the kernel says to attributes longer than it knows"
	if f.kind() != load.ProgLoad && len(f.ev.Attr) <= maxAttrPage && (len(f.ev.Attr) > 0 || f.text != nil) {
		return f.mapTail(m)
	}
	if !f.gradeTail(m) {
		return nil
	}
	if last := f.tailByte(); last >= 0 {
		m.Evidence = append(m.Evidence, fmt.Sprintf("the attributes are %d bytes long; the last byte that is not zero is %d, %s", len(f.ev.Attr), last, fieldAt(last)))
	}
	if f.kernelKnown {
		m.Evidence = append(m.Evidence, fmt.Sprintf("the kernel is %d.%d", f.kernel.Major, f.kernel.Minor))
	}
	return m
}

// tooBigOtherwise reports an E2BIG that is about something else than the attributes' length.
func (f *Facts) tooBigOtherwise() bool {
	if f.cause(load.FnDoCheck) != nil || f.cause(load.FnCheck) != nil || f.afterLoad() && !slices.Contains(growingCalls, f.kind()) {
		return true
	}
	// REQ001 follows from the count, though the tail is looked at first.
	n := f.insnCount()
	return f.kind() == load.ProgLoad && len(f.ev.Attr) >= withInsnCnt && (n == 0 || n > maxInsns)
}

// maxAttrPage is the longest that attributes may be on any kernel.
const maxAttrPage = 4096

// gradeTail says how much the length of the attributes speaks for it, and false if every kernel
// knows what they carry.
func (f *Facts) gradeTail(m *Match) bool {
	last := f.tailByte()
	switch {
	case len(f.ev.Attr) > maxAttrPage:
		m.Strength = Strong
		m.Cause = "The attributes are longer than a page."
	case len(f.ev.Attr) == 0 && f.text == nil:
		if !f.afterLoad() { // where E2BIG is commoner for another reason
			m.Strength = Likely
		}
		m.Cause = "The attributes are longer than a page, or carry a field that this kernel does not know."
		m.Evidence = append(m.Evidence, "the attributes were not recorded")
	case f.notReached(load.Verifier) && !(f.insnCount() > 4096 && !f.holds(abi.CapBPF)):
		// The only E2BIG that is left in front of the verifier.
		m.Strength = Strong
	case len(f.ev.Attr) > maxAttr:
		m.Strength = Likely
		m.Evidence = append(m.Evidence, fmt.Sprintf("the attributes are at least %d bytes long, more than any kernel known today understands", len(f.ev.Attr)))
	case last < attrEnds[0].end:
		return false
	default:
		i := slices.IndexFunc(attrEnds, func(e attrEnd) bool { return last < e.end })
		if i < 0 || f.before(attrEnds[i].since) {
			m.Strength = Likely
		}
	}
	return true
}

// fieldAt says in which field of the attributes of a load a byte is.
func fieldAt(last int) string {
	for _, e := range attrEnds {
		if last < e.end {
			return fmt.Sprintf("in the field %s or before (%s)", e.field, e.since)
		}
	}
	return "behind all that is known today"
}

// mapTail judges E2BIG of commands other than a load: it is as likely to be a
// size that is too large.
func (f *Facts) mapTail(m *Match) *Match {
	last := f.tailByte()
	if last < int(unsafe.Offsetof(abi.MapCreate{}.ValueTypeBTFObjFD)) {
		return nil
	}
	m.Evidence = append(m.Evidence, fmt.Sprintf("the attributes are %d bytes long; the last byte that is not zero is %d", len(f.ev.Attr), last))
	return m
}

func req007() Rule {
	return Rule{
		ID:    "REQ007",
		Title: "Invalid argument: the kernel rejects the attributes of the load",
		Class: "R6",
		Stage: load.Request,
		Text: `The kernel checks the request before the verifier runs. It refuses unknown
flags, fields beyond those of the command, names with invalid characters, an expected_attach_type
that does not fit the program type, descriptors that are not open, and devices that take no
programs. It answers EINVAL or EBADF, and there is no log.`,
		Kernels: "All. Flags, fields and attach types were added over time.",
		Remedies: []load.Remedy{
			{
				ID:    "check-attr",
				Title: "Compare flags, attach type and descriptors with what this kernel knows",
				Price: "Nothing.",
			},
			{
				ID:    "probe-feature",
				Title: "Let the loader try the feature first, and do without it if it fails",
				Price: "The feature is missing on this kernel.",
			},
		},
		Match: matchAttributes,
	}
}

//revive:disable-next-line:cyclomatic what speaks against it, one by one
func matchAttributes(f *Facts) *Match {
	if !f.isLoad() || !f.words.empty() || f.verifierAccepted() || f.cause(load.FnCheck) != nil || f.cause(load.FnDoCheck) != nil || f.signatureOfSeccomp() >= Strong {
		return nil
	}
	switch f.errno() {
	case abi.EINVAL, abi.EBADF, abi.ENODEV, abi.ENOENT, abi.EOPNOTSUPP:
	default:
		return nil
	}
	m := &Match{Strength: Possible, How: load.Inferred, Why: fmt.Sprintf("%s is also the answer to a request that is wrong in itself. strace shows the request", errnoName(f.errno()))}
	if f.notReached(load.Verifier) {
		m.Strength, m.How = Likely, load.Observed
	}
	if m.Strength == Possible && f.errno() == abi.EBADF {
		m.Why = "prog_btf_fd, attach_prog_fd or a token may not be open"
	}
	m.Cause = "The kernel refused the request before it looked at the program."
	if v := f.progAttr().ProgFlags; v != 0 {
		m.Evidence = append(m.Evidence, fmt.Sprintf("prog_flags were %#x", v))
	}
	if p := f.Attempt.Program; p != nil {
		s := "the program type was " + printable(p.Type, 40)
		if p.AttachType != "" {
			s += ", the expected attach type " + printable(p.AttachType, 40)
		}
		m.Evidence = append(m.Evidence, s)
	}
	if last := f.tailByte(); last >= 116 {
		m.Evidence = append(m.Evidence, fmt.Sprintf("the last byte of the attributes that is not zero is %d", last))
	}
	return m
}
