// SPDX-License-Identifier: Apache-2.0

package load

import "time"

// Hang says that loads have begun and do not come back. They are told of once, and again when there
// are more.
type Hang struct {
	Schema string    `json:"schema"`
	Kind   Kind      `json:"kind"` // KindHang
	Time   time.Time `json:"time"` // when they were looked at
	// Calls is how many have been in the kernel for longer than AfterNS; 0: those of which was told
	// before have come back.
	Calls   int           `json:"calls"`
	AfterNS time.Duration `json:"after_ns"`
	// Unsure is how many of Calls may have come back unseen: nobody saw their ends, and their
	// threads could not be looked at.
	Unsure int `json:"unsure,omitempty"`
	// Since is when the oldest began, OldestNS how long ago that is. Earlier says that it began
	// before anybody watched: then it is older than that.
	Since    time.Time     `json:"since"`
	OldestNS time.Duration `json:"oldest_ns"`
	Earlier  bool          `json:"earlier,omitempty"`
	Places   []HangPlace   `json:"places"` // most calls first
	// Diagnosis is nil when Calls is 0.
	Diagnosis *Diagnosis `json:"diagnosis,omitempty"`
}

// HangPlace is where some of the calls wait in the kernel. It holds names, and no address.
type HangPlace struct {
	Calls int `json:"calls"`
	// Functions, the innermost first; one alone when only that is known, none when the kernel does
	// not say.
	Functions []string `json:"functions,omitempty"`
	// From is what told: stack, wchan, syscall.
	From string `json:"from,omitempty"`
	// What was called: prog_load, seccomp.
	What []Kind `json:"what"`
	// Processes are the first few.
	Processes []Process `json:"processes,omitempty"`
}
