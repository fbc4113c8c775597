// SPDX-License-Identifier: Apache-2.0

package load

import "time"

// KindStory is a line that sums up what one loader did.
const KindStory Kind = "story"

// Story sums up what one process did from its first call until it was quiet: an agent's start, as a
// rule. Feature probes are left out, and so is a load that the loader tried in several forms until
// one worked.
type Story struct {
	Schema  string    `json:"schema"`
	Kind    Kind      `json:"kind"` // KindStory
	Time    time.Time `json:"time"` // when it was written
	Process Process   `json:"process"`
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`

	Maps     Tally `json:"maps"`
	Programs Tally `json:"programs"`
	// Attached has the perf events and probes in it that could not be made for a program.
	Attached Tally `json:"attached"`
	Pinned   Tally `json:"pinned"`
	// NotJITed are programs among those loaded that the kernel interprets.
	NotJITed int `json:"not_jited"`
	// Trivial are programs that loaded and do nothing: loaders try a kernel with them. Neither they
	// nor their attachments are in the tallies.
	Trivial int `json:"trivial"`
	// Unattached are the first programs that were loaded, and then neither attached nor pinned as
	// far as can be seen. MoreUnattached counts the rest.
	Unattached     []string `json:"unattached,omitempty"`
	MoreUnattached int      `json:"more_unattached"`
	// Unseen are the ways in which those could have been attached without being seen.
	Unseen []Kind `json:"unseen,omitempty"`

	// Failures are the first ones, of whatever kind, in their order. MoreFailures counts the rest.
	Failures     []StoryFailure `json:"failures,omitempty"`
	MoreFailures int            `json:"more_failures"`
}

// Tally is how many of the calls of a kind did what they were to do.
type Tally struct {
	OK int `json:"ok"`
	Of int `json:"of"`
}

// StoryFailure is a call that failed.
type StoryFailure struct {
	Of        Kind   `json:"of"` // what was attempted
	Name      string `json:"name,omitempty"`
	Target    string `json:"target,omitempty"`
	Errno     int    `json:"errno"`
	ErrnoName string `json:"errno_name,omitempty"`
	Rule      string `json:"rule,omitempty"`
	Title     string `json:"title,omitempty"` // of the rule
}
