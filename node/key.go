// SPDX-License-Identifier: Apache-2.0

package node

// Key says in what two nodes differ. Of tells apart those of one kind: the name of a setting, an
// option, a helper, a type.
type Key struct {
	Kind Kind
	Of   string
}

// Kind is a part of a profile.
type Kind int

const (
	KindSetting Kind = iota + 1 // a sysctl
	KindOption                  // of the kernel's configuration
	KindRelease
	KindVersion
	KindMachine
	KindTypesOfKernel // its BTF
	KindWayOfBlinding
	KindJITMemory
	KindLockdown
	KindSecurityModules
	KindConfiguration // whether it is known
	KindTried         // whether features were tried
	KindProgramType
	KindMapType
	KindInstructions
	KindHelper
	KindCapabilities
	KindUserNamespace
	KindSeccompMode
	KindLockedMemory
	KindControlGroups
	KindDistribution
	KindContainer
)
