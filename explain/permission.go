// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
)

func permissionRules() []Rule {
	return []Rule{
		perm001(),
		perm002(),
		perm003(),
		perm004(),
		perm005(),
		perm006(),
		perm007(),
		perm009(),
		perm010(),
		perm011(),
		perm012(),
	}
}

// refused reports a call that ended with EPERM before the verifier.
func (f *Facts) refused() bool {
	if !f.failed() || f.isClassic() || f.errno() != abi.EPERM {
		return false
	}
	return f.words.empty() && !f.verifierAccepted()
}

// deniedElsewhere reports that a hook saw somebody else say no.
func (f *Facts) deniedElsewhere() bool {
	return f.cause(load.FnLSM) != nil || f.cause(load.FnLSMLoad) != nil || f.signatureOfSeccomp() >= Strong
}
